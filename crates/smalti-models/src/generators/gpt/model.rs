//! The network: one transformer over a token and the codes behind it.
//!
//! With `E` the table of vectors, `P` the learned places, `c` the condition's token, `N` codes:
//!
//! ```text
//! input    E[c] + P[0],  E[S_n] + P[n + 1]         n = 0 … N−2
//! blocks   x ← x + Attention(LN₁(x)),  x ← x + MLP(LN₂(x))     causal, exact GELU
//! logits   W·LN(x_n)                               n = 0 … N−1, of S_n
//! ```
//!
//! `[batch, positions, depth, vocab_size]`; CompVis/taming-transformers at 3ba01b2, its `minGPT` within
//! `Net2NetTransformer`, whose names the fields have. In training every code that is read is replaced by
//! a random one of the whole vocabulary with probability `1 − keep`; the targets are not.
//!
//! Different from there: the loss is taken over the codes only, so logits of what is no code are
//! learned to be small, but they are there (a vocabulary larger than the codebook); several codes at a
//! position are consecutive places of the sequence.
//!
//! State: none.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};
use rand::RngExt;
use smalti_nn::nearest::id_tensor;
use smalti_nn::transformer::through;
use smalti_nn::{Dropout, Embedding, LayerNorm, Linear, Noise, TransformerBlock};

use super::config::{GptCondition, GptConfig};
use crate::generators::conditions::Conditions;
use crate::generators::output::{GeneratorInput, GeneratorOutput};

/// The model; see the [module's documentation](self).
#[derive(Module, Debug)]
pub struct Gpt {
    /// Vectors of codes and of the condition's tokens, `[vocab_size, width]`.
    pub tok_emb: Embedding,
    /// Vectors of the places, `[1, block_size, width]`.
    pub pos_emb: Param<Tensor<3>>,
    /// The transformer.
    pub blocks: Vec<TransformerBlock>,
    /// Norm before the logits.
    pub ln_f: LayerNorm,
    /// The logits, `[vocab_size, width]`.
    pub head: Linear,
    #[module(skip)]
    pub(super) config: GptConfig,
}

impl Gpt {
    /// The configuration the model was built from.
    pub fn config(&self) -> &GptConfig {
        &self.config
    }

    /// The device of the parameters.
    pub fn device(&self) -> Device {
        self.pos_emb.val().device()
    }

    /// Logits of all codes at once, each given the true codes before it; dropout and random codes where
    /// there is noise.
    ///
    /// # Panics
    /// When the input does not fit the model.
    pub fn forward(&self, input: GeneratorInput, mut noise: Option<&mut Noise>) -> GeneratorOutput {
        let device = self.device();
        let codes = self.config.layout().by_position(&input.codes, &device);
        let [batch, positions, depth] = codes.dims();
        let length = positions * depth;
        let codes = codes.reshape([batch, length]);
        let shown = self.corrupted(codes, noise.as_deref_mut());
        let start = self.start(&input.conditions, &device);
        let ids = match length {
            1 => start,
            _ => Tensor::cat(vec![start, shown.narrow(1, 0, length - 1)], 1),
        };
        let dropout = Dropout {
            probability: self.config.embedding_dropout,
        };
        let vectors = dropout.forward(self.placed(ids, 0), noise.as_deref_mut());
        let logits = self.logits(through(&self.blocks, vectors, noise));
        GeneratorOutput {
            logits: logits.reshape([batch, positions, depth, self.config.vocab_size]),
            text: None,
        }
    }

    /// Codes `[batch, length]`, of which some are replaced by random ones where there is noise.
    fn corrupted(&self, codes: Tensor<2, Int>, noise: Option<&mut Noise>) -> Tensor<2, Int> {
        let Some(noise) = noise.filter(|_| self.config.keep < 1.0) else {
            return codes;
        };
        let (shape, device) = (codes.dims(), self.device());
        let replaced = noise
            .uniform(shape, &device)
            .greater_equal_elem(self.config.keep);
        let vocab = self.config.vocab_size as u32;
        let ids: Vec<u32> = (0..shape[0] * shape[1])
            .map(|_| noise.rng().random_range(0..vocab))
            .collect();
        codes.mask_where(replaced, id_tensor(&ids, shape, &device))
    }

    /// The first token of every sample, `[batch, 1]`.
    pub(super) fn start(&self, conditions: &Conditions, device: &Device) -> Tensor<2, Int> {
        let ids = match (self.config.condition, conditions) {
            (GptCondition::Unconditional { start_token }, Conditions::Unconditional(count)) => {
                vec![start_token; *count]
            }
            (GptCondition::Class { .. }, Conditions::Classes(classes)) => classes.clone(),
            (_, got) => panic!("a condition of another kind than {got:?}"),
        };
        id_tensor(&ids, [ids.len(), 1], device)
    }

    /// The vectors of tokens `[batch, length]` at the places from `first` on, `[batch, length, width]`.
    pub(super) fn placed(&self, ids: Tensor<2, Int>, first: usize) -> Tensor<3> {
        let [_, length] = ids.dims();
        self.tok_emb.forward(ids) + self.pos_emb.val().narrow(1, first, length)
    }

