//! The encoder: images to latents.
//!
//! A 3×3 convolution; for each level residual blocks (each followed by attention where the
//! configuration says so) and, but for the last, a halving of the sides; a middle of block, attention,
//! block; normalisation, SiLU and a 3×3 convolution to the channels asked for. Where the configuration
//! has branches, each ends by itself after the middle, and their latents lie along the
//! channels in the branches' order.
//! `[batch, 3, height, width]` to `[batch, channels, height / factor, width / factor]`.
//!
//! Field names are those of the published checkpoints.

use burn::module::Module;
use burn::tensor::Tensor;
use smalti_nn::residual_block::NORM_EPSILON;
use smalti_nn::{
    Conv2d, Conv2dConfig, Downsample, GroupNorm, Init, Noise, ResidualBlock, ResidualBlockConfig,
    SpatialAttention,
};

use super::ConvolutionalConfig;
use super::branch::Branch;

/// Images to latents, by convolutions.
#[derive(Module, Debug)]
pub struct ConvolutionalEncoder {
    conv_in: Conv2d,
    down: Vec<DownLevel>,
    mid: Middle,
    norm_out: Option<GroupNorm>,
    conv_out: Option<Conv2d>,
    branches: Vec<Branch>,
}

#[derive(Module, Debug)]
struct DownLevel {
    block: Vec<ResidualBlock>,
    attn: Vec<SpatialAttention>,
    downsample: Option<Downsample>,
}

/// Block, attention, block at the lowest resolution.
#[derive(Module, Debug)]
pub struct Middle {
    block_1: ResidualBlock,
    attn_1: Option<SpatialAttention>,
    block_2: ResidualBlock,
}

impl ConvolutionalEncoder {
    /// Fresh weights; the output has `channels` channels.
    pub fn new(config: &ConvolutionalConfig, channels: usize, init: &mut Init) -> Self {
        let widths = config.widths();
        let last = widths.len() - 1;
        let mut in_channels = config.channels;
        let conv_in = Conv2dConfig::same(3, in_channels, 3).init(init);
        let mut down = Vec::new();
        for (level, &width) in widths.iter().enumerate() {
            let block = (0..config.blocks).map(|_| {
                block(config, std::mem::replace(&mut in_channels, width), width).init(init)
            });
            down.push(DownLevel {
                block: block.collect(),
                attn: attentions(
                    config,
                    config.encoder_attends(level).then_some(config.blocks),
                    width,
                    init,
                ),
                downsample: (level < last).then(|| Downsample::new(width, init)),
            });
        }
        let mid = Middle::new(config, widths[last], init);
        let (mut norm_out, mut conv_out, mut branches) = (None, None, Vec::new());
        match &config.branches {
            Some(several) => branches = Branch::all(config, several, channels, init),
            None => {
                let norm = GroupNorm::new(config.norm_groups, widths[last], NORM_EPSILON, init);
                norm_out = Some(norm);
                conv_out = Some(Conv2dConfig::same(widths[last], channels, 3).init(init));
            }
        }
        Self {
            conv_in,
            down,
            mid,
            norm_out,
            conv_out,
            branches,
        }
    }

    /// Images in [−1, 1]; noise only while training.
    pub fn forward(&self, images: Tensor<4>, mut noise: Option<&mut Noise>) -> Tensor<4> {
        let mut hidden = self.conv_in.forward(images);
        for level in &self.down {
            hidden = blocks(&level.block, &level.attn, hidden, noise.as_deref_mut());
            if let Some(downsample) = &level.downsample {
                hidden = downsample.forward(hidden);
            }
        }
        hidden = self.mid.forward(hidden, noise);
        match (&self.norm_out, &self.conv_out) {
            (Some(norm_out), Some(conv_out)) => conv_out.forward(norm_out.forward_silu(hidden)),
            _ => {
                let latents = self.branches.iter();
                let latents = latents.map(|branch| branch.forward(hidden.clone()));
                Tensor::cat(latents.collect(), 1)
            }
        }
    }
}

impl Middle {
    /// Fresh weights.
    pub fn new(config: &ConvolutionalConfig, width: usize, init: &mut Init) -> Self {
        Self {
            block_1: block(config, width, width).init(init),
            attn_1: config
                .middle_attention
                .then(|| SpatialAttention::new(width, config.norm_groups, init)),
            block_2: block(config, width, width).init(init),
        }
    }

    /// The shape stays.
    pub fn forward(&self, hidden: Tensor<4>, mut noise: Option<&mut Noise>) -> Tensor<4> {
        let hidden = self.block_1.forward(hidden, noise.as_deref_mut());
        let hidden = match &self.attn_1 {
            Some(attention) => attention.forward(hidden),
            None => hidden,
        };
        self.block_2.forward(hidden, noise)
    }
}

/// The residual blocks of a level, each followed by its attention where there is one.
pub(super) fn blocks(
    blocks: &[ResidualBlock],
    attentions: &[SpatialAttention],
    mut hidden: Tensor<4>,
    mut noise: Option<&mut Noise>,
) -> Tensor<4> {
    for (i, block) in blocks.iter().enumerate() {
        hidden = block.forward(hidden, noise.as_deref_mut());
        if let Some(attention) = attentions.get(i) {
            hidden = attention.forward(hidden);
        }
    }
    hidden
}

pub(super) fn block(
    config: &ConvolutionalConfig,
    in_channels: usize,
    out_channels: usize,
) -> ResidualBlockConfig {
    ResidualBlockConfig {
        in_channels,
        out_channels,
        norm_groups: config.norm_groups,
        dropout: config.dropout,
    }
}

/// One attention for each of the blocks of a level that attends, else none.
pub(super) fn attentions(
    config: &ConvolutionalConfig,
    blocks: Option<usize>,
    width: usize,
    init: &mut Init,
) -> Vec<SpatialAttention> {
    (0..blocks.unwrap_or(0))
        .map(|_| SpatialAttention::new(width, config.norm_groups, init))
        .collect()
}
