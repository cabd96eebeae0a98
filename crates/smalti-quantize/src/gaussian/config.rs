//! The choices of a Gaussian quantizer.

use serde::{Deserialize, Serialize};
use smalti_nn::Init;

use super::GaussianQuantizer;
use super::codebook::Generator;
use crate::config::{InvalidQuantizer, PerDepth};
use crate::{Constraint, sobol};

/// More codes than this are not worth their memory.
const LARGEST_CODEBOOK: usize = 1 << 22;

/// Which channels one code stands for. Position `g·code_dim + i` below is dimension `i` of the code
/// at depth `g`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Channel `i·depth + g`: the published models'.
    #[default]
    Strided,
    /// Channel `g·code_dim + i`: the published code's second class.
    Contiguous,
    /// The channel of each position.
    Order(Vec<usize>),
}

/// Moves latents of another model to the prior N(0, 1): `(z − shift)·scale`, channel by channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// Subtracted from each channel.
    pub shift: Vec<f32>,
    /// What the rest is multiplied with.
    pub scale: Vec<f32>,
}

impl Normalization {
    pub(crate) fn problems(&self, channels: usize) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, values) in [("shift", &self.shift), ("scale", &self.scale)] {
            if values.len() != channels {
                problems.push(format!(
                    "normalization.{name} must have one number for each of {channels} channels, got {}",
                    values.len()
                ));
            }
        }
        if let Some(shift) = self.shift.iter().find(|s| !s.is_finite()) {
            problems.push(format!("normalization.shift must be finite, got {shift}"));
        }
        // Beyond this the logarithms of scaled variances leave what the search takes.
        let valid = 1e-6..=1e6;
        if let Some(scale) = self.scale.iter().find(|s| !valid.contains(*s)) {
            problems.push(format!(
                "normalization.scale must lie between 1e-6 and 1e6, got {scale}"
            ));
        }
        problems
    }
}

/// What the decoder sees in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainingValue {
    /// A sample of the posterior, as a Gaussian variational autoencoder does.
    #[default]
    Sample,
    /// The codes' vectors, with the gradient that the sample would have.
    Codeword,
}

/// The shape of a Gaussian quantizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GaussianConfig {
    /// Number of codes, a power of two: one number, or one for each depth.
    pub codebook_size: PerDepth<usize>,
    /// Channels that one code stands for.
    pub code_dim: usize,
    /// Channels of the quantized latents, a multiple of `code_dim`; their ratio is the depth.
    pub channels: usize,
    /// What the codebook is made from.
    #[serde(default = "published_seed")]
    pub seed: u64,
    /// How the codebook is made.
    #[serde(default)]
    pub generator: Generator,
    /// How strongly codes far from the origin are preferred: 1 for the ratio of posterior to prior,
    /// 0 for the weighted distance.
    #[serde(default = "one")]
    pub beta: f64,
    /// Which channels one code stands for.
    #[serde(default)]
    pub layout: Layout,
    /// What the decoder sees in training.
    #[serde(default)]
    pub training: TrainingValue,
    /// What holds the divergence near the number of bits.
    #[serde(default)]
    pub constraint: Constraint,
    /// For latents of a model whose prior is not N(0, 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalization: Option<Normalization>,
}

fn published_seed() -> u64 {
    42
}

fn one() -> f64 {
    1.0
}

impl GaussianConfig {
    /// As the published models: a Sobol codebook of seed 42, beta 1, strided channels, trained on
    /// samples with a target.
    pub fn new(codebook_size: usize, code_dim: usize, channels: usize) -> Self {
        Self {
            codebook_size: PerDepth::All(codebook_size),
            code_dim,
            channels,
            seed: published_seed(),
            generator: Generator::default(),
            beta: one(),
            layout: Layout::default(),
            training: TrainingValue::default(),
            constraint: Constraint::default(),
            normalization: None,
        }
    }

    /// Codes at each position.
    pub fn depth(&self) -> usize {
        self.channels / self.code_dim.max(1)
    }

    /// Number of codes of each depth.
    pub fn sizes(&self) -> Vec<usize> {
        (0..self.depth())
            .filter_map(|depth| self.codebook_size.at(depth))
            .collect()
    }

    /// The channel of each position of the codes.
    pub fn order(&self) -> Vec<usize> {
        let (depth, code_dim) = (self.depth(), self.code_dim);
        match &self.layout {
            Layout::Strided => (0..self.channels)
                .map(|p| p % code_dim * depth + p / code_dim)
                .collect(),
            Layout::Contiguous => (0..self.channels).collect(),
            Layout::Order(order) => order.clone(),
        }
    }

    /// Checks every number.
    ///
    /// # Errors
    /// Lists all problems.
    pub fn validate(&self) -> Result<(), InvalidQuantizer> {
        let mut problems = self.constraint.problems();
        if self.code_dim == 0 {
            problems.push("code_dim must be at least 1, got 0".into());
        } else if self.channels == 0 || !self.channels.is_multiple_of(self.code_dim) {
            problems.push(format!(
                "channels must be a positive multiple of code_dim ({}), got {}",
                self.code_dim, self.channels
            ));
        } else {
            problems.extend(self.size_problems());
            problems.extend(self.order_problem());
        }
        if !self.beta.is_finite() {
            problems.push(format!("beta must be finite, got {}", self.beta));
        }
        if self.generator == Generator::Sobol {
            if self.code_dim > sobol::MAX_DIMS {
                problems.push(format!(
                    "the generator sobol knows code_dim up to {}, got {}; use generator = \"iid\"",
                    sobol::MAX_DIMS,
                    self.code_dim
                ));
            }
            if u32::try_from(self.seed).is_err() {
                problems.push(format!(
                    "the generator sobol takes a seed below 2^32, got {}",
                    self.seed
                ));
            }
        }
        if let Some(normalization) = &self.normalization {
            problems.extend(normalization.problems(self.channels));
        }
        InvalidQuantizer::unless_empty(problems)
    }

    fn size_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let PerDepth::Each(sizes) = &self.codebook_size
            && sizes.len() != self.depth()
        {
            problems.push(format!(
                "codebook_size lists {} sizes for a depth of {}",
                sizes.len(),
                self.depth()
            ));
        }
        let valid = |size: &usize| size.is_power_of_two() && (2..=LARGEST_CODEBOOK).contains(size);
        if let Some(size) = self.sizes().iter().find(|size| !valid(size)) {
            problems.push(format!(
                "codebook_size must be a power of two from 2 to 2^22, got {size}"
            ));
        }
        problems
    }

    fn order_problem(&self) -> Option<String> {
        let mut sorted = self.order();
        sorted.sort_unstable();
        (!sorted.iter().copied().eq(0..self.channels)).then(|| {
            format!(
                "layout.order must name each of the channels 0 to {} once",
                self.channels - 1
            )
        })
    }

    /// Builds the quantizer, its codebook included.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn build(&self, init: &mut Init) -> Result<GaussianQuantizer, InvalidQuantizer> {
        self.validate()?;
        Ok(GaussianQuantizer::new(self, init))
    }
}
