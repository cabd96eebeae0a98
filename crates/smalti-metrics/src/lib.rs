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
//! | rows of a codebook near zero | codes | lower | [`near_zero_rows`] |
//! | bits per pixel | bit / pixel | lower | [`CodeRate`] |
//!
//! Whole sets of images are compared by vectors that a network makes of them, [`Features`]:
//!
//! | measure | unit | better | where |
//! |---|---|---|---|
//! | Fréchet distance (FID with Inception's vectors) | 1 (from 0) | lower | [`frechet_distance`] |
//! | kernel distance (KID with Inception's vectors) | 1 (about 0 for equal sets) | lower | [`kernel_distance`] |
//! | precision, recall | fraction | higher | [`precision_recall`] |
//! | Inception score, of a classifier's logits | 1 to the classes | higher | [`inception_score`] |

mod codebook_rows;
mod codes;
mod eigenvalues;
mod error;
mod factor;
mod features;
mod filter;
mod frechet;
mod inception_score;
mod kernel_distance;
mod matrix;
mod moments;
mod ms_ssim;
mod neighbours;
mod planes;
mod psnr;
mod rate;
mod ssim;

pub use codebook_rows::{NEAR_ZERO, near_zero_rows};
pub use codes::{CodeCounts, CodeStatistics, DepthStatistics};
pub use error::MetricError;
pub use features::Features;
pub use frechet::frechet_distance;
pub use inception_score::{InceptionScore, Splits, inception_score};
pub use kernel_distance::{kernel_distance, kernel_distances};
pub use moments::{FeatureMoments, FeatureStatistics};
pub use ms_ssim::{MS_SSIM_MIN_SIDE, MS_SSIM_WEIGHTS, ms_ssim};
pub use neighbours::{PrecisionRecall, precision_recall};
pub use planes::Planes;
pub use psnr::{mean, mse, psnr, psnr_batch_f32, psnr_from_mse, psnr_u8};
pub use rate::CodeRate;
pub use ssim::{SsimConfig, SsimWindow, ssim};

#[cfg(test)]
mod golden;