    /// `[batch, length, width]` to `[batch, length, vocab_size]`.
    pub(super) fn logits(&self, outputs: Tensor<3>) -> Tensor<3> {
        self.head.forward(self.ln_f.forward(outputs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::gpt::testing::{conditions, random, random_codes, tiny, tiny_deep};
    use crate::generators::loss::CodeTargets;
    use burn::tensor::s;
    use smalti_quantize::Codes;

    fn input(config: &GptConfig, batch: usize) -> GeneratorInput {
        GeneratorInput {
            codes: random_codes(config, batch, 1),
            conditions: conditions(config, batch),
        }
    }

    #[test]
    fn a_code_changes_only_what_comes_after_it() {
        for config in [tiny(), tiny_deep()] {
            let model = random(&config, &Device::flex(), 2);
            let depth = config.depth;
            let GeneratorInput { codes, conditions } = input(&config, 1);
            let codes = codes.tensor();
            let run = |codes| {
                let input = GeneratorInput {
                    codes: Codes::new(codes),
                    conditions: conditions.clone(),
                };
                let sizes = [6 * depth, config.vocab_size];
                model.forward(input, None).logits.reshape(sizes)
            };
            let before = run(codes.clone());
            for (position, d) in [(0, 0), (2, depth - 1), (4, 0), (5, depth - 1)] {
                let place = s![.., d, position / 3, position % 3];
                let other = codes.clone().slice(place).equal_elem(0).int();
                let after = run(codes.clone().slice_assign(place, other));
                let changed = (before.clone() - after).abs().greater_elem(1e-6).any_dim(1);
                let changed = changed.int().try_into_vec_as::<i32>().unwrap();
                let place = depth * position + d;
                let text = format!("{config:?} at {position}, {d}: {changed:?}");
                assert!(changed[..=place].iter().all(|&c| c == 0), "{text}");
                assert!(changed[place + 1..].iter().all(|&c| c == 1), "{text}");
            }
        }
    }

    #[test]
    fn random_codes_and_dropout_come_only_with_noise() {
        let device = Device::flex();
        let plain = tiny();
        let dropping = GptConfig {
            attention_dropout: 0.5,
            ..tiny()
        };
        let replacing = GptConfig {
            keep: 0.5,
            ..tiny()
        };
        for (config, differs) in [(plain, false), (dropping, true), (replacing, true)] {
            let model = random(&config, &device, 3);
            let input = input(&config, 2);
            let run = |noise: Option<&mut Noise>| model.forward(input.clone(), noise).logits;
            let noisy = |seed| run(Some(&mut Noise::from_seed(seed)));
            assert!(noisy(1).all_close(noisy(1), None, None));
            assert_eq!(!noisy(1).all_close(run(None), None, None), differs);
        }
    }

    #[test]
    fn as_many_codes_are_kept_as_asked_for() {
        let config = GptConfig {
            keep: 0.75,
            ..tiny()
        };
        let model = random(&config, &Device::flex(), 4);
        let shape = [40, 250];
        let codes = id_tensor(&vec![0; 10_000], shape, &Device::flex());
        let shown = model.corrupted(codes, Some(&mut Noise::from_seed(1)));
        let shown = smalti_nn::nearest::id_values(shown);
        let kept = shown.iter().filter(|&&id| id == 0).count() as f64 / 1e4;
        // A code may be replaced by itself: one in 14. Five standard deviations.
        let expected = 0.75 + 0.25 / 14.0;
        assert!((kept - expected).abs() < 0.021, "{kept}");
        assert!(shown.contains(&13) && shown.iter().all(|&id| id < 14));
    }

    /// A weight of the last layer, two in the middle and the table: the loss's slopes.
    #[test]
    fn gradients_are_slopes() {
        let device = Device::flex().autodiff();
        let config = tiny_deep();
        let model = random(&config, &device, 5);
        let input = input(&config, 2);
        let loss = |model: &Gpt| {
            let output = model.forward(input.clone(), None);
            output.losses(CodeTargets::Hard(input.codes.clone())).codes
        };
        let gradients = loss(&model).backward();
        let step = 2e-2;
        macro_rules! check {
            ($($field:ident).+) => {
                let gradient = model.$($field).+.grad(&gradients).unwrap();
                let direction = gradient.clone() / gradient.clone().square().sum().sqrt().into_scalar::<f32>();
                let moved = |by: f32| {
                    let mut model = model.clone();
                    let direction = Tensor::from_inner(direction.clone());
                    model.$($field).+ = model.$($field).+.map(|w| w + direction.mul_scalar(by));
                    loss(&model).into_scalar::<f32>()
                };
                let slope = (moved(step) - moved(-step)) / (2.0 * step);
                let expected = gradient.square().sum().sqrt().into_scalar::<f32>();
                assert!((slope / expected - 1.0).abs() < 1e-2, "{slope} for {expected}");
            };
        }
        check!(tok_emb.weight);
        check!(pos_emb);
        check!(ln_f.bias);
        check!(head.weight);
    }
}
