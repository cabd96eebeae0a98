//! Autoencoders with discrete latents: images to codes and back.

mod config;
mod convolutional;
mod fields;
#[cfg(test)]
mod learning_test;
mod model;
mod network;
mod presets;
pub mod published;
mod vit;

pub use config::{AutoencoderConfig, InvalidAutoencoder, NetworkConfig};
pub use convolutional::{ConvolutionalConfig, ConvolutionalDecoder, ConvolutionalEncoder, Middle};
pub use model::{Autoencoder, LAST_LAYER, Pass, Reconstruction};
pub use network::{Decoder, Encoder};
pub use presets::{GaussianQuantPreset, Preset};
pub use vit::{VitConfig, VitDecoder, VitEncoder};
