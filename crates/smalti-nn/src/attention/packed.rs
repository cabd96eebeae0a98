//! Self-attention in both directions, with query, key and value in one matrix.
//!
//! `[q k v] = x·W_inᵀ + b_in`, heads mixed by `W_out`; names and layout of PyTorch's
//! `MultiheadAttention` (`in_proj_weight [3·width, width]`: queries, keys, values from the top).
//! `[batch, length, width]` to the same shape.
//!
//! Without dropout of attention weights: none of the published models that have this layer uses it.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::heads::{merge_heads, split_heads};
use super::scaled::full_attention;
use crate::{Init, Linear, linear};

/// Multi-head attention in which each position sees every other.
#[derive(Module, Debug)]
pub struct SelfAttention {
    /// Makes queries, keys and values, `[3·width, width]`.
    pub in_proj_weight: Param<Tensor<2>>,
    /// `[3·width]`
    pub in_proj_bias: Param<Tensor<1>>,
    /// Mixes the heads, `[width, width]`.
    pub out_proj: Linear,
    heads: usize,
}

impl SelfAttention {
    /// Weights normal with the given deviation, biases zero.
    ///
    /// # Panics
    /// When `heads` does not divide `width`.
    pub fn normal(width: usize, heads: usize, deviation: f32, init: &mut Init) -> Self {
        assert!(
            width.is_multiple_of(heads),
            "attention: width {width} is no multiple of {heads} heads"
        );
        Self {
            in_proj_weight: init.normal([3 * width, width], deviation),
            in_proj_bias: init.constant([3 * width], 0.0),
            out_proj: Linear::normal(width, width, deviation, init),
            heads,
        }
    }

    /// `[batch, length, width]` to the same shape.
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let bias = Some(self.in_proj_bias.val());
        let packed = linear(input, self.in_proj_weight.val(), bias);
        // Queries, keys and values are three runs of heads.
        let all = split_heads(packed, 3 * self.heads);
        let [query, key, value] =
            [0, 1, 2].map(|part| all.clone().narrow(1, part * self.heads, self.heads));
        self.out_proj
            .forward(merge_heads(full_attention(query, key, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Noise;
    use burn::tensor::{Device, activation::softmax};

    /// Each head on its own, with slices of the packed matrix.
    fn head_by_head(layer: &SelfAttention, input: Tensor<3>, heads: usize) -> Tensor<3> {
        let [_, _, width] = input.dims();
        let size = width / heads;
        let project = |part: usize, head: usize| {
            let start = part * width + head * size;
            let weight = layer.in_proj_weight.val().narrow(0, start, size);
            let bias = layer.in_proj_bias.val().narrow(0, start, size);
            input.clone().matmul(weight.transpose().unsqueeze::<3>()) + bias.unsqueeze::<3>()
        };
        let mixed = (0..heads).map(|head| {
            let [query, key, value] = [0, 1, 2].map(|part| project(part, head));
            let scores = query.matmul(key.transpose()) / (size as f64).sqrt();
            softmax(scores, 2).matmul(value)
        });
        layer.out_proj.forward(Tensor::cat(mixed.collect(), 2))
    }

    #[test]
    fn heads_are_slices_of_the_packed_matrix() {
        let device = Device::flex();
        let mut init = Init::new(&device, 3);
        let mut layer = SelfAttention::normal(6, 3, 0.6, &mut init);
        layer.in_proj_bias = init.normal([18], 0.5);
        let input = Noise::from_seed(1).standard_normal([2, 5, 6], &device);
        let expected = head_by_head(&layer, input.clone(), 3);
        assert!(
            layer
                .forward(input)
                .all_close(expected, Some(1e-5), Some(1e-6))
        );
    }

    #[test]
    fn every_position_sees_every_other() {
        let device = Device::flex();
        let layer = SelfAttention::normal(4, 2, 0.8, &mut Init::new(&device, 5));
        let input = Noise::from_seed(2).standard_normal([1, 4, 4], &device);
        let turned = input.clone().flip([1]);
        let back = layer.forward(turned).flip([1]);
        assert!(layer.forward(input).all_close(back, Some(1e-5), Some(1e-6)));
    }
}
