//! Dropout with noise that is passed in.

use burn::tensor::Tensor;

use crate::Noise;

/// Zeroes elements with a probability while training and scales the rest, so that the mean stays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability that an element is dropped, in [0, 1).
    pub probability: f64,
}

impl Dropout {
    /// Any shape. `None` is inference: the input passes unchanged.
    pub fn forward<const D: usize>(
        &self,
        input: Tensor<D>,
        noise: Option<&mut Noise>,
    ) -> Tensor<D> {
        match noise {
            Some(noise) if self.probability > 0.0 => {
                let keep = 1.0 - self.probability;
                let draws = noise.uniform(input.dims(), &input.device().inner());
                let mask = draws.lower_elem(keep).float().div_scalar(keep);
                let mask = if input.device().is_autodiff() {
                    Tensor::from_inner(mask)
                } else {
                    mask
                };
                input * mask
            }
            _ => input,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn drops_the_right_share_and_keeps_the_mean() {
        let dropout = Dropout { probability: 0.3 };
        let ones = Tensor::<1>::ones([20_000], &Device::flex());
        let output = dropout.forward(ones.clone(), Some(&mut Noise::from_seed(5)));
        let zeros = output
            .clone()
            .equal_elem(0.0)
            .int()
            .sum()
            .into_scalar::<i32>() as f64
            / 20_000.0;
        let mean = output.mean().into_scalar::<f32>();
        assert!((zeros - 0.3).abs() < 0.02, "{zeros}");
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        assert_eq!(
            dropout.forward(ones, None).sum().into_scalar::<f32>(),
            20_000.0
        );
    }
}
