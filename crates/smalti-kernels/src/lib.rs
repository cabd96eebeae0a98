//! CPU kernels on plain slices: the few operations where a tokenizer's time goes.
//!
//! No tensor library is known here. Shapes are arguments, data are `&[f32]`, results are written
//! into slices that the caller owns, work is spread over the current `rayon` pool, and results do
//! not depend on the number of threads.

pub mod activation;
pub mod adam;
pub mod attention;
pub mod batch_norm;
pub mod conv;
pub mod cross_entropy;
pub mod entropy;
pub mod gated;
pub mod gemm;
pub mod group_norm;
mod lanes;
pub mod layer_norm;
pub mod leaky_relu;
mod math;
pub mod max_pool;
mod moments;
pub mod nearest;
#[cfg(test)]
mod noise;
pub mod rms_norm;
mod rows;
pub mod simd;
pub mod softmax;
mod tile;
pub mod unit_distance;

pub use activation::Activation;
pub use adam::{Adam, AdamState, WeightDecay};
pub use attention::Attention;
pub use cross_entropy::CrossEntropy;
pub use group_norm::GroupNorm;
pub use layer_norm::LayerNorm;
pub use nearest::{CodebookIndex, Metric, NearestError, TopTwo, WeightedIndex};
pub use rms_norm::RmsNorm;
pub use simd::Simd;
