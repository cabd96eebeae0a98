//! RQ-Transformer: an autoregressive model of code maps with several codes at each position.
//!
//! `p(S) = Π_t Π_d p(S_{t,d} | S_{<t}, S_{t,<d})`, positions `t` in raster order, depths `d`; Lee, Kim,
//! Kim, Cho, Han, "Autoregressive Image Generation using Residual Quantization", CVPR 2022, arXiv
//! 2203.01941, section 3.2. A large transformer (the *body*) runs over positions, a small one (the
//! *head*) over the depths of one position.
//!
//! [`RqTransformerConfig`] is validated and built into an [`RqTransformer`]; its forward pass gives
//! logits, [`losses`](super::loss) are made of them, and [`generate`](RqTransformer::generate) samples images.
//! [`published`] reads the files that the authors released.

mod build;
pub mod classifier;
pub mod code_embedding;
pub mod config;
mod embedding;
pub mod generate;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod learning_test;
pub mod model;
pub mod presets;
pub mod published;
#[cfg(test)]
mod testing;

pub use code_embedding::CodeEmbedding;
pub use config::RqTransformerConfig;
pub use model::RqTransformer;
pub use presets::Preset;
