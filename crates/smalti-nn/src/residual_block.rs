//! The residual block of the VQGAN family.
//!
//! `x → norm → SiLU → 3×3 → norm → SiLU → dropout → 3×3`, added to `x` (through a 1×1 convolution
//! where the number of channels changes).

use burn::module::Module;
use burn::tensor::Tensor;

use crate::{Conv2d, Conv2dConfig, Dropout, GroupNorm, Init, Noise};

/// Groups of every normalisation in the family.
pub const NORM_GROUPS: usize = 32;
/// ε of every group normalisation in the family (PyTorch's own default is 1e-5).
pub const NORM_EPSILON: f64 = 1e-6;

/// Two convolutions round which the input is carried.
#[derive(Module, Debug)]
pub struct ResidualBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    nin_shortcut: Option<Conv2d>,
    dropout: f64,
}

impl ResidualBlock {
    /// A block from `in_channels` to `out_channels`, with dropout before its second convolution.
    pub fn new(in_channels: usize, out_channels: usize, dropout: f64, init: &mut Init) -> Self {
        Self {
            norm1: GroupNorm::new(NORM_GROUPS, in_channels, NORM_EPSILON, init),
            conv1: Conv2dConfig::same(in_channels, out_channels, 3).init(init),
            norm2: GroupNorm::new(NORM_GROUPS, out_channels, NORM_EPSILON, init),
            conv2: Conv2dConfig::same(out_channels, out_channels, 3).init(init),
            nin_shortcut: (in_channels != out_channels)
                .then(|| Conv2dConfig::same(in_channels, out_channels, 1).init(init)),
            dropout,
        }
    }

    /// `[batch, in, height, width]` to `[batch, out, height, width]`; noise only while training.
    pub fn forward(&self, input: Tensor<4>, noise: Option<&mut Noise>) -> Tensor<4> {
        let hidden = self.conv1.forward(self.norm1.forward_silu(input.clone()));
        let hidden = self.norm2.forward_silu(hidden);
        let hidden = Dropout { probability: self.dropout }.forward(hidden, noise);
        let hidden = self.conv2.forward(hidden);
        match &self.nin_shortcut {
            Some(shortcut) => shortcut.forward(input) + hidden,
            None => input + hidden,
        }
    }
}
