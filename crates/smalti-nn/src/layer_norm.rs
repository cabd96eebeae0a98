//! Layer normalisation of the last axis.
//!
//! `y = (x − mean(x)) / √(var(x) + ε) · weight + bias`, mean and (biased) variance over the last
//! axis of length `size`; Ba, Kiros, Hinton 2016, arXiv 1607.06450. Input and output `[…, size]`.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use smalti_kernels::layer_norm::{LayerNorm as Kernel, Moments};

use crate::Init;
use crate::hook::{self, CpuOp, CpuTensor, cpu_tensor, elements, writable};

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
        Self::with_epsilon(size, 1e-5, init)
    }

    /// Scale one, shift zero.
    pub fn with_epsilon(size: usize, epsilon: f64, init: &mut Init) -> Self {
        Self {
            weight: init.constant([size], 1.0),
            bias: init.constant([size], 0.0),
            epsilon,
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
    let op = Normalization { epsilon };
    match hook::call(
        op,
        [
            input.into_dispatch(),
            weight.into_dispatch(),
            bias.into_dispatch(),
        ],
    ) {
        Ok(output) => output,
        Err([input, weight, bias]) => {
            let [weight, bias] = [weight, bias].map(Tensor::from_dispatch);
            composed(Tensor::from_dispatch(input), weight, bias, epsilon)
        }
    }
}

/// The layer normalisation of the CPU; inputs are the rows, the scale and the shift.
#[derive(Clone, Copy, Debug)]
struct Normalization {
    epsilon: f64,
}

impl Normalization {
    fn kernel<'a>(&self, [_, weight, bias]: &'a [CpuTensor; 3]) -> Kernel<'a> {
        Kernel {
            eps: self.epsilon as f32,
            gamma: elements(weight),
            beta: elements(bias),
        }
    }
}

impl CpuOp<3> for Normalization {
    type Saved = Vec<Moments>;
    const CHEAP: bool = true;

    fn forward(&self, inputs: &[CpuTensor; 3]) -> (CpuTensor, Vec<Moments>) {
        let input = elements(&inputs[0]);
        let mut output = hook::output(input.len());
        let moments = self.kernel(inputs).forward(input, &mut output);
        (
            cpu_tensor(output, inputs[0].layout().shape().clone()),
            moments,
        )
    }

    fn backward(
        &self,
        inputs: &[CpuTensor; 3],
        moments: Vec<Moments>,
        mut grad: CpuTensor,
        [of_input, of_weight, of_bias]: [bool; 3],
    ) -> [Option<CpuTensor>; 3] {
        let kernel = self.kernel(inputs);
        let input = elements(&inputs[0]);
        let affine = match writable(&mut grad) {
            Some(grad) => kernel.backward_in_place(input, &moments, grad),
            None => {
                let mut values = hook::output(input.len());
                let affine = kernel.backward(input, &moments, elements(&grad), &mut values);
                grad = cpu_tensor(values, inputs[0].layout().shape().clone());
                affine
            }
        };
        let size = [affine.gamma.len()];
        let grad_weight = of_weight.then(|| cpu_tensor(affine.gamma, size));
        let grad_bias = of_bias.then(|| cpu_tensor(affine.beta, size));
        [of_input.then_some(grad), grad_weight, grad_bias]
    }
}

/// [`layer_norm`] made of burn's own operations.
fn composed<const D: usize>(
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
    use crate::hook::agreement::{Inputs, assert_agree, assert_slopes};
    use burn::tensor::Device;

    #[test]
    fn kernel_and_composition_agree() {
        for size in [5, 16, 37] {
            let shapes: [&[usize]; 3] = [&[2, 3, size], &[size], &[size]];
            let own = |i: &Inputs| layer_norm::<3>(i.get(0), i.get(1), i.get(2), 1e-3);
            let other = |i: &Inputs| composed::<3>(i.get(0), i.get(1), i.get(2), 1e-3);
            assert_agree(&shapes, 1e-5, own, other);
            assert_slopes(&shapes, own);
        }
    }

    #[test]
    fn the_same_tensor_may_be_scale_and_shift() {
        let own = |i: &Inputs| layer_norm::<2>(i.get(0), i.get(1), i.get(1), 1e-3);
        let other = |i: &Inputs| composed::<2>(i.get(0), i.get(1), i.get(1), 1e-3);
        assert_agree(&[&[4, 6], &[6]], 1e-5, own, other);
    }

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
