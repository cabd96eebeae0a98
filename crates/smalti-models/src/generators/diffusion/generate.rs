//! Sampling images from a [`Diffusion`]: the chain backwards, from masks to codes.
//!
//! At every visited time the network says what the codes were; every code is then drawn from its
//! posterior at the next visited time, at last at the start, where none is masked
//! ([`Schedule::visits`](super::schedule::Schedule::visits)). Temperature, top-k and top-p shape the
//! network's `p(x_0 | x_t)`; top-p is the paper's truncation (published 0.86, section 4.3: the likeliest codes,
//! each as long as those before it hold less). Guidance leads its logits away from those without a
//! class. A code that is given is shown as it is throughout.
//!
//! Different from the published code: fewer steps than the chain has (`steps`) go from visit to visit by
//! the exact posterior. There each visit takes the rates of one step of the chain, as if the steps
//! between did not exist, so that at a stride of 4 a third of the codes is still masked at the last visit
//! and is drawn all at once. A code's posterior is drawn from as the mixture that it is, with two numbers at most;
//! codes beyond the truncation have no probability, there e⁻⁷⁰.

use std::ops::ControlFlow;

use burn::module::Module;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use smalti_quantize::Codes;

use super::model::Diffusion;
use super::schedule::Rates;
use crate::generators::drawing::{Batch, samplers, write_maps};
use crate::generators::passes::{Passes, Sheet};
use crate::generators::request::{GenerateError, GenerationRequest, Progress};
use crate::generators::sampling::{CodeSampler, NoChoice, pick};

impl Diffusion {
    /// Samples codes, one map for each condition.
    ///
    /// `watch` is told of positions as if each pass wrote its share of them, and stops the generation by
    /// [`ControlFlow::Break`].
    ///
    /// # Errors
    /// When the request does not fit the model, the logits are not numbers, or `watch` says so.
    pub fn generate(
        &self,
        request: &GenerationRequest,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Codes, GenerateError> {
        request.check_for(self.config.writing(), &self.config.capability())?;
        let (model, layout) = (self.valid(), self.config.layout());
        write_maps(request, &layout, &model.device(), watch, |batch| {
            model.write(request, batch)
        })
    }

    fn write(&self, request: &GenerationRequest, mut batch: Batch) -> Result<(), GenerateError> {
        let (layout, schedule) = (self.config.layout(), self.schedule());
        let samplers = samplers(request, &layout);
        let scale = request.sampling.guidance.map_or(1.0, |g| g.scale);
        let visits = schedule.visits(request.sampling.steps.unwrap_or(schedule.steps()));
        let mut passes = Passes::new(request, &layout, &self.config.condition, &batch);
        for (i, &time) in visits.iter().enumerate() {
            let target = visits.get(i + 1).copied();
            let way = Way {
                seen: schedule.after(Some(time)),
                target: schedule.after(target),
                between: schedule.between(target, time),
            };
            let logits = passes.ask(scale, |tokens, classes| {
                self.logits(tokens, &[time as u32], classes)
            });
            passes.change(&logits, |sheet| step_back(&way, &samplers, sheet))?;
            passes.tell((i + 1, visits.len()), &mut batch)?;
        }
        passes.finish(batch);
        Ok(())
    }
}

/// From one visited time to the next.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// From the start to where the codes are.
    seen: Rates,
    /// From the start to where they go.
    target: Rates,
    /// From there to where they are.
    between: Rates,
}

/// Draws every token of a sample anew.
fn step_back(way: &Way, samplers: &[CodeSampler], sheet: Sheet) -> Result<(), (usize, NoChoice)> {
    for token in sheet.free() {
        let sampler = &samplers[sheet.depth(token)];
        let start = sampler
            .distribution(sheet.logits(token))
            .map_err(|error| (token, error))?;
        let (mask, seen) = (sheet.mask(token), sheet.tokens[token]);
        sheet.tokens[token] = match seen == mask {
            true => way.leave_mask(&start, mask, sheet.stream),
            false => way.leave_code(&start, (seen, mask), sheet.stream),
        };
    }
    Ok(())
}

impl Way {
    /// From the mask: it stays, or becomes a code of `start`, or (hardly ever) any.
    ///
    /// `p(mask) = γ̄_s/γ̄_t`, `p(y) = γ_{t|s}/γ̄_t·(ᾱ_s·p(x_0 = y) + β̄_s)`.
    fn leave_mask(&self, start: &[(u32, f64)], mask: u32, stream: &mut ChaCha8Rng) -> u32 {
        let ticket = stream.random::<f64>();
        let stay = self.target.mask / self.seen.mask;
        if ticket < stay {
            return mask;
        }
        let renewed = self.between.mask / self.seen.mask * self.target.renew;
        if ticket < stay + renewed {
            return stream.random_range(0..mask);
        }
        pick(start.iter().copied(), stream.random::<f64>()).0
    }

