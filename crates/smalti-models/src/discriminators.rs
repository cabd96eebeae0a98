//! Networks that learn to tell images from reconstructions, and the losses of that game.
//!
//! A discriminator judges images in [−1, 1]: `[batch, 3, height, width]` to logits `[batch, 1, rows, columns]`,
//! large for what it takes for real. What it must remember between batches besides its parameters changes
//! only when told: [`Discriminator::forward_batch`] returns [`Statistics`], [`Discriminator::absorb`] takes
//! them.

mod config;
mod convolution;
pub mod lecam;
pub mod losses;
mod network;
mod patch;
pub mod published;
pub mod r1;
mod style;

pub use config::{DiscriminatorConfig, InvalidDiscriminator, PatchConfig, PatchNorm, StyleConfig};
pub use lecam::Lecam;
pub use losses::{AdversarialLoss, PUBLISHED_LIMIT, adaptive_weight, balance};
pub use network::{Discriminator, Statistics};
pub use patch::PatchDiscriminator;
pub use r1::r1_penalty;
pub use style::StyleDiscriminator;
