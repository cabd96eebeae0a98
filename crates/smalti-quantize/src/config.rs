//! The choice of a quantizer, as a configuration file states it.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use smalti_nn::{Init, Noise};

use crate::{
    CodeSpec, Codes, Learn, QuantizeError, Quantized, Quantizer, ResidualConfig, ResidualQuantizer,
    UpdateReport, VectorConfig, VectorQuantizer,
};

/// One value for all depths, or one for each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected one whole number, or a list of one for each depth")]
pub enum PerDepth<T> {
    /// The same everywhere.
    All(T),
    /// First depth first.
    Each(Vec<T>),
}

impl<T: Copy> PerDepth<T> {
    /// The value at a depth.
    pub fn at(&self, depth: usize) -> Option<T> {
        match self {
            Self::All(value) => Some(*value),
            Self::Each(values) => values.get(depth).copied(),
        }
    }
}

/// Everything that is wrong with a quantizer's configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the quantizer's configuration is invalid:{}", .0.iter().map(|p| format!("\n  {p}")).collect::<String>())]
pub struct InvalidQuantizer(pub Vec<String>);

impl InvalidQuantizer {
    pub(crate) fn unless_empty(problems: Vec<String>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self(problems)) }
    }
}

/// What is wrong with a number of codes.
pub(crate) fn check_size(codebook_size: usize) -> Option<String> {
    // Ids are 32-bit integers on every device.
    let valid = 1..=i32::MAX as usize;
    (!valid.contains(&codebook_size))
        .then(|| format!("codebook_size must be at least 1 and below 2^31, got {codebook_size}"))
}

/// Which quantizer, with its own fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum QuantizerConfig {
    /// One code at each position.
    Vector(VectorConfig),
    /// Several codes at each position, each refining the ones before.
    Residual(ResidualConfig),
}

impl QuantizerConfig {
    /// Checks every number.
    ///
    /// # Errors
    /// Lists all problems.
    pub fn validate(&self) -> Result<(), InvalidQuantizer> {
        match self {
            Self::Vector(config) => config.validate(),
            Self::Residual(config) => config.validate(),
        }
    }

    /// Builds the quantizer.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn build(&self, init: &mut Init) -> Result<AnyQuantizer, InvalidQuantizer> {
        Ok(match self {
            Self::Vector(config) => AnyQuantizer::Vector(config.build(init)?),
            Self::Residual(config) => AnyQuantizer::Residual(config.build(init)?),
        })
    }

    /// Latent positions, in each direction, that are quantized as one vector.
    pub fn fold(&self) -> usize {
        match self {
            Self::Vector(_) => 1,
            Self::Residual(config) => config.fold,
        }
    }

    /// Channels of the latents that it quantizes.
    pub fn latent_channels(&self) -> usize {
        match self {
            Self::Vector(config) => config.code_dim,
            Self::Residual(config) => config.code_dim / (config.fold * config.fold),
        }
    }
}

/// Any of the quantizers.
#[derive(Module, Debug)]
pub enum AnyQuantizer {
    /// One code at each position.
    Vector(VectorQuantizer),
    /// Several codes at each position.
    Residual(ResidualQuantizer),
}

impl AnyQuantizer {
    /// The codes of one depth, `[codebook_size, code_dim]`, as [`Quantizer::decode`] uses them.
    pub fn table(&self, depth: usize) -> Tensor<2> {
        match self {
            Self::Vector(quantizer) => quantizer.table(),
            Self::Residual(quantizer) => quantizer.table(depth),
        }
    }

    /// The residual quantizer, where it is one.
    pub fn as_residual(&self) -> Option<&ResidualQuantizer> {
        match self {
            Self::Residual(quantizer) => Some(quantizer),
            Self::Vector(_) => None,
        }
    }
}

impl Quantizer for AnyQuantizer {
    fn spec(&self) -> CodeSpec {
        match self {
            Self::Vector(quantizer) => quantizer.spec(),
            Self::Residual(quantizer) => quantizer.spec(),
        }
    }

    fn encode(&self, latents: Tensor<4>) -> Result<Codes, QuantizeError> {
        match self {
            Self::Vector(quantizer) => quantizer.encode(latents),
            Self::Residual(quantizer) => quantizer.encode(latents),
        }
    }

    fn decode(&self, codes: &Codes) -> Result<Tensor<4>, QuantizeError> {
        match self {
            Self::Vector(quantizer) => quantizer.decode(codes),
            Self::Residual(quantizer) => quantizer.decode(codes),
        }
    }

    fn quantize(&self, latents: Tensor<4>, noise: &mut Noise) -> Result<Quantized, QuantizeError> {
        match self {
            Self::Vector(quantizer) => quantizer.quantize(latents, noise),
            Self::Residual(quantizer) => quantizer.quantize(latents, noise),
        }
    }
}

impl Learn for AnyQuantizer {
    fn quantize_and_update(
        &mut self,
        latents: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<(Quantized, UpdateReport), QuantizeError> {
        match self {
            Self::Vector(quantizer) => quantizer.quantize_and_update(latents, noise),
            Self::Residual(quantizer) => quantizer.quantize_and_update(latents, noise),
        }
    }
}
