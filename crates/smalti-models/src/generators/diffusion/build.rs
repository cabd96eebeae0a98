//! From a configuration to a model with fresh weights.
//!
//! As published: linear maps and tables normal with deviation 0.02, biases zero, norms the identity,
//! convolutions as PyTorch makes them.

use smalti_nn::{Embedding, Init, LayerNorm, Linear};

use super::blocks::DiffusionBlock;
use super::config::DiffusionConfig;
use super::importance::TimeImportance;
use super::model::{Diffusion, TokenEmbedding};
use crate::generators::config::InvalidGenerator;

/// Standard deviation of fresh weights.
const DEVIATION: f32 = 0.02;

impl DiffusionConfig {
    /// The model of this configuration with fresh weights.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration.
    pub fn build(&self, init: &mut Init) -> Result<Diffusion, InvalidGenerator> {
        self.build_with(DEVIATION, init)
    }

    /// The same with another deviation.
    pub(super) fn build_with(
        &self,
        deviation: f32,
        init: &mut Init,
    ) -> Result<Diffusion, InvalidGenerator> {
        self.validate()?;
        let (width, layout) = (self.embed_dim, self.layout());
        let mut table = |rows: usize| Embedding::normal(rows, width, deviation, init);
        let content_emb = TokenEmbedding {
            emb: table(layout.table_rows()),
            height_emb: table(self.height),
            width_emb: table(self.width),
            depth_emb: (self.depth > 1).then(|| table(self.depth)),
        };
        let blocks = (0..self.layers).map(|_| DiffusionBlock::normal(self, deviation, init));
        let blocks = blocks.collect();
        let norm = LayerNorm::new(width, init);
        let linears = layout.codebook_sizes.iter();
        let linears = linears.map(|&size| Linear::normal(width, size, deviation, init));
        let linears = linears.collect();
        Ok(Diffusion {
            content_emb,
            blocks,
            to_logits: (norm, linears),
            importance: TimeImportance::new(self.process.steps, init),
            config: self.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::diffusion::testing::all_kinds;
    use burn::module::Module;
    use burn::tensor::Device;
    use smalti_nn::state::Weights;

    #[test]
    fn the_count_of_parameters_is_the_models() {
        for config in all_kinds() {
            let model = config.build(&mut Init::new(&Device::flex(), 1)).unwrap();
            // What was seen of each time step is not trained.
            let counted = model.num_params() - 2 * config.process.steps;
            assert_eq!(counted, config.parameter_count(), "{config:?}");
        }
    }

    #[test]
    fn names_are_those_of_the_published_files() {
        let config = &all_kinds()[1];
        let model = config.build(&mut Init::new(&Device::flex(), 1)).unwrap();
        let names = Weights::of(&model).0;
        for name in [
            "content_emb.emb.weight",
            "content_emb.height_emb.weight",
            "content_emb.width_emb.weight",
            "blocks.1.ln1.emb.weight",
            "blocks.1.ln1.linear.bias",
            "blocks.0.attn.query.weight",
            "blocks.0.ln2.emb.weight",
            "blocks.0.mlp.conv1.weight",
            "to_logits.0.weight",
        ] {
            assert!(
                names.contains_key(name),
                "{name} is none of {:?}",
                names.keys()
            );
        }
    }
}
