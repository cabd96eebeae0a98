//! The shape of a FAR model: what a configuration file says.

use serde::{Deserialize, Serialize};
use smalti_nn::RotaryBlockConfig;

use crate::generators::conditions::Wanted;
use crate::generators::config::{InvalidGenerator, empty_sizes, heads_problem};
use crate::generators::layout::{CodeLayout, CodebookSize};
use crate::generators::request::Capability;

/// Everything that determines the parameters and the training behaviour of a [`Far`](super::Far).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FarConfig {
    /// Rows of the code map.
    pub height: usize,
    /// Columns of the code map.
    pub width: usize,
    /// Codes at one position; 1 is LlamaGen.
    pub depth: usize,
    /// Number of codes: one for all depths, or one for each.
    pub codebook_size: CodebookSize,
    /// Width of the transformers.
    pub embed_dim: usize,
    /// Blocks of the transformer over positions.
    pub layers: usize,
    /// Attention heads of every block; a divisor of `embed_dim` that leaves a multiple of 4.
    pub heads: usize,
    /// Width inside the blocks' perceptrons; absent: ⅔ of `4·embed_dim`, up to a multiple of 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<usize>,
    /// From the vector of a position to its codes.
    pub head: HeadConfig,
    /// What images are conditioned on.
    pub condition: FarCondition,
    /// Probability of dropping an element of the input in training.
    #[serde(default = "published_dropout")]
    pub token_dropout: f64,
    /// Probability of dropping an element of what attention or perceptron add, in training.
    #[serde(default = "published_dropout")]
    pub residual_dropout: f64,
}

/// How the vector of a position becomes its codes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum HeadConfig {
    /// A small causal transformer writes them one after the other (FAR).
    Autoregressive {
        /// Its blocks, of the same shape as the others.
        layers: usize,
    },
    /// A linear map for each, all at once (LlamaGen; the paper's first ablation).
    Linear {},
    /// A perceptron for each, all at once (the paper's second ablation).
    Mlp {},
}

/// What images are conditioned on: the start of the sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum FarCondition {
    /// Nothing: one learned start vector.
    Unconditional {},
    /// A class: its vector starts the sequence. One more vector stands for no class.
    Class {
        /// Number of classes.
        classes: usize,
        /// Probability that a class is hidden in training, which guidance needs.
        #[serde(default = "published_dropout")]
        dropout: f64,
    },
    /// The features that a language model makes of a text.
    Caption {
        /// The most tokens of a text.
        tokens: usize,
        /// Width of a token's features.
        feature_dim: usize,
        /// Probability that a text is hidden in training, which guidance needs.
        #[serde(default = "published_dropout")]
        dropout: f64,
    },
}

/// The dropout of everything in the published recipes.
pub const PUBLISHED_DROPOUT: f64 = 0.1;

const fn published_dropout() -> f64 {
    PUBLISHED_DROPOUT
}

impl FarCondition {
    /// Classes that may be hidden as in the published recipes.
    pub const fn classes(classes: usize) -> Self {
        Self::Class {
            classes,
            dropout: PUBLISHED_DROPOUT,
        }
    }

    /// Probability that it is hidden in training.
    pub const fn dropout(&self) -> f64 {
        match self {
            Self::Unconditional {} => 0.0,
            Self::Class { dropout, .. } | Self::Caption { dropout, .. } => *dropout,
        }
    }

    fn wanted(&self) -> Wanted {
        match *self {
            Self::Unconditional {} => Wanted::Nothing,
            Self::Class { classes, .. } => Wanted::Classes(classes),
            Self::Caption {
                tokens,
                feature_dim: width,
                ..
            } => Wanted::Captions { tokens, width },
        }
    }

    fn parameter_count(&self, width: usize) -> usize {
        match *self {
            Self::Unconditional {} => width,
            Self::Class { classes, .. } => (classes + 1) * width,
            Self::Caption { feature_dim, .. } => (feature_dim + width) * width,
        }
    }
}

impl FarConfig {
    /// Positions of the code map.
    pub const fn positions(&self) -> usize {
        self.height * self.width
    }

    /// The number of codes at every depth.
    pub fn codebook_sizes(&self) -> Vec<usize> {
        self.codebook_size.each(self.depth)
    }

    /// Width of the logits: the largest codebook.
    pub fn vocab_size(&self) -> usize {
        self.codebook_sizes().into_iter().max().unwrap_or(0)
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

    /// What people call it.
    pub const fn name(&self) -> &'static str {
        match self.depth {
            1 => "LlamaGen",
            _ => "FAR",
        }
    }

    /// Width inside the blocks' perceptrons.
    pub fn hidden_width(&self) -> usize {
        let rule = (8 * self.embed_dim / 3).next_multiple_of(256);
        self.hidden.unwrap_or(rule)
    }

    /// Elements of an attention head.
    pub const fn head_width(&self) -> usize {
        self.embed_dim / self.heads
    }

    /// The shape of every block.
    pub(super) fn block(&self) -> RotaryBlockConfig {
        RotaryBlockConfig {
            width: self.embed_dim,
            heads: self.heads,
            hidden: self.hidden_width(),
            dropout: self.residual_dropout,
        }
    }

