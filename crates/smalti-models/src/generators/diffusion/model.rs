//! The denoising transformer: from codes that are partly masked to what they were.
//!
//! ```text
//! tokens     the maps one behind the other, depth by depth: positions·depth of them
//! input      E[token] + row + column (+ depth, where there are several codes at a position)
//! blocks     see `blocks`
//! logits     W_d·LN(x) + b_d of every depth, over its codes; the mask has none
//! ```
//!
//! VQ-Diffusion, arXiv 2111.14822, section 4.2; names are those of its published files as far as these
//! go. Several codes at a position (which the paper does not have) are so many tokens more: each depth has rows of
//! its own in the table, a mask of its own, a vector that says which depth it is, and logits of its
//! own; a code may be unmasked before those of the depths before it.
//!
//! State: the losses seen at each time step ([`TimeImportance`]), which training tells it by
//! [`note`](Diffusion::note).

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rand::RngExt;
use smalti_nn::nearest::id_tensor;
use smalti_nn::{Embedding, LayerNorm, Linear, Noise};
use smalti_quantize::Codes;

use super::blocks::{DiffusionBlock, Told};
use super::config::DiffusionConfig;
use super::importance::TimeImportance;
use super::loss::{Steps, Worn};
use super::schedule::Schedule;
use crate::generators::layout::CodeLayout;
use crate::generators::lesson::{GeneratorLesson, TimeLoss};
use crate::generators::output::GeneratorInput;
use crate::generators::passes::DepthLogits;

/// The model; see the [module's documentation](self).
#[derive(Module, Debug)]
pub struct Diffusion {
    /// From tokens to vectors.
    pub content_emb: TokenEmbedding,
    /// The transformer.
    pub blocks: Vec<DiffusionBlock>,
    /// Norm, then the logits of each depth.
    pub to_logits: (LayerNorm, Vec<Linear>),
    /// Which time steps training looks at.
    pub importance: TimeImportance,
    #[module(skip)]
    pub(super) config: DiffusionConfig,
}

/// A vector for each token: what it is, and where.
#[derive(Module, Debug)]
pub struct TokenEmbedding {
    /// A row for every code of every depth, and for every depth's mask.
    pub emb: Embedding,
    /// `[height, width of the transformer]`
    pub height_emb: Embedding,
    /// `[width, width of the transformer]`
    pub width_emb: Embedding,
    /// `[depth, width of the transformer]`, where there are several codes at a position.
    pub depth_emb: Option<Embedding>,
}

impl TokenEmbedding {
    /// Tokens of samples one behind the other to `[samples, tokens, width]`.
    fn forward(&self, tokens: &[u32], layout: &CodeLayout) -> Tensor<3> {
        let device = self.emb.weight.val().device();
        let samples = tokens.len() / layout.codes();
        let ids = layout.table_ids(tokens);
        let vectors = self
            .emb
            .forward(id_tensor(&ids, [samples, layout.codes()], &device));
        let places = 0..layout.codes() as u32;
        let positions = layout.positions() as u32;
        let of_places = |table: &Embedding, part: &dyn Fn(u32) -> u32| {
            let ids: Vec<u32> = places.clone().map(part).collect();
            table.forward(id_tensor(&ids, [1, ids.len()], &device))
        };
        let width = layout.width as u32;
        let place = of_places(&self.height_emb, &|token| token % positions / width)
            + of_places(&self.width_emb, &|token| token % width);
        vectors
            + match &self.depth_emb {
                Some(table) => place + of_places(table, &|token| token / positions),
                None => place,
            }
    }
}

/// What a batch is measured by.
struct Measured {
    /// The bound's part at its step, of every code: `[samples, positions]` for each depth.
    bound: Vec<Tensor<2>>,
    /// The auxiliary loss, likewise.
    auxiliary: Vec<Tensor<2>>,
}

impl Diffusion {
    /// The configuration the model was built from.
    pub fn config(&self) -> &DiffusionConfig {
        &self.config
    }

    /// The device of the parameters.
    pub fn device(&self) -> Device {
        self.to_logits.0.weight.val().device()
    }

    /// The rates of its chain.
    pub fn schedule(&self) -> Schedule {
        Schedule::new(self.config.process.steps)
    }

    /// Logits of what the tokens were, `[samples, positions, codebook_size]` for each depth.
    ///
    /// `tokens` hold the maps of each sample one behind the other, the mask being the id behind a
    /// depth's last code; `times` the time step of each sample, or one for all; `classes` the row of each
    /// sample's class, or nothing without classes.
    pub fn logits(&self, tokens: &[u32], times: &[u32], classes: &[u32]) -> DepthLogits {
        let layout = self.config.layout();
        let told = Told {
            times,
            classes,
            layout: &layout,
        };
        let input = self.content_emb.forward(tokens, &layout);
        let output = self
            .blocks
            .iter()
            .fold(input, |x, block| block.forward(x, told));
        let (norm, linears) = &self.to_logits;
        let output = norm.forward(output);
        let positions = layout.positions();
        let of_depth = |(depth, linear): (usize, &Linear)| {
            linear.forward(output.clone().narrow(1, depth * positions, positions))
        };
        linears.iter().enumerate().map(of_depth).collect()
    }

