//! Layers and blocks on burn, and the one place where an operation picks a kernel.
//!
//! A layer is a small module whose fields carry the names and layouts of PyTorch
//! (`weight [out, in, …]`, `bias`), so that published weights load by name. Beneath a layer stands a
//! free function of the same name ([`conv2d()`], [`group_norm_silu`], [`nearest::nearest_codes`] …): on the CPU
//! it runs a kernel of [`smalti_kernels`] with a hand-written backward pass, on every other device
//! burn's own operations.

pub mod act_norm;
pub mod attention;
pub mod batch_norm;
pub mod blur;
pub mod conv2d;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
pub mod entropy;
pub mod gated_feed_forward;
pub mod gelu;
pub mod group_norm;
mod hook;
pub mod init;
pub mod layer_norm;
pub mod leaky_relu;
pub mod linear;
pub mod max_pool;
pub mod mlp;
pub mod nearest;
pub mod noise;
pub mod resample;
pub mod residual_block;
pub mod rms_norm;
pub mod rotary;
pub mod rotary_transformer;
pub mod softmax;
pub mod spatial_attention;
pub mod state;
pub mod transformer;
pub mod unit_distance;

pub use act_norm::ActNorm;
pub use attention::{
    CausalSelfAttention, FullSelfAttention, KeyValueCache, RotaryAttention, SelfAttention,
    cached_attention, causal_attention, full_attention,
};
pub use batch_norm::{BatchNorm, BatchStatistics, batch_norm};
pub use conv2d::{Conv2d, Conv2dConfig, Padding, conv2d};
pub use cross_entropy::{Targets, cross_entropy};
pub use dropout::Dropout;
pub use embedding::{Embedding, embedding};
pub use gated_feed_forward::GatedFeedForward;
pub use gelu::{Gelu, gelu};
pub use group_norm::{GroupNorm, group_norm, group_norm_silu};
pub use init::Init;
pub use layer_norm::{LayerNorm, layer_norm};
pub use leaky_relu::{leaky_relu, leaky_relu_tangent, relu};
pub use linear::{BatchLinear, Linear, linear};
pub use max_pool::max_pool2d;
pub use noise::Noise;
pub use resample::{Downsample, Upsample};
pub use residual_block::{ResidualBlock, ResidualBlockConfig};
pub use rms_norm::{RmsNorm, rms_norm};
pub use rotary::Rotations;
pub use rotary_transformer::{RotaryBlock, RotaryBlockConfig};
pub use softmax::softmax;
pub use spatial_attention::SpatialAttention;
pub use transformer::{Transformer, TransformerBlock, TransformerCache, TransformerConfig};
pub use unit_distance::unit_distance;
