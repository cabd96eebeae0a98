//! The Gaussian that an encoder of moments gives for every channel of every position, and its
//! divergence from the standard normal.
//!
//! Moments are `[batch, 2c, height, width]`: the means first, then the logarithms of the variances,
//! which are clamped to [−30, 20] (outside there is no gradient through them). Everything derived
//! from them is `[batch, c, height, width]`:
//!
//! * a sample `μ + σ·ε`;
//! * `KL(N(μ, σ²) ‖ N(0, 1)) = ½(μ² + σ² − 1 − ln σ²)` nats.
//!
//! The published code of Gaussian Quant turns nats into bits with the literal 1.4426 for 1/ln 2, and
//! so does this: a difference of 6.6e-5 of the rate, but thresholds are then crossed where theirs
//! are.

use burn::tensor::Tensor;
use smalti_nn::Noise;
use smalti_nn::state::host_values;

use crate::QuantizeError;
use crate::quantizer::{check_channels, check_finite};
use crate::rows::single;

/// Bits in a nat, as the published code has it.
#[expect(clippy::approx_constant, reason = "the published literal")]
pub const BITS_PER_NAT: f64 = 1.4426;

/// What logarithms of variances are clamped to.
pub const LOG_VARIANCES: [f64; 2] = [-30.0, 20.0];

/// Independent Gaussians.
#[derive(Clone, Debug)]
pub struct GaussianPosterior {
    mean: Tensor<4>,
    log_variance: Tensor<4>,
}

impl GaussianPosterior {
    /// Splits the moments of `channels` channels, and clamps.
    ///
    /// # Errors
    /// When there are not twice as many channels, or a number is NaN or infinite.
    pub fn from_moments(moments: Tensor<4>, channels: usize) -> Result<Self, QuantizeError> {
        check_channels(&moments, 2 * channels)?;
        // On the host: devices disagree about what clamping makes of a NaN.
        check_finite(&host_values(moments.clone().inner()))?;
        let moments = single(moments);
        let [least, greatest] = LOG_VARIANCES;
        Ok(Self {
            mean: moments.clone().narrow(1, 0, channels),
            log_variance: moments.narrow(1, channels, channels).clamp(least, greatest),
        })
    }

    /// The Gaussians of `(z − shift)·scale`, channel by channel.
    ///
    /// # Panics
    /// When there is not one number for each channel.
    pub fn normalized(&self, shift: &[f32], scale: &[f32]) -> Self {
        let of = |values: &[f32]| per_channel(values, &self.mean);
        // In f64, so that a scale of which 2·ln is needed is rounded once.
        let logs: Vec<f32> = scale
            .iter()
            .map(|s| (2.0 * f64::from(*s).ln()) as f32)
            .collect();
        Self {
            mean: (self.mean.clone() - of(shift)) * of(scale),
            log_variance: self.log_variance.clone() + of(&logs),
        }
    }

    /// μ
    pub fn mean(&self) -> Tensor<4> {
        self.mean.clone()
    }

    /// ln σ², clamped.
    pub fn log_variance(&self) -> Tensor<4> {
        self.log_variance.clone()
    }

    /// σ
    pub fn deviation(&self) -> Tensor<4> {
        self.log_variance.clone().mul_scalar(0.5).exp()
    }

    /// `μ + σ·ε` with standard normal `ε`.
    pub fn sample(&self, noise: &mut Noise) -> Tensor<4> {
        let mean = self.mean();
        let epsilon = noise.standard_normal(mean.dims(), &mean.device());
        mean + epsilon * self.deviation()
    }

    /// The divergence of every channel from the standard normal, in nats.
    pub fn kl_nats(&self) -> Tensor<4> {
        let (mean, log_variance) = (self.mean(), self.log_variance());
        let sum = mean.square() + log_variance.clone().exp() - 1.0 - log_variance;
        sum.mul_scalar(0.5)
    }

    /// [`kl_nats`](Self::kl_nats) in bits: what each channel costs with bits-back coding, and how
    /// many bits its code should have.
    pub fn kl_bits(&self) -> Tensor<4> {
        self.kl_nats().mul_scalar(BITS_PER_NAT)
    }
}

