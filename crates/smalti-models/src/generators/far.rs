//! FAR and LlamaGen: autoregressive models of code maps, with LLaMA's blocks and guidance.
//!
//! `p(S) = Π_t Π_i p(S_{t,i} | S_{<t}, S_{t,<i})`, positions `t` in raster order, sub-tokens `i` of one
//! position in order. With one code at a position this is LlamaGen (Sun, Jiang, Chen, Zhang, Peng,
//! Luo, Yuan 2024, arXiv 2406.06525), with several the factorised autoregressive model of FQGAN (Bai,
//! Gao, Gao, Wang, Zhang, He, Shou 2024, arXiv 2411.16681, section 3.3). The codes of a position stand
//! beside one another (a *factorized* tokenizer's), they are not refinements: every one has an
//! embedding table of its own, and nothing is summed over them.
//!
//! [`FarConfig`] is validated and built into a [`Far`]; [`generate`](Far::generate) samples images,
//! with guidance where it is asked for. [`published`] reads files under their authors' names.

mod build;
pub mod config;
pub mod generate;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod learning_test;
pub mod model;
pub mod presets;
pub mod published;
pub mod start;
#[cfg(test)]
pub(super) mod testing;

pub use config::{FarCondition, FarConfig, HeadConfig};
pub use model::Far;
pub use presets::Preset;
