//! From a configuration to a model with fresh weights.
//!
//! As published: matrices and tables normal with deviation 0.02, biases zero, norms the identity, the
//! matrices of the logits zero, so that the first loss is `ln codebook_size`.

use smalti_nn::{Embedding, Init, Linear, RmsNorm};

use super::config::{FarConfig, HeadConfig};
use super::model::Far;
use super::start::StartEmbedding;
use crate::generators::config::InvalidGenerator;

/// Standard deviation of fresh weights.
const DEVIATION: f32 = 0.02;

impl FarConfig {
    /// The model of this configuration with fresh weights.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration.
    pub fn build(&self, init: &mut Init) -> Result<Far, InvalidGenerator> {
        self.build_with(DEVIATION, 0.0, init)
    }

    /// The same with other deviations, that of the logits apart.
    pub(super) fn build_with(
        &self,
        deviation: f32,
        of_logits: f32,
        init: &mut Init,
    ) -> Result<Far, InvalidGenerator> {
        self.validate()?;
        let (width, sizes) = (self.embed_dim, self.codebook_sizes());
        let block = self.block();
        let mut tables = sizes.iter();
        let cls_embedding = StartEmbedding::new(&self.condition, width, deviation, init);
        let table = |size: &usize| Embedding::normal(*size, width, deviation, init);
        let tok_embeddings = tables.by_ref().map(table).collect();
        let aggregation_layer =
            (self.depth > 1).then(|| Linear::normal(self.depth * width, width, deviation, init));
        let layers = block.normal(self.layers, deviation, init);
        let ar_head = match self.head {
            HeadConfig::Autoregressive { layers } => block.normal(layers, deviation, init),
            HeadConfig::Linear {} | HeadConfig::Mlp {} => Vec::new(),
        };
        let mlp_head = match self.head {
            HeadConfig::Mlp {} => (0..self.depth)
                .map(|_| Linear::normal(width, width, deviation, init))
                .collect(),
            HeadConfig::Autoregressive { .. } | HeadConfig::Linear {} => Vec::new(),
        };
        let norm = RmsNorm::new(width, init);
        let logits = |&size: &usize| match of_logits {
            0.0 => Linear {
                weight: init.constant([size, width], 0.0),
                bias: None,
            },
            deviation => Linear::unbiased(width, size, deviation, init),
        };
        Ok(Far {
            output: sizes.iter().map(logits).collect(),
            cls_embedding,
            tok_embeddings,
            aggregation_layer,
            layers,
            ar_head,
            mlp_head,
            norm,
            config: self.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::far::FarCondition;
    use crate::generators::far::testing::all_kinds;
    use burn::module::Module;
    use burn::tensor::Device;

    #[test]
    fn the_count_of_parameters_is_the_models() {
        for config in all_kinds() {
            let model = config.build(&mut Init::new(&Device::flex(), 1)).unwrap();
            // The features of no text are not trained.
            let frozen = match config.condition {
                FarCondition::Caption {
                    tokens,
                    feature_dim,
                    ..
                } => tokens * feature_dim,
                _ => 0,
            };
            let counted = model.num_params() - frozen;
            assert_eq!(counted, config.parameter_count(), "{config:?}");
        }
    }

    #[test]
    fn fresh_weights_are_the_published_ones() {
        let mut config = all_kinds()[0].clone();
        config.embed_dim = 64;
        let model = config.build(&mut Init::new(&Device::flex(), 1)).unwrap();
        let deviation =
            |weight: burn::tensor::Tensor<2>| weight.square().mean().sqrt().into_scalar::<f32>();
        let block = &model.ar_head[0];
        for weight in [
            &model.layers[1].attention.wqkv.weight,
            &block.feed_forward.w2.weight,
            &model.tok_embeddings[2].weight,
            &model.aggregation_layer.as_ref().unwrap().weight,
        ] {
            let got = deviation(weight.val());
            assert!((got / DEVIATION - 1.0).abs() < 0.1, "{got}");
        }
        for output in &model.output {
            assert!(output.bias.is_none() && deviation(output.weight.val()) == 0.0);
        }
    }
}
