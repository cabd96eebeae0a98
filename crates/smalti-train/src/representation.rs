//! What prediction heads are to predict: features of the images by a frozen network, or from a file.
//!
//! A head of `model.representation` looks at one branch of the codes; here each gets its target, in the same
//! order. The loss `representation` is the sum over the heads of InfoNCE
//! ([`info_nce`]) between predictions and targets of a batch. A
//! model with heads and a run without targets, or the other way round, is refused: training without them
//! is to leave both out.
//!
//! A file of features is safetensors with an array `features` `[images, width]`: one row for each image
//! learned from, in the order of the data set.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use smalti_models::autoencoder::{PredictionHeadConfig, info_nce};
use smalti_models::features::{FeatureConfig, FeatureNetwork};
use smalti_nn::state::{Array, Weights};

use crate::error::TrainError;

/// The array of a file of features.
const FEATURES: &str = "features";

/// The targets of the model's prediction heads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepresentationConfig {
    /// One for each head of `model.representation`, in its order.
    pub targets: Vec<TargetSource>,
    /// Images among which one is to be told from the others, at most: 32 as published. Without it, all
    /// of a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negatives: Option<NonZeroUsize>,
}

/// Where a head's targets come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetSource {
    /// A frozen network looks at each image as the tokenizer sees it.
    Network(FeatureConfig),
    /// A file has the features of every image, whatever the augmentation.
    File(PathBuf),
}

impl RepresentationConfig {
    /// Everything that is wrong with it for a model with these heads.
    pub(crate) fn problems(&self, heads: &[PredictionHeadConfig]) -> Vec<String> {
        let mut problems = Vec::new();
        if self.targets.len() != heads.len() {
            problems.push(format!(
                "representation: targets must be one for each of the {} heads of model.representation, got {}",
                heads.len(),
                self.targets.len()
            ));
        }
        for target in &self.targets {
            if let TargetSource::Network(network) = target
                && let Err(error) = network.validate()
            {
                problems.push(format!("representation: {error}"));
            }
        }
        problems
    }
}

/// Targets that can be looked up.
#[derive(Debug)]
enum Target {
    Network(Box<FeatureNetwork>),
    /// A row for each image.
    Rows(Array),
}

/// The targets of all heads.
#[derive(Debug)]
pub(crate) struct Representation {
    targets: Vec<Target>,
    negatives: Option<NonZeroUsize>,
}

impl Representation {
    /// Reads networks and files; `images` are learned from. `device` is not an autodiff one.
    ///
    /// # Errors
    /// When a file cannot be read, holds something else, or does not fit the heads or the images.
    pub(crate) fn load(
        config: &RepresentationConfig,
        heads: &[PredictionHeadConfig],
        images: usize,
        device: &Device,
    ) -> Result<Self, TrainError> {
        TrainError::unless_empty(config.problems(heads))?;
        let mut targets = Vec::new();
        for (source, head) in config.targets.iter().zip(heads) {
            let (target, width) = match source {
                TargetSource::Network(network) => {
                    let network = network.load(device)?;
                    let width = network.width();
                    (Target::Network(Box::new(network)), width)
                }
                TargetSource::File(path) => {
                    let rows = read(path, images)?;
                    let width = rows.shape[1];
                    (Target::Rows(rows), width)
                }
            };
            if width != head.width {
                return Err(TrainError::Config(vec![format!(
                    "model.representation: the head of branch {:?} is {} wide, its target has {width} numbers",
                    head.branch, head.width
                )]));
            }
            targets.push(target);
        }
        Ok(Self {
            targets,
            negatives: config.negatives,
        })
    }

    /// The smallest side of an image that every network can look at.
    pub(crate) fn smallest_side(&self) -> usize {
        let sides = self.targets.iter().map(|target| match target {
            Target::Network(network) => network.smallest_side(),
            Target::Rows(_) => 1,
        });
        sides.max().unwrap_or(1)
    }

    /// The loss of predictions from `images` (untracked), which are the given ones of the data set.
    pub(crate) fn loss(
        &self,
        predictions: Vec<Tensor<2>>,
        images: &Tensor<4>,
        indices: &[usize],
    ) -> Tensor<1> {
        let losses = self.targets.iter().zip(predictions).map(|(target, guess)| {
            let features = match target {
                Target::Network(network) => network.vectors(images.clone()),
                Target::Rows(rows) => chosen(rows, indices, &images.device()),
            };
            info_nce(guess, features, self.negatives)
        });
        let sum = losses.reduce(|a, b| a + b);
        sum.expect("a run with a representation has a head")
    }
}

/// A file of features of so many images.
fn read(path: &Path, images: usize) -> Result<Array, TrainError> {
    let mut weights = Weights::read_safetensors(path).map_err(TrainError::weights(path))?;
    let Some(rows) = weights.0.remove(FEATURES) else {
        let problem = format!("it has no array {FEATURES:?} [images, width]");
        return Err(TrainError::layout(path, problem));
    };
    match rows.shape[..] {
        [count, _] if count == images => Ok(rows),
        _ => Err(TrainError::layout(
            path,
            format!(
                "{FEATURES} must be [{images}, width], a row for each image learned from, got {:?}",
                rows.shape
            ),
        )),
    }
}

/// Rows of an array.
fn chosen(rows: &Array, indices: &[usize], device: &Device) -> Tensor<2> {
    let width = rows.shape[1];
    let values = indices.iter().flat_map(|&index| {
        let start = index * width;
        rows.values[start..start + width].iter().copied()
    });
    let data = TensorData::new(values.collect(), [indices.len(), width]);
    Tensor::from_data(data, device)
}
