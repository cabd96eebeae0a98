//! Distributions of the chain in the logarithm, over rows of codes.
//!
//! Codes `[batch, length]`, the mask is id `K`; distributions `[batch, length, K + 1]`, the mask last
//! (the published code has the classes in the second axis). With the rates of [`Schedule`]:
//!
//! ```text
//! q(x_t = y | x_s = i)   = α·[i = y] + β  (y a code),   γ  (y the mask),   mask → mask 1
//! p(x_s = y | x_t)       = q(x_t | x_s = y) · Σ_k  p(x_0 = k | x_t) / q(x_t | x_0 = k) · q(x_s = y | x_0 = k)
//! ```
//!
//! VQ-Diffusion, arXiv 2111.14822, equations 5, 8 and 11. The second is the posterior, true where
//! `p(x_0)` is the one code that is so, else the model's. All in `f32`, logarithms of zero as `ln 1e-30`,
//! results between −70 and 0, as published.
//!
//! [`Schedule`]: super::schedule::Schedule

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::schedule::Rates;

/// What stands for the logarithm of zero: that of 1e-30.
pub(super) const LOG_ZERO: f64 = -69.077_552_789_821_37;
/// The smallest logarithm of a result.
pub(super) const LOWEST: f64 = -70.0;

/// The logarithms of one [`Rates`] for each sample, `[batch, 1, 1]`.
#[derive(Clone, Debug)]
pub struct LogRates {
    /// Of `α`.
    pub keep: Tensor<3>,
    /// Of `β`, for each of the codes.
    pub renew: Tensor<3>,
    /// Of `γ`.
    pub mask: Tensor<3>,
    /// Of `1 − γ`.
    pub free: Tensor<3>,
}

impl LogRates {
    /// The logarithms of these rates for codebooks of so many codes, taken in `f64`.
    pub fn new(rates: &[Rates], codes: usize, device: &Device) -> Self {
        let column = |value: &dyn Fn(&Rates) -> f64| {
            let values: Vec<f32> = rates.iter().map(|r| value(r).ln() as f32).collect();
            Tensor::from_data(TensorData::new(values, [rates.len(), 1, 1]), device)
        };
        Self {
            keep: column(&|r| r.keep),
            renew: column(&|r| r.renew / codes as f64),
            mask: column(&|r| r.mask),
            free: column(&|r| 1.0 - r.mask),
        }
    }
}

/// `ln(eᵃ + eᵇ)`, `b` broadcast; one of them may be −∞.
fn log_add(a: Tensor<3>, b: Tensor<3>) -> Tensor<3> {
    let b = b.expand(a.dims());
    // A constant: what it adds to the gradient cancels.
    let largest = a.clone().max_pair(b.clone()).detach();
    ((a - largest.clone()).exp() + (b - largest.clone()).exp()).log() + largest
}

/// `ln Σ eᵃ` over the last axis, which stays.
fn log_sum(a: Tensor<3>) -> Tensor<3> {
    let largest = a.clone().max_dim(2).detach();
    (a - largest.clone()).exp().sum_dim(2).log() + largest
}

/// Logarithms of one-hot rows of `classes`, `[batch, length, classes]`.
pub fn log_one_hot(ids: Tensor<2, Int>, classes: usize) -> Tensor<3> {
    let hot = ids.one_hot::<3>(classes).float();
    (hot.ones_like() - hot).mul_scalar(LOG_ZERO)
}

/// From a distribution over codes and mask to that after the rates: `Σ_i p(i)·q(· | i)`.
pub fn forward(before: Tensor<3>, rates: &LogRates) -> Tensor<3> {
    let [_, _, classes] = before.dims();
    let codes = classes - 1;
    let of_codes = before.clone().narrow(2, 0, codes) + rates.keep.clone();
    let of_mask = before.narrow(2, codes, 1) + rates.free.clone();
    Tensor::cat(
        vec![
            log_add(of_codes, rates.renew.clone()),
            log_add(of_mask, rates.mask.clone()),
        ],
        2,
    )
}

/// The rates that a posterior needs.
#[derive(Clone, Debug)]
pub struct PosteriorRates {
    /// From the start to the time `t` of what is seen.
    pub seen: LogRates,
    /// From the start to the earlier time `s`.
    pub target: LogRates,
    /// From `s` to `t`.
    pub between: LogRates,
}

