//! Autoencoders with discrete latents: images to codes and back.

mod config;
mod convolutional;
mod fields;
#[cfg(test)]
mod learning_test;
mod model;
mod network;
mod parts;
mod prediction_head;
mod presets;
pub mod published;
mod representation;
mod sequence;
mod transformer;
mod vit;

pub use config::{AutoencoderConfig, InvalidAutoencoder, NetworkConfig};
pub use convolutional::{
    AdapterConfig, BranchesConfig, ConvolutionalConfig, ConvolutionalDecoder, ConvolutionalEncoder,
    Middle,
};
pub use model::{Autoencoder, LAST_LAYER, Reconstruction};
pub use network::{Decoder, Encoder};
pub use prediction_head::{PredictionHead, PredictionHeadConfig};
pub use presets::{FqganPreset, GaussianQuantPreset, LlamaGenPreset, Preset};
pub use representation::{PUBLISHED_NEGATIVES, REPRESENTATION, info_nce};
pub use vit::{VitConfig, VitDecoder, VitEncoder};
