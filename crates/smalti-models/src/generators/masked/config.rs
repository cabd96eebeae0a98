//! The shape of a masked generator: what a configuration file says.

use serde::{Deserialize, Serialize};

use super::mask_schedule::MaskSchedule;
use crate::generators::class_condition::ClassCondition;
use crate::generators::config::{InvalidGenerator, empty_sizes, heads_problem};
use crate::generators::layout::{CodeLayout, CodebookSize};
use crate::generators::request::Capability;
use crate::generators::writing::Writing;

/// Everything that determines the parameters and the training of a [`Masked`](super::Masked).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskedConfig {
    /// Rows of the code map.
    pub height: usize,
    /// Columns of the code map.
    pub width: usize,
    /// Codes at one position.
    pub depth: usize,
    /// Number of codes: one for all depths, or one for each.
    pub codebook_size: CodebookSize,
    /// Width of the transformer.
    pub embed_dim: usize,
    /// Its blocks.
    pub layers: usize,
    /// Attention heads of every block; a divisor of `embed_dim`.
    pub heads: usize,
    /// What images are conditioned on.
    pub condition: ClassCondition,
    /// Probability of dropping an element of the input and of what blocks add, in training.
    #[serde(default = "published_dropout")]
    pub dropout: f64,
    /// How it is trained.
    #[serde(default)]
    pub lesson: MaskedLesson,
}

/// What is masked in training, and what counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaskedLesson {
    /// The share of codes that is masked.
    pub schedule: MaskSchedule,
    /// Whose codes count.
    pub counts: CountedCodes,
    /// Share of the target that is spread over all codes.
    pub label_smoothing: f64,
}

/// Whose codes count in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CountedCodes {
    /// Those that are masked (MaskGIT).
    #[default]
    Masked,
    /// All, those that are seen as well (valeoai/Maskgit-pytorch).
    All,
}

/// The published dropout.
pub const PUBLISHED_DROPOUT: f64 = 0.1;

const fn published_dropout() -> f64 {
    PUBLISHED_DROPOUT
}

impl MaskedLesson {
    /// Everything that is wrong with it.
    pub fn problems(&self) -> Vec<String> {
        let got = self.label_smoothing;
        match (0.0..1.0).contains(&got) {
            true => Vec::new(),
            false => vec![format!(
                "lesson.label_smoothing: expected a share in [0, 1), got {got}"
            )],
        }
    }
}

impl MaskedConfig {
    /// The number of codes at every depth.
    pub fn codebook_sizes(&self) -> Vec<usize> {
        self.codebook_size.each(self.depth)
    }

    /// The maps it writes.
    pub fn layout(&self) -> CodeLayout {
        CodeLayout {
            height: self.height,
            width: self.width,
            codebook_sizes: self.codebook_sizes(),
        }
    }

    /// What may be asked of it.
    pub(in crate::generators) fn capability(&self) -> Capability {
        Capability {
            layout: self.layout(),
            conditions: self.condition.wanted(),
            guidance: self.condition.dropout() > 0.0,
        }
    }

    /// Tokens that the transformer sees: all codes, and a class where there are any.
    pub(super) fn tokens(&self) -> usize {
        self.height * self.width * self.depth + usize::from(self.condition.rows().is_some())
    }

    /// How it writes.
    pub(in crate::generators) fn writing(&self) -> Writing {
        Writing::Unmasked {
            codes: self.layout().codes(),
        }
    }

    /// How many parameters are trained.
    pub fn parameter_count(&self) -> usize {
        let width = self.embed_dim;
        let layout = self.layout();
        let codes: usize = layout.codebook_sizes.iter().sum();
        let table = layout.table_rows() + self.condition.rows().unwrap_or(0);
        let (linear, norm) = (width * width + width, 2 * width);
        let perceptron = 8 * width * width + 5 * width;
        let block = 4 * linear + perceptron + 2 * norm;
        (table + self.tokens()) * width
            + 2 * (norm + linear)
            + self.layers * block
            + 2 * norm
            + linear
            + layout.positions() * codes
    }

    /// Checks the configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn validate(&self) -> Result<(), InvalidGenerator> {
        let mut problems = Vec::new();
        problems.extend(empty_sizes([
            ("height", self.height),
            ("width", self.width),
            ("depth", self.depth),
            ("embed_dim", self.embed_dim),
            ("layers", self.layers),
        ]));
        problems.extend(heads_problem(self.embed_dim, self.heads));
        problems.extend(self.codebook_size.problems(self.depth));
        problems.extend(self.condition.problems());
        problems.extend(self.lesson.problems());
        if !(0.0..1.0).contains(&self.dropout) {
            let got = self.dropout;
            problems.push(format!(
                "dropout: expected a probability in [0, 1), got {got}"
            ));
        }
        InvalidGenerator::unless_empty(problems)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::tiny;
    use super::*;

    #[test]
    fn every_problem_is_reported_at_once() {
        let mut config = tiny(2);
        assert_eq!(config.validate(), Ok(()));
        config.embed_dim = 0;
        config.heads = 0;
        config.codebook_size = CodebookSize::PerDepth(vec![8]);
        config.condition = ClassCondition::Class {
            classes: 0,
            dropout: 0.0,
        };
        config.dropout = 1.0;
        config.lesson.label_smoothing = -0.5;
        let message = config.validate().unwrap_err().to_string();
        let parts = [
            "\n  embed_dim: expected at least 1",
            "heads: expected a divisor of embed_dim 0, got 0",
            "codebook_size: expected 2 sizes",
            "condition.classes: expected at least 1",
            "lesson.label_smoothing: expected a share",
            "dropout: expected a probability",
        ];
        for part in parts {
            assert!(message.contains(part), "{part} is not in {message}");
        }
        assert_eq!(message.lines().count(), 1 + parts.len());
    }

    #[test]
    fn a_configuration_survives_being_written() {
        let text = "
            height = 16\nwidth = 16\ndepth = 1\ncodebook_size = 1024\nembed_dim = 768\nlayers = 24
            heads = 16\ncondition = { kind = 'class', classes = 1000, dropout = 0.1 }";
        let config: MaskedConfig = toml::from_str(text).unwrap();
        assert_eq!(
            (config.dropout, config.lesson),
            (0.1, MaskedLesson::default())
        );
        let written = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<MaskedConfig>(&written).unwrap(), config);
        // The published model of this size has 174 M; its bias is one for every id and token.
        assert_eq!(config.parameter_count() / 1_000_000, 173);
        let error = toml::from_str::<MaskedConfig>(&format!("{text}\nhidden = 3")).unwrap_err();
        assert!(error.to_string().contains("unknown field"), "{error}");
    }
}
