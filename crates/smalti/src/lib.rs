//! Images to discrete tokens and tokens to images.
//!
//! ```no_run
//! use smalti::{Device, Generator, Tokenizer};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Device::flex();
//! let tokenizer = Tokenizer::load("runs/emoji/model".as_ref(), &device)?;
//! let image = smalti::Image::open("cat.png".as_ref())?;
//! let tokens = tokenizer.encode("cat.png", &image)?;
//! tokens.write("cat.tokens".as_ref())?;
//! tokenizer.decode(&tokens)?[0].save_png("cat-again.png".as_ref())?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Tokenizer`] encodes and decodes images of any size, [`Generator`] writes new ones, [`train`]
//! trains either, [`compare`] trains several tokenizers alike, [`Vae`] makes a tokenizer of a trained
//! Gaussian VAE, [`demo`] does all of it on bundled images.

pub mod demo;
mod generator;
mod import;
mod inspect;
mod tokenizer;
mod vae;

pub use burn::tensor::Device;
#[cfg(any(feature = "vulkan", feature = "metal"))]
pub use burn::tensor::DeviceKind;
pub use generator::{Generator, Request};
pub use import::{
    ImportError, Published, PublishedGenerator, PublishedGeneratorLayout, PublishedLayout,
};
pub use inspect::{Description, inspect};
pub use smalti_data::{
    self as data, DataError, DatasetConfig, Image, LoadReport, OpenOptions, TokenFile,
    TokenFileError,
};
pub use smalti_models::autoencoder::published::PublishedError;
pub use smalti_models::features::{Backbone, FeatureConfig};
pub use smalti_models::generators::masked::MaskSchedule;
pub use smalti_models::generators::sampling::{Guidance, PerDepth, SamplingConfig};
pub use smalti_models::generators::{GenerateError, Progress, UnmaskingOrder};
pub use smalti_models::perceptual::{Lpips, PerceptualConfig};
pub use smalti_quantize::Generator as CodeGenerator;
pub use smalti_train::comparison::{self, ComparisonConfig, ComparisonOutcome, compare};
pub use smalti_train::config::RunConfig;
pub use smalti_train::divergence;
pub use smalti_train::evaluation::{BranchCorrelation, DepthReport, Evaluation, FrechetReport};
pub use smalti_train::feature_extractor::FeatureExtractor;
pub use smalti_train::judges::{Judges, JudgesConfig};
pub use smalti_train::set_distance::{self, SetDistance, SetDistanceConfig};
pub use smalti_train::{
    Observer, RunOutcome, Silent, TrainError as Error, require_same_run, train,
};
pub use smalti_train::{model_dir, report, run_report, samples, trainer};
pub use tokenizer::{Tokenizer, TokenizerError};
pub use vae::Vae;
