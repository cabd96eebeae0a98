//! What to train: the whole of a run, as a TOML file states it.
//!
//! Unknown fields are refused, and [`RunConfig::validate`] lists every problem at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use smalti_data::{DataError, DatasetConfig, PreprocessPair, Split, Views};
use smalti_models::autoencoder::AutoencoderConfig;
use smalti_models::generators::Writing;
use smalti_models::generators::sampling::SamplingConfig;
use smalti_models::perceptual::{ContrastiveConfig, PerceptualConfig};

use crate::adversary::AdversarialConfig;
use crate::average::AverageConfig;
use crate::error::TrainError;
pub use crate::generator_shape::{ConditionKind, EmbeddingKind, GeneratorShape};
use crate::loss::ReconstructionLoss;
use crate::optimizer::OptimizerConfig;
use crate::representation::RepresentationConfig;
use crate::schedule::Schedule;
use crate::settings;

/// A run of either stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RunConfig {
    /// Stage 1: an autoencoder with discrete latents.
    Tokenizer(Box<TokenizerRun>),
    /// Stage 2: a generator of its codes.
    Generator(Box<GeneratorRun>),
}

/// Which images to learn from and which to measure on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Where the images are.
    pub source: DatasetConfig,
    /// Which of them are learned from.
    pub train: Split,
    /// Which of them are measured on.
    pub eval: Split,
    /// Where the images that are measured on are, when elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_source: Option<DatasetConfig>,
    /// What happens to an image before the network sees it.
    pub preprocess: PreprocessPair,
    /// Whether one broken file ends the run instead of being skipped and named.
    #[serde(default)]
    pub strict: bool,
}

/// How long, how much at a time, and when to look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// Optimiser steps.
    pub steps: u64,
    /// Images that pass the network together.
    pub batch_size: usize,
    /// Batches whose gradients are summed for one step.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Steps between measurements on the evaluation images; the last step always measures.
    pub evaluate_every: u64,
    /// Steps between checkpoints; the last step always writes one.
    pub checkpoint_every: u64,
    /// Checkpoints kept, the newest ones.
    #[serde(default = "two")]
    pub keep_checkpoints: usize,
    /// Steps between lines of the journal.
    #[serde(default = "ten")]
    pub log_every: u64,
    /// A moving average of the weights, which evaluation and the finished model use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average: Option<AverageConfig>,
}

fn one() -> usize {
    1
}

fn two() -> usize {
    2
}

fn ten() -> u64 {
    10
}

/// Stage 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerRun {
    /// Determines every random number.
    #[serde(default)]
    pub seed: u64,
    /// The images.
    pub data: DataConfig,
    /// The autoencoder.
    pub model: AutoencoderConfig,
    /// How the loss `reconstruction` compares images.
    #[serde(default)]
    pub reconstruction: ReconstructionLoss,
    /// The network whose distance is the loss `perceptual`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perceptual: Option<PerceptualConfig>,
    /// The network whose features are told apart by the loss `contrastive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contrastive: Option<ContrastiveConfig>,
    /// The discriminator whose opinion is the loss `adversarial`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adversarial: Option<AdversarialConfig>,
    /// What the model's prediction heads predict: the loss `representation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub representation: Option<RepresentationConfig>,
    /// The weight of every loss that the model produces, by its name.
    pub losses: BTreeMap<String, f64>,
    /// The optimiser.
    pub optimizer: OptimizerConfig,
    /// The learning rate over time.
    #[serde(default)]
    pub schedule: Schedule,
    /// How long and when to look.
    pub training: TrainingConfig,
}

/// What the generator should say at each code.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TargetConfig {
    /// The tokenizer's code.
    Hard {},
    /// The distribution over codes, `softmax(−‖r − e‖² / temperature)`.
    Soft {
        /// Of the distribution; 0.5 in the paper.
        temperature: f64,
        /// Whether the codes shown are drawn from that distribution at every visit, rather than the
        /// nearest ones.
        stochastic: bool,
    },
}

