//! The decoder: latents to images.
//!
//! The encoder's mirror with one residual block more on each level: a 3×3 convolution, the middle, then
//! from the lowest resolution upward blocks and a doubling of the sides; normalisation, SiLU and a
//! 3×3 convolution to three channels without an activation.
//! `[batch, z_channels, height, width]` to `[batch, 3, height · factor, width · factor]`.
//!
//! `up[0]` is the highest resolution and runs last: the numbering of the published checkpoints.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use smalti_nn::residual_block::NORM_EPSILON;
use smalti_nn::{
    Conv2d, Conv2dConfig, GroupNorm, Init, Noise, ResidualBlock, SpatialAttention, Upsample,
};

use super::ConvolutionalConfig;
use super::encoder::{Middle, attentions, block, blocks};

/// Latents to images, by convolutions.
#[derive(Module, Debug)]
pub struct ConvolutionalDecoder {
    conv_in: Conv2d,
    mid: Middle,
    up: Vec<UpLevel>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

#[derive(Module, Debug)]
struct UpLevel {
    block: Vec<ResidualBlock>,
    attn: Vec<SpatialAttention>,
    upsample: Option<Upsample>,
}

impl ConvolutionalDecoder {
    /// Fresh weights.
    pub fn new(config: &ConvolutionalConfig, init: &mut Init) -> Self {
        let widths = config.widths();
        let mut in_channels = *widths.last().expect("a valid configuration has a level");
        let conv_in = Conv2dConfig::same(config.z_channels, in_channels, 3).init(init);
        let mid = Middle::new(config, in_channels, init);
        let mut up = Vec::new();
        for (level, &width) in widths.iter().enumerate().rev() {
            let block = (0..=config.blocks).map(|_| {
                block(config, std::mem::replace(&mut in_channels, width), width).init(init)
            });
            up.push(UpLevel {
                block: block.collect(),
                attn: attentions(
                    config,
                    config.decoder_attends(level).then_some(config.blocks + 1),
                    width,
                    init,
                ),
                upsample: (level > 0).then(|| Upsample::new(width, init)),
            });
        }
        up.reverse();
        Self {
            conv_in,
            mid,
            up,
            norm_out: GroupNorm::new(config.norm_groups, widths[0], NORM_EPSILON, init),
            conv_out: Conv2dConfig::same(widths[0], 3, 3).init(init),
        }
    }

    /// The device of the parameters.
    pub fn device(&self) -> Device {
        self.conv_out.weight.val().device()
    }

    /// What the last layer sees, `[batch, channels, height · factor, width · factor]`; noise only while
    /// training.
    pub fn hidden(&self, latents: Tensor<4>, mut noise: Option<&mut Noise>) -> Tensor<4> {
        let mut hidden = self
            .mid
            .forward(self.conv_in.forward(latents), noise.as_deref_mut());
        for level in self.up.iter().rev() {
            hidden = blocks(&level.block, &level.attn, hidden, noise.as_deref_mut());
            if let Some(upsample) = &level.upsample {
                hidden = upsample.forward(hidden);
            }
        }
        self.norm_out.forward_silu(hidden)
    }

    /// Images, nominally in [−1, 1].
    pub fn last_layer(&self, hidden: Tensor<4>) -> Tensor<4> {
        self.conv_out.forward(hidden)
    }
}
