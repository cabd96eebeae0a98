//! When the discriminator joins, and how its loss is weighed.
//!
//! The published recipes let the loss begin at a step until which the discriminator has learned
//! nothing, and at full weight. Reconstructions then follow a judge that knows nothing, which is the
//! field's most frequent complaint. Here the discriminator learns for `warmup_steps` before its opinion
//! counts, and its weight grows over `ramp_steps`; 0 for both is the published form.

use serde::{Deserialize, Serialize};
use smalti_models::discriminators::{
    AdversarialLoss, DiscriminatorConfig, PUBLISHED_LIMIT, balance,
};

use crate::optimizer::OptimizerConfig;

/// The adversary of a tokenizer's training. The weight of its loss is `losses.adversarial`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdversarialConfig {
    /// The network that tells images from reconstructions.
    pub discriminator: DiscriminatorConfig,
    /// What both sides minimise.
    #[serde(default)]
    pub loss: AdversarialLoss,
    /// The step from which the loss counts.
    pub start_step: u64,
    /// Steps before that for which the discriminator learns already.
    #[serde(default = "five_hundred")]
    pub warmup_steps: u64,
    /// Steps over which the weight grows to its full size.
    #[serde(default = "five_hundred")]
    pub ramp_steps: u64,
    /// How the loss is held against the others.
    #[serde(default)]
    pub balance: Balance,
    /// LeCAM: the discriminator's opinions are held near their moving averages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lecam: Option<LecamConfig>,
    /// R1: a penalty on the discriminator's slope at real images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slope_penalty: Option<SlopePenaltyConfig>,
    /// The discriminator's optimiser; without it, the same as the tokenizer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<OptimizerConfig>,
}

fn five_hundred() -> u64 {
    500
}

/// How the adversarial loss is held against the others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Balance {
    /// By its weight alone.
    Fixed {},
    /// Its weight times ‖∇ other losses on images‖ / (‖∇ adversarial‖ + 10⁻⁴), the gradients taken at
    /// the weight of the decoder's last layer (Esser et al., CVPR 2021, equation 7).
    Adaptive {
        /// The quotient is at most this.
        #[serde(default = "published_limit")]
        limit: f64,
    },
}

fn published_limit() -> f64 {
    PUBLISHED_LIMIT
}

impl Default for Balance {
    fn default() -> Self {
        Self::Adaptive {
            limit: published_limit(),
        }
    }
}

impl Balance {
    /// The factor of the adversarial loss's weight, from the norms of both gradients.
    pub fn factor(self, image_norm: f64, adversarial_norm: f64) -> f64 {
        match self {
            Self::Fixed {} => 1.0,
            Self::Adaptive { limit } => balance(image_norm, adversarial_norm, limit),
        }
    }
}

/// The regularisation of Tseng et al., CVPR 2021.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LecamConfig {
    /// Of the penalty in the discriminator's loss.
    pub weight: f64,
    /// Of the moving averages.
    #[serde(default = "slow")]
    pub decay: f64,
}

fn slow() -> f64 {
    0.999
}

/// γ/2 · E‖∇ₓD(x)‖² over real images (Mescheder et al., ICML 2018).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlopePenaltyConfig {
    /// γ.
    pub weight: f64,
    /// Steps between two applications; each counts `every` times.
    #[serde(default = "sixteen")]
    pub every: u64,
}

fn sixteen() -> u64 {
    16
}

impl AdversarialConfig {
    /// The first step in which the discriminator learns.
    pub fn first_step(&self) -> u64 {
        self.start_step.saturating_sub(self.warmup_steps)
    }

    /// How much of its weight the loss has at a step: 0 before it counts, 1 after the ramp.
    pub fn strength(&self, step: u64) -> f64 {
        match step.checked_sub(self.start_step) {
            None => 0.0,
            Some(since) => ((since + 1) as f64 / self.ramp_steps.max(1) as f64).min(1.0),
        }
    }

    /// Everything that is wrong with it.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = match self.discriminator.validate() {
            Ok(()) => Vec::new(),
            Err(invalid) => invalid.0,
        };
        let mut require = |holds: bool, problem: &str| {
            if !holds {
                problems.push(problem.to_owned());
            }
        };
        if let Balance::Adaptive { limit } = self.balance {
            require(limit > 0.0, "balance: limit must be positive");
        }
        if let Some(lecam) = self.lecam {
            require(lecam.weight >= 0.0, "lecam: weight must not be negative");
            require(
                (0.0..1.0).contains(&lecam.decay),
                "lecam: decay must lie in [0, 1)",
            );
        }
        if let Some(penalty) = self.slope_penalty {
            require(
                penalty.weight > 0.0 && penalty.weight.is_finite(),
                "slope_penalty: weight must be positive",
            );
            require(penalty.every > 0, "slope_penalty: every must be at least 1");
        }
        if let Some(optimizer) = &self.optimizer {
            problems.extend(optimizer.problems());
        }
        problems
            .into_iter()
            .map(|problem| format!("adversarial: {problem}"))
            .collect()
    }
}
