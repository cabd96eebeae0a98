//! Self-attention in both directions, with matrices of its own for query, key and value.
//!
//! The causal attention's layers and names (`key`, `query`, `value`, `proj`) without its mask: what
//! VQ-Diffusion's published files hold. `[batch, length, width]` to the same shape.
//!
//! Without dropout of attention weights: none of the published models that have this layer uses it.

use burn::module::Module;
use burn::tensor::Tensor;

use super::heads::{merge_heads, split_heads};
use super::scaled::full_attention;
use crate::{Init, Linear};

/// Multi-head attention in which each position sees every other.
#[derive(Module, Debug)]
pub struct FullSelfAttention {
    /// Makes the keys, `[width, width]`.
    pub key: Linear,
    /// Makes the queries, `[width, width]`.
    pub query: Linear,
    /// Makes the values, `[width, width]`.
    pub value: Linear,
    /// Mixes the heads, `[width, width]`.
    pub proj: Linear,
    heads: usize,
}

impl FullSelfAttention {
    /// Weights normal with the given deviation, biases zero.
    ///
    /// # Panics
    /// When `heads` does not divide `width`.
    pub fn normal(width: usize, heads: usize, deviation: f32, init: &mut Init) -> Self {
        assert!(
            width.is_multiple_of(heads),
            "attention: width {width} is no multiple of {heads} heads"
        );
        let mut layer = || Linear::normal(width, width, deviation, init);
        Self {
            key: layer(),
            query: layer(),
            value: layer(),
            proj: layer(),
            heads,
        }
    }

    /// `[batch, length, width]` to the same shape.
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let [query, key, value] = [&self.query, &self.key, &self.value]
            .map(|layer| split_heads(layer.forward(input.clone()), self.heads));
        self.proj
            .forward(merge_heads(full_attention(query, key, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Noise, SelfAttention};
    use burn::module::{Param, ParamId};
    use burn::tensor::Device;

    #[test]
    fn it_is_the_packed_attention_with_its_matrix_cut_in_three() {
        let device = Device::flex();
        let mut init = Init::new(&device, 3);
        let layer = FullSelfAttention::normal(6, 3, 0.6, &mut init);
        let mut packed = SelfAttention::normal(6, 3, 0.6, &mut init);
        let stacked = [&layer.query, &layer.key, &layer.value].map(|part| part.weight.val());
        packed.in_proj_weight =
            Param::initialized(ParamId::new(), Tensor::cat(stacked.to_vec(), 0));
        packed.out_proj = layer.proj.clone();
        let input = Noise::from_seed(1).standard_normal([2, 5, 6], &device);
        let expected = packed.forward(input.clone());
        assert!(
            layer
                .forward(input)
                .all_close(expected, Some(1e-5), Some(1e-6))
        );
    }
}
