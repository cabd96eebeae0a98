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
//! Gradients are found here in closed form, in slices of bounded memory, and attached to the value:
//! `∂p(c)/∂xᵢ = 2τ·p(c)·(cᵢ − E[cᵢ])`. Autodiff would keep every table of probabilities, K numbers a
//! position, several times over.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::rows::beside;

mod signs;
mod softmax;

pub(crate) use signs::{MOST_BITS, Over, SignEntropies};
pub(crate) use softmax::SoftmaxEntropies;

/// Probabilities that are held at once (16 MiB of `f32`).
const AT_ONCE: usize = 1 << 22;

/// Below this, `p·ln p` is nothing.
const SMALLEST: f32 = 1e-37;

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

impl Logarithm {
    /// `−p·ln p`, and the slope of it over p.
    fn terms<const D: usize>(self, p: Tensor<D>) -> (Tensor<D>, Tensor<D>) {
        let (logarithm, rest) = match self {
            Self::Exact {} => (p.clone().clamp_min(SMALLEST).log(), p.ones_like()),
            Self::Added { epsilon } => {
                let sum = p.clone().add_scalar(epsilon);
                (sum.clone().log(), p.clone() / sum)
            }
            Self::Clamped { epsilon } => {
                let above = p.clone().greater_equal_elem(epsilon).float();
                (p.clone().clamp_min(epsilon).log(), above)
            }
        };
        ((p * logarithm.clone()).neg(), (logarithm + rest).neg())
    }
}

/// The two entropies of a batch, each `[1]`.
pub(crate) struct Entropies {
    pub(crate) sample: Tensor<1>,
    pub(crate) unused: Tensor<1>,
}

/// `value` with the gradient `slopes` of `rows`.
fn attach(value: Tensor<1>, rows: &Tensor<2>, slopes: Tensor<2>) -> Tensor<1> {
    // Exactly zero, with the gradient that is wanted.
    let nothing = rows.clone() - rows.clone().detach();
    beside(value, rows) + (nothing * beside(slopes, rows)).sum()
}

#[cfg(test)]
mod tests;
