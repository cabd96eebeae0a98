//! Autoencoders, and the generators that write images token by token.
//!
//! The two know nothing of each other: an autoencoder turns images into codes and back, a generator
//! writes codes.

pub mod autoencoder;
pub mod generators;
#[cfg(test)]
mod testing;
