//! The network: a transformer over positions, a head over the codes of one.
//!
//! With `E_i` the table of sub-token `i = 1 … k`, `A` the aggregation, `T` positions, `L` rows of the start:
//!
//! ```text
//! input      start                                              L rows
//!            A·[E_1(S_{t,1}) … E_k(S_{t,k})] + a                t = 0 … T−2
//! contexts   g_0 … g_{T−1} = the outputs L−1 … L+T−2 of `layers`
//! head       [g_t, E_1(S_{t,1}) … E_{k−1}(S_{t,k−1})] through `ar_head`, positions alike
//! logits     output_i · RMSNorm(head's output i), [batch, positions, depth, vocab]
//! ```
//!
//! FQGAN's paper, section 3.3, equations 9 to 11, and its code's published names; with `k = 1` there is no
//! `A` and no head (LlamaGen). As in that code no norm stands between the transformer and the head,
//! the head sees the tables' vectors as they are (no aggregation, no dropout), and its positions are
//! the first rows of the grid's: `g_t` stands in the row of zeros, so it is seen through its value
//! alone (see [`smalti_nn::rotary`]). Instead of the head a linear map or a perceptron
//! `gelu(W_i·RMSNorm(g_t) + b_i)` for each code can be had, the ablations of the paper's table 4 (whose
//! perceptrons it does not describe): codes of one position are then independent given `g_t`.
//!
//! Codebooks of different sizes are possible here: logits are as wide as the largest, −∞ beyond a
//! depth's own codes.
//!
//! State: none.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use smalti_nn::rotary_transformer::through;
use smalti_nn::{Dropout, Embedding, Linear, Noise, RmsNorm, RotaryBlock, Rotations, gelu};

use super::config::{FarConfig, HeadConfig};
use super::start::StartEmbedding;
use crate::generators::output::{GeneratorInput, GeneratorOutput};

/// The model; see the [module's documentation](self).
#[derive(Module, Debug)]
pub struct Far {
    /// The start of the sequence.
    pub cls_embedding: StartEmbedding,
    /// A table for each depth, `[codebook_size, width]`.
    pub tok_embeddings: Vec<Embedding>,
    /// From the vectors of a position's codes to one, `[width, depth·width]`, where there are several.
    pub aggregation_layer: Option<Linear>,
    /// Over positions.
    pub layers: Vec<RotaryBlock>,
    /// Over the codes of one position; none but with [`HeadConfig::Autoregressive`].
    pub ar_head: Vec<RotaryBlock>,
    /// A perceptron for each depth; none but with [`HeadConfig::Mlp`].
    pub mlp_head: Vec<Linear>,
    /// Norm before the logits.
    pub norm: RmsNorm,
    /// The logits of each depth, `[codebook_size, width]`.
    pub output: Vec<Linear>,
    #[module(skip)]
    pub(super) config: FarConfig,
}

impl Far {
    /// The configuration the model was built from.
    pub fn config(&self) -> &FarConfig {
        &self.config
    }

    /// The device of the parameters.
    pub fn device(&self) -> Device {
        self.norm.weight.val().device()
    }

    /// Logits of all codes at once, each given the true codes before it; dropout and hidden conditions
    /// where there is noise.
    ///
    /// # Panics
    /// When the input does not fit the model, or captions have different lengths.
    pub fn forward(&self, input: GeneratorInput, mut noise: Option<&mut Noise>) -> GeneratorOutput {
        let layout = self.config.layout();
        let codes = layout.by_position(&input.codes, &self.device());
        let start = self
            .cls_embedding
            .forward(&input.conditions, noise.as_deref_mut());
        GeneratorOutput {
            logits: self.logits_behind(start, codes, noise),
            text: None,
        }
    }

    /// The logits of codes `[batch, positions, depth]` behind a start `[batch, length, width]`.
    pub(super) fn logits_behind(
        &self,
        start: Tensor<3>,
        codes: Tensor<3, Int>,
        mut noise: Option<&mut Noise>,
    ) -> Tensor<4> {
        let vectors = self.code_vectors(codes);
        let contexts = self.contexts(start, &vectors, noise.as_deref_mut());
        self.logits(contexts, vectors, noise)
    }

