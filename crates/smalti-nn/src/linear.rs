//! Affine maps of the last axis: one for all vectors, or one for each place of an axis.
//!
//! [`Linear`]: `y = x·Wᵀ + b` with PyTorch's layout `W [out, in]`, `b [out]`, on inputs
//! `[…, in]` of any rank. [`BatchLinear`]: `y[n,d] = x[n,d]·W[d] + b[d]` on `[rows, places, in]`
//! with `W [places, in, out]` (input-major, the transpose of `Linear`'s), `b [places, out]`.

use burn::module::{Module, Param};
use burn::tensor::{Shape, Tensor};
use rayon::prelude::*;
use smalti_kernels::gemm::{Matrix, MatrixMut, Product, gemm};

/// On the CPU a row's result does not depend on how many rows there are, as long as there are at most
/// this many, or always more.
pub use smalti_kernels::gemm::FEW_ROWS;

use crate::Init;
use crate::hook::{self, CpuOp, CpuTensor, cpu_tensor, dims, elements};

/// An affine map of the last axis.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Param<Tensor<2>>,
    /// `[out]`
    pub bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// Weights normal with mean 0 and the given deviation, a bias of zeros.
    pub fn normal(inputs: usize, outputs: usize, deviation: f32, init: &mut Init) -> Self {
        Self {
            weight: init.normal([outputs, inputs], deviation),
            bias: Some(init.constant([outputs], 0.0)),
        }
    }

    /// Weights normal with mean 0 and the given deviation, no bias.
    pub fn unbiased(inputs: usize, outputs: usize, deviation: f32, init: &mut Init) -> Self {
        Self {
            weight: init.normal([outputs, inputs], deviation),
            bias: None,
        }
    }

    /// Weights and bias uniform within ±1/√in, PyTorch's default.
    pub fn fan_in(inputs: usize, outputs: usize, init: &mut Init) -> Self {
        Self {
            weight: init.fan_in([outputs, inputs], inputs),
            bias: Some(init.fan_in([outputs], inputs)),
        }
    }

    /// `[…, in]` to `[…, out]`.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        linear(input, self.weight.val(), self.bias.as_ref().map(Param::val))
    }
}

/// `input · weightᵀ + bias` over the last axis.
pub fn linear<const D: usize>(
    input: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let [_, inputs] = weight.dims();
    let last = input.dims()[D - 1];
    assert_eq!(
        last, inputs,
        "linear: the last axis must have the weight's {inputs} inputs"
    );
    let (input, weight) = (input.into_dispatch(), weight.into_dispatch());
    let refused = match bias {
        Some(bias) => match hook::call(Affine, [input, weight, bias.into_dispatch()]) {
            Ok(output) => return output,
            Err([input, weight, bias]) => (input, weight, Some(Tensor::from_dispatch(bias))),
        },
        None => match hook::call(Affine, [input, weight]) {
            Ok(output) => return output,
            Err([input, weight]) => (input, weight, None),
        },
    };
    let (input, weight, bias) = refused;
    composed(
        Tensor::from_dispatch(input),
        Tensor::from_dispatch(weight),
        bias,
    )
}

/// [`linear`] made of burn's own operations.
fn composed<const D: usize>(
    input: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let [outputs, inputs] = weight.dims();
    let mut shape = input.dims();
    let rows = shape[..D - 1].iter().product::<usize>();
    shape[D - 1] = outputs;
    let output = input.reshape([rows, inputs]).matmul(weight.transpose());
    let output = match bias {
        Some(bias) => output + bias.unsqueeze::<2>(),
        None => output,
    };
    output.reshape(shape)
}

/// The affine map of the CPU; inputs are the vectors, the weight and perhaps a bias.
#[derive(Clone, Copy, Debug)]
struct Affine;

impl Affine {
    fn output(input: &CpuTensor, weight: &CpuTensor, bias: Option<&CpuTensor>) -> CpuTensor {
        let [outputs, inputs] = dims(weight);
        let values = elements(input);
        let rows = values.len() / inputs;
        let product = Product::new(
            Matrix::new(values, rows, inputs),
            Matrix::new(elements(weight), outputs, inputs).transposed(),
        );
        let mut output = hook::output(rows * outputs);
        let to = MatrixMut::new(&mut output, rows, outputs);
        gemm(&product.with_bias(bias.map(elements)), to);
        cpu_tensor(output, with_last_axis(input, outputs))
    }

