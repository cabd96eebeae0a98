//! The GPT of taming-transformers: a map of codes as one sequence, the oldest recipe of a second stage.
//!
//! `p(S) = Π_n p(S_n | c, S_0 … S_{n−1})`, `n` in raster order; Esser, Rombach, Ommer 2021, "Taming
//! Transformers for High-Resolution Image Synthesis", arXiv 2012.09841, section 3.2. `c` is a single
//! token: a class, or one that always stands there. It shares the table of vectors with the codes.
//!
//! Published models know one code at a position. Several are written here one after the other, so the
//! sequence is as many times longer; they share one table and one classifier, and only the learned
//! places tell them apart. [`far`](super::far) and [`rq_transformer`](super::rq_transformer) spend less
//! on them.
//!
//! A model writes maps of the size it was trained on. The published programs also slide the window of a
//! trained model over larger maps; a [`GenerationRequest`](super::GenerationRequest) has no size, so that
//! is not done here.
//!
//! [`GptConfig`] is validated and built into a [`Gpt`]; [`generate`](Gpt::generate) samples images.
//! [`published`] reads files under their authors' names.

mod build;
pub mod config;
pub mod generate;
#[cfg(test)]
mod learning_test;
pub mod model;
pub mod presets;
pub mod published;
#[cfg(test)]
pub(super) mod testing;

pub use config::{GptCondition, GptConfig};
pub use model::Gpt;
pub use presets::Preset;
