//! Published checkpoints, one reader for each of their layouts.

pub mod autoencoder_kl;
pub mod bsq_vit;
pub mod fqgan;
pub mod gaussian_quant;
pub mod llamagen;
mod network;
pub mod rq_vae;
pub mod taming;
mod transformer;
mod yaml;

use std::path::{Path, PathBuf};

use smalti_nn::state::{Weights, WeightsError};

use super::{Autoencoder, InvalidAutoencoder};
use crate::weights_file::read_weights;

/// Why a published checkpoint could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum PublishedError {
    /// The configuration could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The configuration is of something else, or of something that is not known.
    #[error("{path} is not the configuration of {of}: {reason}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What it was read as.
        of: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The configuration is of a model that cannot be built.
    #[error(transparent)]
    Invalid(#[from] InvalidAutoencoder),
    /// The weights could not be read, or do not fit.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

impl PublishedError {
    fn config(path: &Path, of: &'static str, reason: impl Into<String>) -> Self {
        Self::Config {
            path: path.into(),
            of,
            reason: reason.into(),
        }
    }
}

fn read_text(path: &Path) -> Result<String, PublishedError> {
    std::fs::read_to_string(path).map_err(|source| PublishedError::Read {
        path: path.into(),
        source,
    })
}

/// `weights` with the state of a quantizer that has just been built, which no published file holds.
fn with_fresh_quantizer(mut weights: Weights, model: &Autoencoder) -> Weights {
    let fresh = Weights::of(model.quantizer()).0.into_iter();
    let fresh = fresh.map(|(name, array)| (format!("quantizer.{name}"), array));
    weights.0.extend(fresh);
    weights
}
