//! The transformer encoder and decoder of BSQ-ViT (Zhao et al. 2024, arXiv 2406.07548, section 4.1),
//! which Gaussian Quant uses as well.
//!
//! An image is cut into square patches, each a vector; transformer blocks in which every patch sees
//! every other make latents of the vectors, one for each patch, and images of latents.

mod config;
mod decoder;
mod encoder;
mod patches;

pub use config::VitConfig;
pub use decoder::VitDecoder;
pub use encoder::VitEncoder;
