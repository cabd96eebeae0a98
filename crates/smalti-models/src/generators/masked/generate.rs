//! Sampling images from a [`Masked`]: from all masked to none, in a handful of passes.
//!
//! Each pass draws a code for everything that is masked and keeps some of them:
//!
//! - by confidence: the `n_i` codes of the largest `ln p(code) + τ·(1 − i/(S−1))·g`, `g` Gumbel noise, `τ` the
//!   choice temperature (published 4.5), `n_i` of [`MaskSchedule::counts`];
//! - in Halton's order, [`halton_order`]: the next ones, all depths of a position together. Rolled, every
//!   sample begins at another place of the order.
//!
//! Guidance grows with the passes, from none to all: `l = u + (1 + (s−1)·i/(S−1))·(c − u)`, in the published
//! terms `w = s − 1`, 3 for the first and 2 to 3 for Halton's model. Temperature, top-k and top-p shape
//! what is drawn, and the probability that is its confidence. What is given is never masked.
//!
//! MaskGIT, arXiv 2202.04200, section 3.3; Halton-MaskGIT, arXiv 2503.17076; valeoai/Maskgit-pytorch. Unlike
//! the last a code that is written in Halton's order is not drawn again by later passes.

use std::ops::ControlFlow;

use burn::module::Module;
use rand::RngExt;
use smalti_quantize::Codes;

use super::halton::{halton_order, halton_totals};
use super::mask_schedule::MaskSchedule;
use super::model::Masked;
use crate::generators::drawing::{Batch, samplers, write_maps};
use crate::generators::passes::{Passes, Sheet};
use crate::generators::request::{GenerateError, GenerationRequest, Progress};
use crate::generators::sampling::{CodeSampler, NoChoice, SamplingConfig, pick};
use crate::generators::writing::UnmaskingOrder;

/// The published choice temperature.
const CHOICE_TEMPERATURE: f64 = 4.5;
/// The published number of passes for 16×16 codes.
const STEPS: usize = 8;

impl Masked {
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
        let layout = self.config.layout();
        request.check_for(self.config.writing(), &self.config.capability())?;
        let model = self.valid();
        write_maps(request, &layout, &model.device(), watch, |batch| {
            model.write(request, batch)
        })
    }

    fn write(&self, request: &GenerationRequest, mut batch: Batch) -> Result<(), GenerateError> {
        let layout = self.config.layout();
        let samplers = samplers(request, &layout);
        let sampling = &request.sampling;
        let mut passes = Passes::new(request, &layout, &self.config.condition, &batch);
        let free = passes.free();
        let steps = sampling.steps.unwrap_or(STEPS).clamp(1, free.len());
        let plan = match sampling.order.unwrap_or_default() {
            UnmaskingOrder::Confidence => Plan::confidence(sampling, steps, free.len()),
            order => {
                let rolls = match order {
                    UnmaskingOrder::RolledHalton => passes.draw(free.len()),
                    _ => vec![0; batch.samples.len()],
                };
                let positions = halton_order(layout.height, layout.width).into_iter();
                let depths = layout.depth();
                let places = positions
                    .flat_map(|position| (0..depths).map(move |d| (d, position)))
                    .map(|(depth, position)| depth * layout.positions() + position);
                Plan::Given {
                    order: places
                        .filter(|place| free.binary_search(place).is_ok())
                        .collect(),
                    totals: halton_totals(steps, free.len()),
                    rolls,
                }
            }
        };
        let guidance = sampling.guidance.map_or(1.0, |guidance| guidance.scale);
        for step in 0..steps {
            let way = progress(step, steps);
            let scale = 1.0 + (guidance - 1.0) * way as f32;
            let logits = passes.ask(scale, |tokens, classes| self.logits(tokens, classes, None));
            passes.change(&logits, |sheet| plan.write(step, way, &samplers, sheet))?;
            passes.tell((step + 1, steps), &mut batch)?;
        }
        passes.finish(batch);
        Ok(())
    }
}

/// From 0 in the first pass to 1 in the last; 1 where there is only one.
fn progress(step: usize, steps: usize) -> f64 {
    match steps {
        1 => 1.0,
        _ => step as f64 / (steps - 1) as f64,
    }
}

