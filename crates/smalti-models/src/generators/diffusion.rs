//! Discrete diffusion of code maps: VQ-Diffusion.
//!
//! A chain wears codes away, step by step, until all are masked; a transformer that sees all codes at once
//! learns what they were, and the chain is gone back with it (Gu, Chen, Bao, Wen, Zhang, Chen, Yuan,
//! Guo 2022, arXiv 2111.14822). It writes in as many passes as are asked for, not in as many as there
//! are codes.
//!
//! - [`schedule`]: the rates of the chain; [`transitions`]: its distributions;
//! - [`loss`]: the bound and the auxiliary loss; [`importance`]: the time steps that are looked at;
//! - [`model`], [`blocks`]: the network; [`generate`]: the way back.
//!
//! Unconditional or for classes, on any number of codes at a position. Not here: captions (cross-attention)
//! and the purity prior of the improved sampler.

pub mod blocks;
mod build;
pub mod config;
pub mod generate;
#[cfg(test)]
mod golden_tests;
pub mod importance;
#[cfg(test)]
mod learning_test;
pub mod loss;
pub mod model;
pub mod schedule;
#[cfg(test)]
pub(super) mod testing;
pub mod transitions;

pub use config::{DiffusionConfig, PerceptronConfig, ProcessConfig};
pub use model::Diffusion;