    /// What a batch teaches: times are drawn by their importance, codes are worn away, classes hidden.
    ///
    /// # Panics
    /// When the input does not fit the model.
    pub fn learn(&self, input: &GeneratorInput, noise: &mut Noise) -> GeneratorLesson {
        let drawn = self.importance.draw(input.codes.dims()[0], noise);
        let times: Vec<usize> = drawn.iter().map(|(time, _)| *time).collect();
        let classes = self.config.condition.shown(&input.conditions, Some(noise));
        let Measured { bound, auxiliary } = self.measure_at(&input.codes, &times, &classes, noise);
        let process = self.config.process;
        let steps = process.steps as f64;
        let codes = self.config.layout().codes() as f64;
        let column = |value: &dyn Fn(usize, f64) -> f64| {
            let values: Vec<f32> = drawn.iter().map(|&(t, p)| value(t, p) as f32).collect();
            Tensor::<1>::from_data(values.as_slice(), &self.device())
        };
        let shares = column(&|_, p| 1.0 / (p * codes));
        let early = column(&|time, p| match process.adaptive {
            true => (2.0 - time as f64 / steps) / (p * codes),
            false => 1.0 / (p * codes),
        });
        let (bound, auxiliary) = (over_codes(bound), over_codes(auxiliary));
        let losses = smalti_nn::state::host_values(bound.clone());
        let codes = (bound * shares).mean();
        let auxiliary = (auxiliary * early).mean();
        let total = codes.clone() + auxiliary.clone().mul_scalar(process.auxiliary_weight);
        let seen = times.iter().zip(losses);
        GeneratorLesson {
            total,
            losses: vec![("codes", codes), ("auxiliary", auxiliary)],
            times: seen.map(|(&time, loss)| TimeLoss { time, loss }).collect(),
        }
    }

    /// The bound, in nats for each code, `[depth]`, with one time step for each sample: they are spread
    /// evenly over the chain.
    ///
    /// # Panics
    /// When the input does not fit the model.
    pub fn measure(&self, input: &GeneratorInput, noise: &mut Noise) -> Tensor<1> {
        let ([samples, ..], steps) = (input.codes.dims(), self.config.process.steps);
        let start = f64::from(noise.uniform_values(1)[0]);
        let time = |sample: usize| {
            let place = (sample as f64 + start) / samples as f64;
            ((place * steps as f64) as usize).min(steps - 1)
        };
        let times: Vec<usize> = (0..samples).map(time).collect();
        let classes = self.config.condition.shown(&input.conditions, None);
        let measured = self.measure_at(&input.codes, &times, &classes, noise);
        let means = measured.bound.into_iter().map(|of_depth| of_depth.mean());
        Tensor::cat(means.collect(), 0).mul_scalar(steps as f64)
    }

    /// Takes the losses of a batch into account: from now on their time steps are drawn more or less often.
    pub fn note(&mut self, seen: &[TimeLoss]) {
        self.importance.note(seen);
    }

    fn measure_at(
        &self,
        codes: &Codes,
        times: &[usize],
        classes: &[u32],
        noise: &mut Noise,
    ) -> Measured {
        let (layout, device) = (self.config.layout(), self.device());
        let [samples, ..] = codes.dims();
        let shape = [samples, layout.depth(), layout.height, layout.width];
        assert_eq!(codes.dims(), shape, "codes: [batch, depth, height, width]");
        let clean = codes.values();
        let seen = self.wear(&clean, times, noise);
        let ids: Vec<u32> = times.iter().map(|&time| time as u32).collect();
        let logits = self.logits(&seen, &ids, classes);
        let of_depth = |ids: &[u32], depth: usize| {
            let maps = ids.chunks_exact(layout.positions());
            let maps: Vec<u32> = maps
                .skip(depth)
                .step_by(layout.depth())
                .flatten()
                .copied()
                .collect();
            id_tensor(&maps, [samples, layout.positions()], &device)
        };
        let mut measured = Measured {
            bound: Vec::new(),
            auxiliary: Vec::new(),
        };
        for (depth, logits) in logits.into_iter().enumerate() {
            let size = layout.codebook_sizes[depth];
            let weights = self.config.process.mask_weight;
            let steps = Steps::new((self.schedule(), times), size, weights, &device);
            let worn = Worn {
                clean: of_depth(&clean, depth),
                seen: of_depth(&seen, depth),
            };
            let losses = steps.losses(logits, worn);
            measured.bound.push(losses.bound);
            measured.auxiliary.push(losses.auxiliary);
        }
        measured
    }