/// What each pass writes.
#[derive(Debug)]
enum Plan {
    /// The codes that it is surest of.
    Confidence {
        /// How many each pass writes.
        counts: Vec<usize>,
        /// Gumbel noise of the first pass.
        temperature: f64,
    },
    /// The next ones of an order.
    Given {
        /// The places.
        order: Vec<usize>,
        /// How many are written after each pass.
        totals: Vec<usize>,
        /// Where each sample begins.
        rolls: Vec<usize>,
    },
}

impl Plan {
    fn confidence(sampling: &SamplingConfig, steps: usize, codes: usize) -> Self {
        let schedule = sampling.reveal.unwrap_or(MaskSchedule::Cosine);
        Self::Confidence {
            counts: schedule.counts(steps, codes),
            temperature: sampling.choice_temperature.unwrap_or(CHOICE_TEMPERATURE),
        }
    }

    /// Writes the codes of a pass into a sample.
    fn write(
        &self,
        step: usize,
        way: f64,
        samplers: &[CodeSampler],
        mut sheet: Sheet,
    ) -> Result<(), (usize, NoChoice)> {
        match self {
            Self::Confidence {
                counts,
                temperature,
            } => {
                let noise = temperature * (1.0 - way);
                write_surest(counts[step], noise, samplers, sheet)
            }
            Self::Given {
                order,
                totals,
                rolls,
            } => {
                let before = step.checked_sub(1).map_or(0, |step| totals[step]);
                let roll = rolls[sheet.sample];
                for place in before..totals[step] {
                    let token = order[(place + roll) % order.len()];
                    let (code, _) = draw(token, samplers, &mut sheet)?;
                    sheet.tokens[token] = code;
                }
                Ok(())
            }
        }
    }
}

/// A code for a place, and its probability.
fn draw(
    token: usize,
    samplers: &[CodeSampler],
    sheet: &mut Sheet,
) -> Result<(u32, f64), (usize, NoChoice)> {
    let codes = samplers[sheet.depth(token)]
        .distribution(sheet.logits(token))
        .map_err(|error| (token, error))?;
    Ok(pick(codes.into_iter(), sheet.stream.random::<f64>()))
}

