//! The convolutional encoder and decoder of the VQGAN family; also those of latent diffusion, and the
//! "UNet" of Gaussian Quant.

mod config;
mod decoder;
mod encoder;

pub use config::ConvolutionalConfig;
pub use decoder::ConvolutionalDecoder;
pub use encoder::{ConvolutionalEncoder, Middle};