/// One number for each channel, on the device of `map` and to be broadcast over it.
///
/// # Panics
/// When there is not one number for each channel.
pub(crate) fn per_channel(values: &[f32], map: &Tensor<4>) -> Tensor<4> {
    let [_, channels, _, _] = map.dims();
    assert_eq!(values.len(), channels, "one number for each channel");
    Tensor::<1>::from_floats(values, &map.device()).reshape([1, channels, 1, 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    fn moments(values: &[f32], device: &Device) -> Tensor<4> {
        let shape = [1, values.len(), 1, 1];
        Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
    }

    fn close(got: Tensor<4>, expected: &[f32]) {
        let got = host_values(got);
        assert_eq!(got.len(), expected.len());
        for (g, e) in got.iter().zip(expected) {
            assert!((g - e).abs() <= 1e-6 * e.abs().max(1.0), "{got:?}");
        }
    }

    #[test]
    fn means_stand_before_clamped_log_variances() {
        let moments = moments(&[0.5, -1.0, 0.0, -40.0, 0.0, 25.0], &Device::flex());
        let posterior = GaussianPosterior::from_moments(moments, 3).unwrap();
        close(posterior.mean(), &[0.5, -1.0, 0.0]);
        close(posterior.log_variance(), &[-30.0, 0.0, 20.0]);
        close(
            posterior.deviation(),
            &[(-15.0f32).exp(), 1.0, 10.0f32.exp()],
        );
        // ½(μ² + σ² − 1 − ln σ²)
        let nats = [0.5 * (0.25 - 1.0 + 30.0), 0.5, 0.5 * (20.0f32.exp() - 21.0)];
        close(posterior.kl_nats(), &nats);
        assert_eq!(BITS_PER_NAT, 14_426.0 / 10_000.0);
        close(posterior.kl_bits(), &nats.map(|n| BITS_PER_NAT as f32 * n));
    }

    #[test]
    fn gradients_end_where_log_variances_are_clamped() {
        let device = Device::flex().autodiff();
        let moments = moments(&[0.5, -1.0, 2.0, -40.0, 0.7, 25.0], &device).require_grad();
        let posterior = GaussianPosterior::from_moments(moments.clone(), 3).unwrap();
        let gradients = posterior.kl_nats().sum().backward();
        let gradient = moments.grad(&gradients).unwrap();
        // ∂/∂μ = μ, ∂/∂ln σ² = ½(σ² − 1).
        close(
            gradient,
            &[0.5, -1.0, 2.0, 0.0, 0.5 * (0.7f32.exp() - 1.0), 0.0],
        );
    }

    #[test]
    fn a_sample_moves_with_mean_and_deviation() {
        let device = Device::flex().autodiff();
        let values = [0.5, -1.0, -0.4, 1.2];
        let moments = moments(&values, &device).require_grad();
        let posterior = GaussianPosterior::from_moments(moments.clone(), 2).unwrap();
        let sample = posterior.sample(&mut Noise::from_seed(3));
        let epsilon = Noise::from_seed(3).normal_values(2);
        let deviation = [(-0.2f32).exp(), 0.6f32.exp()];
        close(
            sample.clone(),
            &[
                0.5 + deviation[0] * epsilon[0],
                -1.0 + deviation[1] * epsilon[1],
            ],
        );
        let gradient = moments.grad(&sample.sum().backward()).unwrap();
        let half = |i: usize| 0.5 * deviation[i] * epsilon[i];
        close(gradient, &[1.0, 1.0, half(0), half(1)]);
    }

    #[test]
    fn normalizing_moves_and_scales_the_gaussian() {
        let moments = moments(&[0.5, -1.0, 0.0, 1.0], &Device::flex());
        let posterior = GaussianPosterior::from_moments(moments, 2).unwrap();
        let normalized = posterior.normalized(&[0.25, 0.0], &[2.0, 0.5]);
        close(normalized.mean(), &[0.5, -0.5]);
        close(normalized.deviation(), &[2.0, 0.5 * 0.5f32.exp()]);
    }

    #[test]
    fn what_is_no_distribution_is_refused() {
        let device = Device::flex();
        let error = GaussianPosterior::from_moments(moments(&[0.0; 6], &device), 2).unwrap_err();
        assert_eq!(error.to_string(), "latents need 4 channels, got 6");
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in 0..2 {
                let mut values = [0.0; 2];
                values[place] = bad;
                let result = GaussianPosterior::from_moments(moments(&values, &device), 1);
                assert_eq!(result.err(), Some(QuantizeError::NonFinite));
            }
        }
    }
}