/// Stage 2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneratorRun {
    /// Determines every random number.
    #[serde(default)]
    pub seed: u64,
    /// The folder of the trained tokenizer.
    pub tokenizer: PathBuf,
    /// The images whose codes are learned.
    pub data: DataConfig,
    /// Whether every image is also learned mirrored.
    #[serde(default)]
    pub mirror: bool,
    /// The views that are kept of every image, of which a visit sees one at random.
    #[serde(default, skip_serializing_if = "Views::is_one")]
    pub views: Views,
    /// The generator.
    pub model: GeneratorShape,
    /// What it should say.
    pub targets: TargetConfig,
    /// How images are sampled from it, unless asked otherwise.
    #[serde(default)]
    pub sampling: SamplingConfig,
    /// The optimiser.
    pub optimizer: OptimizerConfig,
    /// The learning rate over time.
    #[serde(default)]
    pub schedule: Schedule,
    /// How long and when to look.
    pub training: TrainingConfig,
}

impl RunConfig {
    /// Reads a configuration file, after setting the given `key.path = value` pairs in it.
    ///
    /// # Errors
    /// When the file cannot be read, is malformed or invalid.
    pub fn read(path: &Path, settings: &[String]) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path).map_err(TrainError::io("read", path))?;
        Self::parse(&text, settings, path)
    }

    /// [`read`](Self::read) of a text; `path` names it in errors.
    ///
    /// # Errors
    /// When the text is malformed or invalid.
    pub fn parse(text: &str, settings: &[String], path: &Path) -> Result<Self, TrainError> {
        let config: Self = settings::parse(text, settings, path, parse_placed)?;
        config.validate()?;
        Ok(config)
    }

    /// The configuration as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self)
            .expect("a configuration is made of tables, numbers and strings")
    }

    /// Checks everything.
    ///
    /// # Errors
    /// Lists all problems.
    pub fn validate(&self) -> Result<(), TrainError> {
        TrainError::unless_empty(self.problems())
    }

    /// Everything that is wrong with it.
    pub(crate) fn problems(&self) -> Vec<String> {
        match self {
            Self::Tokenizer(run) => run.problems(),
            Self::Generator(run) => run.problems(),
        }
    }

    /// The part that both stages have.
    pub fn training(&self) -> &TrainingConfig {
        match self {
            Self::Tokenizer(run) => &run.training,
            Self::Generator(run) => &run.training,
        }
    }

    /// The learning rate over time.
    pub fn schedule(&self) -> Schedule {
        match self {
            Self::Tokenizer(run) => run.schedule,
            Self::Generator(run) => run.schedule,
        }
    }
}

impl TokenizerRun {
    fn problems(&self) -> Vec<String> {
        let mut problems = shared_problems(&self.data, &self.training, &self.optimizer);
        if let Err(invalid) = self.model.validate() {
            problems.extend(invalid.0.into_iter().map(|p| format!("model.{p}")));
        }
        if let Some(adversarial) = &self.adversarial {
            problems.extend(adversarial.problems());
        }
        if let Some(Err(error)) = self.perceptual.as_ref().map(PerceptualConfig::validate) {
            problems.push(error.to_string());
        }
        if let Some(Err(error)) = self.contrastive.as_ref().map(ContrastiveConfig::validate) {
            problems.push(error.to_string());
        }
        let heads = &self.model.representation;
        match &self.representation {
            Some(representation) => problems.extend(representation.problems(heads)),
            None if heads.is_empty() => {}
            None => problems.push(
                "representation: the model has prediction heads and nothing to predict; give them targets, or leave out model.representation to train without".into(),
            ),
        }
        problems.extend(self.small_images());
        let factor = self.model.factor();
        if let Some((width, height)) = self.data.preprocess.train.output_size()
            && !(width.is_multiple_of(factor) && height.is_multiple_of(factor))
        {
            problems.push(format!("data.preprocess gives images of {width}x{height}, which the factor {factor} of the network does not divide"));
        }
        problems
    }
}

impl TokenizerRun {
    /// Images that are too small for the discriminator.
    fn small_images(&self) -> Option<String> {
        let (width, height) = self.data.preprocess.train.output_size()?;
        let smallest = self.adversarial.as_ref()?.discriminator.smallest_side();
        (width.min(height) < smallest).then(|| {
            format!("adversarial: the discriminator judges images of at least {smallest} pixels on a side, data.preprocess gives {width}x{height}")
        })
    }
}

