//! The shape of a discrete diffusion model: what a configuration file says.

use serde::{Deserialize, Serialize};

use crate::generators::class_condition::ClassCondition;
use crate::generators::config::{InvalidGenerator, empty_sizes, heads_problem};
use crate::generators::layout::{CodeLayout, CodebookSize};
use crate::generators::request::Capability;
use crate::generators::writing::Writing;

/// Everything that determines the parameters and the training of a [`Diffusion`](super::Diffusion).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffusionConfig {
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
    /// What stands behind the attention in every block.
    pub perceptron: PerceptronConfig,
    /// What images are conditioned on.
    pub condition: ClassCondition,
    /// How it is trained.
    #[serde(default)]
    pub process: ProcessConfig,
}

/// What stands behind the attention in every block; four times as wide inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum PerceptronConfig {
    /// Two linear maps of each token alone (the published unconditional model).
    Linear {},
    /// Two 3×3 convolutions over the map of each depth (the published class-conditional model).
    Convolution {},
}

/// The chain and its loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessConfig {
    /// Steps of the chain, `T`.
    pub steps: usize,
    /// Weight of the auxiliary loss.
    pub auxiliary_weight: f64,
    /// Whether the auxiliary loss counts up to twice as much at early steps, `2 − t/T`.
    pub adaptive: bool,
    /// Weight of the bound at codes that are masked, and at those that are not.
    pub mask_weight: [f64; 2],
}

impl Default for ProcessConfig {
    /// That of the published class-conditional and unconditional models.
    fn default() -> Self {
        Self {
            steps: 100,
            auxiliary_weight: 1e-3,
            adaptive: true,
            mask_weight: [1.0, 1.0],
        }
    }
}

impl ProcessConfig {
    /// Everything that is wrong with it.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.steps < 2 {
            let got = self.steps;
            problems.push(format!("process.steps: expected at least 2, got {got}"));
        }
        let weights = [
            ("auxiliary_weight", self.auxiliary_weight),
            ("mask_weight", self.mask_weight[0]),
            ("mask_weight", self.mask_weight[1]),
        ];
        for (name, value) in weights {
            if !(value >= 0.0 && value.is_finite()) {
                problems.push(format!(
                    "process.{name}: expected a number of at least 0, got {value}"
                ));
            }
        }
        problems
    }
}

impl DiffusionConfig {
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

    /// How it writes.
    pub(in crate::generators) fn writing(&self) -> Writing {
        Writing::Denoised {
            steps: self.process.steps,
        }
    }

    /// How many parameters are trained.
    pub fn parameter_count(&self) -> usize {
        let width = self.embed_dim;
        let codes: usize = self.codebook_sizes().iter().sum();
        let depths = if self.depth > 1 { self.depth } else { 0 };
        let rows = codes + self.depth + self.height + self.width + depths;
        let adaptive = |rows: usize| rows * width + 2 * width * width + 2 * width;
        let second = self.condition.rows().map_or(2 * width, adaptive);
        let kernel = match self.perceptron {
            PerceptronConfig::Linear {} => 1,
            PerceptronConfig::Convolution {} => 9,
        };
        let attention = 4 * (width * width + width);
        let perceptron = 8 * kernel * width * width + 5 * width;
        let block = adaptive(self.process.steps) + attention + second + perceptron;
        rows * width + self.layers * block + 2 * width + codes * (width + 1)
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
        problems.extend(self.process.problems());
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
        config.layers = 0;
        config.heads = 5;
        config.codebook_size = CodebookSize::PerDepth(vec![8, 0, 3]);
        config.condition = ClassCondition::Class {
            classes: 0,
            dropout: 1.5,
        };
        config.process = ProcessConfig {
            steps: 1,
            auxiliary_weight: -1.0,
            mask_weight: [1.0, f64::NAN],
            ..ProcessConfig::default()
        };
        let message = config.validate().unwrap_err().to_string();
        let parts = [
            "\n  layers: expected at least 1",
            "heads: expected a divisor of embed_dim 16, got 5",
            "codebook_size: expected 2 sizes",
            "codebook_size: expected at least 1 code",
            "condition.classes: expected at least 1",
            "condition.dropout: expected a probability",
            "process.steps: expected at least 2, got 1",
            "process.auxiliary_weight: expected a number",
            "process.mask_weight: expected a number",
        ];
        for part in parts {
            assert!(message.contains(part), "{part} is not in {message}");
        }
        assert_eq!(message.lines().count(), 1 + parts.len());
    }

    #[test]
    fn a_short_configuration_means_the_published_process() {
        let text = "
            height = 16\nwidth = 16\ndepth = 1\ncodebook_size = 1024\nembed_dim = 512\nlayers = 20
            heads = 16\nperceptron = { kind = 'linear' }\ncondition = { kind = 'unconditional' }";
        let config: DiffusionConfig = toml::from_str(text).unwrap();
        assert_eq!(config.process, ProcessConfig::default());
        assert_eq!(config.validate(), Ok(()));
        let written = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<DiffusionConfig>(&written).unwrap(), config);
        for (from, to) in [
            ("heads = 16", "heads = 16\nwidht = 3"),
            ("'unconditional'", "'unconditional', classes = 3"),
            ("'linear'", "'linear', hidden = 3"),
        ] {
            let error = toml::from_str::<DiffusionConfig>(&text.replacen(from, to, 1)).unwrap_err();
            assert!(error.to_string().contains("unknown field"), "{error}");
        }
    }
}
