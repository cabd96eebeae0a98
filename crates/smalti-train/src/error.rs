//! What can go wrong in training.

use std::path::{Path, PathBuf};

use smalti_data::{DataError, TokenFileError};
use smalti_metrics::MetricError;
use smalti_models::autoencoder::InvalidAutoencoder;
use smalti_models::autoencoder::published::PublishedError;
use smalti_models::features::FeatureError;
use smalti_models::generators::{GenerateError, InvalidGenerator};
use smalti_nn::state::WeightsError;
use smalti_quantize::QuantizeError;

/// Why a training, an evaluation or a conversion ended early.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A configuration file is malformed.
    #[error("{path}: {reason}")]
    ConfigSyntax {
        /// The file.
        path: PathBuf,
        /// What the parser says, with the place.
        reason: String,
    },
    /// A configuration is well-formed but impossible.
    #[error("the configuration is invalid:{}", .0.iter().map(|p| format!("\n  {p}")).collect::<String>())]
    Config(Vec<String>),
    /// A file could not be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder is not what it should be.
    #[error("{path}: {problem}")]
    Layout {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A checkpoint cannot be gone on with.
    #[error("{path}: the checkpoint is damaged or of something else: {problem}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A run's folder is of another configuration than the one to be carried out there.
    #[error("{asked} asks for another run than {existing}, whose checkpoints would be gone on with:{}", .differences.iter().map(|d| format!("\n  {d}")).collect::<String>())]
    OtherRun {
        /// The configuration to be carried out.
        asked: PathBuf,
        /// That of the run in the folder.
        existing: PathBuf,
        /// What differs, a line each.
        differences: Vec<String>,
    },
    /// Something was asked of a model that it cannot do.
    #[error("{0}")]
    Request(String),
    /// A loss or gradient is NaN or infinite.
    #[error("{term} became {value} at step {step}; {kept}")]
    NonFinite {
        /// The loss or gradient.
        term: String,
        /// Its value.
        value: f32,
        /// The step.
        step: u64,
        /// Which checkpoint there is.
        kept: String,
    },
    /// Images or folders.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Token files.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// Weights of a model or a checkpoint.
    #[error("{path}: {source}")]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: WeightsError,
    },
    /// Latents or codes.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// Measures.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// Published networks that images are judged by.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// An autoencoder that cannot be built.
    #[error(transparent)]
    Autoencoder(#[from] InvalidAutoencoder),
    /// A published checkpoint.
    #[error(transparent)]
    Published(#[from] PublishedError),
    /// A generator that cannot be built.
    #[error(transparent)]
    Generator(#[from] InvalidGenerator),
    /// Images that cannot be generated.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// The caller asked to stop before the first step; there was nothing to keep.
    #[error("stopped before the training began")]
    Stopped,
    /// The caller asked to stop, and nothing was kept.
    #[error("stopped; nothing was written")]
    Interrupted,
}

impl TrainError {
    /// [`Config`](Self::Config), where there is a problem.
    pub(crate) fn unless_empty(problems: Vec<String>) -> Result<(), Self> {
        match problems.is_empty() {
            true => Ok(()),
            false => Err(Self::Config(problems)),
        }
    }

    pub(crate) fn io<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |source| Self::Io {
            action,
            path: path.into(),
            source,
        }
    }

    pub(crate) fn weights(path: &Path) -> impl FnOnce(WeightsError) -> Self + '_ {
        move |source| Self::Weights {
            path: path.into(),
            source,
        }
    }

    pub(crate) fn layout(path: &Path, problem: impl Into<String>) -> Self {
        Self::Layout {
            path: path.into(),
            problem: problem.into(),
        }
    }
}
