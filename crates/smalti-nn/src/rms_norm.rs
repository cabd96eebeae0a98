//! Root-mean-square normalisation of the last axis.
//!
//! `y = x / √(mean(x²) + ε) · weight`, the mean over the last axis of length `size`; Zhang, Sennrich
//! 2019, arXiv 1910.07467. Input and output `[…, size]`.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use smalti_kernels::RmsNorm as Kernel;

use crate::Init;
use crate::hook::{self, CpuOp, CpuTensor, cpu_tensor, elements, writable};

/// Root-mean-square normalisation with a learned scale.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[size]`
    pub weight: Param<Tensor<1>>,
    epsilon: f64,
}

impl RmsNorm {
    /// Scale one, ε = 1e-5 (that of LLaMA and its descendants).
    pub fn new(size: usize, init: &mut Init) -> Self {
        Self {
            weight: init.constant([size], 1.0),
            epsilon: 1e-5,
        }
    }

    /// `[…, size]` to the same shape.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        rms_norm(input, self.weight.val(), self.epsilon)
    }
}

/// Normalises the last axis of `input`, then scales by `weight`.
pub fn rms_norm<const D: usize>(input: Tensor<D>, weight: Tensor<1>, epsilon: f64) -> Tensor<D> {
    let inputs = [input.into_dispatch(), weight.into_dispatch()];
    match hook::call(Normalization { epsilon }, inputs) {
        Ok(output) => output,
        Err([input, weight]) => composed(
            Tensor::from_dispatch(input),
            Tensor::from_dispatch(weight),
            epsilon,
        ),
    }
}

/// The normalisation of the CPU; inputs are the rows and the scale.
#[derive(Clone, Copy, Debug)]
struct Normalization {
    epsilon: f64,
}

impl Normalization {
    fn kernel<'a>(&self, [_, weight]: &'a [CpuTensor; 2]) -> Kernel<'a> {
        Kernel {
            eps: self.epsilon as f32,
            gamma: elements(weight),
        }
    }
}

impl CpuOp<2> for Normalization {
    /// The factor of each row.
    type Saved = Vec<f32>;
    const CHEAP: bool = true;

    fn forward(&self, inputs: &[CpuTensor; 2]) -> (CpuTensor, Vec<f32>) {
        let input = elements(&inputs[0]);
        let mut output = hook::output(input.len());
        let factors = self.kernel(inputs).forward(input, &mut output);
        let shape = inputs[0].layout().shape().clone();
        (cpu_tensor(output, shape), factors)
    }

    fn backward(
        &self,
        inputs: &[CpuTensor; 2],
        factors: Vec<f32>,
        mut grad: CpuTensor,
        [of_input, of_weight]: [bool; 2],
    ) -> [Option<CpuTensor>; 2] {
        let kernel = self.kernel(inputs);
        let input = elements(&inputs[0]);
        let of_scale = match writable(&mut grad) {
            Some(grad) => kernel.backward_in_place(input, &factors, grad),
            None => {
                let mut values = hook::output(input.len());
                let sums = kernel.backward(input, &factors, elements(&grad), &mut values);
                grad = cpu_tensor(values, inputs[0].layout().shape().clone());
                sums
            }
        };
        let size = [of_scale.len()];
        let grad_weight = of_weight.then(|| cpu_tensor(of_scale, size));
        [of_input.then_some(grad), grad_weight]
    }
}

/// [`rms_norm`] made of burn's own operations.
fn composed<const D: usize>(input: Tensor<D>, weight: Tensor<1>, epsilon: f64) -> Tensor<D> {
    let square = input.clone().square().mean_dim(D - 1);
    input / square.add_scalar(epsilon).sqrt() * weight.unsqueeze::<D>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::agreement::{Inputs, assert_agree, assert_slopes};
    use burn::tensor::Device;

    #[test]
    fn kernel_and_composition_agree() {
        for size in [5, 16, 37] {
            let shapes: [&[usize]; 2] = [&[2, 3, size], &[size]];
            let own = |i: &Inputs| rms_norm::<3>(i.get(0), i.get(1), 1e-3);
            let other = |i: &Inputs| composed::<3>(i.get(0), i.get(1), 1e-3);
            assert_agree(&shapes, 1e-5, own, other);
            assert_slopes(&shapes, own);
        }
    }

    #[test]
    fn divides_each_row_by_its_root_mean_square() {
        let device = Device::flex();
        let input = Tensor::<2>::from_data([[3.0, -4.0], [0.0, 0.0]], &device);
        let weight = Tensor::<1>::from_data([1.0, 2.0], &device);
        let output = rms_norm(input, weight, 1e-5);
        let output = output.try_into_vec_as::<f32>().unwrap();
        // The mean square of the first row is 12.5.
        let unit = 1.0 / (12.5f32 + 1e-5).sqrt();
        let expected = [3.0 * unit, -8.0 * unit, 0.0, 0.0];
        for (got, want) in output.iter().zip(expected) {
            assert!((got - want).abs() < 1e-6, "{output:?}");
        }
    }
}