    /// How many parameters are trained.
    pub fn parameter_count(&self) -> usize {
        let (width, block) = (self.embed_dim, self.block().parameter_count());
        let codes: usize = self.codebook_sizes().iter().sum();
        let aggregation = match self.depth {
            1 => 0,
            depth => depth * width * width + width,
        };
        let head = match self.head {
            HeadConfig::Autoregressive { layers } => layers * block,
            HeadConfig::Linear {} => 0,
            HeadConfig::Mlp {} => self.depth * (width * width + width),
        };
        let start = self.condition.parameter_count(width);
        start + 2 * codes * width + aggregation + self.layers * block + head + width
    }

    /// Checks the configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn validate(&self) -> Result<(), InvalidGenerator> {
        let mut problems = Vec::new();
        let mut sizes = vec![
            ("height", self.height),
            ("width", self.width),
            ("depth", self.depth),
            ("embed_dim", self.embed_dim),
            ("layers", self.layers),
            ("hidden", self.hidden_width()),
        ];
        if let HeadConfig::Autoregressive { layers } = self.head {
            sizes.push(("head.layers", layers));
        }
        match self.condition {
            FarCondition::Unconditional {} => {}
            FarCondition::Class { classes, .. } => sizes.push(("condition.classes", classes)),
            FarCondition::Caption {
                tokens,
                feature_dim,
                ..
            } => sizes.extend([
                ("condition.tokens", tokens),
                ("condition.feature_dim", feature_dim),
            ]),
        }
        problems.extend(empty_sizes(sizes));
        self.check_heads(&mut problems);
        self.check_codes(&mut problems);
        for (name, value) in [
            ("token_dropout", self.token_dropout),
            ("residual_dropout", self.residual_dropout),
            ("condition.dropout", self.condition.dropout()),
        ] {
            if !(0.0..1.0).contains(&value) {
                problems.push(format!(
                    "{name}: expected a probability in [0, 1), got {value}"
                ));
            }
        }
        InvalidGenerator::unless_empty(problems)
    }

    fn check_heads(&self, problems: &mut Vec<String>) {
        let Self {
            embed_dim, heads, ..
        } = *self;
        if let Some(problem) = heads_problem(embed_dim, heads) {
            problems.push(problem);
        } else if !self.head_width().is_multiple_of(4) {
            let width = self.head_width();
            problems.push(format!(
                "heads: expected heads whose width is a multiple of 4 (positions turn pairs by row and by column), got {heads} of width {width}"
            ));
        }
    }

    fn check_codes(&self, problems: &mut Vec<String>) {
        let depth = self.depth;
        problems.extend(self.codebook_size.problems(depth));
        // The rows of the head's positions are those of the grid.
        if depth > self.positions() + 1 {
            let positions = self.positions();
            problems.push(format!(
                "depth: expected at most one more than the {positions} positions, got {depth}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::far::testing::tiny;

    #[test]
    fn every_problem_is_reported_at_once() {
        let mut config = tiny(2);
        assert_eq!(config.validate(), Ok(()));
        config.layers = 0;
        config.heads = 5;
        config.codebook_size = CodebookSize::PerDepth(vec![8, 0, 3]);
        config.head = HeadConfig::Autoregressive { layers: 0 };
        config.condition = FarCondition::Class {
            classes: 0,
            dropout: 1.0,
        };
        config.token_dropout = -0.1;
        let message = config.validate().unwrap_err().to_string();
        let parts = [
            "\n  layers: expected at least 1",
            "head.layers: expected at least 1",
            "condition.classes: expected at least 1",
            "heads: expected a divisor of embed_dim 16, got 5",
            "codebook_size: expected 2 sizes",
            "codebook_size: expected at least 1 code",
            "token_dropout: expected a probability",
            "condition.dropout: expected a probability",
        ];
        for part in parts {
            assert!(message.contains(part), "{part} is not in {message}");
        }
        assert_eq!(message.lines().count(), 1 + parts.len());
        let odd = FarConfig {
            heads: 8,
            ..tiny(2)
        };
        let message = odd.validate().unwrap_err().to_string();
        assert!(message.contains("got 8 of width 2"), "{message}");
        let deep = FarConfig {
            height: 1,
            width: 1,
            ..tiny(3)
        };
        let message = deep.validate().unwrap_err().to_string();
        assert!(message.contains("the 1 positions, got 3"), "{message}");
    }

    #[test]
    fn a_short_configuration_means_the_published_recipe() {
        let text = "
            height = 16\nwidth = 16\ndepth = 2\ncodebook_size = 16384\nembed_dim = 1024\nlayers = 24
            heads = 16\nhead = { kind = 'autoregressive', layers = 3 }
            condition = { kind = 'class', classes = 1000 }";
        let config: FarConfig = toml::from_str(text).unwrap();
        assert_eq!(config, super::super::Preset::FarDualB.config());
        assert_eq!((config.hidden_width(), config.head_width()), (2816, 64));
        let written = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<FarConfig>(&written).unwrap(), config);
        for (from, to) in [
            ("heads = 16", "heads = 16\nwidht = 3"),
            ("classes = 1000", "classes = 1000, length = 2"),
            ("layers = 3 }", "layers = 3, heads = 2 }"),
            ("'autoregressive', layers = 3", "'linear', layers = 3"),
        ] {
            let error = toml::from_str::<FarConfig>(&text.replacen(from, to, 1)).unwrap_err();
            assert!(error.to_string().contains("unknown field"), "{error}");
        }
    }
}
