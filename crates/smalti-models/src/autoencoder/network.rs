//! Encoder and decoder of whichever kind the configuration names.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use smalti_nn::{Init, Noise};

use super::NetworkConfig;
use super::convolutional::{ConvolutionalDecoder, ConvolutionalEncoder};
use super::vit::{VitDecoder, VitEncoder};

/// Images to latents.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "a model has one")]
pub enum Encoder {
    /// By convolutions.
    Convolutional(ConvolutionalEncoder),
    /// By a transformer.
    Vit(VitEncoder),
}

/// Latents to images.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "a model has one")]
pub enum Decoder {
    /// By convolutions.
    Convolutional(ConvolutionalDecoder),
    /// By a transformer.
    Vit(VitDecoder),
}

impl Encoder {
    /// Fresh weights; the output has `channels` channels.
    pub fn new(config: &NetworkConfig, channels: usize, init: &mut Init) -> Self {
        match config {
            NetworkConfig::Convolutional(config) => {
                Self::Convolutional(ConvolutionalEncoder::new(config, channels, init))
            }
            NetworkConfig::Vit(config) => Self::Vit(VitEncoder::new(config, channels, init)),
        }
    }

    /// Images in [−1, 1] to `[batch, channels, height / factor, width / factor]`; noise only while
    /// training.
    pub fn forward(&self, images: Tensor<4>, noise: Option<&mut Noise>) -> Tensor<4> {
        match self {
            Self::Convolutional(encoder) => encoder.forward(images, noise),
            Self::Vit(encoder) => encoder.forward(images, noise),
        }
    }
}

impl Decoder {
    /// Fresh weights.
    pub fn new(config: &NetworkConfig, init: &mut Init) -> Self {
        match config {
            NetworkConfig::Convolutional(config) => {
                Self::Convolutional(ConvolutionalDecoder::new(config, init))
            }
            NetworkConfig::Vit(config) => Self::Vit(VitDecoder::new(config, init)),
        }
    }

    /// The device of the parameters.
    pub fn device(&self) -> Device {
        match self {
            Self::Convolutional(decoder) => decoder.device(),
            Self::Vit(decoder) => decoder.device(),
        }
    }

    /// `[batch, z_channels, height, width]` to what the last layer sees, in the layout that this layer
    /// wants; noise only while training.
    pub fn hidden(&self, latents: Tensor<4>, noise: Option<&mut Noise>) -> Tensor<4> {
        match self {
            Self::Convolutional(decoder) => decoder.hidden(latents, noise),
            Self::Vit(decoder) => decoder.hidden(latents, noise),
        }
    }

    /// The output of [`hidden`](Self::hidden) to images, nominally in [−1, 1].
    pub fn last_layer(&self, hidden: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Convolutional(decoder) => decoder.last_layer(hidden),
            Self::Vit(decoder) => decoder.last_layer(hidden),
        }
    }
}
