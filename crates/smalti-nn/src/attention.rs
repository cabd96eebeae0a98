//! Self-attention with several heads: causal, over a whole sequence or step by step with a cache,
//! and in both directions ([`SelfAttention`]).
//!
//! `head_i = softmax(q_i·k_iᵀ / √c + mask)·v_i`, `c` the width of a head, `mask` −∞ where a key comes
//! after the query of a causal attention; `y = W_o·[head_1 … head_h] + b_o`; Vaswani et al. 2017, arXiv 1706.03762, section
//! 3.2. Key, query and value of the causal one have matrices of their own (`key`, `query`, `value`,
//! `proj` in published files), and so in [`FullSelfAttention`]; the others pack them into one:
//! [`SelfAttention`], and the causal [`RotaryAttention`], whose positions turn queries and keys. Sequences `[batch, length, width]`, heads `[batch, heads, length, width/heads]`.
//!
//! State: none. The keys and values of earlier steps live in a [`KeyValueCache`] that belongs to the
//! caller: allocated once for the longest sequence, written in place. With them it keeps the three matrices
//! of a causal layer as one.

mod full;
mod heads;
mod packed;
mod rotary;
mod scaled;

use burn::module::Module;
use burn::tensor::{Device, Tensor, s};

pub use full::FullSelfAttention;
pub use packed::SelfAttention;
pub use rotary::RotaryAttention;
pub use scaled::{cached_attention, causal_attention, full_attention};

use crate::{Dropout, Init, Linear, Noise, linear};
use heads::{merge_heads, split_heads};
use scaled::{Sees, attention_weights};

/// The shape of a [`CausalSelfAttention`].
#[derive(Clone, Copy, Debug)]
pub struct AttentionConfig {
    /// Width of the sequence's vectors; a multiple of `heads`.
    pub width: usize,
    /// Number of heads.
    pub heads: usize,
    /// Probability of dropping an attention weight in training.
    pub dropout: f64,
}

/// Multi-head attention in which each position sees itself and those before.
#[derive(Module, Debug)]
pub struct CausalSelfAttention {
    /// Makes the keys, `[width, width]`.
    pub key: Linear,
    /// Makes the queries, `[width, width]`.
    pub query: Linear,
    /// Makes the values, `[width, width]`.
    pub value: Linear,
    /// Mixes the heads, `[width, width]`.
    pub proj: Linear,
    heads: usize,
    dropout: f64,
}

impl CausalSelfAttention {
    /// Weights normal with the given deviation, biases zero.
    pub fn normal(config: AttentionConfig, deviation: f32, init: &mut Init) -> Self {
        let AttentionConfig {
            width,
            heads,
            dropout,
        } = config;
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
            dropout,
        }
    }

    /// A whole sequence `[batch, length, width]`; dropout where there is noise.
    pub fn forward(&self, input: Tensor<3>, noise: Option<&mut Noise>) -> Tensor<3> {
        let [query, key, value] = self.project(input);
        let mixed = match noise {
            Some(noise) if self.dropout > 0.0 => {
                let dropout = Dropout {
                    probability: self.dropout,
                };
                let weights = attention_weights(Sees::Past, query, key);
                dropout.forward(weights, Some(noise)).matmul(value)
            }
            _ => causal_attention(query, key, value),
        };
        self.merge(mixed)
    }

    /// The next positions `[batch, length, width]` of a sequence whose earlier keys and values are in
    /// `cache`, to which theirs are added. The cache is one that this layer made, with the weights
    /// that it has now.
    ///
    /// # Panics
    /// When the cache is of another kind of layer or has no room.
    pub fn forward_cached(&self, input: Tensor<3>, cache: &mut KeyValueCache) -> Tensor<3> {
        let packed = cache.packed.as_ref().expect("a cache made by this layer");
        let [query, key, value] = packed.project(input, self.heads);
        cache.append(key, value);
        self.merge(cached_attention(query, cache))
    }

    /// An empty cache for sequences of up to `capacity` positions.
    pub fn cache(&self, batch: usize, capacity: usize, device: &Device) -> KeyValueCache {
        let [width, _] = self.key.weight.lazy_shape().dims();
        let cache = KeyValueCache::new([batch, self.heads, capacity, width / self.heads], device);
        KeyValueCache {
            packed: Some(Packed::of([&self.query, &self.key, &self.value])),
            ..cache
        }
    }

    /// Queries, keys and values `[batch, heads, length, width/heads]`.
    fn project(&self, input: Tensor<3>) -> [Tensor<4>; 3] {
        [&self.query, &self.key, &self.value]
            .map(|layer| split_heads(layer.forward(input.clone()), self.heads))
    }

    fn merge(&self, heads: Tensor<4>) -> Tensor<3> {
        self.proj.forward(merge_heads(heads))
    }
}

/// The matrices of query, key and value below one another. A step of one position is bound by reading
/// them: in one product they are read in one go, where training shares three products as well.
#[derive(Clone, Debug)]
struct Packed {
    /// `[3·width, width]`
    weight: Tensor<2>,
    /// `[3·width]`
    bias: Option<Tensor<1>>,
}

impl Packed {
    fn of(layers: [&Linear; 3]) -> Self {
        let weights = layers.map(|layer| layer.weight.val());
        let biases = layers.map(|layer| layer.bias.as_ref().map(|bias| bias.val()));
        let biases: Option<Vec<_>> = biases.into_iter().collect();
        Self {
            weight: Tensor::cat(weights.into(), 0),
            bias: biases.map(|biases| Tensor::cat(biases, 0)),
        }
    }

