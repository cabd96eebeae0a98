//! From a configuration to a model with fresh weights.
//!
//! Weights start normal with deviation 0.02, biases zero, norms the identity. The released constructor
//! leaves the framework's defaults in place for all but the position vectors, and the training code
//! that would tell was not released.

use smalti_nn::{Embedding, Init, Linear};

use super::classifier::{CodeClassifier, TextClassifier};
use super::code_embedding::CodeEmbedding;
use super::config::{CodeInput, Condition, InvalidGenerator, RqTransformerConfig, Sharing};
use super::model::RqTransformer;

/// Standard deviation of fresh weights.
const DEVIATION: f32 = 0.02;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::rq_transformer::testing::{build, tiny, tiny_uneven};
    use burn::module::Module;
    use burn::tensor::Device;

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