    /// Gradients of the vectors and the weight.
    fn gradients(
        [input, weight]: [&CpuTensor; 2],
        grad: &CpuTensor,
        [of_input, of_weight]: [bool; 2],
    ) -> [Option<CpuTensor>; 2] {
        let [outputs, inputs] = dims(weight);
        let values = elements(input);
        let rows = values.len() / inputs;
        let grad = Matrix::new(elements(grad), rows, outputs);
        let grad_input = of_input.then(|| {
            let mut to = hook::output(rows * inputs);
            let product = Product::new(grad, Matrix::new(elements(weight), outputs, inputs));
            gemm(&product, MatrixMut::new(&mut to, rows, inputs));
            cpu_tensor(to, with_last_axis(input, inputs))
        });
        let grad_weight = of_weight.then(|| {
            let mut to = hook::output(outputs * inputs);
            let product = Product::new(grad.transposed(), Matrix::new(values, rows, inputs));
            gemm(&product, MatrixMut::new(&mut to, outputs, inputs));
            cpu_tensor(to, [outputs, inputs])
        });
        [grad_input, grad_weight]
    }
}

impl CpuOp<2> for Affine {
    type Saved = ();
    const CHEAP: bool = false;

    fn forward(&self, [input, weight]: &[CpuTensor; 2]) -> (CpuTensor, ()) {
        (Self::output(input, weight, None), ())
    }

    fn backward(
        &self,
        [input, weight]: &[CpuTensor; 2],
        _: (),
        grad: CpuTensor,
        needed: [bool; 2],
    ) -> [Option<CpuTensor>; 2] {
        Self::gradients([input, weight], &grad, needed)
    }
}

impl CpuOp<3> for Affine {
    type Saved = ();
    const CHEAP: bool = false;

    fn forward(&self, [input, weight, bias]: &[CpuTensor; 3]) -> (CpuTensor, ()) {
        (Self::output(input, weight, Some(bias)), ())
    }

    fn backward(
        &self,
        [input, weight, bias]: &[CpuTensor; 3],
        _: (),
        grad: CpuTensor,
        [of_input, of_weight, of_bias]: [bool; 3],
    ) -> [Option<CpuTensor>; 3] {
        let [grad_input, grad_weight] =
            Self::gradients([input, weight], &grad, [of_input, of_weight]);
        let outputs = dims::<1>(bias);
        let grad_bias = of_bias.then(|| cpu_tensor(column_sums(&grad, outputs[0]), outputs));
        [grad_input, grad_weight, grad_bias]
    }
}

/// The shape of `tensor` with another last axis.
fn with_last_axis(tensor: &CpuTensor, last: usize) -> Shape {
    let mut shape = tensor.layout().shape().clone();
    let rank = shape.num_dims();
    shape[rank - 1] = last;
    shape
}

/// Sums over all axes but the last: in `f32` over a few rows, in `f64` over those sums, in order.
fn column_sums(tensor: &CpuTensor, columns: usize) -> Vec<f32> {
    /// Columns of one task: a few cache lines of each row.
    const STRIP: usize = 64;
    const ROWS: usize = 32;
    let values = elements(tensor);
    let mut sums = hook::output(columns);
    sums.par_chunks_mut(STRIP)
        .enumerate()
        .for_each(|(strip, sums)| {
            let mut totals = [0.0f64; STRIP];
            for rows in values.chunks(ROWS * columns) {
                let mut partial = [0.0f32; STRIP];
                for row in rows.chunks_exact(columns) {
                    let row = &row[strip * STRIP..][..sums.len()];
                    partial
                        .iter_mut()
                        .zip(row)
                        .for_each(|(sum, &value)| *sum += value);
                }
                totals
                    .iter_mut()
                    .zip(partial)
                    .for_each(|(total, sum)| *total += f64::from(sum));
            }
            sums.iter_mut()
                .zip(totals)
                .for_each(|(sum, total)| *sum = total as f32);
        });
    sums
}

/// An affine map of its own for each place of the second axis.
#[derive(Module, Debug)]
pub struct BatchLinear {
    /// `[places, in, out]`
    pub weight: Param<Tensor<3>>,
    /// `[places, out]`
    pub bias: Param<Tensor<2>>,
}

impl BatchLinear {
    /// Weights normal with mean 0 and the given deviation, biases of zeros.
    pub fn normal(
        places: usize,
        inputs: usize,
        outputs: usize,
        deviation: f32,
        init: &mut Init,
    ) -> Self {
        Self {
            weight: init.normal([places, inputs, outputs], deviation),
            bias: init.constant([places, outputs], 0.0),
        }
    }

