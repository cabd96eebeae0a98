//! The network: a body over positions, a head over depths.
//!
//! With `e(k)` the vector of code `k`, `E` the width, `T` positions, `D` depths, `L` condition ids:
//!
//! ```text
//! body input   cond_emb[c_i] + pos_emb_cond[i]                        i = 0 … L−1
//!              Σ_d input_mlp(e(S_{t,d})) + pos_emb_hw[t]              t = 0 … T−2
//! contexts     h_0 … h_{T−1} = the body's outputs L−1 … L+T−2
//! head input   h_t + pos_emb_d[0]
//!              head_mlp(Σ_{d'<d} e(S_{t,d'})) + pos_emb_d[d]          d = 1 … D−1
//! logits       classifier(head output), [batch, positions, depth, vocab]
//! text logits  cond_classifier(body's outputs 0 … L−2)
//! ```
//!
//! Paper: equations 6 to 9. As in the published code and unlike the paper's formula, `pos_emb_hw` is
//! indexed by the position that is read, not by the one that is predicted (its last row is unused); no
//! norm stands between body and head; the bias of `input_mlp` enters `D` times. The latter two matter
//! for published weights. Where codes have tables of the generator's own, `e` has width `E` and there
//! are no `input_mlp`, `head_mlp` and no sum in the head's input.
//!
//! Different from the published code: `input_mlp` is applied once, to the sum, with `D` times its
//! bias: the same numbers for a quarter of the work at `D` = 4.
//!
//! State: none. Field names are those of the published files.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};
use smalti_nn::{Dropout, Embedding, Linear, Noise, Transformer};
use smalti_quantize::Codes;

use super::classifier::{CodeClassifier, TextClassifier};
use super::code_embedding::CodeEmbedding;
use super::config::RqTransformerConfig;
use crate::generators::output::{GeneratorInput, GeneratorOutput, TextOutput};

/// The model; see the [module's documentation](self).
#[derive(Module, Debug)]
pub struct RqTransformer {
    /// Vectors of the condition ids, `[condition vocab, width]`.
    pub cond_emb: Embedding,
    /// From code vectors to the body, where codes come through the tokenizer's codebook.
    pub input_mlp: Option<Linear>,
    /// From code vectors to the head, where codes come through the tokenizer's codebook.
    pub head_mlp: Option<Linear>,
    /// Vectors of the codes, where the generator has tables of its own.
    pub tok_emb: Option<Embedding>,
    /// `[1, condition length, width]`
    pub pos_emb_cond: Param<Tensor<3>>,
    /// `[1, positions, width]`
    pub pos_emb_hw: Param<Tensor<3>>,
    /// `[1, depth, width]`
    pub pos_emb_d: Param<Tensor<3>>,
    /// Over positions.
    pub body_transformer: Transformer,
    /// Over the depths of one position.
    pub head_transformer: Transformer,
    /// Logits of the codes.
    pub classifier: CodeClassifier,
    /// Logits of the text.
    pub cond_classifier: Option<TextClassifier>,
    /// The tokenizer's frozen codebook.
    pub code_embedding: Option<CodeEmbedding>,
    #[module(skip)]
    pub(super) config: RqTransformerConfig,
}

impl RqTransformer {
    /// The configuration the model was built from.
    pub fn config(&self) -> &RqTransformerConfig {
        &self.config
    }

    /// The device of the parameters.
    pub fn device(&self) -> Device {
        self.pos_emb_d.val().device()
    }

    /// Logits of all codes at once, each given the true codes before it; dropout where there is noise.
    ///
    /// # Panics
    /// When the input does not fit the model: see [`CodeLayout::check`] and [`Conditions::check`].
    ///
    /// [`CodeLayout::check`]: crate::generators::layout::CodeLayout::check
    /// [`Conditions::check`]: crate::generators::conditions::Conditions::check
    pub fn forward(&self, input: GeneratorInput, mut noise: Option<&mut Noise>) -> GeneratorOutput {
        let device = self.device();
        let codes = self.by_position(&input.codes, &device);
        let condition = input.conditions.ids(&device);
        let (contexts, text) = self.contexts(codes.clone(), condition, noise.as_deref_mut());
        GeneratorOutput {
            logits: self.depth_logits(contexts, codes, noise),
            text,
        }
    }

