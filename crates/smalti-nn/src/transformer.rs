//! Stacks of pre-norm transformer blocks with causal attention.
//!
//! `x ← x + drop(Attention(LN₁(x)))`, `x ← x + drop(MLP(LN₂(x)))`; no norm after the last block.
//! Sequences `[batch, length, width]`. The names `blocks.{i}.ln1/ln2/attn/mlp` are those of published
//! files. A [`Transformer`] is a stack; a model that keeps the blocks in a field of its own sends
//! sequences [`through`] them.
//!
//! State: none; a [`TransformerCache`] of the caller holds what earlier steps computed.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::attention::{AttentionConfig, CausalSelfAttention, KeyValueCache};
use crate::gelu::Gelu;
use crate::mlp::{Mlp, mlp, new_mlp};
use crate::{Dropout, Init, LayerNorm, Noise};

/// The shape of a [`Transformer`].
#[derive(Clone, Copy, Debug)]
pub struct TransformerConfig {
    /// Width of the sequence's vectors; a multiple of `heads`.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads of a block.
    pub heads: usize,
    /// Probability of dropping an attention weight in training.
    pub attention_dropout: f64,
    /// Probability of dropping an element of what a block adds to the sequence in training.
    pub residual_dropout: f64,
    /// The perceptron's activation.
    pub gelu: Gelu,
}

impl TransformerConfig {
    /// Weights normal with the given deviation, biases zero, norms the identity.
    pub fn normal(self, deviation: f32, init: &mut Init) -> Transformer {
        Transformer {
            blocks: self.blocks(deviation, init),
        }
    }

    /// The blocks of [`normal`](Self::normal).
    pub fn blocks(self, deviation: f32, init: &mut Init) -> Vec<TransformerBlock> {
        (0..self.layers)
            .map(|_| TransformerBlock::normal(self, deviation, init))
            .collect()
    }

    /// How many parameters the stack has.
    pub const fn parameter_count(&self) -> usize {
        let width = self.width;
        let attention = 4 * (width * width + width);
        let perceptron = 8 * width * width + 5 * width;
        self.layers * (attention + perceptron + 4 * width)
    }
}

/// One block: attention, then perceptron.
#[derive(Module, Debug)]
pub struct TransformerBlock {
    /// Norm before the attention.
    pub ln1: LayerNorm,
    /// Norm before the perceptron.
    pub ln2: LayerNorm,
    /// Looks back along the sequence.
    pub attn: CausalSelfAttention,
    /// Works on each position alone.
    pub mlp: Mlp,
    residual_dropout: f64,
}

impl TransformerBlock {
    fn normal(config: TransformerConfig, deviation: f32, init: &mut Init) -> Self {
        let TransformerConfig {
            width,
            heads,
            attention_dropout: dropout,
            ..
        } = config;
        let attention = AttentionConfig {
            width,
            heads,
            dropout,
        };
        Self {
            ln1: LayerNorm::new(width, init),
            ln2: LayerNorm::new(width, init),
            attn: CausalSelfAttention::normal(attention, deviation, init),
            mlp: new_mlp(width, config.gelu, deviation, init),
            residual_dropout: config.residual_dropout,
        }
    }

    /// A whole sequence; dropout where there is noise.
    pub fn forward(&self, input: Tensor<3>, mut noise: Option<&mut Noise>) -> Tensor<3> {
        let dropout = Dropout {
            probability: self.residual_dropout,
        };
        let attended = self
            .attn
            .forward(self.ln1.forward(input.clone()), noise.as_deref_mut());
        let middle = input + dropout.forward(attended, noise.as_deref_mut());
        let worked = mlp(&self.mlp, self.ln2.forward(middle.clone()));
        middle + dropout.forward(worked, noise)
    }

    /// The next positions of a sequence whose earlier ones are in `cache`.
    pub fn forward_cached(&self, input: Tensor<3>, cache: &mut KeyValueCache) -> Tensor<3> {
        let attended = self
            .attn
            .forward_cached(self.ln1.forward(input.clone()), cache);
        let middle = input + attended;
        let worked = mlp(&self.mlp, self.ln2.forward(middle.clone()));
        middle + worked
    }
}

/// A stack of blocks.
#[derive(Module, Debug)]
pub struct Transformer {
    /// In the order in which a sequence passes them.
    pub blocks: Vec<TransformerBlock>,
}

