//! What training masks, and the loss of what is masked.
//!
//! `r` uniform in [0, 1) for each sample; each code masked with probability `γ(r)`, at least one of a sample
//! ([`MaskSchedule`](super::mask_schedule::MaskSchedule)). Then, with `m` the mask (or 1 everywhere),
//!
//! ```text
//! total  = Σ m·[ (1−ε)·(−ln p(code)) + ε·mean_k(−ln p(k)) ] / (samples·codes·E[γ])
//! codes  = Σ m·(−ln p(code)) / Σ m
//! ```
//!
//! `ε` the label smoothing; MaskGIT, arXiv 2202.04200, equation 2. Classes are hidden now and then.
//!
//! Different from the published code: the sum is divided by the number of codes that are masked on
//! average, not of those that are, so that the loss is a mean over samples and a batch can be learned
//! in parts. With all codes counted it is their mean, as there.

use burn::tensor::{Tensor, TensorData};
use rand::RngExt;
use smalti_nn::nearest::id_tensor;
use smalti_nn::{Noise, Targets, cross_entropy};

use super::config::CountedCodes;
use super::model::Masked;
use crate::generators::lesson::GeneratorLesson;
use crate::generators::output::GeneratorInput;

/// The codes of a batch, some of them masked.
struct Shown {
    /// As they are, depth by depth within each sample.
    codes: Vec<u32>,
    /// As they are seen.
    tokens: Vec<u32>,
}

/// Sums over the codes of one depth.
struct DepthSums {
    /// Cross entropy of those that are masked.
    masked: Tensor<1>,
    /// How many these are.
    count: f32,
    /// What is minimised.
    minimised: Tensor<1>,
}

impl Masked {
    /// What a batch teaches.
    ///
    /// # Panics
    /// When the input does not fit the model.
    pub fn learn(&self, input: &GeneratorInput, noise: &mut Noise) -> GeneratorLesson {
        let [samples, ..] = input.codes.dims();
        let parts: Vec<f64> = (0..samples).map(|_| noise.rng().random()).collect();
        let classes = self.config.condition.shown(&input.conditions, Some(noise));
        let shown = self.hide(input, &parts, noise);
        let sums = self.sums(&shown, &classes, Some(noise));
        let lesson = self.config.lesson;
        let counted = match lesson.counts {
            CountedCodes::Masked => lesson.schedule.mean_share(),
            CountedCodes::All => 1.0,
        };
        let all = (samples * self.config.layout().codes()) as f64;
        let count: f32 = sums.iter().map(|sum| sum.count).sum();
        let add = |a: Tensor<1>, b: Tensor<1>| a + b;
        let (masked, minimised): (Vec<_>, Vec<_>) = sums
            .into_iter()
            .map(|sum| (sum.masked, sum.minimised))
            .unzip();
        let [masked, minimised] = [masked, minimised].map(|sums| {
            let sum = sums.into_iter().reduce(add);
            sum.expect("a validated model has at least one depth")
        });
        GeneratorLesson {
            total: minimised.div_scalar(all * counted),
            losses: vec![("codes", masked.div_scalar(count))],
            times: Vec::new(),
        }
    }

    /// The cross entropy of codes that are masked, in nats, `[depth]`; `r` is spread evenly over the
    /// samples.
    ///
    /// # Panics
    /// When the input does not fit the model.
    pub fn measure(&self, input: &GeneratorInput, noise: &mut Noise) -> Tensor<1> {
        let [samples, ..] = input.codes.dims();
        let start: f64 = noise.rng().random();
        let part = |sample: usize| (sample as f64 + start) / samples as f64;
        let parts: Vec<f64> = (0..samples).map(part).collect();
        let classes = self.config.condition.shown(&input.conditions, None);
        let shown = self.hide(input, &parts, noise);
        let sums = self.sums(&shown, &classes, None).into_iter();
        let means = sums.map(|sum| sum.masked.div_scalar(sum.count.max(1.0)));
        Tensor::cat(means.collect(), 0)
    }

