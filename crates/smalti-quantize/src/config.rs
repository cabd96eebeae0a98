//! The choice of a quantizer, as a configuration file states it.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use smalti_nn::{Init, Noise};

use crate::rows::single;
use crate::{
    BsqConfig, BsqQuantizer, CodeSpec, Codes, FactorizedConfig, FactorizedQuantizer, FsqConfig,
    FsqQuantizer, GaussianConfig, GaussianQuantizer, GroupedConfig, GroupedQuantizer, GumbelConfig,
    GumbelQuantizer, IbqConfig, IbqQuantizer, Learn, LfqConfig, LfqQuantizer, QuantizeError,
    Quantized, Quantizer, RegularizedConfig, RegularizedQuantizer, ResidualConfig,
    ResidualQuantizer, SimVqConfig, SimVqQuantizer, StackedConfig, StackedQuantizer,
    TokenBridgeConfig, TokenBridgeQuantizer, UpdateReport, VectorConfig, VectorQuantizer,
};

/// One value for all depths, or one for each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected one whole number, or a list of one for each depth"
)]
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
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Self(problems))
        }
    }
}

/// What is wrong with a number of codes.
pub(crate) fn check_size(codebook_size: usize) -> Option<String> {
    // Ids are 32-bit integers on every device.
    let valid = 1..=i32::MAX as usize;
    (!valid.contains(&codebook_size))
        .then(|| format!("codebook_size must be at least 1 and below 2^31, got {codebook_size}"))
}

/// What keeps a quantizer from being part of another one.
pub(crate) fn check_part(name: &str, config: &QuantizerConfig) -> Vec<String> {
    if let Err(InvalidQuantizer(problems)) = config.validate() {
        let named = |problem| format!("{name}: {problem}");
        return problems.into_iter().map(named).collect();
    }
    let mut problems = Vec::new();
    if config.fold() != 1 {
        problems.push(format!(
            "{name}: only a quantizer with a fold of 1 can be part of another, got {}",
            config.fold()
        ));
    }
    if config.latent_channels() != config.quantized_channels() {
        problems.push(format!(
            "{name}: only a quantizer of plain latents can be part of another, not one of means and \
             variances"
        ));
    }
    problems
}

