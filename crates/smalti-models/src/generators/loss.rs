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

use super::output::GeneratorOutput;

/// Added to the partition sum where targets are soft.
const SOFT_EPSILON: f64 = 1e-7;

/// What the codes should be.
#[derive(Clone, Debug)]
pub enum CodeTargets {
    /// The codes themselves.
    Hard(Codes),
    /// Distributions over the codes, `[batch, positions, depth, codes]`; logits beyond the codes are of
    /// what never comes.
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
                let weights = with_zeros(weights, vocab);
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

/// Distributions with nothing on what lies between their codes and the end of the vocabulary.
fn with_zeros(weights: Tensor<4>, vocab: usize) -> Tensor<4> {
    let [batch, positions, depth, codes] = weights.dims();
    match vocab.saturating_sub(codes) {
        0 => weights,
        missing => {
            let zeros = Tensor::zeros([batch, positions, depth, missing], &weights.device());
            Tensor::cat(vec![weights, zeros], 3)
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
    use crate::generators::output::TextOutput;
    use burn::tensor::Device;
    use smalti_nn::Noise;

    /// Logits of 2 samples, 6 positions and 3 depths out of 12 codes, and of a text's last 2 tokens.
    fn output() -> GeneratorOutput {
        let (mut noise, device) = (Noise::from_seed(1), Device::flex());
        let text = TextOutput {
            logits: noise.standard_normal([2, 2, 9], &device),
            tokens: Tensor::from_data([[1, 8], [3, 0]], &device),
        };
        GeneratorOutput {
            logits: noise.standard_normal([2, 6, 3, 12], &device),
            text: Some(text),
        }
    }

    fn codes() -> Codes {
        let ids: Vec<u32> = (0..36).map(|i| i * 7 % 12).collect();
        Codes::from_values(&ids, [2, 3, 2, 3], &Device::flex())
    }

    #[test]
    fn one_hot_soft_targets_are_hard_targets() {
        let ids = codes().tensor().reshape([2, 3, 6]).swap_dims(1, 2);
        let hard = output().losses(CodeTargets::Hard(codes()));
        let soft = output().losses(CodeTargets::Soft(ids.one_hot::<4>(12).float()));
        let close = hard
            .per_depth
            .all_close(soft.per_depth, Some(1e-5), Some(1e-6));
        assert!(close);
        assert!(hard.codes.all_close(soft.codes, Some(1e-5), Some(1e-6)));
        assert!(hard.text.is_some());
    }

    #[test]
    fn what_is_no_code_has_a_target_of_nothing() {
        let ids = codes().tensor().reshape([2, 3, 6]).swap_dims(1, 2);
        let nine = ids.remainder_scalar(9);
        let of = |codes| {
            let targets = CodeTargets::Soft(nine.clone().one_hot::<4>(codes).float());
            output().losses(targets).per_depth
        };
        assert!(of(9).all_close(of(12), None, None));
    }

    #[test]
    fn every_code_counts_with_the_logits_of_its_place() {
        let values = codes().values();
        let logits = output().logits.try_into_vec_as::<f32>().unwrap();
        let mut sums = [0.0; 3];
        for (sample, position, depth) in (0..36).map(|i| (i / 18, i / 3 % 6, i % 3)) {
            let row = &logits[((sample * 6 + position) * 3 + depth) * 12..][..12];
            let code = values[(sample * 3 + depth) * 6 + position] as usize;
            let partition: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
            sums[depth] += partition.ln() - f64::from(row[code]);
        }
        let losses = output().losses(CodeTargets::Hard(codes()));
        let per_depth = losses.per_depth.try_into_vec_as::<f32>().unwrap();
        for (got, sum) in per_depth.iter().zip(sums) {
            assert!((f64::from(*got) - sum / 12.0).abs() < 1e-5);
        }
        let mean = sums.iter().sum::<f64>() / 36.0;
        assert!((f64::from(losses.codes.into_scalar::<f32>()) - mean).abs() < 1e-5);
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
        let weights = |codes, text| LossWeights { codes, text };
        let total = losses.total(weights(0.9, 0.1)).into_scalar::<f32>();
        assert!((total - 2.3).abs() < 1e-6);
        losses.text = None;
        let total = losses.total(weights(1.0, 0.0)).into_scalar::<f32>();
        assert_eq!(total, 2.0);
    }
}
