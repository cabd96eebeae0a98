//! Divergence of Gaussian posteriors: how many bits a trained VAE puts where, and what that means for quantizing it.
//!
//! - [`moments`] gathers posteriors, [`channels`] measures channels and fits them to the prior, [`grouping`] decides
//!   which channels share a code, [`distribution`] summarises;
//! - [`theory`] holds the theorems, [`scalars`] and [`groups`] make them visible on a trained model.

pub mod channels;
mod curve;
pub mod distribution;
pub mod grouping;
pub mod groups;
pub mod moments;
pub mod scalars;
pub mod theory;