impl Transformer {
    /// [`through`] its blocks.
    pub fn forward(&self, input: Tensor<3>, noise: Option<&mut Noise>) -> Tensor<3> {
        through(&self.blocks, input, noise)
    }

    /// [`through_cached`] its blocks.
    pub fn forward_cached(&self, input: Tensor<3>, cache: &mut TransformerCache) -> Tensor<3> {
        through_cached(&self.blocks, input, cache)
    }

    /// An empty [`cache`] of its blocks.
    pub fn cache(&self, batch: usize, capacity: usize, device: &Device) -> TransformerCache {
        cache(&self.blocks, batch, capacity, device)
    }
}

/// A whole sequence `[batch, length, width]` through the blocks; dropout where there is noise.
pub fn through(
    blocks: &[TransformerBlock],
    input: Tensor<3>,
    mut noise: Option<&mut Noise>,
) -> Tensor<3> {
    blocks
        .iter()
        .fold(input, |x, block| block.forward(x, noise.as_deref_mut()))
}

/// The next positions `[batch, length, width]` of a sequence whose earlier ones are in `cache`.
pub fn through_cached(
    blocks: &[TransformerBlock],
    input: Tensor<3>,
    cache: &mut TransformerCache,
) -> Tensor<3> {
    let layers = blocks.iter().zip(&mut cache.layers);
    layers.fold(input, |x, (block, cache)| block.forward_cached(x, cache))
}

/// An empty cache of the blocks for sequences of up to `capacity` positions.
pub fn cache(
    blocks: &[TransformerBlock],
    batch: usize,
    capacity: usize,
    device: &Device,
) -> TransformerCache {
    let layers = blocks
        .iter()
        .map(|block| block.attn.cache(batch, capacity, device));
    TransformerCache::new(layers.collect())
}

/// The keys and values that the blocks of a stack have seen.
#[derive(Clone, Debug)]
pub struct TransformerCache {
    layers: Vec<KeyValueCache>,
}

impl TransformerCache {
    /// Of the caches of a stack's layers.
    pub(crate) fn new(layers: Vec<KeyValueCache>) -> Self {
        Self { layers }
    }

    /// The caches of the layers.
    pub(crate) fn layers_mut(&mut self) -> &mut [KeyValueCache] {
        &mut self.layers
    }

    /// Forgets all positions and keeps the memory.
    pub fn clear(&mut self) {
        self.layers.iter_mut().for_each(KeyValueCache::clear);
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, KeyValueCache::len)
    }

    /// Whether no position is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: TransformerConfig = TransformerConfig {
        width: 8,
        layers: 3,
        heads: 2,
        attention_dropout: 0.0,
        residual_dropout: 0.25,
        gelu: Gelu::Exact,
    };

    #[test]
    fn counts_its_parameters() {
        let model = CONFIG.normal(0.02, &mut Init::new(&Device::flex(), 1));
        assert_eq!(model.num_params(), CONFIG.parameter_count());
    }

    #[test]
    fn steps_with_a_cache_equal_the_whole_sequence() {
        let device = Device::flex();
        let model = CONFIG.normal(0.5, &mut Init::new(&device, 2));
        let input = Noise::from_seed(3).standard_normal([2, 5, 8], &device);
        let whole = model.forward(input.clone(), None);
        let mut cache = model.cache(2, 5, &device);
        let steps = [(0, 2), (2, 1), (3, 2)].map(|(start, length)| {
            model.forward_cached(input.clone().narrow(1, start, length), &mut cache)
        });
        assert_eq!(cache.len(), 5);
        assert!(whole.all_close(Tensor::cat(steps.to_vec(), 1), Some(1e-4), Some(1e-5)));
        cache.clear();
        assert!(cache.is_empty());
    }

    #[test]
    fn later_positions_change_nothing_before_them() {
        let device = Device::flex();
        let model = CONFIG.normal(0.5, &mut Init::new(&device, 4));
        let input = Noise::from_seed(5).standard_normal([1, 6, 8], &device);
        let tail = Noise::from_seed(6).standard_normal([1, 2, 8], &device);
        let changed = Tensor::cat(vec![input.clone().narrow(1, 0, 4), tail], 1);
        let [a, b] = [input, changed].map(|x| model.forward(x, None).narrow(1, 0, 4));
        assert!(a.all_close(b, Some(0.0), Some(1e-6)));
    }
}
