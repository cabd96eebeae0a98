//! Distances of images as people see them: LPIPS and its shift-tolerant form.
//!
//! Both are trained networks that the user has the files of. They measure (one number for each pair) and
//! they teach (gradients reach the images, and nothing else).

mod config;
mod lpips;

pub use config::PerceptualConfig;
pub use lpips::Lpips;
