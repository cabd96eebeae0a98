//! Quantizers: maps between latents and discrete codes.
//!
//! A [`Quantizer`] is pure: encoding and decoding change nothing. A codebook that learns outside
//! the optimiser does so in [`Learn::quantize_and_update`], which takes `&mut self` and reports
//! what it did. Code search and all index arithmetic are `f32` and integers, whatever the training
//! precision.

pub mod bsq;
pub mod codebook;
pub mod codes;
pub mod config;
pub mod constraint;
pub mod digits;
pub mod entropy;
pub mod estimator;
pub mod factorized;
pub mod folding;
pub mod fsq;
pub mod gaussian;
pub mod grouped;
pub mod gumbel;
pub mod ibq;
pub mod kmeans;
pub mod learning;
pub mod lfq;
pub mod normal;
pub mod posterior;
pub mod quantizer;
pub mod regularized;
mod relaxed;
pub mod residual;
pub mod rows;
mod signs;
pub mod sim_vq;
pub mod sobol;
pub mod soft_choices;
pub mod stacked;
pub mod temperature;
#[cfg(test)]
mod testing;
pub mod token_bridge;
pub mod vector;

pub use bsq::{BsqConfig, BsqQuantizer};
pub use codebook::Codebook;
pub use codes::{CodeSpec, Codes};
pub use config::{AnyQuantizer, InvalidQuantizer, QuantizerConfig};
pub use constraint::{
    Constraint, Divergence, DivergenceConstraint, DivergenceStatistics, DivergenceWeights,
    FixedFactorConfig, TargetConfig,
};
pub use digits::Significance;
pub use entropy::{DistanceEntropies, Logarithm, Logarithms};
pub use estimator::Estimator;
pub use factorized::{
    Correlation, FactorizedConfig, FactorizedQuantizer, correlations, only_branch,
};
pub use fsq::{Bound, FsqConfig, FsqQuantizer};
pub use gaussian::{
    GaussianConfig, GaussianQuantizer, Generator, Layout, Normalization, TrainingValue,
};
pub use grouped::{GroupedConfig, GroupedQuantizer};
pub use gumbel::{GumbelConfig, GumbelQuantizer, Samples};
pub use ibq::{IbqConfig, IbqQuantizer};
pub use learning::{Learning, Revival, Start, UpdateOrder, UpdateReport};
pub use lfq::{LfqConfig, LfqQuantizer};
pub use posterior::GaussianPosterior;
pub use quantizer::{Learn, NamedLoss, QuantizeError, Quantized, Quantizer};
pub use regularized::prior::Prior;
pub use regularized::{Logits, Posterior, RegularizedConfig, RegularizedQuantizer};
pub use residual::{ResidualConfig, ResidualQuantizer, SoftCodes};
pub use sim_vq::{SimVqConfig, SimVqQuantizer};
pub use soft_choices::SoftChoices;
pub use stacked::{StackedConfig, StackedQuantizer};
pub use temperature::Temperature;
pub use token_bridge::{Centres, Range, TokenBridgeConfig, TokenBridgeQuantizer};
pub use vector::{Metric, Rule, VectorConfig, VectorQuantizer};
