//! How evenly codes are used, and how surely each is chosen: the two entropies behind LFQ, BSQ and
//! IBQ.
//!
//! A latent x gives every code a probability, `p(c|x) = softmax(2τ·x·c)`. With `p̄(c)` its mean over
//! the positions of a batch:
//!
//! * `sample_entropy` = mean of `H(p(·|x))`: small when every choice is clear;
//! * `unused_entropy` = `ln K − H(p̄)`: zero when all K codes are used equally, `ln K` when one is
//!   used alone.
//!
//! Published losses are `w₁·H_sample − w₂·H(p̄)`: the same with weights w₁ and w₂, but for the
//! constant `w₂·ln K`, which keeps both terms from going below zero (a total that does has confused
//! many). All entropies are in nats. [`Logarithm`] says how implementations keep `ln p` finite, which
//! shows in the value.
//!
//! [`smalti_nn::entropy`] finds them, with their gradients, without keeping tables of probabilities.

use serde::{Deserialize, Serialize};
use smalti_nn::entropy as found;

/// More bits than this would make tables that no training can afford.
pub(crate) const MOST_BITS: usize = 18;

/// How the logarithm of a probability near zero is kept finite.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Logarithm {
    /// `ln p`, where `0·ln 0` is 0.
    Exact {},
    /// `ln(p + ε)`.
    Added {
        /// ε.
        epsilon: f32,
    },
    /// `ln(max(p, ε))`.
    Clamped {
        /// ε.
        epsilon: f32,
    },
}

/// The logarithms of the two entropies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logarithms {
    /// Of the entropy of a single choice.
    pub sample: Logarithm,
    /// Of the entropy of the mean.
    pub codebook: Logarithm,
}

impl Logarithms {
    /// The same for both.
    pub fn both(logarithm: Logarithm) -> Self {
        Self {
            sample: logarithm,
            codebook: logarithm,
        }
    }

    /// The reference's of LFQ and IBQ: exact for a single choice, `ln(p + 10⁻⁵)` for the mean.
    pub fn magvit() -> Self {
        Self {
            sample: Logarithm::Exact {},
            codebook: Logarithm::Added { epsilon: 1e-5 },
        }
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        let both = [("sample", self.sample), ("codebook", self.codebook)];
        let wrong = |(name, logarithm): (&str, Logarithm)| {
            let (Logarithm::Added { epsilon } | Logarithm::Clamped { epsilon }) = logarithm else {
                return None;
            };
            (!(epsilon > 0.0 && epsilon < 1.0)).then(|| {
                format!("logarithms.{name}: epsilon must lie between 0 and 1, got {epsilon}")
            })
        };
        both.into_iter().filter_map(wrong).collect()
    }
}

/// What is wrong with an inverse temperature.
pub(crate) fn check_temperature(inverse: f32) -> Option<String> {
    (!(inverse.is_finite() && inverse > 0.0))
        .then(|| format!("inverse_temperature must be positive and finite, got {inverse}"))
}

impl From<Logarithm> for found::Logarithm {
    fn from(logarithm: Logarithm) -> Self {
        match logarithm {
            Logarithm::Exact {} => Self::Exact,
            Logarithm::Added { epsilon } => Self::Added(epsilon),
            Logarithm::Clamped { epsilon } => Self::Clamped(epsilon),
        }
    }
}

impl From<Logarithms> for found::Logarithms {
    fn from(logarithms: Logarithms) -> Self {
        Self {
            sample: logarithms.sample.into(),
            codebook: logarithms.codebook.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_epsilons_are_named() {
        let wrong = |epsilon| Logarithms {
            sample: Logarithm::Added { epsilon },
            codebook: Logarithm::Clamped { epsilon },
        };
        for epsilon in [0.0, -1.0, 1.0, f32::NAN] {
            let problems = wrong(epsilon).problems();
            assert_eq!(problems.len(), 2);
            assert!(problems[0].contains("logarithms.sample") && problems[1].contains("codebook"));
        }
        assert!(wrong(1e-8).problems().is_empty() && Logarithms::magvit().problems().is_empty());
        assert!(check_temperature(0.0).is_some() && check_temperature(100.0).is_none());
    }
}
