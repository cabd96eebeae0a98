//! Quantizers: maps between latents and discrete codes.
//!
//! A [`Quantizer`] is pure: encoding and decoding change nothing. A codebook that learns outside
//! the optimiser does so in [`Learn::quantize_and_update`], which takes `&mut self` and reports
//! what it did. Code search and all index arithmetic are `f32` and integers, whatever the training
//! precision.

pub mod codebook;
pub mod codes;
pub mod config;
pub mod folding;
pub mod kmeans;
pub mod learning;
pub mod quantizer;
pub mod residual;
pub mod rows;
pub mod vector;

pub use codebook::Codebook;
pub use codes::{CodeSpec, Codes};
pub use config::{AnyQuantizer, InvalidQuantizer, QuantizerConfig};
pub use learning::{Learning, Revival, Start, UpdateOrder, UpdateReport};
pub use quantizer::{Learn, NamedLoss, QuantizeError, Quantized, Quantizer};
pub use residual::{ResidualConfig, ResidualQuantizer, SoftCodes};
pub use vector::{Metric, Rule, VectorConfig, VectorQuantizer};
