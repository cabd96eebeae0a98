//! One transformer block, and a stack of them: those of BSQ-ViT, of FQGAN's feature adapters and of its
//! prediction heads.
//!
//! `x ← x + Attention(LN₁(x))`, `x ← x + drop(W₂·gelu(W₁·LN₂(x)))`, exact GELU, ε = 1e-5, every
//! position sees every other. Sequences `[batch, length, width]`; field names are the published ones
//! (those of CLIP's vision transformer).

use burn::module::Module;
use burn::tensor::Tensor;
use smalti_nn::{Dropout, Init, LayerNorm, Linear, Noise, SelfAttention, gelu};

/// The shape of a [`Stack`].
#[derive(Clone, Copy, Debug)]
pub(super) struct StackConfig {
    /// Number of blocks.
    pub(super) layers: usize,
    /// Width of the sequence's vectors; a multiple of `heads`.
    pub(super) width: usize,
    /// Attention heads of a block.
    pub(super) heads: usize,
    /// Hidden width of a block's perceptron.
    pub(super) hidden: usize,
    /// Probability of dropping an element of what a perceptron adds, in training.
    pub(super) dropout: f64,
    /// What weights begin as.
    pub(super) start: Start,
}

/// What weights begin as.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start {
    /// Normal with this deviation, biases zero.
    Normal(f32),
    /// PyTorch's own for layers of these kinds: uniform within ±1/√in; the packed matrix of attention
    /// with the variance `1/(2·width)` of Xavier's, its biases and that of its output zero.
    FanIn,
}

/// Blocks in the order in which a sequence passes them.
#[derive(Module, Debug)]
pub(super) struct Stack {
    resblocks: Vec<Block>,
}

#[derive(Module, Debug)]
struct Block {
    ln_1: LayerNorm,
    attn: SelfAttention,
    ln_2: LayerNorm,
    mlp: Perceptron,
    dropout: f64,
}

#[derive(Module, Debug)]
struct Perceptron {
    c_fc: Linear,
    c_proj: Linear,
}

impl Stack {
    pub(super) fn new(config: StackConfig, init: &mut Init) -> Self {
        let resblocks = (0..config.layers).map(|_| Block::new(config, init));
        Self {
            resblocks: resblocks.collect(),
        }
    }

    /// The shape stays; dropout where there is noise.
    pub(super) fn forward(&self, input: Tensor<3>, mut noise: Option<&mut Noise>) -> Tensor<3> {
        self.resblocks
            .iter()
            .fold(input, |x, block| block.forward(x, noise.as_deref_mut()))
    }
}

impl Block {
    fn new(config: StackConfig, init: &mut Init) -> Self {
        let StackConfig {
            width,
            heads,
            hidden,
            start,
            ..
        } = config;
        Self {
            ln_1: LayerNorm::new(width, init),
            attn: attention(width, heads, start, init),
            ln_2: LayerNorm::new(width, init),
            mlp: Perceptron {
                c_fc: linear(width, hidden, start, init),
                c_proj: linear(hidden, width, start, init),
            },
            dropout: config.dropout,
        }
    }

    fn forward(&self, input: Tensor<3>, noise: Option<&mut Noise>) -> Tensor<3> {
        let dropout = Dropout {
            probability: self.dropout,
        };
        let middle = input.clone() + self.attn.forward(self.ln_1.forward(input));
        let hidden = gelu(self.mlp.c_fc.forward(self.ln_2.forward(middle.clone())));
        middle + dropout.forward(self.mlp.c_proj.forward(hidden), noise)
    }
}

fn attention(width: usize, heads: usize, start: Start, init: &mut Init) -> SelfAttention {
    match start {
        Start::Normal(deviation) => SelfAttention::normal(width, heads, deviation, init),
        Start::FanIn => {
            let deviation = (0.5 / width as f32).sqrt();
            let mut attention = SelfAttention::normal(width, heads, deviation, init);
            attention.out_proj.weight = init.fan_in([width, width], width);
            attention
        }
    }
}

fn linear(inputs: usize, outputs: usize, start: Start, init: &mut Init) -> Linear {
    match start {
        Start::Normal(deviation) => Linear::normal(inputs, outputs, deviation, init),
        Start::FanIn => Linear::fan_in(inputs, outputs, init),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn dropout_acts_only_with_noise() {
        let config = StackConfig {
            layers: 1,
            width: 8,
            heads: 2,
            hidden: 16,
            dropout: 0.5,
            start: Start::FanIn,
        };
        let device = Device::flex();
        let stack = Stack::new(config, &mut Init::new(&device, 1));
        let input = Noise::from_seed(1).standard_normal([1, 6, 8], &device);
        let still = stack.forward(input.clone(), None);
        let noisy = |seed| stack.forward(input.clone(), Some(&mut Noise::from_seed(seed)));
        assert!(noisy(1).all_close(noisy(1), Some(0.0), Some(0.0)));
        assert!(!noisy(1).all_close(noisy(2), None, None));
        assert!(!noisy(1).all_close(still, None, None));
    }
}