    /// From a code, which cannot become the mask.
    ///
    /// `p(y) ∝ (α_{t|s}·[y = x_t] + β_{t|s})·(ᾱ_s·w_y + β̄_s·Σw)`, `w_k = p(x_0 = k)/(ᾱ_t·[k = x_t] + β̄_t)`.
    fn leave_code(
        &self,
        start: &[(u32, f64)],
        (seen, codes): (u32, u32),
        stream: &mut ChaCha8Rng,
    ) -> u32 {
        let count = f64::from(codes);
        let of_each = |rates: Rates| rates.renew / count;
        let weight = |&(code, p): &(u32, f64)| match code == seen {
            true => p / (self.seen.keep + of_each(self.seen)),
            false => p / of_each(self.seen),
        };
        let total: f64 = start.iter().map(weight).sum();
        let own = start
            .iter()
            .find(|(code, _)| *code == seen)
            .map_or(0.0, weight);
        let (keep, other) = (self.between.keep, of_each(self.between));
        let spread = of_each(self.target) * total;
        // It stays; it is any code by way of the start's noise; or one that the network foresees.
        let stays = keep * (self.target.keep * own + spread);
        let any = other * spread * count;
        let foreseen = other * self.target.keep * total;
        let ticket = stream.random::<f64>() * (stays + any + foreseen);
        if ticket < stays {
            seen
        } else if ticket < stays + any {
            stream.random_range(0..codes)
        } else {
            let weights = start.iter().map(|entry| (entry.0, weight(entry)));
            pick(weights, stream.random::<f64>() * total).0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::schedule::Schedule;
    use super::super::testing::{all_kinds, conditions, random, random_codes, tiny};
    use super::super::transitions::{LogRates, PosteriorRates, posterior};
    use super::*;
    use crate::generators::request::Prefix;
    use crate::generators::sampling::{Guidance, PerDepth, SamplingConfig};
    use burn::tensor::{Device, Int, Tensor, TensorData};
    use rand::SeedableRng;
    use smalti_nn::linear::FEW_ROWS;
    use smalti_nn::state::host_values;

    fn go_on(_: Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn request(model: &Diffusion, samples: usize) -> GenerationRequest {
        GenerationRequest::new(conditions(&model.config().condition, samples), 11)
    }

    fn generate(model: &Diffusion, request: &GenerationRequest) -> Vec<u32> {
        model.generate(request, &mut go_on).unwrap().values()
    }

    #[test]
    fn draws_follow_the_posterior_of_the_tensors() {
        let start = [0.5, 0.3, 0.0, 0.2];
        let schedule = Schedule::new(6);
        let device = Device::flex();
        let sparse: Vec<(u32, f64)> = (0..4).zip(start).filter(|(_, p)| *p > 0.0).collect();
        for (target, time) in [
            (Some(4), 5),
            (Some(1), 5),
            (None, 3),
            (Some(0), 1),
            (None, 0),
        ] {
            let way = Way {
                seen: schedule.after(Some(time)),
                target: schedule.after(target),
                between: schedule.between(target, time),
            };
            let logs = |rates| LogRates::new(&[rates], 4, &device);
            let rates = PosteriorRates {
                seen: logs(way.seen),
                target: logs(way.target),
                between: logs(way.between),
            };
            for seen in [0, 2, 4] {
                let data = start.map(|p: f64| p.max(1e-30).ln() as f32);
                let data = TensorData::new(data.to_vec(), [1, 1, 4]);
                let ids = Tensor::<2, Int>::from_data([[seen as i32]], &device);
                let expected = posterior(Tensor::from_data(data, &device), ids, &rates);
                let expected = host_values(expected.exp());
                let mut stream = ChaCha8Rng::seed_from_u64(1);
                let mut counts = [0u32; 5];
                for _ in 0..20_000 {
                    let drawn = match seen {
                        4 => way.leave_mask(&sparse, 4, &mut stream),
                        code => way.leave_code(&sparse, (code, 4), &mut stream),
                    };
                    counts[drawn as usize] += 1;
                }
                for (count, p) in counts.into_iter().zip(&expected) {
                    let share = count as f32 / 20_000.0;
                    let bound = 5.0 * (p * (1.0 - p) / 20_000.0).max(0.0).sqrt() + 2e-4;
                    assert!(
                        (share - p).abs() < bound,
                        "{seen} at {time}: {counts:?} {expected:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn chains_end_without_masks_whatever_their_length() {
        for config in all_kinds() {
            let model = random(&config, &Device::flex(), 1);
            let sizes = config.codebook_sizes();
            for steps in [None, Some(1), Some(3), Some(8)] {
                let mut request = request(&model, 3);
                request.sampling.steps = steps;
                for (i, code) in generate(&model, &request).into_iter().enumerate() {
                    let depth = i / 6 % sizes.len();
                    assert!((code as usize) < sizes[depth], "{steps:?}: {config:?}");
                }
            }
        }
    }

    #[test]
    fn batches_and_devices_with_gradients_change_nothing() {
        for config in all_kinds() {
            let model = random(&config, &Device::flex(), 3);
            for (samples, scale) in [(7, 1.0), (FEW_ROWS + 3, 2.5)] {
                let mut request = request(&model, samples);
                if config.condition.dropout() > 0.0 {
                    request.sampling.guidance = Some(Guidance::new(scale));
                }
                request.prefix = Some(Prefix {
                    codes: random_codes(&config.layout(), samples, 4),
                    row: 0,
                    column: 2,
                });
                let whole = generate(&model, &request);
                for batch_size in [1, 5] {
                    request.batch_size = batch_size;
                    assert_eq!(
                        generate(&model, &request),
                        whole,
                        "{batch_size}: {config:?}"
                    );
                }
                let tracked = random(&config, &Device::flex().autodiff(), 3);
                assert_eq!(generate(&tracked, &request), whole);
                request.seed += 1;
                assert_ne!(generate(&model, &request), whole);
            }
        }
    }

    #[test]
    fn what_is_given_is_kept_and_seen() {
        let config = tiny(2);
        let model = random(&config, &Device::flex(), 6);
        let mut request = request(&model, 2);
        request.sampling.top_k = Some(PerDepth::Same(1));
        request.sampling.steps = Some(1);
        let given = random_codes(&config.layout(), 2, 7);
        let plain = generate(&model, &request);
        let codes = given.values();
        request.prefix = Some(Prefix {
            codes: given,
            row: 1,
            column: 1,
        });
        let done = generate(&model, &request);
        let mut changed = 0;
        for (i, code) in done.iter().enumerate() {
            match i % 6 < 4 {
                true => assert_eq!(*code, codes[i]),
                false => changed += usize::from(*code != plain[i]),
            }
        }
        assert!(changed > 0);
    }

    #[test]
    fn guidance_leads_away_and_truncation_leaves_the_likeliest() {
        let model = random(&tiny(1), &Device::flex(), 2);
        let mut request = request(&model, 4);
        let plain = generate(&model, &request);
        request.sampling.guidance = Some(Guidance::new(1.0));
        assert_eq!(generate(&model, &request), plain);
        request.sampling.guidance = Some(Guidance::new(4.0));
        assert_ne!(generate(&model, &request), plain);
        // With the likeliest code alone one visit writes it wherever the start's noise does not.
        request.sampling = SamplingConfig {
            steps: Some(1),
            top_p: Some(PerDepth::Same(1e-6)),
            ..SamplingConfig::default()
        };
        let truncated = generate(&model, &request);
        request.sampling.top_p = None;
        request.sampling.top_k = Some(PerDepth::Same(1));
        assert_eq!(generate(&model, &request), truncated);
    }

    #[test]
    fn progress_is_told_in_positions_and_cancelling_stops() {
        let model = random(&tiny(2), &Device::flex(), 8);
        let mut request = request(&model, 3);
        request.batch_size = 2;
        let mut seen = Vec::new();
        let mut watch = |progress: Progress| {
            seen.push(progress.done);
            assert_eq!(progress.total, 18);
            match progress.done >= 14 {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let stopped = model.generate(&request, &mut watch);
        assert!(matches!(stopped, Err(GenerateError::Cancelled)));
        assert_eq!(seen, [2, 4, 6, 8, 10, 12, 13, 14]);
    }

    #[test]
    fn logits_that_are_no_numbers_are_an_error() {
        let mut model = random(&tiny(2), &Device::flex(), 10);
        model.to_logits.0.weight = model.to_logits.0.weight.map(|w| w * f32::NAN);
        let error = model.generate(&request(&model, 2), &mut go_on).unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with("sample 0, row 0, column 0, depth 0: no code"),
            "{message}"
        );
    }
}
