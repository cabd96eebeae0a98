//! The gradient through the choice of a code.
//!
//! * [`Estimator::StraightThrough`]: that of the latent itself (Bengio et al., 2013).
//! * [`Estimator::Rotation`]: that of `λ·R·x`, where the rotation `R` turns x onto its code q and
//!   `λ = ‖q‖/‖x‖` stretches it, both taken as constants (Fifty et al., ICLR 2025, section 4.2):
//!   `R·x = x − 2·w·wᵀx + 2·q̂·x̂ᵀx` with `w = (x̂ + q̂)/‖x̂ + q̂‖`. A gradient keeps its angle to the
//!   code.
//!
//! Either way the value is exactly the code: a rotation in `f32` would miss it by rounding.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use smalti_nn::state::host_values;

use crate::QuantizeError;
use crate::learning::check_range;
use crate::rows::straight_through;

/// Lengths below this are taken as this, as in the reference.
const SHORTEST: f32 = 1e-6;

/// How a gradient gets past the choice of a code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Estimator {
    /// Unchanged.
    #[default]
    StraightThrough,
    /// Turned and stretched as the latent is on its way to the code.
    Rotation,
}

impl Estimator {
    /// Refuses rows whose gradient could not be found.
    pub(crate) fn check(self, rows: &Tensor<2>) -> Result<(), QuantizeError> {
        match self {
            Self::StraightThrough => Ok(()),
            Self::Rotation => check_range(&host_values(rows.clone().inner())),
        }
    }

    /// The value of `codes`, with this gradient of `rows`; both `[n, width]`.
    pub(crate) fn pass(self, rows: Tensor<2>, codes: Tensor<2>) -> Tensor<2> {
        let through = match self {
            Self::StraightThrough => rows,
            Self::Rotation => rotated(rows, &codes.clone().detach()),
        };
        straight_through(through, codes)
    }
}

fn rotated(rows: Tensor<2>, codes: &Tensor<2>) -> Tensor<2> {
    let length = |vectors: &Tensor<2>| vectors.clone().square().sum_dim(1).sqrt();
    let at_least = |length: Tensor<2>| length.clamp_min(SHORTEST);
    let constant = rows.clone().detach();
    let start = constant.clone() / at_least(length(&constant));
    let goal = codes.clone() / at_least(length(codes));
    let between = start.clone() + goal.clone();
    let between = between.clone() / at_least(length(&between));
    let along = |axis: &Tensor<2>| (rows.clone() * axis.clone()).sum_dim(1).mul_scalar(2.0);
    let turned = rows.clone() - between.clone() * along(&between) + goal * along(&start);
    turned * (length(codes) / at_least(length(&constant)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use smalti_nn::Noise;

    fn rows(seed: u64, device: &Device) -> Tensor<2> {
        Noise::from_seed(seed).standard_normal([7, 5], device)
    }

    #[test]
    fn a_rotation_ends_at_the_code_and_the_value_is_the_code() {
        let device = Device::flex();
        let (latents, codes) = (rows(1, &device), rows(2, &device));
        let turned = rotated(latents.clone(), &codes);
        assert!(turned.all_close(codes.clone(), Some(1e-4), Some(1e-5)));
        for estimator in [Estimator::StraightThrough, Estimator::Rotation] {
            let value = estimator.pass(latents.clone(), codes.clone());
            assert_eq!(host_values(value), host_values(codes.clone()));
        }
    }

    #[test]
    fn the_value_is_the_code_even_of_huge_latents() {
        let device = Device::flex();
        let (latents, codes) = (rows(1, &device).mul_scalar(1e12), rows(2, &device));
        let value = Estimator::StraightThrough.pass(latents, codes.clone());
        assert_eq!(host_values(value), host_values(codes));
    }

    /// A rotation keeps lengths and angles: |gradient| is stretched by λ, and its angle to the
    /// code becomes its angle to the latent.
    #[test]
    fn a_rotated_gradient_keeps_its_angle() {
        let device = Device::flex().autodiff();
        let (latents, codes) = (rows(1, &device).require_grad(), rows(2, &device));
        let weights = rows(3, &device);
        let value = Estimator::Rotation.pass(latents.clone(), codes.clone());
        let gradients = (value * weights.clone()).sum().backward();
        let gradient = latents.grad(&gradients).expect("latents are tracked");
        let dot = |a: &Tensor<2>, b: &Tensor<2>| (a.clone() * b.clone()).sum_dim(1);
        let length = |a: &Tensor<2>| dot(a, a).sqrt();
        let (x, q, g) = (latents.inner(), codes.inner(), weights.inner());
        let stretch = length(&q) / length(&x);
        let close = |a: Tensor<2>, b: Tensor<2>| a.all_close(b, Some(1e-4), Some(1e-5));
        assert!(close(length(&gradient), length(&g) * stretch.clone()));
        let (to_code, to_latent) = (dot(&g, &q) / length(&q), dot(&gradient, &x) / length(&x));
        assert!(close(to_latent, to_code * stretch));
    }

    #[test]
    fn a_rotation_refuses_latents_whose_lengths_overflow() {
        let huge = rows(1, &Device::flex()).mul_scalar(1e20);
        assert!(Estimator::StraightThrough.check(&huge).is_ok());
        assert_eq!(
            Estimator::Rotation.check(&huge),
            Err(QuantizeError::TooLarge)
        );
    }

    #[test]
    fn latents_and_codes_of_zeros_have_finite_gradients() {
        let device = Device::flex().autodiff();
        for zero_codes in [false, true] {
            let latents = Tensor::<2>::zeros([7, 5], &device).require_grad();
            let codes = rows(2, &device).mul_scalar(if zero_codes { 0.0 } else { 1.0 });
            let value = Estimator::Rotation.pass(latents.clone(), codes);
            let gradient = latents.grad(&value.sum().backward()).expect("tracked");
            assert!(host_values(gradient).iter().all(|v| v.is_finite()));
        }
    }
}