    /// The outputs of the transformer over positions, `[batch, positions, width]`.
    fn contexts(
        &self,
        start: Tensor<3>,
        vectors: &[Tensor<3>],
        mut noise: Option<&mut Noise>,
    ) -> Tensor<3> {
        let positions = self.config.positions();
        let [_, length, _] = start.dims();
        let input = match positions {
            1 => start,
            _ => {
                let before = vectors
                    .iter()
                    .map(|of_depth| of_depth.clone().narrow(1, 0, positions - 1));
                Tensor::cat(vec![start, self.aggregate(before.collect())], 1)
            }
        };
        let dropout = Dropout {
            probability: self.config.token_dropout,
        };
        let input = dropout.forward(input, noise.as_deref_mut());
        through(&self.layers, input, &self.rotations(length), noise).narrow(
            1,
            length - 1,
            positions,
        )
    }

    /// The logits of all positions `[batch, positions, depth, vocab]` from contexts
    /// `[batch, positions, width]` and the codes' vectors.
    fn logits(
        &self,
        contexts: Tensor<3>,
        vectors: Vec<Tensor<3>>,
        noise: Option<&mut Noise>,
    ) -> Tensor<4> {
        let [batch, positions, width] = contexts.dims();
        let (rows, depth) = (batch * positions, self.config.depth);
        let first = contexts.reshape([rows, 1, width]);
        let hidden: Vec<Tensor<2>> = match self.config.head {
            HeadConfig::Autoregressive { .. } => {
                let known = vectors.into_iter().take(depth - 1);
                let known = known.map(|of_depth| of_depth.reshape([rows, 1, width]));
                let input = joined(std::iter::once(first).chain(known).collect());
                let output = through(&self.ar_head, input, &self.head_rotations(), noise);
                let at = |i| output.clone().narrow(1, i, 1).squeeze_dim::<2>(1);
                (0..depth).map(at).collect()
            }
            HeadConfig::Linear {} | HeadConfig::Mlp {} => {
                vec![first.squeeze_dim::<2>(1); depth]
            }
        };
        let vocab = self.config.vocab_size();
        let logits = hidden.into_iter().enumerate().map(|(depth, hidden)| {
            let logits = widened(self.logits_at(depth, hidden), vocab);
            logits.unsqueeze_dim::<3>(1)
        });
        joined(logits.collect()).reshape([batch, positions, depth, vocab])
    }

    /// The logits of one depth, `[rows, codebook_size of the depth]`, from what the head gives there (the
    /// context itself, where it has no transformer) `[rows, width]`.
    pub(super) fn logits_at(&self, depth: usize, hidden: Tensor<2>) -> Tensor<2> {
        let mut hidden = self.norm.forward(hidden);
        if let Some(layer) = self.mlp_head.get(depth) {
            hidden = gelu(layer.forward(hidden));
        }
        self.output[depth].forward(hidden)
    }

    /// The vectors of codes `[batch, positions, depth]`: `[batch, positions, width]` for each depth.
    pub(super) fn code_vectors(&self, codes: Tensor<3, Int>) -> Vec<Tensor<3>> {
        let tables = self.tok_embeddings.iter().enumerate();
        tables
            .map(|(d, table)| table.forward(codes.clone().narrow(2, d, 1).squeeze_dim::<2>(2)))
            .collect()
    }

    /// One vector for each position from those of its codes, `[batch, positions, width]`.
    pub(super) fn aggregate(&self, mut vectors: Vec<Tensor<3>>) -> Tensor<3> {
        match &self.aggregation_layer {
            Some(layer) => layer.forward(Tensor::cat(vectors, 2)),
            None => vectors.swap_remove(0),
        }
    }

    /// The places of a start of so many rows and an image behind it.
    pub(super) fn rotations(&self, start: usize) -> Rotations {
        let FarConfig { height, width, .. } = self.config;
        Rotations::grid(start, [height, width], self.config.head_width())
    }

    /// The places of the head: the first of a sequence that starts with one row.
    pub(super) fn head_rotations(&self) -> Rotations {
        self.rotations(1)
    }
}

