//! The rectifier and its leaky form, element by element.
//!
//! `relu(x) = max(x, 0)`; `leaky_relu(x) = x` where `x > 0`, else `slope·x` (Maas et al., ICML 2013 workshop). The
//! derivative at 0 is that of the left side, as in PyTorch.

use burn::tensor::{Tensor, activation};
use smalti_kernels::leaky_relu as kernel;

use crate::hook::{self, CpuOp, CpuTensor, changed, cpu_tensor, elements};

/// `max(x, 0)`, any shape.
pub fn relu<const D: usize>(input: Tensor<D>) -> Tensor<D> {
    leaky_relu(input, 0.0)
}

/// `x` where it is positive, else `slope·x`; any shape.
pub fn leaky_relu<const D: usize>(input: Tensor<D>, slope: f32) -> Tensor<D> {
    match hook::call(Rectifier { slope }, [input.into_dispatch()]) {
        Ok(output) => output,
        Err([input]) => composed(Tensor::from_dispatch(input), slope),
    }
}

/// How `leaky_relu` changes at `at` when its input changes by `tangent`: `tangent` times 1 where `at > 0`, times
/// `slope` elsewhere. `at` is held constant, as the slope of a slope is zero.
pub fn leaky_relu_tangent<const D: usize>(
    tangent: Tensor<D>,
    at: Tensor<D>,
    slope: f32,
) -> Tensor<D> {
    let at = at.detach();
    match hook::call(
        Slope { slope },
        [tangent.into_dispatch(), at.into_dispatch()],
    ) {
        Ok(output) => output,
        Err([tangent, at]) => {
            let [tangent, at] = [tangent, at].map(Tensor::from_dispatch);
            composed_tangent(tangent, at, slope)
        }
    }
}

fn composed_tangent<const D: usize>(tangent: Tensor<D>, at: Tensor<D>, slope: f32) -> Tensor<D> {
    let right = at.greater_elem(0.0).float();
    tangent * (right.mul_scalar(1.0 - slope).add_scalar(slope))
}

/// The same made of burn's own operations.
fn composed<const D: usize>(input: Tensor<D>, slope: f32) -> Tensor<D> {
    if slope == 0.0 {
        activation::relu(input)
    } else {
        activation::leaky_relu(input, f64::from(slope))
    }
}

/// The rectifier of the CPU.
#[derive(Clone, Copy, Debug)]
struct Rectifier {
    slope: f32,
}

impl CpuOp<1> for Rectifier {
    type Saved = ();
    const CHEAP: bool = true;

    fn forward(&self, [input]: &[CpuTensor; 1]) -> (CpuTensor, ()) {
        let values = elements(input);
        let mut output = hook::output(values.len());
        kernel::leaky_relu(self.slope, values, &mut output);
        (cpu_tensor(output, input.layout().shape().clone()), ())
    }

    fn backward(
        &self,
        [input]: &[CpuTensor; 1],
        _: (),
        grad: CpuTensor,
        _: [bool; 1],
    ) -> [Option<CpuTensor>; 1] {
        let input = elements(input);
        [Some(changed(grad, |grad| {
            kernel::leaky_relu_backward(self.slope, input, grad);
        }))]
    }
}

/// The rectifier's slope on the CPU; inputs are the change and where it happens.
#[derive(Clone, Copy, Debug)]
struct Slope {
    slope: f32,
}

impl CpuOp<2> for Slope {
    type Saved = ();
    const CHEAP: bool = true;

    fn forward(&self, [tangent, at]: &[CpuTensor; 2]) -> (CpuTensor, ()) {
        let mut values = elements(tangent).to_vec();
        kernel::leaky_relu_backward(self.slope, elements(at), &mut values);
        (cpu_tensor(values, tangent.layout().shape().clone()), ())
    }

    fn backward(
        &self,
        [_, at]: &[CpuTensor; 2],
        _: (),
        grad: CpuTensor,
        [of_tangent, of_place]: [bool; 2],
    ) -> [Option<CpuTensor>; 2] {
        debug_assert!(!of_place, "the place was detached");
        let at = elements(at);
        let change = |grad: &mut [f32]| kernel::leaky_relu_backward(self.slope, at, grad);
        [of_tangent.then(|| changed(grad, change)), None]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::agreement::{assert_agree, assert_slopes};
    use burn::tensor::Device;

    #[test]
    fn kernel_and_composition_agree() {
        for slope in [0.0, 0.2] {
            let shapes: [&[usize]; 1] = [&[3, 5, 4]];
            let own = |x: Tensor<3>| leaky_relu(x, slope);
            assert_agree(
                &shapes,
                1e-6,
                |i| own(i.get(0)),
                |i| composed::<3>(i.get(0), slope),
            );
        }
        let shapes: [&[usize]; 1] = [&[40]];
        assert_slopes(&shapes, |i| leaky_relu::<1>(i.get(0), 0.9));
    }
    #[test]
    fn tangents_are_slopes() {
        let at = Tensor::<1>::from_data([-1.0, 0.0, 2.0], &Device::flex());
        for tangent in [leaky_relu_tangent, composed_tangent] {
            let change =
                Tensor::<1>::from_data([4.0; 3], &Device::flex().autodiff()).require_grad();
            let output = tangent(change.clone(), at.clone(), 0.25);
            let gradients = output.clone().sum().backward();
            assert_eq!(output.try_into_vec_as::<f32>().unwrap(), [1.0, 1.0, 4.0]);
            let gradient = change.grad(&gradients).unwrap();
            assert_eq!(
                gradient.try_into_vec_as::<f32>().unwrap(),
                [0.25, 0.25, 1.0]
            );
        }
    }
}
