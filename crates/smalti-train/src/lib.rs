//! Losses, the two training stages, checkpoints, the run directory and the report.
//!
//! [`RunConfig`] says what to train; [`run::train`] carries it out in a run directory and tells an
//! [`Observer`] how it goes. Stage 1 ([`tokenizer`]) trains an autoencoder, stage 2 ([`generator`])
//! a generator on its codes; both are a [`trainer::Stage`] that the one loop in [`trainer`] drives.
//! A [`comparison`] is several runs of stage 1 that differ in the quantizer only.
//! Everything random is a function of the seed and the step, so a run that was interrupted and
//! resumed equals one that was not, bit for bit on the CPU.

pub mod adversary;
pub mod average;
pub mod checkpoint;
pub mod comparison;
pub mod config;
pub mod divergence;
pub mod error;
pub mod evaluation;
pub mod feature_extractor;
pub mod generator;
pub mod generator_shape;
pub mod gradients;
pub mod halves;
pub mod journal;
mod json;
pub mod judges;
pub mod learner;
pub mod loss;
pub mod model_dir;
pub mod observer;
pub mod optimizer;
pub mod passage;
pub mod report;
pub mod representation;
pub mod run;
pub mod run_report;
pub mod same_run;
pub mod samples;
pub mod schedule;
pub mod set_distance;
mod settings;
pub mod tokenizer;
pub mod tokens;
pub mod trainer;

pub use comparison::{ComparisonConfig, ComparisonOutcome, compare};
pub use config::{GeneratorRun, RunConfig, TokenizerRun};
pub use error::TrainError;
pub use evaluation::{Evaluation, evaluate};
pub use model_dir::{GeneratorModel, TokenizerModel};
pub use observer::{Observer, Silent};
pub use run::{RunOutcome, train};
pub use same_run::require_same_run;
