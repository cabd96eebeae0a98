//! What holds the divergence of Gaussian latents near the number of bits that their codes have.
//!
//! A code of a codebook of K entries stands for a group of channels. Xu et al. (arXiv 2512.06609,
//! section 3) show that the error of the nearest code is small if the group's divergence `k` from the
//! prior does not exceed log2 K bits, and that bits are wasted if it is far below. The choices:
//!
//! * [`Constraint::Target`], the paper's target divergence constraint. With the target `T` and the
//!   tolerance `α` the loss is
//!
//!   `λ·(1/B)·Σ w(k)·k`, `w(k) = λ_max` if `k > T + α`, `λ_min` if `k < T − α`, else 1,
//!
//!   over the B images' groups, in bits. After each batch, from its statistics and with the factor
//!   `r`: `λ` is multiplied by `r` where the mean of `k` exceeds `T` and divided by it where not;
//!   `λ_max` is multiplied where the largest `k` exceeds `T + α`, else divided; `λ_min` is divided
//!   where the smallest `k` falls below `T − α`, else multiplied. `λ_max` stays in [1, limit],
//!   `λ_min` in [1/limit, 1].
//! * [`Constraint::FixedFactor`], its predecessor: fixed weights, no λ, in nats.
//! * [`Constraint::Even`], a plain Gaussian VAE: `(1/B)·Σ k` in nats.
//!
//! The sum runs over groups and is divided by the number of images only. The published weight of
//! 0.1 belongs beside a reconstruction loss that is summed over an image, too; beside one that is
//! averaged over pixels the authors use 1e-6 to 1e-7.
//!
//! State: `weights [3, 3]`, the numbers λ, λ_min and λ_max of a target constraint, each as the sum
//! of three `f32`, which hold all digits of an `f64`. They start at 1, are saved with the parameters
//! and no gradient reaches them.
//!
//! Differences. The published code forgets these weights when training resumes; here a checkpoint has
//! them. Its λ is not limited; here it stays within 1e±30, so that it can always be written. With
//! different codebook sizes in one quantizer every depth has its own target, and what is compared is
//! `k − T`. The hard constraint by Lambert's W, which the authors found worse, is left out.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use smalti_nn::Init;
use smalti_nn::state::{host_values, replace};

use crate::QuantizeError;
use crate::posterior::{BITS_PER_NAT, per_channel};

#[cfg(test)]
mod tests;

/// What holds the divergence near the number of bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Constraint {
    /// The target divergence constraint.
    Target(TargetConfig),
    /// Fixed weights above and below the target.
    FixedFactor(FixedFactorConfig),
    /// Every divergence counts the same.
    Even {},
}

impl Default for Constraint {
    fn default() -> Self {
        Self::Target(TargetConfig::default())
    }
}

/// A target that the weights of the loss follow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TargetConfig {
    /// T; log2 of the codebook size by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_bits: Option<f64>,
    /// α in bits.
    pub tolerance: f64,
    /// r: what the weights are multiplied with or divided by after each batch.
    pub factor: f64,
    /// How large λ_max and 1/λ_min may become.
    pub limit: f64,
}

impl Default for TargetConfig {
    fn default() -> Self {
        Self {
            target_bits: None,
            tolerance: 0.5,
            factor: 1.01,
            limit: 1e3,
        }
    }
}

/// A target with fixed weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FixedFactorConfig {
    /// T; log2 of the codebook size by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_bits: Option<f64>,
    /// α in bits.
    pub tolerance: f64,
    /// The weight above T + α, and one over the weight below T − α.
    pub factor: f64,
}

impl Default for FixedFactorConfig {
    fn default() -> Self {
        Self {
            target_bits: None,
            tolerance: 0.35 * BITS_PER_NAT,
            factor: 40.0,
        }
    }
}

impl Constraint {
    /// Everything that is wrong with the numbers.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |valid: bool, text: String| {
            if !valid {
                problems.push(format!("constraint: {text}"));
            }
        };
        let (target, tolerance, factor) = match self {
            Self::Target(c) => (c.target_bits, c.tolerance, c.factor),
            Self::FixedFactor(c) => (c.target_bits, c.tolerance, c.factor),
            Self::Even {} => return problems,
        };
        if let Some(bits) = target {
            check(
                bits.is_finite() && bits > 0.0,
                format!("target_bits must be positive and finite, got {bits}"),
            );
        }
        check(
            tolerance.is_finite() && tolerance >= 0.0,
            format!("tolerance must be finite and not negative, got {tolerance}"),
        );
        check(
            factor.is_finite() && factor > 1.0,
            format!("factor must be finite and above 1, got {factor}"),
        );
        if let Self::Target(TargetConfig { limit, .. }) = self {
            check(
                (1.0..=LARGEST_WEIGHT).contains(limit),
                format!("limit must lie between 1 and {LARGEST_WEIGHT:e}, got {limit}"),
            );
        }
        problems
    }

    fn target_bits(&self) -> Option<f64> {
        match self {
            Self::Target(config) => config.target_bits,
            Self::FixedFactor(config) => config.target_bits,
            Self::Even {} => None,
        }
    }
}

