//! The shape of an RQ-Transformer: what a configuration file says.

use serde::{Deserialize, Serialize};
use smalti_nn::{Gelu, TransformerConfig};

use crate::generators::conditions::Wanted;
pub use crate::generators::config::InvalidGenerator;
use crate::generators::config::empty_sizes;
use crate::generators::layout::CodeLayout;
pub use crate::generators::layout::CodebookSize;
use crate::generators::request::Capability;

/// Everything that determines the parameters and the training behaviour of an
/// [`RqTransformer`](super::RqTransformer).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RqTransformerConfig {
    /// Rows of the code map.
    pub height: usize,
    /// Columns of the code map.
    pub width: usize,
    /// Codes at one position.
    pub depth: usize,
    /// Number of codes: one for all depths, or one for each.
    pub codebook_size: CodebookSize,
    /// Width of both transformers.
    pub embed_dim: usize,
    /// How codes become vectors.
    pub embedding: CodeInput,
    /// Whether one classifier serves all depths.
    #[serde(default)]
    pub classifier: Sharing,
    /// What the images are conditioned on.
    pub condition: Condition,
    /// The transformer over positions.
    pub body: StackConfig,
    /// The transformer over the depths of one position.
    pub head: StackConfig,
    /// Probability of dropping an element of the body's input in training.
    #[serde(default)]
    pub embedding_dropout: f64,
}

/// One for all depths, or one for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// One for all depths.
    #[default]
    Shared,
    /// One for each depth.
    PerDepth,
}

/// How codes become the vectors that the transformers see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum CodeInput {
    /// Through the tokenizer's frozen codebook and a learned linear map (all published models).
    Tokenizer {
        /// Width of the codebook's vectors.
        code_dim: usize,
        /// Whether depth `d` sees the sum of the vectors before it, rather than the last alone.
        #[serde(default = "yes")]
        cumulative: bool,
    },
    /// Through tables of the generator's own.
    Own {
        /// Whether all depths share one table.
        tables: Sharing,
    },
}

/// What images are conditioned on: the start of the body's sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Condition {
    /// Nothing: one learned start vector.
    Unconditional {},
    /// A class: its vector starts the sequence.
    Class {
        /// Number of classes.
        classes: usize,
    },
    /// A text of fixed length, which the model predicts as well.
    Text {
        /// Number of text tokens.
        vocab_size: usize,
        /// Tokens of a (padded) text.
        length: usize,
    },
}

/// The shape of one of the two transformers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StackConfig {
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads of a block; a divisor of `embed_dim`.
    pub heads: usize,
    /// Probability of dropping an attention weight in training.
    #[serde(default)]
    pub attention_dropout: f64,
    /// Probability of dropping an element of what a block adds, in training.
    #[serde(default = "published_residual_dropout")]
    pub residual_dropout: f64,
    /// The activation of the blocks' perceptrons.
    #[serde(default)]
    pub gelu: GeluKind,
}

/// The activation of a perceptron.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GeluKind {
    /// `x·Φ(x)` with the error function (`v1` in published files).
    #[default]
    Exact,
    /// `x·σ(1.702·x)` (`v2`).
    Logistic,
}

const fn yes() -> bool {
    true
}

const fn published_residual_dropout() -> f64 {
    0.1
}

impl StackConfig {
    /// The published stack: exact GELU, dropout 0.1 on what a block adds and none elsewhere.
    pub const fn published(layers: usize, heads: usize) -> Self {
        Self {
            layers,
            heads,
            attention_dropout: 0.0,
            residual_dropout: 0.1,
            gelu: GeluKind::Exact,
        }
    }

    /// The same for the layers, at the given width.
    pub(super) fn transformer(&self, width: usize) -> TransformerConfig {
        TransformerConfig {
            width,
            layers: self.layers,
            heads: self.heads,
            attention_dropout: self.attention_dropout,
            residual_dropout: self.residual_dropout,
            gelu: match self.gelu {
                GeluKind::Exact => Gelu::Exact,
                GeluKind::Logistic => Gelu::Logistic,
            },
        }
    }
}

impl Condition {
    /// Ids in front of an image.
    pub const fn length(&self) -> usize {
        match self {
            Self::Unconditional {} | Self::Class { .. } => 1,
            Self::Text { length, .. } => *length,
        }
    }

    /// Number of different ids.
    pub const fn vocab_size(&self) -> usize {
        match self {
            Self::Unconditional {} => 1,
            Self::Class { classes } => *classes,
            Self::Text { vocab_size, .. } => *vocab_size,
        }
    }

    /// The conditions that fit.
    pub const fn wanted(&self) -> Wanted {
        match *self {
            Self::Unconditional {} => Wanted::Nothing,
            Self::Class { classes } => Wanted::Classes(classes),
            Self::Text { vocab_size, length } => Wanted::Texts { vocab_size, length },
        }
    }
}

