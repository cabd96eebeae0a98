//! The convolutional encoder and decoder of the VQGAN family; also those of latent diffusion, and the
//! "UNet" of Gaussian Quant, and of LlamaGen and FQGAN, whose encoder ends in branches.

mod adapter;
mod branch;
mod config;
mod decoder;
mod encoder;

pub use config::{AdapterConfig, BranchesConfig, ConvolutionalConfig};
pub use decoder::ConvolutionalDecoder;
pub use encoder::{ConvolutionalEncoder, Middle};
