//! The residual block of the VQGAN family.
//!
//! `x → norm → SiLU → 3×3 → norm → SiLU → dropout → 3×3`, added to `x` (through a 1×1 convolution
//! where the number of channels changes).

use burn::module::Module;
use burn::tensor::Tensor;

use crate::{Conv2d, Conv2dConfig, Dropout, GroupNorm, Init, Noise};

/// Groups of every normalisation in the published models.
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

/// The shape of a residual block.
#[derive(Clone, Copy, Debug)]
pub struct ResidualBlockConfig {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Groups of both normalisations; [`NORM_GROUPS`] in the published models.
    pub norm_groups: usize,
    /// Probability of dropping an element before the second convolution, in training.
    pub dropout: f64,
}

impl ResidualBlockConfig {
    /// A block with fresh weights.
    pub fn init(self, init: &mut Init) -> ResidualBlock {
        let Self {
            in_channels,
            out_channels,
            norm_groups,
            dropout,
        } = self;
        ResidualBlock {
            norm1: GroupNorm::new(norm_groups, in_channels, NORM_EPSILON, init),
            conv1: Conv2dConfig::same(in_channels, out_channels, 3).init(init),
            norm2: GroupNorm::new(norm_groups, out_channels, NORM_EPSILON, init),
            conv2: Conv2dConfig::same(out_channels, out_channels, 3).init(init),
            nin_shortcut: (in_channels != out_channels)
                .then(|| Conv2dConfig::same(in_channels, out_channels, 1).init(init)),
            dropout,
        }
    }
}

impl ResidualBlock {
    /// `[batch, in, height, width]` to `[batch, out, height, width]`; noise only while training.
    pub fn forward(&self, input: Tensor<4>, noise: Option<&mut Noise>) -> Tensor<4> {
        let hidden = self.conv1.forward(self.norm1.forward_silu(input.clone()));
        let hidden = self.norm2.forward_silu(hidden);
        let hidden = Dropout {
            probability: self.dropout,
        }
        .forward(hidden, noise);
        let hidden = self.conv2.forward(hidden);
        match &self.nin_shortcut {
            Some(shortcut) => shortcut.forward(input) + hidden,
            None => input + hidden,
        }
    }
}
