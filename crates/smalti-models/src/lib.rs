//! Autoencoders, the generators that write images token by token, and the networks that judge images.
//!
//! Autoencoders and generators know nothing of each other: an autoencoder turns images into codes and back,
//! a generator writes codes. [`features`] are published networks that images are looked at with,
//! [`perceptual`] distances and [`discriminators`] what an autoencoder's training is told by.

pub mod autoencoder;
pub mod discriminators;
pub mod features;
pub mod generators;
pub mod perceptual;
mod positions;
#[cfg(test)]
mod testing;
mod weights_file;
