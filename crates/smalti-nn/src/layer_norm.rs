//! Layer normalisation of the last axis.
//!
//! `y = (x − mean(x)) / √(var(x) + ε) · weight + bias`, mean and (biased) variance over the last
//! axis of length `size`; Ba, Kiros, Hinton 2016, arXiv 1607.06450. Input and output `[…, size]`.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::Init;

/// Layer normalisation with a learned scale and shift.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[size]`
    pub weight: Param<Tensor<1>>,
    /// `[size]`
    pub bias: Param<Tensor<1>>,
    epsilon: f64,
}

impl LayerNorm {
    /// Scale one, shift zero, ε = 1e-5 (PyTorch's default).
    pub fn new(size: usize, init: &mut Init) -> Self {
        Self {
            weight: init.constant([size], 1.0),
            bias: init.constant([size], 0.0),
            epsilon: 1e-5,
        }
    }

    /// `[…, size]` to the same shape.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        layer_norm(input, self.weight.val(), self.bias.val(), self.epsilon)
    }
}

/// Normalises the last axis of `input`, then scales by `weight` and shifts by `bias`.
pub fn layer_norm<const D: usize>(
    input: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    let (variance, mean) = input.clone().var_mean_bias(D - 1);
    let normal = (input - mean) / variance.add_scalar(epsilon).sqrt();
    normal * weight.unsqueeze::<D>() + bias.unsqueeze::<D>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn normalises_each_row_then_scales_and_shifts() {
        let device = Device::flex();
        let input = Tensor::<2>::from_data([[1.0, 2.0, 3.0, 4.0], [-5.0, 5.0, -5.0, 5.0]], &device);
        let weight = Tensor::<1>::from_data([1.0, 2.0, 1.0, 1.0], &device);
        let bias = Tensor::<1>::from_data([0.0, 0.0, 0.5, 0.0], &device);
        let output = layer_norm(input, weight, bias, 1e-5)
            .try_into_vec_as::<f32>()
            .unwrap();
        // Row 1: mean 2.5, variance 1.25; row 2: mean 0, variance 25.
        let unit = 1.0 / (1.25f32 + 1e-5).sqrt();
        let expected = [
            -1.5 * unit,
            -unit,
            0.5 * unit + 0.5,
            1.5 * unit,
            -1.0,
            2.0,
            -0.5,
            1.0,
        ];
        for (got, want) in output.iter().zip(expected) {
            assert!((got - want).abs() < 1e-5, "{output:?}");
        }
    }
}
