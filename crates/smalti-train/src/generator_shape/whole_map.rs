//! The shapes of generators that write whole maps: discrete diffusion and masked generation.

use serde::Serialize;
use smalti_models::generators::diffusion::{DiffusionConfig, PerceptronConfig, ProcessConfig};
use smalti_models::generators::masked::{MaskedConfig, MaskedLesson};
use smalti_models::generators::{ClassCondition, CodebookSize};

use super::{ConditionKind, Given};

/// How often a class is hidden where nothing is said.
pub(super) const CONDITION_DROPOUT: f64 = 0.1;

/// The shape of a discrete diffusion model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DiffusionShape {
    /// Width of the transformer.
    pub embed_dim: usize,
    /// Its blocks.
    pub layers: usize,
    /// Attention heads of every block.
    pub heads: usize,
    /// What images are conditioned on.
    pub condition: ConditionKind,
    /// Probability that a class is hidden in training, which guidance needs; 0.1 where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition_dropout: Option<f64>,
    /// What stands behind the attention in every block.
    pub perceptron: PerceptronConfig,
    /// The chain and its loss.
    pub process: ProcessConfig,
}

/// The shape of a masked generator.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MaskedShape {
    /// Width of the transformer.
    pub embed_dim: usize,
    /// Its blocks.
    pub layers: usize,
    /// Attention heads of every block.
    pub heads: usize,
    /// What images are conditioned on.
    pub condition: ConditionKind,
    /// Probability that a class is hidden in training, which guidance needs; 0.1 where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition_dropout: Option<f64>,
    /// Probability of dropping an element of the input and of what blocks add, in training.
    pub dropout: f64,
    /// What is masked in training, and what counts.
    pub lesson: MaskedLesson,
}

impl DiffusionShape {
    pub(super) fn config(&self, given: &Given) -> DiffusionConfig {
        DiffusionConfig {
            height: given.layout.height,
            width: given.layout.width,
            depth: given.layout.depth(),
            codebook_size: CodebookSize::of(&given.layout.codebook_sizes),
            embed_dim: self.embed_dim,
            layers: self.layers,
            heads: self.heads,
            perceptron: self.perceptron,
            condition: condition(self.condition, self.condition_dropout, given),
            process: self.process,
        }
    }
}

impl MaskedShape {
    pub(super) fn config(&self, given: &Given) -> MaskedConfig {
        MaskedConfig {
            height: given.layout.height,
            width: given.layout.width,
            depth: given.layout.depth(),
            codebook_size: CodebookSize::of(&given.layout.codebook_sizes),
            embed_dim: self.embed_dim,
            layers: self.layers,
            heads: self.heads,
            condition: condition(self.condition, self.condition_dropout, given),
            dropout: self.dropout,
            lesson: self.lesson,
        }
    }
}

fn condition(kind: ConditionKind, dropout: Option<f64>, given: &Given) -> ClassCondition {
    match kind {
        ConditionKind::Unconditional => ClassCondition::Unconditional {},
        ConditionKind::Class => ClassCondition::Class {
            classes: given.classes,
            dropout: dropout.unwrap_or(CONDITION_DROPOUT),
        },
    }
}