/// Tensors one behind the other along the second axis; a single one is not copied.
fn joined(mut parts: Vec<Tensor<3>>) -> Tensor<3> {
    match parts.len() {
        1 => parts.swap_remove(0),
        _ => Tensor::cat(parts, 1),
    }
}

/// Logits of a smaller codebook among those of larger ones.
fn widened(logits: Tensor<2>, vocab: usize) -> Tensor<2> {
    let [rows, size] = logits.dims();
    match vocab - size {
        0 => logits,
        missing => {
            let never = Tensor::full([rows, missing], f32::NEG_INFINITY, &logits.device());
            Tensor::cat(vec![logits, never], 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::far::testing::{all_kinds, conditions, random, random_codes, tiny};
    use crate::generators::layout::CodebookSize;
    use crate::generators::loss::CodeTargets;
    use burn::tensor::s;
    use smalti_quantize::Codes;

    fn input(config: &FarConfig, batch: usize) -> GeneratorInput {
        GeneratorInput {
            codes: random_codes(config, batch, 1),
            conditions: conditions(config, batch),
        }
    }

    #[test]
    fn a_code_changes_only_what_comes_after_it() {
        for config in all_kinds() {
            let model = random(&config, &Device::flex(), 2);
            let depth = config.depth;
            let independent = !matches!(config.head, HeadConfig::Autoregressive { .. });
            let GeneratorInput { codes, conditions } = input(&config, 1);
            let codes = codes.tensor();
            let run = |codes| {
                let input = GeneratorInput {
                    codes: Codes::new(codes),
                    conditions: conditions.clone(),
                };
                let logits = model.forward(input, None).logits;
                let sizes = [6 * depth, config.vocab_size()];
                logits.clamp(-1e9, 1e9).reshape(sizes)
            };
            let before = run(codes.clone());
            for (position, d) in [(0, 0), (2, depth - 1), (4, depth - 1), (5, 0)] {
                let place = s![.., d, position / 3, position % 3];
                let other = codes.clone().slice(place).equal_elem(0).int();
                let after = run(codes.clone().slice_assign(place, other));
                let changed = (before.clone() - after).abs().greater_elem(1e-6).any_dim(1);
                let changed = changed.int().try_into_vec_as::<i32>().unwrap();
                // Codes of one position do not see one another where the head is no transformer.
                let place = if independent {
                    depth * position + depth - 1
                } else {
                    depth * position + d
                };
                let text = format!("{config:?} at {position}, {d}: {changed:?}");
                assert!(changed[..=place].iter().all(|&c| c == 0), "{text}");
                let last = place + 1 == changed.len();
                assert!(last || changed[place + 1..].contains(&1), "{text}");
            }
        }
    }

    #[test]
    fn a_fresh_model_knows_nothing() {
        let config = tiny(2);
        let mut init = smalti_nn::Init::new(&Device::flex(), 1);
        let model = config.build(&mut init).unwrap();
        let input = input(&config, 2);
        let targets = CodeTargets::Hard(input.codes.clone());
        let loss = model.forward(input, None).losses(targets).codes;
        let expected = (config.vocab_size() as f32).ln();
        assert!((loss.into_scalar::<f32>() - expected).abs() < 1e-6);
    }

    #[test]
    fn smaller_codebooks_have_no_further_codes() {
        let config = FarConfig {
            codebook_size: CodebookSize::PerDepth(vec![12, 5]),
            ..tiny(2)
        };
        let model = random(&config, &Device::flex(), 3);
        let logits = model.forward(input(&config, 1), None).logits;
        let second = logits.narrow(2, 1, 1).narrow(3, 5, 7);
        let never = second.equal_elem(f32::NEG_INFINITY).all();
        assert!(never.into_scalar::<bool>());
    }

    #[test]
    fn dropout_acts_only_with_noise() {
        let model = random(&tiny(2), &Device::flex(), 3);
        let input = input(&tiny(2), 2);
        let run = |noise: Option<&mut Noise>| model.forward(input.clone(), noise).logits;
        let noisy = |seed| run(Some(&mut Noise::from_seed(seed)));
        assert!(run(None).all_close(run(None), None, None));
        assert!(noisy(1).all_close(noisy(1), None, None));
        assert!(!noisy(1).all_close(run(None), None, None));
    }
}
