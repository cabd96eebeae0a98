//! From a configuration to a model with fresh weights.
//!
//! Linear maps, table and places normal with deviation 0.02, biases zero, norms the identity.

use burn::module::Param;
use burn::tensor::Tensor;
use smalti_nn::mlp::new_mlp;
use smalti_nn::{Embedding, Gelu, Init, LayerNorm, Linear, SelfAttention};

use super::config::MaskedConfig;
use super::model::{FirstLayer, LastLayer, Masked, MaskedBlock};
use crate::generators::config::InvalidGenerator;

/// Standard deviation of fresh weights.
const DEVIATION: f32 = 0.02;

impl MaskedConfig {
    /// The model of this configuration with fresh weights.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration.
    pub fn build(&self, init: &mut Init) -> Result<Masked, InvalidGenerator> {
        self.build_with(DEVIATION, init)
    }

    /// The same with another deviation.
    pub(super) fn build_with(
        &self,
        deviation: f32,
        init: &mut Init,
    ) -> Result<Masked, InvalidGenerator> {
        self.validate()?;
        let (width, layout) = (self.embed_dim, self.layout());
        let rows = layout.table_rows() + self.condition.rows().unwrap_or(0);
        let square = |init: &mut Init| Linear::normal(width, width, deviation, init);
        let tok_emb = Embedding::normal(rows, width, deviation, init);
        let pos_emb = init.normal([self.tokens(), width], deviation);
        let first_layer = FirstLayer {
            norm1: LayerNorm::new(width, init),
            linear1: square(init),
            norm2: LayerNorm::new(width, init),
            linear2: square(init),
        };
        let block = |_| MaskedBlock {
            ln1: LayerNorm::new(width, init),
            attn: SelfAttention::normal(width, self.heads, deviation, init),
            ln2: LayerNorm::new(width, init),
            mlp: new_mlp(width, Gelu::Exact, deviation, init),
        };
        let blocks = (0..self.layers).map(block).collect();
        let last_layer = LastLayer {
            norm1: LayerNorm::new(width, init),
            linear: square(init),
            norm2: LayerNorm::new(width, init),
        };
        let bias =
            |&size: &usize| -> Param<Tensor<2>> { init.constant([layout.positions(), size], 0.0) };
        Ok(Masked {
            bias: layout.codebook_sizes.iter().map(bias).collect(),
            tok_emb,
            pos_emb,
            first_layer,
            blocks,
            last_layer,
            config: self.clone(),
        })
    }
}