    /// `[rows, places, in]` to `[rows, places, out]`.
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let output = input.swap_dims(0, 1).matmul(self.weight.val());
        (output + self.bias.val().unsqueeze_dim(1)).swap_dims(0, 1)
    }

    /// The map of one place alone: `[rows, in]` to `[rows, out]`.
    pub fn forward_at(&self, place: usize, input: Tensor<2>) -> Tensor<2> {
        let weight = self.weight.val().narrow(0, place, 1).squeeze_dim::<2>(0);
        input.matmul(weight) + self.bias.val().narrow(0, place, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::agreement::{Inputs, assert_agree, assert_slopes};
    use burn::tensor::Device;

    type Compute<const D: usize> = fn(Tensor<D>, Tensor<2>, Option<Tensor<1>>) -> Tensor<D>;

    #[test]
    fn kernel_and_composition_agree() {
        let with = |f: Compute<3>| move |i: &Inputs| f(i.get(0), i.get(1), Some(i.get(2)));
        let without = |f: Compute<2>| move |i: &Inputs| f(i.get(0), i.get(1), None);
        // Few rows and many take different ways through the kernel.
        for batch in [1, 25] {
            let shapes: [&[usize]; 3] = [&[batch, 3, 5], &[70, 5], &[70]];
            assert_agree(&shapes, 1e-5, with(linear), with(composed));
        }
        for rows in [1, 3, 40, 70] {
            assert_agree(
                &[&[rows, 9], &[4, 9]],
                1e-5,
                without(linear),
                without(composed),
            );
        }
    }

    #[test]
    fn gradients_are_slopes() {
        let shapes: [&[usize]; 3] = [&[3, 2, 5], &[4, 5], &[4]];
        assert_slopes(&shapes, |i| linear::<3>(i.get(0), i.get(1), Some(i.get(2))));
    }

    #[test]
    fn the_same_tensor_may_be_input_and_weight() {
        let twice = |f: Compute<2>| move |i: &Inputs| f(i.get(0), i.get(0), Some(i.get(1)));
        assert_agree(&[&[5, 5], &[5]], 1e-5, twice(linear), twice(composed));
    }

    #[test]
    fn applies_weight_and_bias_to_the_last_axis_of_any_rank() {
        let device = Device::flex();
        let weight = Tensor::<2>::from_data([[1.0, 2.0, 3.0], [0.0, -1.0, 0.5]], &device);
        let bias = Tensor::<1>::from_data([0.25, -0.5], &device);
        let input = Tensor::<3>::from_data([[[1.0, 0.0, 2.0]], [[0.0, 4.0, -2.0]]], &device);
        let output = linear(input.clone(), weight.clone(), Some(bias));
        assert_eq!(output.dims(), [2, 1, 2]);
        assert_eq!(
            output.try_into_vec_as::<f32>().unwrap(),
            [7.25, 0.5, 2.25, -5.5]
        );
        let plain = linear(input, weight, None)
            .try_into_vec_as::<f32>()
            .unwrap();
        assert_eq!(plain, [7.0, 1.0, 2.0, -5.0]);
    }

    #[test]
    fn batch_linear_uses_each_places_own_map() {
        let mut init = Init::new(&Device::flex(), 3);
        let mut layer = BatchLinear::normal(3, 4, 5, 1.0, &mut init);
        layer.bias = init.normal([3, 5], 1.0);
        let input = init.normal([7, 3, 4], 1.0).val();
        let all = layer.forward(input.clone());
        for place in 0..3 {
            let rows = input.clone().narrow(1, place, 1).squeeze_dim::<2>(1);
            let weight = layer
                .weight
                .val()
                .narrow(0, place, 1)
                .squeeze_dim::<2>(0)
                .transpose();
            let bias = layer.bias.val().narrow(0, place, 1).squeeze_dim::<1>(0);
            let expected = linear(rows.clone(), weight, Some(bias));
            let alone = layer.forward_at(place, rows);
            let slice = all.clone().narrow(1, place, 1).squeeze_dim::<2>(1);
            assert!(slice.all_close(expected.clone(), Some(1e-5), Some(1e-6)));
            assert!(alone.all_close(expected, Some(1e-5), Some(1e-6)));
        }
    }
}