    /// The body's outputs: contexts of the positions `[batch, positions, width]` and the text's logits.
    /// Codes are `[batch, positions, depth]`, condition ids `[batch, condition length]`.
    pub(super) fn contexts(
        &self,
        codes: Tensor<3, Int>,
        condition: Tensor<2, Int>,
        mut noise: Option<&mut Noise>,
    ) -> (Tensor<3>, Option<TextOutput>) {
        let positions = self.config.positions();
        let length = self.config.condition.length();
        let start = self.condition_input(condition.clone());
        let input = match positions {
            1 => start,
            _ => Tensor::cat(
                vec![start, self.body_input(codes.narrow(1, 0, positions - 1), 0)],
                1,
            ),
        };
        let dropout = Dropout {
            probability: self.config.embedding_dropout,
        };
        let input = dropout.forward(input, noise.as_deref_mut());
        let output = self.body_transformer.forward(input, noise);
        let contexts = output.clone().narrow(1, length - 1, positions);
        let text = self.cond_classifier.as_ref().map(|classifier| TextOutput {
            logits: classifier.forward(output.narrow(1, 0, length - 1)),
            tokens: condition.narrow(1, 1, length - 1),
        });
        (contexts, text)
    }

    /// The head over all positions: `[batch, positions, depth, vocab]`.
    fn depth_logits(
        &self,
        contexts: Tensor<3>,
        codes: Tensor<3, Int>,
        noise: Option<&mut Noise>,
    ) -> Tensor<4> {
        let [batch, positions, width] = contexts.dims();
        let depth = self.config.depth;
        let first = contexts.unsqueeze_dim::<4>(2);
        let input = match depth {
            1 => first,
            _ => Tensor::cat(
                vec![first, self.head_input(codes.narrow(2, 0, depth - 1))],
                2,
            ),
        };
        let input = input.reshape([batch * positions, depth, width]) + self.pos_emb_d.val();
        let logits = self
            .classifier
            .forward(self.head_transformer.forward(input, noise));
        logits.reshape([batch, positions, depth, self.config.vocab_size()])
    }

    /// Codes as `[batch, positions, depth]` on the model's device.
    pub(super) fn by_position(&self, codes: &Codes, device: &Device) -> Tensor<3, Int> {
        self.config.layout().by_position(codes, device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::conditions::Conditions;
    use crate::generators::rq_transformer::config::Condition;
    use crate::generators::rq_transformer::testing::{build, random_codes, tiny, tiny_uneven};
    use burn::tensor::s;

    fn input(config: &RqTransformerConfig, batch: usize, device: &Device) -> GeneratorInput {
        let conditions = match config.condition {
            Condition::Unconditional {} => Conditions::Unconditional(batch),
            Condition::Class { .. } => Conditions::Classes(vec![1; batch]),
            Condition::Text { length, .. } => Conditions::Texts(vec![vec![1; length]; batch]),
        };
        GeneratorInput {
            codes: random_codes(config, batch, device, 1),
            conditions,
        }
    }

    #[test]
    fn a_code_changes_only_what_comes_after_it() {
        let device = Device::flex();
        for config in [tiny(), tiny_uneven()] {
            let model = build(&config, &device, 2);
            let GeneratorInput { codes, conditions } = input(&config, 1, &device);
            let codes = codes.tensor();
            let run = |codes| {
                let codes = Codes::new(codes);
                let input = GeneratorInput {
                    codes,
                    conditions: conditions.clone(),
                };
                model.forward(input, None).logits.reshape([18, 12])
            };
            let before = run(codes.clone());
            for (position, depth) in [(0, 0), (2, 1), (4, 2), (5, 2)] {
                let place = s![.., depth, position / 3, position % 3];
                let other = codes.clone().slice(place).equal_elem(0).int();
                let after = run(codes.clone().slice_assign(place, other));
                let changed = (before.clone() - after).abs().greater_elem(1e-6).any_dim(1);
                let changed = changed.int().try_into_vec_as::<i32>().unwrap();
                let place = 3 * position + depth;
                assert!(
                    changed[..=place].iter().all(|&c| c == 0),
                    "{place}: {changed:?}"
                );
                assert!(
                    place == 17 || changed[place + 1..].contains(&1),
                    "{place}: {changed:?}"
                );
            }
        }
    }

    #[test]
    fn dropout_acts_only_with_noise() {
        let device = Device::flex();
        let model = build(&tiny(), &device, 3);
        let input = input(&tiny(), 2, &device);
        let run = |noise: Option<&mut Noise>| model.forward(input.clone(), noise).logits;
        let noisy = |seed| run(Some(&mut Noise::from_seed(seed)));
        assert!(run(None).all_close(run(None), None, None));
        assert!(noisy(1).all_close(noisy(1), None, None));
        assert!(!noisy(1).all_close(run(None), None, None));
    }
}