/// Beyond this, and below one over it, a weight could not be kept to all its digits.
const LARGEST_WEIGHT: f64 = 1e30;

/// The weights of a divergence loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DivergenceWeights {
    /// λ: of the whole loss.
    pub all: f64,
    /// λ_min: of groups that fall below the target.
    pub below: f64,
    /// λ_max: of groups that exceed the target.
    pub above: f64,
}

/// The divergences of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DivergenceStatistics {
    /// How many there are.
    pub groups: usize,
    /// Their mean, in bits.
    pub mean_bits: f64,
    /// The smallest.
    pub min_bits: f64,
    /// The largest.
    pub max_bits: f64,
    /// The mean of what they exceed their targets by.
    pub mean_excess: f64,
    /// The smallest excess.
    pub min_excess: f64,
    /// The largest excess.
    pub max_excess: f64,
}

impl DivergenceStatistics {
    /// The statistics of both batches together.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        let total = self.groups + other.groups;
        let share = other.groups as f64 / total.max(1) as f64;
        let mean = |a: f64, b: f64| a + (b - a) * share;
        Self {
            groups: total,
            mean_bits: mean(self.mean_bits, other.mean_bits),
            min_bits: self.min_bits.min(other.min_bits),
            max_bits: self.max_bits.max(other.max_bits),
            mean_excess: mean(self.mean_excess, other.mean_excess),
            min_excess: self.min_excess.min(other.min_excess),
            max_excess: self.max_excess.max(other.max_excess),
        }
    }
}

/// What a report tells of the divergences of a batch and of the weights after it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Divergence {
    /// How many groups of channels were measured.
    pub groups: usize,
    /// Their mean divergence in bits.
    pub mean_bits: f64,
    /// The smallest.
    pub min_bits: f64,
    /// The largest.
    pub max_bits: f64,
    /// λ; 1 without a target that the weights follow.
    pub weight: f64,
    /// λ_min.
    pub weight_below: f64,
    /// λ_max.
    pub weight_above: f64,
}

impl Divergence {
    /// Adds a later batch; its weights are the ones that stand.
    pub fn merge(&mut self, later: &Self) {
        let total = self.groups + later.groups;
        let share = later.groups as f64 / total.max(1) as f64;
        *self = Self {
            groups: total,
            mean_bits: self.mean_bits + (later.mean_bits - self.mean_bits) * share,
            min_bits: self.min_bits.min(later.min_bits),
            max_bits: self.max_bits.max(later.max_bits),
            ..*later
        };
    }
}

/// A constraint with its state.
#[derive(Module, Debug)]
pub struct DivergenceConstraint {
    weights: Option<Param<Tensor<2>>>,
    #[module(skip)]
    config: Constraint,
    /// T of each depth.
    #[module(skip)]
    targets: Vec<f64>,
}

impl DivergenceConstraint {
    /// For codes of `bits`, one number for each depth, unless the configuration has a target.
    pub(crate) fn new(config: &Constraint, bits: &[f64], init: &Init) -> Self {
        let follows = matches!(config, Constraint::Target(_));
        let targets = bits.iter().map(|b| config.target_bits().unwrap_or(*b));
        Self {
            weights: follows.then(|| init.buffer([3, 3], parts([1.0; 3]))),
            config: config.clone(),
            targets: targets.collect(),
        }
    }

    /// T of each depth, in bits.
    pub fn targets(&self) -> &[f64] {
        &self.targets
    }

    /// The weights as they stand.
    pub fn weights(&self) -> DivergenceWeights {
        match (&self.config, &self.weights) {
            (_, Some(weights)) => {
                let parts = host_values(weights.val());
                let sum = |i: usize| {
                    let part = |k: usize| f64::from(parts[3 * i + k]);
                    part(0) + part(1) + part(2)
                };
                DivergenceWeights {
                    all: sum(0),
                    below: sum(1),
                    above: sum(2),
                }
            }
            (Constraint::FixedFactor(config), None) => DivergenceWeights {
                all: 1.0,
                below: 1.0 / config.factor,
                above: config.factor,
            },
            (Constraint::Even {} | Constraint::Target(_), None) => DivergenceWeights {
                all: 1.0,
                below: 1.0,
                above: 1.0,
            },
        }
    }

