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
//! bias: the same numbers for a quarter of the work at `D` = 4. Weights start normal with deviation
//! 0.02, biases zero, norms the identity; the released constructor leaves the framework's defaults in
//! place for all but the position vectors, and the training code that would tell was not released.
//!
//! State: none. Field names are those of the published files.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, s};
use smalti_nn::{Dropout, Embedding, Init, Linear, Noise, Transformer, linear};
use smalti_quantize::Codes;

use super::classifier::{CodeClassifier, TextClassifier};
use super::code_embedding::CodeEmbedding;
use super::conditions::Conditions;
use super::config::{CodeInput, Condition, InvalidGenerator, RqTransformerConfig, Sharing};

/// Standard deviation of fresh weights.
const DEVIATION: f32 = 0.02;

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
    config: RqTransformerConfig,
}

/// What a training step shows to the model.
#[derive(Clone, Debug)]
pub struct GeneratorInput {
    /// The codes of every sample.
    pub codes: Codes,
    /// The condition of every sample.
    pub conditions: Conditions,
}

/// What the model says.
#[derive(Clone, Debug)]
pub struct GeneratorOutput {
    /// Of every code given those before it, `[batch, positions, depth, vocab]`.
    pub logits: Tensor<4>,
    /// Of the text, for text models.
    pub text: Option<TextOutput>,
}

/// What a text model says about the text.
#[derive(Clone, Debug)]
pub struct TextOutput {
    /// Of tokens 1 … L−1 given those before, `[batch, L−1, text vocab]`.
    pub logits: Tensor<3>,
    /// The tokens 1 … L−1 of the text that was shown, `[batch, L−1]`.
    pub tokens: Tensor<2, Int>,
}

impl RqTransformerConfig {
    /// The model of this configuration with fresh weights. `codes` are the tokenizer's codebooks where
    /// [`CodeInput::Tokenizer`] asks for them.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration, or does not fit the codebooks.
    pub fn build(
        &self,
        codes: Option<CodeEmbedding>,
        init: &mut Init,
    ) -> Result<RqTransformer, InvalidGenerator> {
        self.build_with(codes, DEVIATION, init)
    }

    pub(super) fn build_with(
        &self,
        codes: Option<CodeEmbedding>,
        deviation: f32,
        init: &mut Init,
    ) -> Result<RqTransformer, InvalidGenerator> {
        self.validate()?;
        self.check_code_embedding(codes.as_ref())?;
        let width = self.embed_dim;
        let mut mlp = || match self.embedding {
            CodeInput::Tokenizer { code_dim, .. } => {
                Some(Linear::normal(code_dim, width, deviation, init))
            }
            CodeInput::Own { .. } => None,
        };
        let (input_mlp, head_mlp) = (mlp(), mlp());
        let rows = match self.embedding {
            CodeInput::Tokenizer { .. } => None,
            CodeInput::Own {
                tables: Sharing::Shared,
            } => Some(self.vocab_size()),
            CodeInput::Own {
                tables: Sharing::PerDepth,
            } => Some(self.codebook_sizes().iter().sum()),
        };
        let (vocab, length) = (self.condition.vocab_size(), self.condition.length());
        Ok(RqTransformer {
            cond_emb: Embedding::normal(vocab, width, deviation, init),
            input_mlp,
            head_mlp,
            tok_emb: rows.map(|rows| Embedding::normal(rows, width, deviation, init)),
            pos_emb_cond: init.normal([1, length, width], deviation),
            pos_emb_hw: init.normal([1, self.positions(), width], deviation),
            pos_emb_d: init.normal([1, self.depth, width], deviation),
            body_transformer: self.body.transformer(width).normal(deviation, init),
            head_transformer: self.head.transformer(width).normal(deviation, init),
            classifier: CodeClassifier::new(self, deviation, init),
            cond_classifier: matches!(self.condition, Condition::Text { .. })
                .then(|| TextClassifier::new(width, vocab, deviation, init)),
            code_embedding: codes,
            config: self.clone(),
        })
    }

