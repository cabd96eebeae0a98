//! The bound on the likelihood of codes, one time step of it.
//!
//! For every code, with `p_θ` the posterior of the network's `p(x_0 | x_t)`:
//!
//! ```text
//! bound      t > 0:  KL( q(x_{t−1} | x_t, x_0) ‖ p_θ(x_{t−1} | x_t) ) · w      t = 0:  −ln p_θ(x_0 | x_t)
//! auxiliary  t > 0:  −ln p(x_0 | x_t) · w                                      t = 0:  the same as the bound
//! ```
//!
//! `w` is one weight where the code is masked and another where it is not; VQ-Diffusion, arXiv
//! 2111.14822, equations 9, 10 and 12. Both are to be divided by the probability of `t`: their mean
//! is then the whole bound, in nats.
//!
//! Different from the published code: `ln p(x_0 | x_t)` is an `f32` softmax, an `f64` one there (they
//! agree within 1e-6); the term at the end of the chain, `KL(q(x_T | x_0) ‖ p(x_T))`, is left out here as
//! there: it has no parameters.

use burn::tensor::{Device, Int, Tensor, TensorData, activation::log_softmax};

use super::schedule::Schedule;
use super::transitions::{LOWEST, LogRates, PosteriorRates, log_one_hot, posterior};

/// What one step says about the codes of a depth, `[batch, length]` each.
#[derive(Clone, Debug)]
pub struct StepLosses {
    /// The step's part of the bound.
    pub bound: Tensor<2>,
    /// How badly the codes themselves are foreseen.
    pub auxiliary: Tensor<2>,
}

/// The codes of one depth at some time.
#[derive(Clone, Debug)]
pub struct Worn {
    /// As they are, `[batch, length]`.
    pub clean: Tensor<2, Int>,
    /// As they are seen, the mask being the id behind the last code, `[batch, length]`.
    pub seen: Tensor<2, Int>,
}

/// The times of a batch and what follows from them, for codebooks of one size.
#[derive(Clone, Debug)]
pub struct Steps {
    rates: PosteriorRates,
    /// 1 where a sample is at its first step, `[batch, 1]`.
    first: Tensor<2>,
    mask_weight: [f64; 2],
}

impl Steps {
    /// Of samples at these times; `mask_weight` weighs codes that are masked, and those that are not.
    pub fn new(
        (schedule, times): (Schedule, &[usize]),
        codes: usize,
        mask_weight: [f64; 2],
        device: &Device,
    ) -> Self {
        let rates = |rate: &dyn Fn(usize) -> super::schedule::Rates| {
            let rates: Vec<_> = times.iter().map(|&time| rate(time)).collect();
            LogRates::new(&rates, codes, device)
        };
        let first: Vec<f32> = times.iter().map(|&t| f32::from(u8::from(t == 0))).collect();
        Self {
            rates: PosteriorRates {
                seen: rates(&|time| schedule.after(Some(time))),
                target: rates(&|time| schedule.after(time.checked_sub(1))),
                between: rates(&|time| schedule.step(time)),
            },
            first: Tensor::from_data(TensorData::new(first, [times.len(), 1]), device),
            mask_weight,
        }
    }

    /// The losses of logits `[batch, length, K]` of the codes as they were.
    pub fn losses(&self, logits: Tensor<3>, codes: Worn) -> StepLosses {
        let [batch, length, size] = logits.dims();
        let Worn { clean, seen } = codes;
        let start = start_logs(logits);
        let model = posterior(start.clone(), seen.clone(), &self.rates);
        let truth = log_one_hot(clean.clone(), size + 1).narrow(2, 0, size);
        let truth = posterior(truth, seen.clone(), &self.rates);
        let flat = |x: Tensor<3>| x.reshape([batch, length]);
        let divergence = flat((truth.clone().exp() * (truth - model.clone())).sum_dim(2));
        let places = clean.reshape([batch, length, 1]);
        let missed = flat(model.gather(2, places.clone())).neg();
        let unforeseen = flat(start.gather(2, places)).neg();
        let weight = self.weights(seen, size);
        let first = self.first.clone().expand([batch, length]);
        let later = first.ones_like() - first.clone();
        let missed = missed * first;
        StepLosses {
            bound: missed.clone() + divergence * weight.clone() * later.clone(),
            auxiliary: missed + unforeseen * weight * later,
        }
    }

    /// The weight of each code.
    fn weights(&self, seen: Tensor<2, Int>, size: usize) -> Tensor<2> {
        let [masked, open] = self.mask_weight;
        let is_mask = seen.equal_elem(size as i64).float();
        is_mask.mul_scalar(masked - open).add_scalar(open)
    }
}

