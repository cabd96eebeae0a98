//! Distances of images as people see them, LPIPS and its shift-tolerant form, and a contrastive loss of features.
//!
//! All look through trained networks that the user has the files of. Distances measure (one number for each pair) and
//! teach (gradients reach the images, and nothing else); the contrastive loss teaches.

mod config;
pub mod contrastive;
mod lpips;

pub use config::PerceptualConfig;
pub use contrastive::{Contrastive, ContrastiveConfig};
pub use lpips::Lpips;
