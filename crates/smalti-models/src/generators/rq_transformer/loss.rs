//! What the training of a generator minimises.
//!
//! `codes = −mean_{b,t,d} Σ_k q(k)·log p(k)`, `q` either the true code (hard) or the tokenizer's
//! distribution over codes, softmax(−‖residual − e(k)‖²/τ) (soft); paper section 3.2.4. With soft
//! targets the log-partition of the published code has 1e-7 added inside its logarithm; so here.
//! `text = −mean log p(next token)` over tokens 1 … L−1, padding included, as published.
//!
//! Losses come unweighted and named; [`LossWeights`] is the one place where they are multiplied.

use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};
use smalti_nn::{Targets, cross_entropy};
use smalti_quantize::Codes;

use super::config::Condition;
use super::model::GeneratorOutput;

/// Added to the partition sum where targets are soft.
const SOFT_EPSILON: f64 = 1e-7;

/// What the codes should be.
#[derive(Clone, Debug)]
pub enum CodeTargets {
    /// The codes themselves.
    Hard(Codes),
    /// Distributions over the codes, `[batch, positions, depth, vocab]`.
    Soft(Tensor<4>),
}

/// Unweighted losses.
#[derive(Clone, Debug)]
pub struct GeneratorLosses {
    /// Cross entropy of the codes in nats, `[1]`.
    pub codes: Tensor<1>,
    /// The same for each depth, `[depth]`; `codes` is their mean.
    pub per_depth: Tensor<1>,
    /// Cross entropy of the text in nats, `[1]`, for text models.
    pub text: Option<Tensor<1>>,
}

/// The weights of the losses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossWeights {
    /// Of [`GeneratorLosses::codes`].
    pub codes: f64,
    /// Of [`GeneratorLosses::text`].
    #[serde(default)]
    pub text: f64,
}

impl LossWeights {
    /// The published weights: 0.9 and 0.1 for text models, else the codes alone.
    pub const fn published(condition: &Condition) -> Self {
        match condition {
            Condition::Text { .. } => Self {
                codes: 0.9,
                text: 0.1,
            },
            _ => Self {
                codes: 1.0,
                text: 0.0,
            },
        }
    }
}

impl GeneratorLosses {
    /// The weighted sum, `[1]`.
    pub fn total(&self, weights: LossWeights) -> Tensor<1> {
        let codes = self.codes.clone().mul_scalar(weights.codes);
        match &self.text {
            Some(text) => codes + text.clone().mul_scalar(weights.text),
            None => codes,
        }
    }
}

impl GeneratorOutput {
    /// The losses of these logits.
    ///
    /// # Panics
    /// When the targets are of another shape than the logits.
    pub fn losses(self, targets: CodeTargets) -> GeneratorLosses {
        let [batch, positions, depth, vocab] = self.logits.dims();
        let rows = batch * positions * depth;
        let logits = self.logits.reshape([rows, vocab]);
        let each = match targets {
            CodeTargets::Hard(codes) => {
                let by_depth = codes.tensor().reshape([batch, depth, positions]);
                let ids = like(&logits, by_depth.swap_dims(1, 2).reshape([rows]));
                cross_entropy(logits, Targets::Ids(ids), 0.0)
            }
            CodeTargets::Soft(weights) => {
                assert_eq!(
                    weights.dims(),
                    [batch, positions, depth, vocab],
                    "soft targets"
                );
                let weights = Targets::Distributions(weights.reshape([rows, vocab]));
                cross_entropy(logits, weights, SOFT_EPSILON)
            }
        };
        let per_depth = each
            .reshape([batch * positions, depth])
            .mean_dim(0)
            .squeeze_dim::<1>(0);
        let text = self.text.map(|text| {
            let [batch, length, vocab] = text.logits.dims();
            let tokens = Targets::Ids(text.tokens.reshape([batch * length]));
            cross_entropy(text.logits.reshape([batch * length, vocab]), tokens, 0.0).mean()
        });
        GeneratorLosses {
            codes: per_depth.clone().mean(),
            per_depth,
            text,
        }
    }
}

/// Ids beside logits: with a gradient graph where the logits have one.
fn like(logits: &Tensor<2>, ids: Tensor<1, Int>) -> Tensor<1, Int> {
    if logits.is_autodiff() {
        Tensor::from_inner(ids)
    } else {
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::rq_transformer::conditions::Conditions;
    use crate::generators::rq_transformer::model::GeneratorInput;
    use crate::generators::rq_transformer::testing::{build, random_codes, tiny, tiny_uneven};
    use burn::tensor::Device;

    #[test]
    fn one_hot_soft_targets_are_hard_targets() {
        let device = Device::flex();
        for config in [tiny(), tiny_uneven()] {
            let model = build(&config, &device, 1);
            let codes = random_codes(&config, 2, &device, 2);
            let conditions = match config.condition {
                Condition::Text { length, .. } => Conditions::Texts(vec![vec![1; length]; 2]),
                _ => Conditions::Classes(vec![1; 2]),
            };
            let input = GeneratorInput {
                codes: codes.clone(),
                conditions,
            };
            let output = model.forward(input, None);
            let ids = codes.tensor().reshape([2, 3, 6]).swap_dims(1, 2);
            let hard = output.clone().losses(CodeTargets::Hard(codes));
            let soft = output.losses(CodeTargets::Soft(ids.one_hot::<4>(12).float()));
            assert!(
                hard.per_depth
                    .all_close(soft.per_depth, Some(1e-5), Some(1e-6))
            );
            assert!(hard.codes.all_close(soft.codes, Some(1e-5), Some(1e-6)));
            assert_eq!(
                hard.text.is_some(),
                matches!(config.condition, Condition::Text { .. })
            );
        }
    }

    #[test]
    fn the_total_is_the_weighted_sum() {
        let device = Device::flex();
        let one = |x: f32| Tensor::<1>::from_data([x], &device);
        let mut losses = GeneratorLosses {
            codes: one(2.0),
            per_depth: one(2.0),
            text: Some(one(5.0)),
        };
        let text = LossWeights::published(&Condition::Text {
            vocab_size: 9,
            length: 3,
        });
        assert!((losses.total(text).into_scalar::<f32>() - 2.3).abs() < 1e-6);
        losses.text = None;
        let none = LossWeights::published(&Condition::Unconditional {});
        assert_eq!(losses.total(none).into_scalar::<f32>(), 2.0);
    }
}