impl GeneratorRun {
    fn problems(&self) -> Vec<String> {
        let mut problems = shared_problems(&self.data, &self.training, &self.optimizer);
        if let TargetConfig::Soft { temperature, .. } = self.targets
            && !(temperature > 0.0 && temperature.is_finite())
        {
            problems.push(format!(
                "targets: temperature must be positive, got {temperature}"
            ));
        }
        if matches!(self.targets, TargetConfig::Soft { .. }) && !self.model.learns_soft_targets() {
            problems.push(
                "targets: this generator learns codes, not distributions over them; use kind = \"hard\""
                    .into(),
            );
        }
        problems.extend(
            self.views
                .problems()
                .into_iter()
                .map(|p| format!("views: {p}")),
        );
        if self.mirror && !self.views.is_one() {
            problems.push(
                "mirror: the views of an image hold its mirror image already; leave mirror out"
                    .into(),
            );
        }
        let guidance = self.sampling.guidance.iter();
        let guidance = guidance.flat_map(|guidance| guidance.problems());
        problems.extend(guidance.map(|problem| format!("sampling.{problem}")));
        problems.extend(self.misplaced(self.model.writing()));
        if self.sampling.is_guided() && !self.model.can_be_guided() {
            problems.push("sampling.guidance: this generator never learns images without their class; use kind = \"far\", \"diffusion\" or \"masked\" with condition = \"class\", or leave guidance out".into());
        }
        problems
    }

    /// Settings of the samples that mean nothing to a generator that writes so.
    pub(crate) fn misplaced(&self, writing: Writing) -> Vec<String> {
        let problems = self.sampling.misplaced(writing).into_iter();
        problems
            .map(|problem| format!("sampling.{problem}"))
            .collect()
    }
}

fn shared_problems(
    data: &DataConfig,
    training: &TrainingConfig,
    optimizer: &OptimizerConfig,
) -> Vec<String> {
    let mut problems = optimizer.problems();
    match data.preprocess.validate() {
        Ok(()) => {}
        Err(DataError::Config { problems: all, .. }) => {
            problems.extend(
                all.into_iter()
                    .map(|problem| format!("data.preprocess: {problem}")),
            );
        }
        Err(error) => problems.push(format!("data.preprocess: {error}")),
    }
    for (name, value) in [
        ("steps", training.steps),
        ("batch_size", training.batch_size as u64),
        ("accumulate", training.accumulate as u64),
        ("evaluate_every", training.evaluate_every),
        ("checkpoint_every", training.checkpoint_every),
        ("keep_checkpoints", training.keep_checkpoints as u64),
        ("log_every", training.log_every),
    ] {
        if value == 0 {
            problems.push(format!("training: {name} must be at least 1, got 0"));
        }
    }
    if let Some(average) = training.average
        && !(average.decay > 0.0 && average.decay < 1.0)
    {
        problems.push(format!(
            "training.average: decay must lie between 0 and 1, got {}",
            average.decay
        ));
    }
    problems
}

/// Parses a configuration so that errors show the line they are about, which an enum with a tag would
/// lose: the tag is read first, blanked, and the rest is parsed as what it says.
fn parse_placed(text: &str) -> Result<RunConfig, toml::de::Error> {
    #[derive(Deserialize)]
    struct Tagged {
        kind: toml::Spanned<String>,
    }
    let Ok(Tagged { kind }) = toml::from_str(text) else {
        return toml::from_str(text);
    };
    let value = kind.span();
    let line = text[..value.start].rfind('\n').map_or(0, |end| end + 1);
    let blank = " ".repeat(value.end - line);
    let rest = [&text[..line], &blank, &text[value.end..]].concat();
    match kind.get_ref().as_str() {
        "tokenizer" => Ok(RunConfig::Tokenizer(toml::from_str(&rest)?)),
        "generator" => Ok(RunConfig::Generator(toml::from_str(&rest)?)),
        _ => toml::from_str(text),
    }
}
