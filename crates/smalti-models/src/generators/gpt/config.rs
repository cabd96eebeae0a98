//! The shape of a GPT: what a configuration file says.

use serde::{Deserialize, Serialize};
use smalti_nn::TransformerConfig;
use smalti_nn::gelu::Gelu;

use crate::generators::conditions::Wanted;
use crate::generators::config::{InvalidGenerator, empty_sizes, heads_problem};
use crate::generators::layout::{CodeLayout, CodebookSize};
use crate::generators::request::Capability;

/// Everything that determines the parameters and the training behaviour of a [`Gpt`](super::Gpt).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GptConfig {
    /// Rows of the code map.
    pub height: usize,
    /// Columns of the code map.
    pub width: usize,
    /// Codes at one position; 1 in published models.
    pub depth: usize,
    /// Number of codes: one for all depths, or one for each.
    pub codebook_size: CodebookSize,
    /// Rows of the table of vectors, and logits. Codes and the condition's token share it, so it is at
    /// least as large as the largest codebook and the number of classes; what lies beyond a codebook is
    /// never drawn.
    pub vocab_size: usize,
    /// Places of the sequence that have a learned vector, at least as many as there are codes: the
    /// condition's token stands before them, and the last code is not read.
    pub block_size: usize,
    /// Width of the transformer.
    pub embed_dim: usize,
    /// Blocks of the transformer.
    pub layers: usize,
    /// Attention heads of every block; a divisor of `embed_dim`.
    pub heads: usize,
    /// What images are conditioned on.
    pub condition: GptCondition,
    /// Probability that a code is shown as it is in training; the others are replaced by random ones
    /// (`pkeep` in the published code).
    #[serde(default = "one")]
    pub keep: f64,
    /// Probability of dropping an element of the input in training.
    #[serde(default)]
    pub embedding_dropout: f64,
    /// Probability of dropping an attention weight in training.
    #[serde(default)]
    pub attention_dropout: f64,
    /// Probability of dropping an element of what attention or perceptron add, in training.
    #[serde(default)]
    pub residual_dropout: f64,
}

/// What images are conditioned on: the first token of the sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum GptCondition {
    /// Nothing: the token is always the same.
    Unconditional {
        /// Which (`sos_token` in the published code).
        #[serde(default)]
        start_token: u32,
    },
    /// A class: its number is the token.
    Class {
        /// Number of classes.
        classes: usize,
    },
}

fn one() -> f64 {
    1.0
}

impl GptCondition {
    /// How many rows of the table it may ask for.
    pub const fn vocab_size(&self) -> usize {
        match *self {
            Self::Unconditional { start_token } => start_token as usize + 1,
            Self::Class { classes } => classes,
        }
    }
}

impl GptConfig {
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

    /// Codes of a map: the length of the sequence that the model reads, the condition in and the last
    /// code out.
    pub const fn codes(&self) -> usize {
        self.height * self.width * self.depth
    }

    /// The smallest vocabulary for codes of these sizes and a condition.
    pub fn smallest_vocabulary(codebook_sizes: &[usize], condition: GptCondition) -> usize {
        let largest = codebook_sizes.iter().copied().max().unwrap_or(0);
        largest.max(condition.vocab_size())
    }

    /// How many parameters there are.
    pub fn parameter_count(&self) -> usize {
        let width = self.embed_dim;
        let tables = (2 * self.vocab_size + self.block_size) * width;
        tables + self.transformer().parameter_count() + 2 * width
    }

    pub(super) fn transformer(&self) -> TransformerConfig {
        TransformerConfig {
            width: self.embed_dim,
            layers: self.layers,
            heads: self.heads,
            attention_dropout: self.attention_dropout,
            residual_dropout: self.residual_dropout,
            gelu: Gelu::Exact,
        }
    }

    pub(in crate::generators) fn capability(&self) -> Capability {
        Capability {
            layout: self.layout(),
            conditions: match self.condition {
                GptCondition::Unconditional { .. } => Wanted::Nothing,
                GptCondition::Class { classes } => Wanted::Classes(classes),
            },
            guidance: false,
        }
    }

