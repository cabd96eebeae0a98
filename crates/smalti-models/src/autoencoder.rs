//! Autoencoders with discrete latents: images to codes and back.

mod config;
mod decoder;
mod encoder;
mod model;
mod presets;
pub mod published;

pub use config::{AutoencoderConfig, InvalidAutoencoder, NetworkConfig};
pub use decoder::Decoder;
pub use encoder::{Encoder, Middle};
pub use model::{Autoencoder, Reconstruction};
pub use presets::Preset;
