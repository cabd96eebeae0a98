//! Masked generation of code maps: MaskGIT.
//!
//! A transformer that sees all codes at once learns to fill in those that are masked; to write a map it
//! starts with masks only and keeps, pass by pass, the codes that it is surest of (Chang, Zhang, Jiang, Liu,
//! Freeman 2022, arXiv 2202.04200), or those that stand in a fixed order (Halton-MaskGIT).
//!
//! - [`mask_schedule`]: how many codes are masked when; [`halton`]: the fixed order;
//! - [`model`]: the network; [`lesson`]: its training; [`generate`]: its passes.
//!
//! Unconditional or for classes, on any number of codes at a position. Not here: the second model of
//! valeoai/Maskgit-pytorch, whose blocks are those of diffusion transformers.

mod build;
pub mod config;
pub mod generate;
pub mod halton;
#[cfg(test)]
mod learning_test;
pub mod lesson;
pub mod mask_schedule;
pub mod model;
#[cfg(test)]
mod testing;

pub use config::{CountedCodes, MaskedConfig, MaskedLesson};
pub use mask_schedule::MaskSchedule;
pub use model::Masked;
