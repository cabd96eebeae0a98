//! Stacks of LLaMA's blocks: causal attention with rotary positions, gated perceptrons.
//!
//! `x ← x + drop(Attention(RMSNorm(x)))`, `x ← x + drop(FeedForward(RMSNorm(x)))`; no norm after the last
//! block, no biases. Touvron et al. 2023, arXiv 2302.13971, section 2.2. Sequences
//! `[batch, length, width]`. The names `attention`, `feed_forward`, `attention_norm`, `ffn_norm` are those
//! of published files; where the blocks of a stack are kept, the model says by its own field.
//!
//! State: none; a [`TransformerCache`] of the caller holds what earlier steps computed.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::attention::{KeyValueCache, RotaryAttention};
use crate::rotary::Rotations;
use crate::transformer::TransformerCache;
use crate::{Dropout, GatedFeedForward, Init, Noise, RmsNorm};

/// The shape of a [`RotaryBlock`].
#[derive(Clone, Copy, Debug)]
pub struct RotaryBlockConfig {
    /// Width of the sequence's vectors; a multiple of four times `heads`.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width inside the perceptron.
    pub hidden: usize,
    /// Probability of dropping an element of what the block adds to the sequence in training.
    pub dropout: f64,
}

impl RotaryBlockConfig {
    /// How many parameters a block has.
    pub const fn parameter_count(&self) -> usize {
        4 * self.width * self.width + 3 * self.width * self.hidden + 2 * self.width
    }

    /// So many blocks with weights normal with the given deviation, norms the identity.
    pub fn normal(self, layers: usize, deviation: f32, init: &mut Init) -> Vec<RotaryBlock> {
        let Self {
            width,
            heads,
            hidden,
            dropout,
        } = self;
        let block = |_| RotaryBlock {
            attention: RotaryAttention::normal(width, heads, deviation, init),
            feed_forward: GatedFeedForward::normal(width, hidden, deviation, init),
            attention_norm: RmsNorm::new(width, init),
            ffn_norm: RmsNorm::new(width, init),
            dropout,
        };
        (0..layers).map(block).collect()
    }
}

/// One block: attention, then perceptron.
#[derive(Module, Debug)]
pub struct RotaryBlock {
    /// Looks back along the sequence.
    pub attention: RotaryAttention,
    /// Works on each position alone.
    pub feed_forward: GatedFeedForward,
    /// Norm before the attention.
    pub attention_norm: RmsNorm,
    /// Norm before the perceptron.
    pub ffn_norm: RmsNorm,
    dropout: f64,
}

impl RotaryBlock {
    /// A whole sequence; dropout where there is noise.
    pub fn forward(
        &self,
        input: Tensor<3>,
        rotations: &Rotations,
        mut noise: Option<&mut Noise>,
    ) -> Tensor<3> {
        let dropout = Dropout {
            probability: self.dropout,
        };
        let normal = self.attention_norm.forward(input.clone());
        let attended = self.attention.forward(normal, rotations);
        let middle = input + dropout.forward(attended, noise.as_deref_mut());
        let worked = self
            .feed_forward
            .forward(self.ffn_norm.forward(middle.clone()));
        middle + dropout.forward(worked, noise)
    }

    /// The next positions of a sequence whose earlier ones are in `cache`.
    pub fn forward_cached(
        &self,
        input: Tensor<3>,
        rotations: &Rotations,
        cache: &mut KeyValueCache,
    ) -> Tensor<3> {
        let normal = self.attention_norm.forward(input.clone());
        let middle = input + self.attention.forward_cached(normal, rotations, cache);
        let normal = self.ffn_norm.forward(middle.clone());
        middle + self.feed_forward.forward(normal)
    }
}

/// A whole sequence `[batch, length, width]` through the blocks; dropout where there is noise.
pub fn through(
    blocks: &[RotaryBlock],
    input: Tensor<3>,
    rotations: &Rotations,
    mut noise: Option<&mut Noise>,
) -> Tensor<3> {
    blocks.iter().fold(input, |x, block| {
        block.forward(x, rotations, noise.as_deref_mut())
    })
}

/// The next positions `[batch, length, width]` of a sequence whose earlier ones are in `cache`.
pub fn through_cached(
    blocks: &[RotaryBlock],
    input: Tensor<3>,
    rotations: &Rotations,
    cache: &mut TransformerCache,
) -> Tensor<3> {
    let layers = blocks.iter().zip(cache.layers_mut());
    layers.fold(input, |x, (block, cache)| {
        block.forward_cached(x, rotations, cache)
    })
}

/// An empty cache of the blocks for sequences of up to `capacity` positions.
pub fn cache(
    blocks: &[RotaryBlock],
    batch: usize,
    capacity: usize,
    device: &Device,
) -> TransformerCache {
    let layers = blocks
        .iter()
        .map(|block| block.attention.cache(batch, capacity, device));
    TransformerCache::new(layers.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: RotaryBlockConfig = RotaryBlockConfig {
        width: 8,
        heads: 2,
        hidden: 12,
        dropout: 0.25,
    };

    fn setup() -> (Vec<RotaryBlock>, Rotations, Tensor<3>) {
        let device = Device::flex();
        let blocks = CONFIG.normal(3, 0.5, &mut Init::new(&device, 2));
        let input = Noise::from_seed(3).standard_normal([2, 5, 8], &device);
        (blocks, Rotations::grid(1, [2, 2], 4), input)
    }

    #[test]
    fn counts_its_parameters() {
        let (blocks, ..) = setup();
        let counted: usize = blocks.iter().map(Module::num_params).sum();
        assert_eq!(counted, 3 * CONFIG.parameter_count());
    }

    #[test]
    fn steps_with_a_cache_equal_the_whole_sequence() {
        let (blocks, rotations, input) = setup();
        let whole = through(&blocks, input.clone(), &rotations, None);
        let mut cache = cache(&blocks, 2, 5, &Device::flex());
        for _ in 0..2 {
            cache.clear();
            let steps = [(0, 2), (2, 1), (3, 2)].map(|(start, length)| {
                let part = input.clone().narrow(1, start, length);
                through_cached(&blocks, part, &rotations, &mut cache)
            });
            let steps = Tensor::cat(steps.to_vec(), 1);
            assert!(whole.clone().all_close(steps, Some(1e-4), Some(1e-5)));
        }
        assert_eq!(cache.len(), 5);
    }

    #[test]
    fn dropout_acts_only_with_noise_and_nothing_looks_ahead() {
        let (blocks, rotations, input) = setup();
        let run = |x: &Tensor<3>, noise: Option<&mut Noise>| {
            through(&blocks, x.clone(), &rotations, noise)
        };
        let noisy = |seed| run(&input, Some(&mut Noise::from_seed(seed)));
        assert!(noisy(1).all_close(noisy(1), None, None));
        assert!(!noisy(1).all_close(run(&input, None), None, None));
        let tail = Noise::from_seed(6).standard_normal([2, 2, 8], &Device::flex());
        let changed = Tensor::cat(vec![input.clone().narrow(1, 0, 3), tail], 1);
        let [a, b] = [input.clone(), changed].map(|x| run(&x, None).narrow(1, 0, 3));
        assert!(a.all_close(b, Some(0.0), Some(1e-6)));
    }
}