/// Draws a code for everything that is masked and writes the `count` surest of them.
fn write_surest(
    count: usize,
    noise: f64,
    samplers: &[CodeSampler],
    mut sheet: Sheet,
) -> Result<(), (usize, NoChoice)> {
    let masked = sheet
        .free()
        .filter(|&token| sheet.tokens[token] == sheet.mask(token));
    let masked: Vec<usize> = masked.collect();
    let mut drawn = Vec::with_capacity(masked.len());
    for token in masked {
        let (code, probability) = draw(token, samplers, &mut sheet)?;
        let ticket = sheet.stream.random::<f64>().max(f64::MIN_POSITIVE);
        let gumbel = -(-ticket.ln()).max(f64::MIN_POSITIVE).ln();
        drawn.push((probability.ln() + noise * gumbel, token, code));
    }
    // The sort is stable: of equal confidences the earlier place is written.
    drawn.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (_, token, code) in drawn.into_iter().take(count) {
        sheet.tokens[token] = code;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{all_kinds, random, tiny};
    use super::*;
    use crate::generators::diffusion::testing::{conditions, random_codes};
    use crate::generators::request::Prefix;
    use crate::generators::sampling::{Guidance, PerDepth};
    use burn::tensor::Device;
    use smalti_nn::linear::FEW_ROWS;

    fn go_on(_: Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn request(model: &Masked, samples: usize) -> GenerationRequest {
        GenerationRequest::new(conditions(&model.config().condition, samples), 11)
    }

    fn generate(model: &Masked, request: &GenerationRequest) -> Vec<u32> {
        model.generate(request, &mut go_on).unwrap().values()
    }

    /// Every way to choose what is written.
    fn all_orders() -> [SamplingConfig; 4] {
        let default = SamplingConfig::default;
        [
            default(),
            SamplingConfig {
                reveal: Some(MaskSchedule::Arccos),
                choice_temperature: Some(0.0),
                steps: Some(3),
                ..default()
            },
            SamplingConfig {
                order: Some(UnmaskingOrder::Halton),
                steps: Some(4),
                ..default()
            },
            SamplingConfig {
                order: Some(UnmaskingOrder::RolledHalton),
                steps: Some(2),
                ..default()
            },
        ]
    }

    #[test]
    fn nothing_stays_masked_and_what_is_given_is_kept() {
        for config in all_kinds() {
            let model = random(&config, &Device::flex(), 1);
            let sizes = config.codebook_sizes();
            let given = random_codes(&config.layout(), 3, 7);
            let codes = given.values();
            for sampling in all_orders() {
                for start in [0, 4] {
                    let mut request = request(&model, 3);
                    request.sampling = sampling.clone();
                    request.prefix = Some(Prefix {
                        codes: given.clone(),
                        row: start / 3,
                        column: start % 3,
                    });
                    for (i, code) in generate(&model, &request).into_iter().enumerate() {
                        let size = sizes[i / 6 % sizes.len()];
                        assert!((code as usize) < size, "{sampling:?}: {config:?}");
                        if i % 6 < start {
                            assert_eq!(code, codes[i]);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn batches_and_devices_with_gradients_change_nothing() {
        for config in all_kinds() {
            let model = random(&config, &Device::flex(), 3);
            for (samples, sampling) in [7, FEW_ROWS + 3, 7, 7].into_iter().zip(all_orders()) {
                let mut request = request(&model, samples);
                request.sampling = sampling;
                if config.condition.dropout() > 0.0 {
                    request.sampling.guidance = Some(Guidance::new(3.0));
                }
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
    fn without_noise_the_surest_code_is_written_first() {
        let config = tiny(1);
        let model = random(&config, &Device::flex(), 4);
        let mut request = request(&model, 1);
        request.sampling = SamplingConfig {
            top_k: Some(PerDepth::Same(1)),
            choice_temperature: Some(0.0),
            steps: Some(6),
            ..SamplingConfig::default()
        };
        let got = generate(&model, &request);
        // One code a step, by the largest logits of all that is masked: as in the definition.
        request.sampling.top_k = None;
        let mut tokens = vec![12; 6];
        for _ in 0..6 {
            let logits = model.logits(&tokens, &[0], None).remove(0);
            let logits = smalti_nn::state::host_values(logits);
            let rows = logits.chunks(12).enumerate();
            let masked = rows.filter(|(place, _)| tokens[*place] == 12);
            // With the likeliest code alone every confidence is 1: the first place is written.
            let (place, row) = masked.min_by_key(|(place, _)| *place).unwrap();
            let best = (0..12)
                .max_by(|&a: &usize, &b| row[a].total_cmp(&row[b]))
                .unwrap();
            tokens[place] = best as u32;
        }
        assert_eq!(got, tokens);
    }

    #[test]
    fn halton_writes_its_order_and_rolls_differ() {
        let model = random(&tiny(1), &Device::flex(), 4);
        let order = halton_order(2, 3);
        let mut request = request(&model, 2);
        request.sampling = SamplingConfig {
            order: Some(UnmaskingOrder::Halton),
            top_k: Some(PerDepth::Same(1)),
            steps: Some(6),
            ..SamplingConfig::default()
        };
        let got = generate(&model, &request);
        let mut tokens = vec![12; 6];
        for place in order {
            let logits = model.logits(&tokens, &[0], None).remove(0);
            let logits = smalti_nn::state::host_values(logits);
            let row = &logits[place * 12..][..12];
            let best = (0..12)
                .max_by(|&a: &usize, &b| row[a].total_cmp(&row[b]))
                .unwrap();
            tokens[place] = best as u32;
        }
        assert_eq!(got[..6], tokens);
        request.sampling.order = Some(UnmaskingOrder::RolledHalton);
        assert_ne!(generate(&model, &request), got);
    }

    #[test]
    fn guidance_grows_from_the_second_pass_on() {
        let model = random(&tiny(2), &Device::flex(), 2);
        let mut request = request(&model, 4);
        let plain = generate(&model, &request);
        request.sampling.guidance = Some(Guidance::new(1.0));
        assert_eq!(generate(&model, &request), plain);
        request.sampling.guidance = Some(Guidance::new(4.0));
        assert_ne!(generate(&model, &request), plain);
        assert_eq!([0, 1, 2].map(|step| progress(step, 3)), [0.0, 0.5, 1.0]);
    }

    #[test]
    fn logits_that_are_no_numbers_are_an_error() {
        let mut model = random(&tiny(2), &Device::flex(), 10);
        model.pos_emb = model.pos_emb.map(|w| w * f32::NAN);
        let error = model.generate(&request(&model, 2), &mut go_on).unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with("sample 0, row 0, column 0, depth 0: no code"),
            "{message}"
        );
    }
}