    /// Masks codes of every sample.
    fn hide(&self, input: &GeneratorInput, parts: &[f64], noise: &mut Noise) -> Shown {
        let layout = self.config.layout();
        let [samples, ..] = input.codes.dims();
        let shape = [samples, layout.depth(), layout.height, layout.width];
        let got = input.codes.dims();
        assert_eq!(got, shape, "codes: [batch, depth, height, width]");
        let codes = input.codes.values();
        let mut tokens = codes.clone();
        for (map, &part) in tokens.chunks_exact_mut(layout.codes()).zip(parts) {
            let share = self.config.lesson.schedule.share(part);
            let draws: Vec<f64> = map.iter().map(|_| noise.rng().random()).collect();
            let smallest = draws.iter().copied().fold(f64::INFINITY, f64::min);
            for (token, draw) in draws.into_iter().enumerate() {
                if draw < share || draw == smallest {
                    map[token] = layout.codebook_sizes[layout.depth_of(token)] as u32;
                }
            }
        }
        Shown { codes, tokens }
    }

    fn sums(&self, shown: &Shown, classes: &[u32], noise: Option<&mut Noise>) -> Vec<DepthSums> {
        let (layout, device) = (self.config.layout(), self.device());
        let lesson = self.config.lesson;
        let logits = self.logits(&shown.tokens, classes, noise);
        let of_depth = |ids: &[u32], depth: usize| -> Vec<u32> {
            let maps = ids.chunks_exact(layout.positions());
            maps.skip(depth)
                .step_by(layout.depth())
                .flatten()
                .copied()
                .collect()
        };
        let sum = |(depth, logits): (usize, Tensor<3>)| {
            let [samples, positions, size] = logits.dims();
            let rows = samples * positions;
            let logits = logits.reshape([rows, size]);
            let codes = id_tensor(&of_depth(&shown.codes, depth), [rows], &device);
            let seen = of_depth(&shown.tokens, depth);
            let masks = seen
                .iter()
                .map(|&id| f32::from(u8::from(id == size as u32)));
            let masks: Vec<f32> = masks.collect();
            let count = masks.iter().sum();
            let masks = Tensor::<1>::from_data(TensorData::new(masks, [rows]), &device);
            let losses = cross_entropy(logits.clone(), Targets::Ids(codes.clone()), 0.0);
            let masked = (losses.clone() * masks.clone()).sum();
            let smoothed = match lesson.label_smoothing {
                0.0 => losses,
                share => {
                    // mean_k(−ln p(k)) − (−ln p(code)) = x_code − mean_k x_k
                    let own = logits.clone().gather(1, codes.reshape([rows, 1]));
                    let further = (own - logits.mean_dim(1)).reshape([rows]);
                    losses + further.mul_scalar(share)
                }
            };
            DepthSums {
                minimised: match lesson.counts {
                    CountedCodes::Masked => (smoothed * masks).sum(),
                    CountedCodes::All => smoothed.sum(),
                },
                masked,
                count,
            }
        };
        logits.into_iter().enumerate().map(sum).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::MaskedLesson;
    use super::super::mask_schedule::MaskSchedule;
    use super::super::testing::{random, tiny};
    use super::*;
    use crate::generators::conditions::Conditions;
    use crate::generators::diffusion::testing::{conditions, random_codes};
    use burn::tensor::Device;
    use smalti_nn::state::host_values;

    fn input(model: &Masked, samples: usize) -> GeneratorInput {
        let config = model.config();
        GeneratorInput {
            codes: random_codes(&config.layout(), samples, 4),
            conditions: conditions(&config.condition, samples),
        }
    }

    #[test]
    fn as_many_codes_are_hidden_as_the_schedule_says_and_never_none() {
        let model = random(&tiny(2), &Device::flex(), 1);
        let input = input(&model, 300);
        for part in [0.0, 0.4, 0.9, 1.0] {
            let shown = model.hide(&input, &[part; 300], &mut Noise::from_seed(2));
            let mut masked = 0;
            for map in shown.tokens.chunks(12) {
                let of_map = map.iter().filter(|&&id| id == 12).count();
                assert!(of_map > 0);
                masked += of_map;
            }
            let share = masked as f64 / 3600.0;
            let wanted = MaskSchedule::Cosine.share(part).max(1.0 / 12.0);
            assert!((share - wanted).abs() < 0.04, "{share} for {wanted}");
            for (token, code) in shown.tokens.iter().zip(&shown.codes) {
                assert!(*token == 12 || token == code);
            }
        }
    }

    /// The loss by its definition, of one sample of one depth, in `f64`.
    fn by_hand(model: &Masked, shown: &Shown, class: u32) -> [f64; 2] {
        let logits = host_values(model.logits(&shown.tokens, &[class], None).remove(0));
        let lesson = model.config().lesson;
        let (mut minimised, mut masked, mut count) = (0.0, 0.0, 0.0);
        for (place, row) in logits.chunks(12).enumerate() {
            let total: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
            let log = |k: usize| f64::from(row[k]) - total.ln();
            let hit = -log(shown.codes[place] as usize);
            let mean = -(0..12).map(log).sum::<f64>() / 12.0;
            let smooth = lesson.label_smoothing;
            let is_masked = f64::from(u8::from(shown.tokens[place] == 12));
            let counts = match lesson.counts {
                CountedCodes::Masked => is_masked,
                CountedCodes::All => 1.0,
            };
            minimised += counts * ((1.0 - smooth) * hit + smooth * mean);
            masked += is_masked * hit;
            count += is_masked;
        }
        [minimised, masked / count]
    }

    #[test]
    fn sums_follow_the_definition() {
        for counts in [CountedCodes::Masked, CountedCodes::All] {
            for label_smoothing in [0.0, 0.2] {
                let mut config = tiny(1);
                config.lesson = MaskedLesson {
                    counts,
                    label_smoothing,
                    ..MaskedLesson::default()
                };
                let model = random(&config, &Device::flex(), 1);
                let shown = model.hide(&input(&model, 1), &[0.6], &mut Noise::from_seed(3));
                let sums = model.sums(&shown, &[2], None).remove(0);
                let value = |x: &Tensor<1>| f64::from(x.clone().into_scalar::<f32>());
                let [minimised, mean] = by_hand(&model, &shown, 2);
                let got = value(&sums.minimised);
                assert!((got - minimised).abs() < 1e-3, "{got} for {minimised}");
                let got = value(&sums.masked) / f64::from(sums.count);
                assert!((got - mean).abs() < 1e-4, "{got} for {mean}");
            }
        }
    }

    #[test]
    fn gradients_are_slopes() {
        let mut config = tiny(2);
        config.dropout = 0.0;
        config.lesson.label_smoothing = 0.1;
        let loss = |model: &Masked| {
            let lesson = model.learn(&input(model, 3), &mut Noise::from_seed(5));
            lesson.total
        };
        let model = random(&config, &Device::flex().autodiff(), 1);
        let gradients = loss(&model).backward();
        let of_table = host_values(model.tok_emb.weight.val().grad(&gradients).unwrap());
        let of_bias = host_values(model.bias[1].val().grad(&gradients).unwrap());
        let slope = |change: &dyn Fn(&mut Masked, f32)| {
            let at = |step: f32| {
                let mut model = random(&config, &Device::flex(), 1);
                change(&mut model, step);
                f64::from(loss(&model).into_scalar::<f32>())
            };
            ((at(5e-3) - at(-5e-3)) / 1e-2) as f32
        };
        let moved = |param: &Tensor<2>, place: usize, step: f32| {
            let shape = param.dims();
            let mut values = host_values(param.clone());
            values[place] += step;
            Tensor::<2>::from_data(TensorData::new(values, shape), &Device::flex())
        };
        for place in [0, 3 * 16 + 5, 12 * 16, 20 * 16 + 7, 27 * 16 + 1] {
            let want = slope(&|model, step| {
                let weight = model.tok_emb.weight.clone();
                model.tok_emb.weight = weight.map(|old| moved(&old, place, step));
            });
            let got = of_table[place];
            assert!(
                (got - want).abs() < 2e-3 + 0.02 * want.abs(),
                "{got} for {want}"
            );
        }
        for place in [0, 17, 40] {
            let want = slope(&|model, step| {
                let bias = model.bias[1].clone();
                model.bias[1] = bias.map(|old| moved(&old, place, step));
            });
            let got = of_bias[place];
            assert!(
                (got - want).abs() < 2e-3 + 0.02 * want.abs(),
                "{got} for {want}"
            );
        }
    }

    #[test]
    fn what_is_measured_does_not_hang_on_classes_that_training_hides() {
        let model = random(&tiny(1), &Device::flex(), 1);
        let mut all = input(&model, 40);
        let at =
            |input: &GeneratorInput| host_values(model.measure(input, &mut Noise::from_seed(1)));
        let before = at(&all);
        assert_eq!(before, at(&all));
        all.conditions = Conditions::Classes(vec![3; 40]);
        assert_ne!(before, at(&all));
    }
}
