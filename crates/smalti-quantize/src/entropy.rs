//! How evenly codes are used, and how surely each is chosen: the two entropies behind LFQ, BSQ and
//! IBQ.
//!
//! A latent x gives every code a probability, `p(c|x) = softmax(2τ·x·c)` for LFQ and BSQ, `softmax(τ·x·c)`
//! for IBQ and `softmax(−τ·‖x − c‖²)` for [`DistanceEntropies`]. With `p̄(c)` its mean over
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

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use smalti_nn::entropy as found;

use crate::NamedLoss;

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

/// The two entropies of a choice by distance, as LlamaGen and FQGAN have them: a soft choice
/// `p(c|x) = softmax(−τ·‖x − c‖²)`, of the vectors that are compared (the scaled ones under a cosine).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistanceEntropies {
    /// τ; 100 as published, a temperature of 0.01.
    #[serde(default = "hundred")]
    pub inverse_temperature: f32,
    /// How the entropies keep logarithms finite.
    #[serde(default = "Logarithms::magvit")]
    pub logarithms: Logarithms,
}

fn hundred() -> f32 {
    100.0
}

impl Default for DistanceEntropies {
    /// The published ones.
    fn default() -> Self {
        Self {
            inverse_temperature: hundred(),
            logarithms: Logarithms::magvit(),
        }
    }
}

impl DistanceEntropies {
    pub(crate) fn problems(&self) -> Vec<String> {
        let temperature = check_temperature(self.inverse_temperature).into_iter();
        let problems = temperature.chain(self.logarithms.problems());
        problems.map(|p| format!("entropies: {p}")).collect()
    }

    /// Of vectors `[n, width]` and codes `[K, width]`, both with autodiff or both without.
    pub(crate) fn of(&self, rows: Tensor<2>, table: Tensor<2>) -> [NamedLoss; 2] {
        // ‖x − c‖² = ‖x‖² − 2·(x·c − ‖c‖²/2), and ‖x‖² is the same for all codes: a product of vectors
        // that are one number longer.
        let ones = rows.clone().narrow(1, 0, 1).ones_like();
        let halves = table.clone().square().sum_dim(1).mul_scalar(-0.5);
        let entropies = found::SoftmaxEntropies {
            inverse_temperature: 2.0 * self.inverse_temperature,
            logarithms: self.logarithms.into(),
        };
        let found::Entropies { sample, unused } = entropies.of(
            Tensor::cat(vec![rows, ones], 1),
            Tensor::cat(vec![table, halves], 1),
        );
        [("sample_entropy", sample), ("unused_entropy", unused)]
    }
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

    /// Straight from the definition, in `f64`.
    #[test]
    fn distances_give_the_entropies_of_their_softmax() {
        let (rows, table) = (
            [[0.3f32, -0.2], [1.0, 0.4], [0.1, 0.9]],
            [[0.5f32, 0.1], [-0.3, 1.2]],
        );
        let distance = |x: [f32; 2], c: [f32; 2]| -> f64 {
            let squares = x.iter().zip(c).map(|(x, c)| f64::from(x - c).powi(2));
            squares.sum()
        };
        let choices: Vec<[f64; 2]> = rows
            .iter()
            .map(|&x| {
                let weights = table.map(|c| (-3.0 * distance(x, c)).exp());
                weights.map(|w| w / weights.iter().sum::<f64>())
            })
            .collect();
        let entropy = |p: [f64; 2]| -p.iter().map(|p| p * p.ln()).sum::<f64>();
        let sample = choices.iter().map(|&p| entropy(p)).sum::<f64>() / 3.0;
        let mean = [0, 1].map(|c| choices.iter().map(|p| p[c]).sum::<f64>() / 3.0);
        let entropies = DistanceEntropies {
            inverse_temperature: 3.0,
            logarithms: Logarithms::both(Logarithm::Exact {}),
        };
        let device = burn::tensor::Device::flex();
        let found = entropies.of(
            Tensor::from_data(rows, &device),
            Tensor::from_data(table, &device),
        );
        let expected = [sample, 2f64.ln() - entropy(mean)];
        for ((name, found), expected) in found.into_iter().zip(expected) {
            let found = f64::from(found.into_scalar::<f32>());
            assert!(
                (found - expected).abs() < 1e-6,
                "{name}: {found}, {expected}"
            );
        }
    }
}
