//! Image quality and codebook statistics.
//!
//! Everything here is plain arithmetic in `f64` on host memory: no tensors, no models, no files.
//!
//! | measure | unit | better | where |
//! |---|---|---|---|
//! | PSNR | decibel | higher | [`psnr`] |
//! | SSIM | 1 (at most 1) | higher | [`ssim`] |
//! | MS-SSIM | 1 (0 to 1) | higher | [`ms_ssim`] |
//! | usage, perplexity, entropy of codes | fraction, codes, bits | | [`CodeStatistics`] |
//! | bits per pixel | bit / pixel | lower | [`CodeRate`] |

mod codes;
mod error;
mod filter;
mod ms_ssim;
mod planes;
mod psnr;
mod rate;
mod ssim;

pub use codes::{CodeCounts, CodeStatistics, DepthStatistics};
pub use error::MetricError;
pub use ms_ssim::{MS_SSIM_MIN_SIDE, MS_SSIM_WEIGHTS, ms_ssim};
pub use planes::Planes;
pub use psnr::{mean, mse, psnr, psnr_batch_f32, psnr_from_mse, psnr_u8};
pub use rate::CodeRate;
pub use ssim::{SsimConfig, SsimWindow, ssim};

#[cfg(test)]
mod golden;