    /// The loss of the divergences `nats [batch, depth, height, width]`, one of each group of
    /// channels.
    pub(crate) fn loss(&self, nats: Tensor<4>) -> Tensor<1> {
        let [batch, _, _, _] = nats.dims();
        let (values, tolerance) = match &self.config {
            Constraint::Even {} => return nats.sum().div_scalar(batch as f64),
            Constraint::Target(config) => (nats.clone().mul_scalar(BITS_PER_NAT), config.tolerance),
            Constraint::FixedFactor(config) => (nats.clone(), config.tolerance),
        };
        let weights = self.weights();
        let excess = self.excess(nats.detach().mul_scalar(BITS_PER_NAT));
        let weigh = excess
            .ones_like()
            .mask_fill(excess.clone().greater_elem(tolerance), weights.above)
            .mask_fill(excess.lower_elem(-tolerance), weights.below);
        (values * weigh)
            .sum()
            .mul_scalar(weights.all / batch as f64)
    }

    /// The statistics of a batch's divergences `nats [batch, depth, height, width]`.
    pub(crate) fn measure(&self, nats: Tensor<4>) -> DivergenceStatistics {
        let bits = nats.inner().mul_scalar(BITS_PER_NAT);
        let excess = host_values(self.excess(bits.clone()));
        let bits = host_values(bits);
        let [mean_bits, min_bits, max_bits] = summary(&bits);
        let [mean_excess, min_excess, max_excess] = summary(&excess);
        DivergenceStatistics {
            groups: bits.len(),
            mean_bits,
            min_bits,
            max_bits,
            mean_excess,
            min_excess,
            max_excess,
        }
    }

    /// What divergences in bits exceed the targets by. Near a target this is exact in `f32`.
    fn excess(&self, bits: Tensor<4>) -> Tensor<4> {
        let targets: Vec<f32> = self.targets.iter().map(|t| *t as f32).collect();
        let targets = per_channel(&targets, &bits);
        bits - targets
    }

    /// Moves the weights of a target constraint; others have nothing to move.
    ///
    /// Where several processes train one model, each on its own batches, they must merge their
    /// statistics first ([`DivergenceStatistics::merge`]) and all call this with the result, or
    /// their losses drift apart.
    pub fn update_from(&mut self, statistics: &DivergenceStatistics) {
        let before = self.weights();
        let (Constraint::Target(config), Some(weights)) = (&self.config, &mut self.weights) else {
            return;
        };
        let TargetConfig {
            tolerance,
            factor,
            limit,
            ..
        } = *config;
        let step = |value: f64, up: bool| if up { value * factor } else { value / factor };
        let all = step(before.all, statistics.mean_excess > 0.0);
        let above = step(before.above, statistics.max_excess > tolerance);
        let below = step(before.below, statistics.min_excess >= -tolerance);
        let after = [
            all.clamp(1.0 / LARGEST_WEIGHT, LARGEST_WEIGHT),
            below.clamp(1.0 / limit, 1.0),
            above.clamp(1.0, limit),
        ];
        let data = TensorData::new(parts(after), [3, 3]);
        *weights = replace(weights.clone(), data);
    }

    /// Takes one process's batch of divergences `nats [batch, depth, height, width]`: measures, moves
    /// the weights, reports.
    ///
    /// # Errors
    /// When a divergence leaves the range of `f32`; nothing has changed then.
    pub(crate) fn learn(&mut self, nats: Tensor<4>) -> Result<Divergence, QuantizeError> {
        let statistics = self.measure(nats);
        if !statistics.mean_bits.is_finite() {
            return Err(QuantizeError::TooLarge);
        }
        self.update_from(&statistics);
        Ok(self.report(&statistics))
    }

    /// What to report after an update.
    pub fn report(&self, statistics: &DivergenceStatistics) -> Divergence {
        let weights = self.weights();
        Divergence {
            groups: statistics.groups,
            mean_bits: statistics.mean_bits,
            min_bits: statistics.min_bits,
            max_bits: statistics.max_bits,
            weight: weights.all,
            weight_below: weights.below,
            weight_above: weights.above,
        }
    }
}

/// Each number as the sum of three `f32` of 24 bits, which hold the 53 bits of an `f64`.
fn parts(values: [f64; 3]) -> Vec<f32> {
    let split = |value: f64| {
        let high = value as f32;
        let rest = value - f64::from(high);
        let middle = rest as f32;
        [high, middle, (rest - f64::from(middle)) as f32]
    };
    values.into_iter().flat_map(split).collect()
}

/// Mean, least and greatest.
fn summary(values: &[f32]) -> [f64; 3] {
    let start = [0.0, f64::INFINITY, f64::NEG_INFINITY];
    let [sum, least, greatest] = values.iter().fold(start, |[sum, least, greatest], value| {
        let value = f64::from(*value);
        [sum + value, least.min(value), greatest.max(value)]
    });
    [sum / values.len() as f64, least, greatest]
}