/// `ln p(x_0 | x_t)` from the network's logits, both `[batch, length, K]`.
pub fn start_logs(logits: Tensor<3>) -> Tensor<3> {
    log_softmax(logits, 2).clamp(LOWEST, 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use smalti_nn::Noise;
    use smalti_nn::state::host_values;

    /// Logits, codes as they are and as they are seen, of 2 samples of 3 codes out of 4.
    fn case(device: &Device) -> (Tensor<3>, Worn, Steps) {
        let logits = Noise::from_seed(3).standard_normal([2, 3, 4], &device.clone().inner());
        let logits = match device.is_autodiff() {
            true => Tensor::from_inner(logits).require_grad(),
            false => logits,
        };
        let codes = Worn {
            clean: Tensor::from_data([[0, 3, 1], [2, 2, 0]], device),
            seen: Tensor::from_data([[4, 3, 4], [4, 2, 1]], device),
        };
        let steps = Steps::new((Schedule::new(6), &[0, 4]), 4, [1.0, 0.5], device);
        (logits, codes, steps)
    }

    fn total(steps: &Steps, logits: Tensor<3>, codes: &Worn) -> Tensor<1> {
        let losses = steps.losses(logits, codes.clone());
        losses.bound.sum() + losses.auxiliary.sum().mul_scalar(0.3)
    }

    #[test]
    fn gradients_are_slopes() {
        let device = Device::flex().autodiff();
        let (logits, codes, steps) = case(&device);
        let gradient = logits
            .grad(&total(&steps, logits.clone(), &codes).backward())
            .unwrap();
        let gradient = host_values(gradient);
        let (plain, codes, steps) = case(&Device::flex());
        let values = host_values(plain);
        for (i, got) in gradient.into_iter().enumerate() {
            let at = |change: f32| {
                let mut values = values.clone();
                values[i] += change;
                let logits = Tensor::from_data(TensorData::new(values, [2, 3, 4]), &Device::flex());
                f64::from(total(&steps, logits, &codes).into_scalar::<f32>())
            };
            let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
            let allowed = 2e-3 + 2e-3 * slope.abs();
            assert!(
                (f64::from(got) - slope).abs() < allowed,
                "{i}: {got} for {slope}"
            );
        }
    }

    #[test]
    fn a_network_that_knows_the_codes_has_nothing_to_lose() {
        let device = Device::flex();
        let (_, codes, steps) = case(&device);
        let sure = log_one_hot(codes.clean.clone(), 4);
        let losses = steps.losses(sure, codes);
        assert!(losses.bound.abs().max().into_scalar::<f32>() < 1e-5);
        assert!(losses.auxiliary.abs().max().into_scalar::<f32>() < 1e-5);
    }

    #[test]
    fn whoever_copies_what_is_seen_and_guesses_the_rest_loses_the_logarithm_of_the_codes() {
        let (device, schedule, size) = (Device::flex(), Schedule::new(30), 5);
        let mut bound = 0.0;
        for time in 0..30 {
            let steps = Steps::new((schedule, &[time]), size, [1.0, 1.0], &device);
            let codes = Worn {
                clean: Tensor::from_data([[2, 2]], &device),
                seen: Tensor::from_data([[size as i32, 2]], &device),
            };
            let copied = log_one_hot(codes.clean.clone(), size).narrow(1, 1, 1);
            let logits = Tensor::cat(vec![copied.zeros_like(), copied], 1);
            let masked = schedule.after(Some(time)).mask;
            let each = host_values(steps.losses(logits, codes).bound);
            bound += masked * f64::from(each[0]) + (1.0 - masked) * f64::from(each[1]);
        }
        let want = (size as f64).ln();
        assert!((bound / want - 1.0).abs() < 1e-3, "{bound} for {want}");
    }

    #[test]
    fn codes_that_are_not_masked_have_a_weight_of_their_own() {
        let device = Device::flex();
        let (logits, codes, half) = case(&device);
        let whole = Steps::new((Schedule::new(6), &[0, 4]), 4, [1.0, 1.0], &device);
        let [half, whole] = [half, whole].map(|steps| {
            let losses = steps.losses(logits.clone(), codes.clone());
            host_values(losses.auxiliary)
        });
        // The first sample is at step 0, whose loss is not weighed.
        for (i, factor) in [1.0, 1.0, 1.0, 1.0, 0.5, 0.5].into_iter().enumerate() {
            assert!(
                (half[i] - factor * whole[i]).abs() < 1e-5,
                "{half:?} {whole:?}"
            );
        }
    }
}