    /// The codebooks must be there exactly where the configuration asks for them, in its sizes.
    fn check_code_embedding(&self, codes: Option<&CodeEmbedding>) -> Result<(), InvalidGenerator> {
        let problem = match (&self.embedding, codes) {
            (CodeInput::Own { .. }, None) => return Ok(()),
            (CodeInput::Own { .. }, Some(_)) => {
                "embedding: the tokenizer's codebooks were given, but kind = \"own\" has no use for them"
                    .to_owned()
            }
            (CodeInput::Tokenizer { .. }, None) => {
                "embedding: kind = \"tokenizer\" needs the tokenizer's codebooks".to_owned()
            }
            (&CodeInput::Tokenizer { code_dim, .. }, Some(codes)) => {
                let each: Vec<_> = self.codebook_sizes().iter().map(|&k| [k, code_dim]).collect();
                let one = each.windows(2).all(|pair| pair[0] == pair[1]).then(|| vec![each[0]]);
                let got = codes.shapes();
                if got == each || Some(&got) == one.as_ref() {
                    return Ok(());
                }
                let expected = one.unwrap_or(each);
                format!("embedding: expected codebooks of shapes {expected:?}, got {got:?}")
            }
        };
        Err(InvalidGenerator(vec![problem]))
    }
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
    /// When the input does not fit the model: see [`RqTransformerConfig::check_codes`] and
    /// [`Conditions::check`].
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
        let RqTransformerConfig {
            height,
            width,
            depth,
            ..
        } = self.config;
        let [batch, ..] = codes.dims();
        let shape = [batch, depth, height, width];
        assert_eq!(codes.dims(), shape, "codes: [batch, depth, height, width]");
        let ids = codes
            .tensor()
            .reshape([batch, depth, height * width])
            .swap_dims(1, 2);
        if device.is_autodiff() {
            Tensor::from_inner(ids)
        } else {
            ids
        }
    }

    /// The vectors in front of an image, `[batch, condition length, width]`.
    pub(super) fn condition_input(&self, condition: Tensor<2, Int>) -> Tensor<3> {
        let [batch, length] = condition.dims();
        assert_eq!(
            length,
            self.config.condition.length(),
            "condition [batch {batch}, length {length}]"
        );
        self.cond_emb.forward(condition) + self.pos_emb_cond.val()
    }

    /// The body's input for codes `[batch, positions, depth]` whose first position is `start`.
    pub(super) fn body_input(&self, codes: Tensor<3, Int>, start: usize) -> Tensor<3> {
        let sum = self.code_vectors(codes).sum_dim(2).squeeze_dim::<3>(2);
        self.body_input_of_sum(sum, start)
    }

    /// The body's input for sums over depth of code vectors, `[batch, positions, code width]`.
    pub(super) fn body_input_of_sum(&self, sum: Tensor<3>, start: usize) -> Tensor<3> {
        let [_, positions, _] = sum.dims();
        let projected = match &self.input_mlp {
            Some(mlp) => {
                let depth = self.config.depth as f64;
                let bias = mlp.bias.as_ref().map(|bias| bias.val().mul_scalar(depth));
                linear(sum, mlp.weight.val(), bias)
            }
            None => sum,
        };
        projected
            + self
                .pos_emb_hw
                .val()
                .slice(s![.., start..start + positions, ..])
    }

    /// The head's inputs that follow codes `[batch, positions, d]`, without the places of the depths.
    fn head_input(&self, codes: Tensor<3, Int>) -> Tensor<4> {
        let vectors = self.code_vectors(codes);
        let Some(mlp) = &self.head_mlp else {
            return vectors;
        };
        mlp.forward(if self.sums_depths() {
            vectors.cumsum(2)
        } else {
            vectors
        })
    }

    /// Whether the head sees the sum of the code vectors before a depth, rather than the last one.
    pub(super) fn sums_depths(&self) -> bool {
        matches!(
            self.config.embedding,
            CodeInput::Tokenizer {
                cumulative: true,
                ..
            }
        )
    }

    /// The vectors of codes `[batch, positions, d]`, `d` of the first depths.
    fn code_vectors(&self, codes: Tensor<3, Int>) -> Tensor<4> {
        if let Some(tables) = &self.code_embedding {
            return tables.lookup(codes);
        }
        let [batch, positions, depth] = codes.dims();
        let offsets: Vec<i32> = (0..depth).map(|d| self.table_offset(d) as i32).collect();
        let offsets = Tensor::<1, Int>::from_data(&offsets[..], &codes.device());
        let ids = codes + offsets.unsqueeze::<3>();
        let vectors = self
            .own_table()
            .forward(ids.reshape([batch, positions * depth]));
        vectors.reshape([batch, positions, depth, self.config.embed_dim])
    }

    /// The vectors of codes `[batch]` of one depth.
    pub(super) fn code_vectors_at(&self, depth: usize, codes: Tensor<1, Int>) -> Tensor<2> {
        match &self.code_embedding {
            Some(tables) => tables.lookup_at(depth, codes),
            None => {
                let ids = codes.add_scalar(self.table_offset(depth) as i64);
                self.own_table()
                    .forward(ids.unsqueeze::<2>())
                    .squeeze_dim::<2>(0)
            }
        }
    }

    fn own_table(&self) -> &Embedding {
        self.tok_emb
            .as_ref()
            .expect("a model without the tokenizer's codebooks has its own table")
    }

    /// Where a depth's rows begin in the generator's own table.
    fn table_offset(&self, depth: usize) -> usize {
        match self.config.embedding {
            CodeInput::Own {
                tables: Sharing::PerDepth,
            } => self.config.codebook_sizes()[..depth].iter().sum(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::rq_transformer::testing::{build, random_codes, tiny, tiny_uneven};

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
    fn the_count_of_parameters_is_the_models() {
        let own = RqTransformerConfig {
            embedding: CodeInput::Own {
                tables: Sharing::PerDepth,
            },
            ..tiny_uneven()
        };
        let shared = RqTransformerConfig {
            embedding: CodeInput::Own {
                tables: Sharing::Shared,
            },
            ..tiny()
        };
        for config in [tiny(), tiny_uneven(), own, shared] {
            let mut model = build(&config, &Device::flex(), 1);
            model.code_embedding = None;
            assert_eq!(model.num_params(), config.parameter_count());
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
                let other = codes.clone().slice(place.clone()).equal_elem(0).int();
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

    #[test]
    fn codebooks_that_do_not_fit_are_refused() {
        let device = Device::flex();
        let attempt = |codes| {
            tiny()
                .build(codes, &mut Init::new(&device, 1))
                .unwrap_err()
                .to_string()
        };
        assert!(attempt(None).contains("needs the tokenizer's codebooks"));
        let wrong = attempt(Some(CodeEmbedding::zeros(&[13], 6, &device)));
        assert!(
            wrong.contains("expected codebooks of shapes [[12, 6]], got [[13, 6]]"),
            "{wrong}"
        );
        let each = CodeEmbedding::zeros(&[12; 3], 6, &device);
        assert!(
            tiny()
                .build(Some(each.clone()), &mut Init::new(&device, 1))
                .is_ok()
        );
        let own = RqTransformerConfig {
            embedding: CodeInput::Own {
                tables: Sharing::Shared,
            },
            ..tiny()
        };
        let error = own
            .build(Some(each), &mut Init::new(&device, 1))
            .unwrap_err();
        assert!(error.to_string().contains("has no use for them"));
    }
}
