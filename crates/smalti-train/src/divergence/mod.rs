//! Divergence of Gaussian posteriors: how many bits a trained VAE puts where, and what that means for quantizing it.
//!
//! - [`moments`] holds posteriors, which [`gather`] takes from images and which [`scheme`] says how to read;
//!   [`channels`] measures channels, [`prior`] fits them to N(0, 1), [`grouping`] decides which of them share a
//!   code, [`distribution`] summarises;
//! - [`theory`] holds the theorems, [`scalars`] and [`groups`] make them visible on a trained model;
//! - [`study`] (`smalti divergence`) measures a model, [`conversion`] (`smalti convert`) makes a tokenizer of it,
//!   without training; [`source`] is what both take.
//!
//! Bits are exact here; the constraint in training counts 1.4426 of them to a nat, as the published code does.

pub mod channels;
pub mod conversion;
pub mod conversion_config;
pub mod conversion_report;
mod curve;
pub mod distribution;
pub mod gather;
pub mod grouping;
pub mod groups;
pub mod moments;
pub mod prior;
pub mod quality;
pub mod scalars;
pub mod scheme;
pub mod source;
pub mod study;
mod study_charts;
pub mod study_report;
pub mod theory;
