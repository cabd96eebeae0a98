//! From a configuration to a model with fresh weights.
//!
//! As published: matrices and the table normal with deviation 0.02, biases and places zero, norms the
//! identity.

use smalti_nn::{Embedding, Init, LayerNorm, Linear};

use super::config::GptConfig;
use super::model::Gpt;
use crate::generators::config::InvalidGenerator;

/// Standard deviation of fresh weights.
const DEVIATION: f32 = 0.02;

impl GptConfig {
    /// The model of this configuration with fresh weights.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration.
    pub fn build(&self, init: &mut Init) -> Result<Gpt, InvalidGenerator> {
        self.build_with(DEVIATION, 0.0, init)
    }

    /// The same with other deviations, that of the places apart.
    pub(super) fn build_with(
        &self,
        deviation: f32,
        of_places: f32,
        init: &mut Init,
    ) -> Result<Gpt, InvalidGenerator> {
        self.validate()?;
        let (vocab, width) = (self.vocab_size, self.embed_dim);
        let places = [1, self.block_size, width];
        Ok(Gpt {
            tok_emb: Embedding::normal(vocab, width, deviation, init),
            pos_emb: match of_places {
                0.0 => init.constant(places, 0.0),
                of_places => init.normal(places, of_places),
            },
            blocks: self.transformer().blocks(deviation, init),
            ln_f: LayerNorm::new(width, init),
            head: Linear::unbiased(width, vocab, deviation, init),
            config: self.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::gpt::testing::{tiny, tiny_deep};
    use burn::module::Module;
    use burn::tensor::Device;

    #[test]
    fn the_count_of_parameters_is_the_models() {
        for config in [tiny(), tiny_deep()] {
            let model = config.build(&mut Init::new(&Device::flex(), 1)).unwrap();
            assert_eq!(model.num_params(), config.parameter_count());
        }
    }

    #[test]
    fn fresh_weights_are_the_published_ones() {
        let config = GptConfig {
            embed_dim: 64,
            vocab_size: 100,
            ..tiny()
        };
        let model = config.build(&mut Init::new(&Device::flex(), 1)).unwrap();
        let block = &model.blocks[1];
        for weight in [
            &model.tok_emb.weight,
            &model.head.weight,
            &block.attn.query.weight,
            &block.mlp.2.weight,
        ] {
            let got = weight.val().square().mean().sqrt().into_scalar::<f32>();
            assert!((got / DEVIATION - 1.0).abs() < 0.1, "{got}");
        }
        let places = model.pos_emb.val().abs().max().into_scalar::<f32>();
        assert!(places == 0.0 && model.head.bias.is_none());
    }
}