    /// Query, key and value `[batch, heads, length, width/heads]`.
    fn project(&self, input: Tensor<3>, heads: usize) -> [Tensor<4>; 3] {
        let packed = linear(input, self.weight.clone(), self.bias.clone());
        // Three runs of heads.
        let all = split_heads(packed, 3 * heads);
        [0, 1, 2].map(|part| all.clone().narrow(1, part * heads, heads))
    }
}

/// The keys and values of the positions seen so far, for one attention layer.
#[derive(Clone, Debug)]
pub struct KeyValueCache {
    keys: Tensor<4>,
    values: Tensor<4>,
    length: usize,
    /// The layer's own, where it keeps three matrices.
    packed: Option<Packed>,
}

impl KeyValueCache {
    /// An empty cache of shape `[batch, heads, capacity, head width]`.
    pub fn new(shape: [usize; 4], device: &Device) -> Self {
        Self {
            keys: Tensor::zeros(shape, device),
            values: Tensor::zeros(shape, device),
            length: 0,
            packed: None,
        }
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether no position is held.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Positions that fit.
    pub fn capacity(&self) -> usize {
        self.keys.dims()[2]
    }

    /// Forgets all positions and keeps the memory.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// Adds keys and values `[batch, heads, length, head width]` of the next positions.
    pub fn append(&mut self, keys: Tensor<4>, values: Tensor<4>) {
        let [_, _, added, _] = keys.dims();
        let end = self.length + added;
        assert!(
            end <= self.capacity(),
            "key/value cache: {end} positions, room for {}",
            self.capacity()
        );
        let place = s![.., .., self.length..end, ..];
        // `inplace` hands the only reference over, so the buffer is written where it lies.
        self.keys.inplace(|all| all.slice_assign(place, keys));
        self.values.inplace(|all| all.slice_assign(place, values));
        self.length = end;
    }

    /// `[batch, heads, len, head width]`, a view.
    pub fn keys(&self) -> Tensor<4> {
        self.keys.clone().narrow(2, 0, self.length)
    }

    /// `[batch, heads, len, head width]`, a view.
    pub fn values(&self) -> Tensor<4> {
        self.values.clone().narrow(2, 0, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
        Noise::from_seed(seed).standard_normal(shape, &Device::flex())
    }

    #[test]
    fn agrees_with_loops_in_f64_and_never_looks_ahead() {
        let (queries, keys, width) = (3, 5, 4);
        let [q, k, v] = [(queries, 1), (keys, 2), (keys, 3)]
            .map(|(length, seed)| random([1, 1, length, width], seed));
        let got = causal_attention(q.clone(), k.clone(), v.clone())
            .try_into_vec_as::<f32>()
            .unwrap();
        let [q, k, v] = [q, k, v].map(|t| t.try_into_vec_as::<f32>().unwrap());
        for i in 0..queries {
            let seen = keys - queries + i + 1;
            let dot = |j: usize| -> f64 {
                (0..width)
                    .map(|c| f64::from(q[i * width + c]) * f64::from(k[j * width + c]))
                    .sum()
            };
            let weights: Vec<f64> = (0..seen).map(|j| (dot(j) / 2.0).exp()).collect();
            let total: f64 = weights.iter().sum();
            for c in 0..width {
                let want: f64 = (0..seen)
                    .map(|j| weights[j] / total * f64::from(v[j * width + c]))
                    .sum();
                assert!((f64::from(got[i * width + c]) - want).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn steps_with_a_cache_equal_the_whole_sequence() {
        let device = Device::flex();
        let config = AttentionConfig {
            width: 6,
            heads: 3,
            dropout: 0.0,
        };
        let layer = CausalSelfAttention::normal(config, 0.5, &mut Init::new(&device, 4));
        let input = random([2, 7, 6], 5);
        let whole = layer.forward(input.clone(), None);
        let mut cache = layer.cache(2, 7, &device);
        for _ in 0..2 {
            cache.clear();
            let steps = [(0, 3), (3, 1), (4, 1), (5, 2)].map(|(start, length)| {
                layer.forward_cached(input.clone().narrow(1, start, length), &mut cache)
            });
            assert_eq!(
                (cache.len(), cache.is_empty(), cache.capacity()),
                (7, false, 7)
            );
            assert!(whole.clone().all_close(
                Tensor::cat(steps.to_vec(), 1),
                Some(1e-5),
                Some(1e-6)
            ));
        }
    }

    #[test]
    #[should_panic(expected = "room for 2")]
    fn a_full_cache_takes_no_more() {
        let mut cache = KeyValueCache::new([1, 1, 2, 4], &Device::flex());
        cache.append(random([1, 1, 3, 4], 1), random([1, 1, 3, 4], 2));
    }

    #[test]
    fn dropout_acts_only_with_noise() {
        let config = AttentionConfig {
            width: 4,
            heads: 2,
            dropout: 0.5,
        };
        let layer = CausalSelfAttention::normal(config, 0.5, &mut Init::new(&Device::flex(), 6));
        let input = random([1, 8, 4], 7);
        let still = layer.forward(input.clone(), None);
        let noisy = |seed| layer.forward(input.clone(), Some(&mut Noise::from_seed(seed)));
        assert!(noisy(1).all_close(noisy(1), None, None));
        assert!(!noisy(1).all_close(noisy(2), None, None));
        assert!(!noisy(1).all_close(still, None, None));
    }
}