    /// The codes after each sample's time step.
    ///
    /// Drawn from two numbers a code: what becomes of it, and which code it becomes; the published code
    /// takes the largest of `K + 1` logarithms with Gumbel noise, which has the same distribution.
    fn wear(&self, codes: &[u32], times: &[usize], noise: &mut Noise) -> Vec<u32> {
        let (layout, schedule) = (self.config.layout(), self.schedule());
        let samples = codes.chunks_exact(layout.codes()).zip(times);
        let mut worn = Vec::with_capacity(codes.len());
        for (codes, &time) in samples {
            let rates = schedule.after(Some(time));
            for (token, &code) in codes.iter().enumerate() {
                let size = layout.codebook_sizes[layout.depth_of(token)];
                let fate = noise.rng().random::<f64>();
                worn.push(if fate < rates.mask {
                    size as u32
                } else if fate < rates.mask + rates.renew {
                    noise.rng().random_range(0..size as u32)
                } else {
                    code
                });
            }
        }
        worn
    }
}

/// The sum over the codes of each sample, `[samples]`.
fn over_codes(depths: Vec<Tensor<2>>) -> Tensor<1> {
    let sums = depths.into_iter().map(|d| d.sum_dim(1).squeeze_dim::<1>(1));
    sums.reduce(|a, b| a + b)
        .expect("a validated model has at least one depth")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{conditions, random, random_codes, tiny};
    use super::*;
    use smalti_nn::state::{Weights, host_values};

    fn input(config: &DiffusionConfig, samples: usize) -> GeneratorInput {
        GeneratorInput {
            codes: random_codes(&config.layout(), samples, 4),
            conditions: conditions(&config.condition, samples),
        }
    }

    #[test]
    fn codes_are_worn_away_as_the_schedule_says() {
        let config = tiny(2);
        let model = random(&config, &Device::flex(), 1);
        let codes = vec![3; 500 * 12];
        for time in [0, 4, 7] {
            let worn = model.wear(&codes, &[time; 500], &mut Noise::from_seed(2));
            let rates = model.schedule().after(Some(time));
            for (depth, size) in config.codebook_sizes().into_iter().enumerate() {
                let of_depth = worn.chunks(6).skip(depth).step_by(2).flatten();
                let masked = of_depth.filter(|&&id| id == size as u32).count();
                assert!(
                    (masked as f64 / 3000.0 - rates.mask).abs() < 0.04,
                    "{masked}"
                );
            }
            let kept = worn.iter().filter(|&&id| id == 3).count();
            assert!((kept as f64 / 6000.0 - rates.keep).abs() < 0.04, "{kept}");
        }
    }

    #[test]
    fn what_is_learned_is_what_was_measured_at_the_drawn_times() {
        let config = tiny(2);
        let model = random(&config, &Device::flex(), 1);
        let input = input(&config, 5);
        let lesson = model.learn(&input, &mut Noise::from_seed(3));
        let again = model.learn(&input, &mut Noise::from_seed(3));
        assert_eq!(lesson.times, again.times);
        let value = |loss: &Tensor<1>| loss.clone().into_scalar::<f32>();
        assert_eq!(value(&lesson.total), value(&again.total));
        // Uniform times: every loss is divided by 1/8, and by 12 codes.
        let sum: f32 = lesson.times.iter().map(|t| t.loss).sum();
        let [codes, auxiliary] = [0, 1].map(|i| value(&lesson.losses[i].1));
        assert!((codes - sum * 8.0 / 12.0 / 5.0).abs() < 1e-3 * codes.abs());
        assert!((value(&lesson.total) - codes - 1e-3 * auxiliary).abs() < 1e-4);
    }

    #[test]
    fn a_measure_is_its_noises() {
        let config = tiny(2);
        let model = random(&config, &Device::flex(), 1);
        let input = input(&config, 40);
        let at = |seed| host_values(model.measure(&input, &mut Noise::from_seed(seed)));
        let first = at(1);
        assert_eq!(first.len(), 2);
        assert_eq!(at(1), first);
        assert_ne!(at(2), first);
    }

    #[test]
    fn noted_losses_change_the_times_and_are_kept_with_the_weights() {
        let mut model = random(&tiny(1), &Device::flex(), 1);
        let seen: Vec<TimeLoss> = (0..8)
            .map(|time| TimeLoss {
                time,
                loss: if time == 5 { 50.0 } else { 1.0 },
            })
            .collect();
        model.note(&seen.repeat(20));
        let drawn = model.importance.draw(100, &mut Noise::from_seed(1));
        assert!(drawn.iter().filter(|(time, _)| *time == 5).count() > 60);
        let weights = Weights::of(&model);
        let other = random(&tiny(1), &Device::flex(), 2);
        let loaded = weights.load_into(other).unwrap();
        assert_eq!(loaded.importance.draw(100, &mut Noise::from_seed(1)), drawn);
    }

    #[test]
    fn hidden_classes_and_other_times_change_the_logits() {
        let config = tiny(1);
        let model = random(&config, &Device::flex(), 1);
        let tokens = [[1, 2, 12, 12, 3, 12]; 2].concat();
        let of = |times: &[u32], classes: &[u32]| {
            host_values(model.logits(&tokens, times, classes).remove(0))
        };
        let both = of(&[3], &[1, 4]);
        let (first, second) = both.split_at(both.len() / 2);
        assert_ne!(first, second);
        assert_ne!(of(&[4], &[1, 4]), both);
    }
}