    /// Checks everything.
    ///
    /// # Errors
    /// Lists all problems.
    pub fn validate(&self) -> Result<(), InvalidGenerator> {
        let mut problems = Vec::new();
        let mut sizes = vec![
            ("height", self.height),
            ("width", self.width),
            ("depth", self.depth),
            ("embed_dim", self.embed_dim),
            ("layers", self.layers),
        ];
        if let GptCondition::Class { classes } = self.condition {
            sizes.push(("condition.classes", classes));
        }
        problems.extend(empty_sizes(sizes));
        problems.extend(heads_problem(self.embed_dim, self.heads));
        self.check_codes(&mut problems);
        for (name, value) in [
            ("embedding_dropout", self.embedding_dropout),
            ("attention_dropout", self.attention_dropout),
            ("residual_dropout", self.residual_dropout),
        ] {
            if !(0.0..1.0).contains(&value) {
                problems.push(format!(
                    "{name}: expected a probability in [0, 1), got {value}"
                ));
            }
        }
        if !(self.keep > 0.0 && self.keep <= 1.0) {
            let got = self.keep;
            problems.push(format!("keep: expected a probability in (0, 1], got {got}"));
        }
        InvalidGenerator::unless_empty(problems)
    }

    fn check_codes(&self, problems: &mut Vec<String>) {
        problems.extend(self.codebook_size.problems(self.depth));
        let (least, got) = (
            Self::smallest_vocabulary(&self.codebook_sizes(), self.condition),
            self.vocab_size,
        );
        if got < least {
            problems.push(format!(
                "vocab_size: expected at least {least} (codes and the condition's tokens share the table), got {got}"
            ));
        }
        let (codes, got) = (self.codes(), self.block_size);
        if got < codes {
            problems.push(format!(
                "block_size: expected at least {codes} (the codes of a map), got {got}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::gpt::testing::tiny;

    #[test]
    fn every_problem_is_reported_at_once() {
        let mut config = tiny();
        assert_eq!(config.validate(), Ok(()));
        config.layers = 0;
        config.heads = 5;
        config.depth = 2;
        config.codebook_size = CodebookSize::PerDepth(vec![12, 0, 99]);
        config.condition = GptCondition::Class { classes: 0 };
        config.keep = 0.0;
        config.attention_dropout = 1.0;
        let message = config.validate().unwrap_err().to_string();
        let parts = [
            "\n  layers: expected at least 1",
            "condition.classes: expected at least 1",
            "heads: expected a divisor of embed_dim 16, got 5",
            "codebook_size: expected 2 sizes",
            "codebook_size: expected at least 1 code",
            "vocab_size: expected at least 99 (codes and the condition's tokens share the table), got 14",
            "block_size: expected at least 12 (the codes of a map), got 7",
            "attention_dropout: expected a probability",
            "keep: expected a probability in (0, 1], got 0",
        ];
        for part in parts {
            assert!(message.contains(part), "{part} is not in {message}");
        }
        assert_eq!(message.lines().count(), 1 + parts.len());
    }

    #[test]
    fn the_token_of_nothing_and_the_classes_need_their_rows() {
        for condition in [
            GptCondition::Unconditional { start_token: 14 },
            GptCondition::Class { classes: 15 },
        ] {
            let config = GptConfig {
                condition,
                ..tiny()
            };
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains("expected at least 15"), "{message}");
        }
    }

    #[test]
    fn a_short_configuration_means_the_published_recipe() {
        let text = "
            height = 16\nwidth = 16\ndepth = 1\ncodebook_size = 16384\nvocab_size = 16384\nblock_size = 256
            embed_dim = 1536\nlayers = 48\nheads = 24\ncondition = { kind = 'class', classes = 1000 }";
        let config: GptConfig = toml::from_str(text).unwrap();
        assert_eq!(config, super::super::Preset::ImageNet.config());
        let written = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<GptConfig>(&written).unwrap(), config);
        for (from, to) in [
            ("heads = 24", "heads = 24\nhidden = 3"),
            ("classes = 1000", "classes = 1000, dropout = 0.1"),
        ] {
            let error = toml::from_str::<GptConfig>(&text.replacen(from, to, 1)).unwrap_err();
            assert!(error.to_string().contains("unknown field"), "{error}");
        }
    }
}
