//! Causal self-attention with rotary positions, with query, key and value in one matrix.
//!
//! `[q k v] = x·W_qkvᵀ`, queries and keys turned by [`rotate`], heads mixed by `W_o`; no biases. Names
//! and layout of LlamaGen's files (`wqkv [3·width, width]`: queries, keys, values from the top; heads
//! are contiguous slices). `[batch, length, width]` to the same shape.
//!
//! Without dropout of attention weights: the published recipes do not use it.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::heads::{merge_heads, split_heads};
use super::{KeyValueCache, cached_attention, causal_attention};
use crate::rotary::{Rotations, rotate};
use crate::{Init, Linear};

/// Multi-head attention in which each position sees itself and those before.
#[derive(Module, Debug)]
pub struct RotaryAttention {
    /// Makes queries, keys and values, `[3·width, width]`.
    pub wqkv: Linear,
    /// Mixes the heads, `[width, width]`.
    pub wo: Linear,
    heads: usize,
}

impl RotaryAttention {
    /// Weights normal with the given deviation.
    ///
    /// # Panics
    /// When `heads` does not divide `width`.
    pub fn normal(width: usize, heads: usize, deviation: f32, init: &mut Init) -> Self {
        assert!(
            width.is_multiple_of(heads),
            "attention: width {width} is no multiple of {heads} heads"
        );
        Self {
            wqkv: Linear::unbiased(width, 3 * width, deviation, init),
            wo: Linear::unbiased(width, width, deviation, init),
            heads,
        }
    }

    /// A whole sequence, whose first position stands in the first row of `rotations`.
    pub fn forward(&self, input: Tensor<3>, rotations: &Rotations) -> Tensor<3> {
        let [query, key, value] = self.project(input, rotations, 0);
        self.wo
            .forward(merge_heads(causal_attention(query, key, value)))
    }

    /// The next positions of a sequence whose earlier keys and values are in `cache`, to which theirs
    /// are added.
    pub fn forward_cached(
        &self,
        input: Tensor<3>,
        rotations: &Rotations,
        cache: &mut KeyValueCache,
    ) -> Tensor<3> {
        let [query, key, value] = self.project(input, rotations, cache.len());
        cache.append(key, value);
        self.wo.forward(merge_heads(cached_attention(query, cache)))
    }

    /// An empty cache for sequences of up to `capacity` positions.
    pub fn cache(&self, batch: usize, capacity: usize, device: &Device) -> KeyValueCache {
        let [width, _] = self.wo.weight.lazy_shape().dims();
        KeyValueCache::new([batch, self.heads, capacity, width / self.heads], device)
    }

    /// Queries, keys and values `[batch, heads, length, width/heads]` of the rows from `start` on.
    fn project(&self, input: Tensor<3>, rotations: &Rotations, start: usize) -> [Tensor<4>; 3] {
        // Queries, keys and values are three runs of heads; the first two are turned together.
        let all = split_heads(self.wqkv.forward(input), 3 * self.heads);
        let turned = all.clone().narrow(1, 0, 2 * self.heads);
        let turned = rotate(turned, rotations, start);
        [
            turned.clone().narrow(1, 0, self.heads),
            turned.narrow(1, self.heads, self.heads),
            all.narrow(1, 2 * self.heads, self.heads),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Noise;
    use burn::tensor::{Bool, activation::softmax};

    /// Each head on its own, with slices of the packed matrix.
    fn head_by_head(layer: &RotaryAttention, input: Tensor<3>, rotations: &Rotations) -> Tensor<3> {
        let [_, length, width] = input.dims();
        let size = width / layer.heads;
        let device = input.device();
        let project = |part: usize, head: usize| {
            let weight = layer.wqkv.weight.val();
            let weight = weight.narrow(0, part * width + head * size, size);
            input.clone().matmul(weight.transpose().unsqueeze::<3>())
        };
        let turned =
            |x: Tensor<3>| rotate(x.unsqueeze_dim::<4>(1), rotations, 0).squeeze_dim::<3>(1);
        let mixed = (0..layer.heads).map(|head| {
            let [query, key] = [0, 1].map(|part| turned(project(part, head)));
            let scores = query.matmul(key.transpose()) / (size as f64).sqrt();
            let future = Tensor::<2, Bool>::tril_mask([length, length], 0, &device);
            let scores = scores.mask_fill(future.unsqueeze::<3>(), f32::NEG_INFINITY);
            softmax(scores, 2).matmul(project(2, head))
        });
        layer.wo.forward(Tensor::cat(mixed.collect(), 2))
    }

    #[test]
    fn heads_are_slices_and_steps_equal_the_whole() {
        let device = Device::flex();
        let layer = RotaryAttention::normal(8, 2, 0.6, &mut Init::new(&device, 3));
        let rotations = Rotations::grid(1, [2, 3], 4);
        let input = Noise::from_seed(1).standard_normal([2, 6, 8], &device);
        let expected = head_by_head(&layer, input.clone(), &rotations);
        let whole = layer.forward(input.clone(), &rotations);
        assert!(whole.clone().all_close(expected, Some(1e-5), Some(1e-6)));
        let mut cache = layer.cache(2, 6, &device);
        let steps = [(0, 2), (2, 1), (3, 1), (4, 2)].map(|(start, length)| {
            let part = input.clone().narrow(1, start, length);
            layer.forward_cached(part, &rotations, &mut cache)
        });
        let steps = Tensor::cat(steps.to_vec(), 1);
        assert!(whole.all_close(steps, Some(1e-5), Some(1e-6)));
    }
}