/// `ln p(x_s | x_t)` from `ln p(x_0 = k | x_t)`, `[batch, length, K]`, and what is seen, `x_t`.
pub fn posterior(start: Tensor<3>, seen: Tensor<2, Int>, rates: &PosteriorRates) -> Tensor<3> {
    let [batch, length, codes] = start.dims();
    let masked = seen.clone().equal_elem(codes as i64).float();
    let masked = masked.reshape([batch, length, 1]);
    let open = masked.ones_like() - masked.clone();
    let select =
        |of_code: Tensor<3>, of_mask: Tensor<3>| of_code * open.clone() + of_mask * masked.clone();
    let hot = log_one_hot(seen, codes + 1).narrow(2, 0, codes);
    // The kernel is symmetric among codes: the row of x_t is its column too.
    let likelihood = |rates: &LogRates| {
        let of_code = log_add(hot.clone() + rates.keep.clone(), rates.renew.clone());
        select(of_code, rates.mask.clone())
    };
    let of_mask = open.clone().mul_scalar(LOG_ZERO);
    let step = Tensor::cat(vec![likelihood(&rates.between), of_mask], 2);
    let nothing = open.clone().mul_scalar(0.0).add_scalar(LOG_ZERO);
    let weights = Tensor::cat(vec![start - likelihood(&rates.seen), nothing], 2);
    let total = log_sum(weights.clone());
    let weights = weights - total.clone();
    (forward(weights, &rates.target) + step + total).clamp(LOWEST, 0.0)
}

#[cfg(test)]
mod tests {
    use super::super::schedule::Schedule;
    use super::*;
    use smalti_nn::Noise;
    use smalti_nn::state::host_values;

    /// Rates of a jump from `t` back to `s`, for one sample.
    fn rates(schedule: Schedule, to: Option<usize>, time: usize, codes: usize) -> PosteriorRates {
        let of = |rates: Rates| LogRates::new(&[rates], codes, &Device::flex());
        PosteriorRates {
            seen: of(schedule.after(Some(time))),
            target: of(schedule.after(to)),
            between: of(schedule.between(to, time)),
        }
    }

    fn probabilities(
        start: &[f32],
        seen: i32,
        (to, time): (Option<usize>, usize),
        steps: usize,
    ) -> Vec<f32> {
        let codes = start.len();
        let data = TensorData::new(start.to_vec(), [1, 1, codes]);
        let start = Tensor::<3>::from_data(data, &Device::flex()).log();
        let seen = Tensor::<2, Int>::from_data([[seen]], &Device::flex());
        let rates = rates(Schedule::new(steps), to, time, codes);
        host_values(posterior(start, seen, &rates).exp())
    }

    #[test]
    fn posteriors_are_those_of_exact_arithmetic() {
        let start = [0.7, 0.2, 0.1];
        let cases = [
            (3, 2_usize, [0.349_995, 0.099_999, 0.049_999, 0.500_007]),
            (0, 2, [0.850_002, 0.099_999, 0.049_999, 0.0]),
            (3, 0, [0.7, 0.2, 0.1, 0.0]),
            (1, 1, [0.233_331, 0.733_336, 0.033_333, 0.0]),
        ];
        for (seen, time, expected) in cases {
            let got = probabilities(&start, seen, (time.checked_sub(1), time), 4);
            for (got, want) in got.iter().zip(expected) {
                assert!(
                    (got - want).abs() < 5e-6,
                    "{seen} at {time}: {got} for {want}"
                );
            }
        }
    }

    #[test]
    fn every_posterior_sums_to_one_over_one_step_and_over_several() {
        for seed in 0..6 {
            let draws = Noise::from_seed(seed).uniform_values(5);
            let total: f32 = draws.iter().sum();
            let start: Vec<f32> = draws.iter().map(|draw| draw / total).collect();
            for (to, time) in [
                (Some(7), 8),
                (Some(1), 8),
                (None, 0),
                (None, 8),
                (Some(0), 1),
            ] {
                for seen in 0..=5 {
                    let got = probabilities(&start, seen, (to, time), 9);
                    let sum: f32 = got.iter().sum();
                    assert!(
                        (sum - 1.0).abs() < 2e-5,
                        "{seen} from {time} to {to:?}: {sum}"
                    );
                }
            }
        }
    }

    #[test]
    fn nothing_is_masked_at_the_end_of_the_chain() {
        for seen in 0..=3 {
            let got = probabilities(&[0.5, 0.25, 0.25], seen, (None, 3), 4);
            assert!(got[3] < 1e-25, "{got:?}");
        }
    }
}
