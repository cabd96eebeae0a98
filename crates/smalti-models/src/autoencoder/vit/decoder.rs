//! The decoder: latents to images.
//!
//! A linear map of each latent, plus learned positions, a layer norm, the blocks, a layer norm, two
//! linear maps with tanh between them, and patches put together.
//! `[batch, z_channels, height, width]` to `[batch, 3, height · patch_size, width · patch_size]`.
//!
//! Field names are the published ones. The tanh bounds the hidden layer, not the image.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use smalti_nn::{Init, LayerNorm, Linear, Noise};

use super::VitConfig;
use super::config::DEVIATION;
use super::patches::from_patches;
use crate::autoencoder::sequence::from_map;
use crate::autoencoder::transformer::Stack;
use crate::positions::positions;

/// Latents to images, by a transformer.
#[derive(Module, Debug)]
pub struct VitDecoder {
    post_quant_embed: Linear,
    positional_embedding: Param<Tensor<2>>,
    ln_pre: LayerNorm,
    transformer: Stack,
    ln_post: LayerNorm,
    // A list of one, because the published name is `ffn.0`.
    ffn: [Linear; 1],
    conv_out: Linear,
    patch_size: usize,
    grid: usize,
}

impl VitDecoder {
    /// Fresh weights.
    pub fn new(config: &VitConfig, init: &mut Init) -> Self {
        let (width, grid) = (config.width, config.grid());
        let mut output = |inputs, outputs| Linear {
            weight: init.normal([outputs, inputs], DEVIATION),
            bias: Some(init.fan_in([outputs], inputs)),
        };
        let ffn = [output(width, config.output_width)];
        let conv_out = output(config.output_width, config.patch_elements());
        Self {
            post_quant_embed: Linear::fan_in(config.z_channels, width, init),
            positional_embedding: init.normal([grid * grid, width], DEVIATION),
            ln_pre: LayerNorm::new(width, init),
            transformer: Stack::new(config.stack(), init),
            ln_post: LayerNorm::new(width, init),
            ffn,
            conv_out,
            patch_size: config.patch_size,
            grid,
        }
    }

    /// The device of the parameters.
    pub fn device(&self) -> Device {
        self.conv_out.weight.val().device()
    }

    /// What the last layer sees, `[batch, rows, columns, output_width]`; noise only while training.
    pub fn hidden(&self, latents: Tensor<4>, noise: Option<&mut Noise>) -> Tensor<4> {
        let [batch, _, rows, columns] = latents.dims();
        let grid = [rows, columns];
        let places = positions(self.positional_embedding.val(), self.grid, grid);
        let embedded = self.post_quant_embed.forward(from_map(latents));
        let hidden = self.ln_pre.forward(embedded + places.unsqueeze::<3>());
        let hidden = self
            .ln_post
            .forward(self.transformer.forward(hidden, noise));
        let [ffn] = &self.ffn;
        let hidden = ffn.forward(hidden).tanh();
        let [_, _, width] = hidden.dims();
        hidden.reshape([batch, rows, columns, width])
    }

    /// Images, nominally in [−1, 1].
    pub fn last_layer(&self, hidden: Tensor<4>) -> Tensor<4> {
        let [batch, rows, columns, width] = hidden.dims();
        let hidden = hidden.reshape([batch, rows * columns, width]);
        from_patches(
            self.conv_out.forward(hidden),
            [rows, columns],
            self.patch_size,
        )
    }
}
