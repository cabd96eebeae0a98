//! One transformer block of BSQ-ViT, and a stack of them.
//!
//! `x ← x + Attention(LN₁(x))`, `x ← x + drop(W₂·gelu(W₁·LN₂(x)))`, exact GELU, ε = 1e-5, every
//! position sees every other. Sequences `[batch, length, width]`; field names are the published ones
//! (those of CLIP's vision transformer).

use burn::module::Module;
use burn::tensor::Tensor;
use smalti_nn::{Dropout, Init, LayerNorm, Linear, Noise, SelfAttention, gelu};

use super::VitConfig;

/// Deviation of fresh weights. The published code truncates the normal distribution at ±2, a hundred
/// deviations, which is no truncation.
pub(super) const DEVIATION: f32 = 0.02;

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
    pub(super) fn new(config: &VitConfig, init: &mut Init) -> Self {
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
    fn new(config: &VitConfig, init: &mut Init) -> Self {
        let (width, hidden) = (config.width, config.mlp_width());
        Self {
            ln_1: LayerNorm::new(width, init),
            attn: SelfAttention::normal(width, config.heads, DEVIATION, init),
            ln_2: LayerNorm::new(width, init),
            mlp: Perceptron {
                c_fc: Linear::normal(width, hidden, DEVIATION, init),
                c_proj: Linear::normal(hidden, width, DEVIATION, init),
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

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn dropout_acts_only_with_noise() {
        let config = VitConfig {
            resolution: 8,
            patch_size: 2,
            width: 8,
            layers: 1,
            heads: 2,
            mlp_ratio: 2.0,
            output_width: 8,
            z_channels: 4,
            dropout: 0.5,
        };
        let device = Device::flex();
        let stack = Stack::new(&config, &mut Init::new(&device, 1));
        let input = Noise::from_seed(1).standard_normal([1, 6, 8], &device);
        let still = stack.forward(input.clone(), None);
        let noisy = |seed| stack.forward(input.clone(), Some(&mut Noise::from_seed(seed)));
        assert!(noisy(1).all_close(noisy(1), Some(0.0), Some(0.0)));
        assert!(!noisy(1).all_close(noisy(2), None, None));
        assert!(!noisy(1).all_close(still, None, None));
    }
}