/// Which quantizer, with its own fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum QuantizerConfig {
    /// One code at each position.
    Vector(VectorConfig),
    /// Several codes at each position, each refining the ones before.
    Residual(ResidualConfig),
    /// Channels rounded to levels.
    Fsq(FsqConfig),
    /// Signs of channels.
    Lfq(LfqConfig),
    /// Signs of channels on the unit sphere.
    Bsq(BsqConfig),
    /// One code of a frozen table behind a learned map.
    SimVq(SimVqConfig),
    /// One code of a table whose every code has a gradient.
    Ibq(IbqConfig),
    /// One code chosen by logits, used as a prior says, drawn at some positions in training.
    Regularized(RegularizedConfig),
    /// One code chosen by logits, drawn at every position in training.
    Gumbel(GumbelConfig),
    /// One code in each of several codebooks of unit vectors, for branches that differ.
    Factorized(FactorizedConfig),
    /// Any of these for each group of channels.
    Grouped(GroupedConfig),
    /// Any of these several times over, each on what the ones before left over.
    Stacked(StackedConfig),
    /// Gaussian latents and a codebook made from a seed.
    Gaussian(GaussianConfig),
    /// Gaussian latents cut channel by channel.
    TokenBridge(TokenBridgeConfig),
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
            Self::Fsq(config) => config.validate(),
            Self::Lfq(config) => config.validate(),
            Self::Bsq(config) => config.validate(),
            Self::SimVq(config) => config.validate(),
            Self::Ibq(config) => config.validate(),
            Self::Regularized(config) => config.validate(),
            Self::Gumbel(config) => config.validate(),
            Self::Factorized(config) => config.validate(),
            Self::Grouped(config) => config.validate(),
            Self::Stacked(config) => config.validate(),
            Self::Gaussian(config) => config.validate(),
            Self::TokenBridge(config) => config.validate(),
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
            Self::Fsq(config) => AnyQuantizer::Fsq(config.build()?),
            Self::Lfq(config) => AnyQuantizer::Lfq(config.build()?),
            Self::Bsq(config) => AnyQuantizer::Bsq(config.build()?),
            Self::SimVq(config) => AnyQuantizer::SimVq(config.build(init)?),
            Self::Ibq(config) => AnyQuantizer::Ibq(config.build(init)?),
            Self::Regularized(config) => AnyQuantizer::Regularized(config.build(init)?),
            Self::Gumbel(config) => AnyQuantizer::Gumbel(config.build(init)?),
            Self::Factorized(config) => AnyQuantizer::Factorized(config.build(init)?),
            Self::Grouped(config) => AnyQuantizer::Grouped(config.build(init)?),
            Self::Stacked(config) => AnyQuantizer::Stacked(config.build(init)?),
            Self::Gaussian(config) => AnyQuantizer::Gaussian(config.build(init)?),
            Self::TokenBridge(config) => AnyQuantizer::TokenBridge(config.build(init)?),
        })
    }

    /// Latent positions, in each direction, that are quantized as one vector.
    pub fn fold(&self) -> usize {
        match self {
            Self::Residual(config) => config.fold,
            _ => 1,
        }
    }

    /// How many runs of neighbouring channels are quantized independently of each other: what
    /// branches of a network can end in.
    pub fn branches(&self) -> usize {
        match self {
            Self::Factorized(config) => config.depth,
            Self::Grouped(config) if config.layout == crate::grouped::Layout::Contiguous => {
                config.groups
            }
            _ => 1,
        }
    }

    /// Channels of what [`Quantizer::encode`] takes.
    pub fn latent_channels(&self) -> usize {
        match self {
            Self::Vector(config) => config.code_dim,
            Self::Residual(config) => config.code_dim / (config.fold * config.fold),
            Self::Fsq(config) => config.channels(),
            Self::Lfq(config) => config.channels(),
            Self::Bsq(config) => config.channels(),
            Self::SimVq(config) => config.code_dim,
            Self::Ibq(config) => config.code_dim,
            Self::Regularized(config) => config.code_dim,
            Self::Gumbel(config) => config.code_dim,
            Self::Factorized(config) => config.channels(),
            Self::Grouped(config) => config.channels(),
            Self::Stacked(config) => config.stage.latent_channels(),
            Self::Gaussian(config) => 2 * config.channels,
            Self::TokenBridge(config) => 2 * config.channels,
        }
    }

    /// Channels of what [`Quantizer::decode`] gives: fewer than the latents' where those are the
    /// means and variances of a distribution.
    pub fn quantized_channels(&self) -> usize {
        match self {
            Self::Gaussian(config) => config.channels,
            Self::TokenBridge(config) => config.channels,
            _ => self.latent_channels(),
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
    /// Channels rounded to levels.
    Fsq(FsqQuantizer),
    /// Signs of channels.
    Lfq(LfqQuantizer),
    /// Signs of channels on the unit sphere.
    Bsq(BsqQuantizer),
    /// One code of a frozen table behind a learned map.
    SimVq(SimVqQuantizer),
    /// One code of a table whose every code has a gradient.
    Ibq(IbqQuantizer),
    /// One code chosen by logits, used as a prior says.
    Regularized(RegularizedQuantizer),
    /// One code chosen by logits, drawn in training.
    Gumbel(GumbelQuantizer),
    /// One code in each of several codebooks of unit vectors.
    Factorized(FactorizedQuantizer),
    /// Any of these for each group of channels.
    Grouped(GroupedQuantizer),
    /// Any of these several times over.
    Stacked(StackedQuantizer),
    /// Gaussian latents and a codebook made from a seed.
    Gaussian(GaussianQuantizer),
    /// Gaussian latents cut channel by channel.
    TokenBridge(TokenBridgeQuantizer),
}

/// Calls the same on whichever quantizer it is.
macro_rules! each {
    ($any:expr, $quantizer:ident => $call:expr) => {
        match $any {
            AnyQuantizer::Vector($quantizer) => $call,
            AnyQuantizer::Residual($quantizer) => $call,
            AnyQuantizer::Fsq($quantizer) => $call,
            AnyQuantizer::Lfq($quantizer) => $call,
            AnyQuantizer::Bsq($quantizer) => $call,
            AnyQuantizer::SimVq($quantizer) => $call,
            AnyQuantizer::Ibq($quantizer) => $call,
            AnyQuantizer::Regularized($quantizer) => $call,
            AnyQuantizer::Gumbel($quantizer) => $call,
            AnyQuantizer::Factorized($quantizer) => $call,
            AnyQuantizer::Grouped($quantizer) => $call,
            AnyQuantizer::Stacked($quantizer) => $call,
            AnyQuantizer::Gaussian($quantizer) => $call,
            AnyQuantizer::TokenBridge($quantizer) => $call,
        }
    };
}

impl AnyQuantizer {
    /// The codes of one depth, `[codebook_size, code_dim]`, as [`Quantizer::decode`] uses them;
    /// `None` where no table is stored, because its size would be a product of the channels', and
    /// where the codes of several depths are of different channels.
    pub fn table(&self, depth: usize) -> Option<Tensor<2>> {
        match self {
            Self::Vector(quantizer) => Some(quantizer.table()),
            Self::Residual(quantizer) => Some(quantizer.table(depth)),
            Self::SimVq(quantizer) => Some(quantizer.table()),
            Self::Ibq(quantizer) => Some(quantizer.table()),
            Self::Regularized(quantizer) => Some(quantizer.table()),
            Self::Gumbel(quantizer) => Some(quantizer.table()),
            Self::Stacked(quantizer) => quantizer.table(depth),
            Self::Gaussian(quantizer) => quantizer.table(),
            Self::Fsq(_)
            | Self::Lfq(_)
            | Self::Bsq(_)
            | Self::Factorized(_)
            | Self::Grouped(_)
            | Self::TokenBridge(_) => None,
        }
    }

    /// Whether one [`table`](Self::table) serves all depths.
    pub fn shares_table(&self) -> bool {
        match self {
            Self::Residual(quantizer) => quantizer.config().shared,
            _ => self.spec().depth() == 1,
        }
    }

    /// The factorized quantizer, where it is one.
    pub fn as_factorized(&self) -> Option<&FactorizedQuantizer> {
        match self {
            Self::Factorized(quantizer) => Some(quantizer),
            _ => None,
        }
    }

    /// The residual quantizer, where it is one.
    pub fn as_residual(&self) -> Option<&ResidualQuantizer> {
        match self {
            Self::Residual(quantizer) => Some(quantizer),
            _ => None,
        }
    }
}

impl Quantizer for AnyQuantizer {
    fn spec(&self) -> CodeSpec {
        each!(self, quantizer => quantizer.spec())
    }

    fn encode(&self, latents: Tensor<4>) -> Result<Codes, QuantizeError> {
        let latents = single(latents);
        each!(self, quantizer => quantizer.encode(latents))
    }

    fn decode(&self, codes: &Codes) -> Result<Tensor<4>, QuantizeError> {
        each!(self, quantizer => quantizer.decode(codes))
    }

    fn quantize(&self, latents: Tensor<4>, noise: &mut Noise) -> Result<Quantized, QuantizeError> {
        let latents = single(latents);
        each!(self, quantizer => quantizer.quantize(latents, noise))
    }
}

impl Learn for AnyQuantizer {
    fn quantize_and_update(
        &mut self,
        latents: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<(Quantized, UpdateReport), QuantizeError> {
        let latents = single(latents);
        each!(self, quantizer => quantizer.quantize_and_update(latents, noise))
    }
}

#[cfg(test)]
mod tests;
