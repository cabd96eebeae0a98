//! The encoder: images to latents.
//!
//! Patches through one linear map, plus learned positions, a layer norm, the blocks, a layer norm
//! and a linear map to the channels asked for.
//! `[batch, 3, height, width]` to `[batch, channels, height / patch_size, width / patch_size]`.
//!
//! Field names are the published ones: `conv1` is the linear map of patches (no bias, because a norm
//! follows), `quant_embed` the last one.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use smalti_nn::{Init, LayerNorm, Linear, Noise};

use super::VitConfig;
use super::config::DEVIATION;
use super::patches::to_patches;
use crate::autoencoder::sequence::to_map;
use crate::autoencoder::transformer::Stack;
use crate::positions::positions;

/// Images to latents, by a transformer.
#[derive(Module, Debug)]
pub struct VitEncoder {
    conv1: Linear,
    positional_embedding: Param<Tensor<2>>,
    ln_pre: LayerNorm,
    transformer: Stack,
    ln_post: LayerNorm,
    quant_embed: Linear,
    patch_size: usize,
    grid: usize,
}

impl VitEncoder {
    /// Fresh weights; the output has `channels` channels.
    pub fn new(config: &VitConfig, channels: usize, init: &mut Init) -> Self {
        let (width, grid) = (config.width, config.grid());
        Self {
            conv1: Linear {
                weight: init.normal([width, config.patch_elements()], DEVIATION),
                bias: None,
            },
            positional_embedding: init.normal([grid * grid, width], DEVIATION),
            ln_pre: LayerNorm::new(width, init),
            transformer: Stack::new(config.stack(), init),
            ln_post: LayerNorm::new(width, init),
            quant_embed: Linear::fan_in(width, channels, init),
            patch_size: config.patch_size,
            grid,
        }
    }

    /// Images in [−1, 1]; noise only while training.
    ///
    /// # Panics
    /// When a side is no multiple of the patches'.
    pub fn forward(&self, images: Tensor<4>, noise: Option<&mut Noise>) -> Tensor<4> {
        let [_, _, height, width] = images.dims();
        let grid = [height / self.patch_size, width / self.patch_size];
        let places = positions(self.positional_embedding.val(), self.grid, grid);
        let embedded = self.conv1.forward(to_patches(images, self.patch_size));
        let hidden = self.ln_pre.forward(embedded + places.unsqueeze::<3>());
        let hidden = self
            .ln_post
            .forward(self.transformer.forward(hidden, noise));
        to_map(self.quant_embed.forward(hidden), grid)
    }
}