impl RqTransformerConfig {
    /// Positions of the code map.
    pub const fn positions(&self) -> usize {
        self.height * self.width
    }

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
            guidance: false,
        }
    }

    /// Width of the logits: the largest codebook.
    pub fn vocab_size(&self) -> usize {
        self.codebook_sizes().into_iter().max().unwrap_or(0)
    }

    /// How many parameters the model has, the frozen codebook not counted.
    pub fn parameter_count(&self) -> usize {
        let width = self.embed_dim;
        let vocab = self.vocab_size();
        let condition = self.condition.vocab_size() * width;
        let places = (self.condition.length() + self.positions() + self.depth) * width;
        let codes = match &self.embedding {
            CodeInput::Tokenizer { code_dim, .. } => 2 * (code_dim * width + width),
            CodeInput::Own {
                tables: Sharing::Shared,
            } => vocab * width,
            CodeInput::Own {
                tables: Sharing::PerDepth,
            } => self.codebook_sizes().iter().sum::<usize>() * width,
        };
        let classifiers = match self.classifier {
            Sharing::Shared => 1,
            Sharing::PerDepth => self.depth,
        };
        let text = match self.condition {
            Condition::Text { vocab_size, .. } => 2 * width + vocab_size * (width + 1),
            _ => 0,
        };
        let stacks = [&self.body, &self.head].map(|s| s.transformer(width).parameter_count());
        let classifier = 2 * width + classifiers * vocab * (width + 1);
        condition + places + codes + stacks[0] + stacks[1] + classifier + text
    }

    /// Checks the configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn validate(&self) -> Result<(), InvalidGenerator> {
        let mut problems = Vec::new();
        let sizes = [
            ("height", self.height),
            ("width", self.width),
            ("depth", self.depth),
            ("embed_dim", self.embed_dim),
            ("body.layers", self.body.layers),
            ("head.layers", self.head.layers),
        ];
        problems.extend(empty_sizes(sizes));
        self.check_codebooks(&mut problems);
        self.check_condition(&mut problems);
        self.check_stacks(&mut problems);
        InvalidGenerator::unless_empty(problems)
    }

    fn check_codebooks(&self, problems: &mut Vec<String>) {
        problems.extend(self.codebook_size.problems(self.depth));
        let sizes = self.codebook_sizes();
        let differ = sizes.windows(2).any(|pair| pair[0] != pair[1]);
        if differ && self.classifier == Sharing::Shared {
            problems.push("classifier: codebooks of different sizes need \"per_depth\"".into());
        }
        match self.embedding {
            CodeInput::Own {
                tables: Sharing::Shared,
            } if differ => {
                problems.push(
                    "embedding.tables: codebooks of different sizes need \"per_depth\"".into(),
                );
            }
            CodeInput::Tokenizer { code_dim: 0, .. } => {
                problems.push("embedding.code_dim: expected at least 1, got 0".into());
            }
            _ => {}
        }
    }

    fn check_condition(&self, problems: &mut Vec<String>) {
        match self.condition {
            Condition::Class { classes: 0 } => {
                problems.push("condition.classes: expected at least 1, got 0".into());
            }
            Condition::Text { vocab_size, length } => {
                if vocab_size < 2 {
                    problems.push(format!(
                        "condition.vocab_size: expected at least 2, got {vocab_size}"
                    ));
                }
                if length < 2 {
                    problems.push(format!(
                        "condition.length: expected at least 2, got {length}"
                    ));
                }
            }
            _ => {}
        }
    }

    fn check_stacks(&self, problems: &mut Vec<String>) {
        let mut dropouts = vec![("embedding_dropout".to_owned(), self.embedding_dropout)];
        for (name, stack) in [("body", &self.body), ("head", &self.head)] {
            let StackConfig { heads, .. } = *stack;
            if heads == 0 || !self.embed_dim.is_multiple_of(heads) {
                let width = self.embed_dim;
                problems.push(format!(
                    "{name}.heads: expected a divisor of embed_dim {width}, got {heads}"
                ));
            }
            dropouts.push((format!("{name}.attention_dropout"), stack.attention_dropout));
            dropouts.push((format!("{name}.residual_dropout"), stack.residual_dropout));
        }
        for (name, value) in dropouts {
            if !(0.0..1.0).contains(&value) {
                problems.push(format!(
                    "{name}: expected a probability in [0, 1), got {value}"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::rq_transformer::testing::tiny;

    #[test]
    fn every_problem_is_reported_at_once() {
        let mut config = tiny();
        assert_eq!(config.validate(), Ok(()));
        config.height = 0;
        config.codebook_size = CodebookSize::PerDepth(vec![8, 4]);
        config.body.heads = 5;
        config.head.residual_dropout = 1.0;
        config.embedding = CodeInput::Own {
            tables: Sharing::Shared,
        };
        config.condition = Condition::Text {
            vocab_size: 1,
            length: 1,
        };
        let message = config.validate().unwrap_err().to_string();
        let parts = [
            "height: expected at least 1",
            "codebook_size: expected 3 sizes",
            "classifier: codebooks of different sizes",
            "embedding.tables: codebooks of different sizes",
            "body.heads: expected a divisor of embed_dim 16, got 5",
            "head.residual_dropout: expected a probability",
            "condition.vocab_size",
            "condition.length",
        ];
        for part in parts {
            assert!(message.contains(part), "{part} is not in {message}");
        }
        assert_eq!(message.lines().count(), 1 + parts.len());
    }

    #[test]
    fn a_file_is_read_with_defaults_and_unknown_fields_are_refused() {
        let text = "
            {height: 2, width: 3, depth: 3, codebook_size: 12, embed_dim: 16,
             embedding: {kind: tokenizer, code_dim: 6}, condition: {kind: class, classes: 4},
             body: {layers: 2, heads: 2}, head: {layers: 1, heads: 4}}";
        let config: RqTransformerConfig = serde_norway::from_str(text).unwrap();
        assert_eq!(config, tiny());
        let again = serde_norway::to_string(&config).unwrap();
        assert_eq!(
            serde_norway::from_str::<RqTransformerConfig>(&again).unwrap(),
            config
        );
        for stray in [
            "width: 3, widht: 3",
            "classes: 4, length: 2",
            "heads: 4, head: 4",
        ] {
            let field = stray.split(", ").next().unwrap();
            let wrong = text.replacen(field, stray, 1);
            let error = serde_norway::from_str::<RqTransformerConfig>(&wrong).unwrap_err();
            assert!(error.to_string().contains("unknown field"), "{error}");
        }
    }
}
