//! The Gaussian error linear unit; Hendrycks, Gimpel 2016, arXiv 1606.08415.
//!
//! Exact: `x·Φ(x) = x·(1 + erf(x/√2))/2`. Approximation by a logistic: `x·σ(1.702·x)`.
//!
//! Burn's own `gelu` has an exact forward and the backward of the tanh approximation; the exact form
//! here is made of operations whose gradients agree with their values.

use burn::module::Module;
use burn::tensor::{Tensor, activation::sigmoid};
use smalti_kernels::Activation as Kernel;

use crate::hook::{self, CpuOp, CpuTensor, changed, cpu_tensor, elements};

/// Which function an [`Activation`] applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gelu {
    /// `x·Φ(x)` with the error function.
    #[default]
    Exact,
    /// `x·σ(1.702·x)`.
    Logistic,
}

impl Gelu {
    /// Element by element, any shape.
    pub fn forward<const D: usize>(self, input: Tensor<D>) -> Tensor<D> {
        match hook::call(self, [input.into_dispatch()]) {
            Ok(output) => output,
            Err([input]) => self.composed(Tensor::from_dispatch(input)),
        }
    }

    /// The same made of burn's own operations.
    fn composed<const D: usize>(self, input: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Exact => {
                let scaled = input.clone().mul_scalar(std::f64::consts::FRAC_1_SQRT_2);
                input * scaled.erf().add_scalar(1.0).mul_scalar(0.5)
            }
            Self::Logistic => input.clone() * sigmoid(input.mul_scalar(1.702)),
        }
    }

    fn kernel(self) -> Kernel {
        match self {
            Self::Exact => Kernel::Gelu,
            Self::Logistic => Kernel::QuickGelu,
        }
    }
}

impl CpuOp<1> for Gelu {
    type Saved = ();
    const CHEAP: bool = true;

    fn forward(&self, [input]: &[CpuTensor; 1]) -> (CpuTensor, ()) {
        let values = elements(input);
        let mut output = hook::output(values.len());
        self.kernel().forward(values, &mut output);
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
            self.kernel().backward(input, grad)
        }))]
    }
}

/// A layer without parameters that applies a [`Gelu`].
#[derive(Module, Debug)]
pub struct Activation {
    #[module(skip)]
    kind: Gelu,
}

impl Activation {
    /// The layer that applies `kind`.
    pub fn new(kind: Gelu) -> Self {
        Self { kind }
    }

    /// Element by element, any shape.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        self.kind.forward(input)
    }
}

/// `x·(1 + erf(x/√2))/2`.
pub fn gelu<const D: usize>(input: Tensor<D>) -> Tensor<D> {
    Gelu::Exact.forward(input)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::agreement::{assert_agree, assert_slopes};
    use burn::tensor::Device;

    #[test]
    fn kernel_and_composition_agree() {
        for kind in [Gelu::Exact, Gelu::Logistic] {
            let shapes: [&[usize]; 1] = [&[3, 5, 4]];
            let own = |i: Tensor<3>| kind.forward(i);
            assert_agree(
                &shapes,
                1e-6,
                |i| own(i.get(0)),
                |i| kind.composed::<3>(i.get(0)),
            );
            assert_slopes(&shapes, |i| own(i.get(0)));
        }
    }

    /// Values of x·Φ(x) and its derivative Φ(x) + x·φ(x), computed with 16 digits.
    const EXACT: [(f32, f32, f32); 4] = [
        (-2.0, -0.045_500_264, -0.085_231_8),
        (-0.5, -0.154_268_77, 0.132_504_9),
        (0.0, 0.0, 0.5),
        (1.5, 1.399_789_2, 1.127_469_2),
    ];

    #[test]
    fn exact_form_agrees_with_tables_in_value_and_gradient() {
        let device = Device::flex().autodiff();
        let input = Tensor::<1>::from_data(EXACT.map(|row| row.0), &device).require_grad();
        let output = Gelu::Exact.forward(input.clone());
        let gradient = input.grad(&output.clone().sum().backward()).unwrap();
        let values = output.try_into_vec_as::<f32>().unwrap();
        let gradient = gradient.try_into_vec_as::<f32>().unwrap();
        for (i, (_, value, slope)) in EXACT.into_iter().enumerate() {
            assert!((values[i] - value).abs() < 1e-6, "{values:?}");
            assert!((gradient[i] - slope).abs() < 1e-5, "{gradient:?}");
        }
    }

    #[test]
    fn logistic_form_is_x_times_sigmoid() {
        let input = Tensor::<1>::from_data([-1.0, 0.0, 2.0], &Device::flex());
        let values = Gelu::Logistic
            .forward(input)
            .try_into_vec_as::<f32>()
            .unwrap();
        let expected = [-1.0f64, 0.0, 2.0].map(|x| x / (1.0 + (-1.702 * x).exp()));
        for (got, want) in values.iter().zip(expected) {
            assert!((f64::from(*got) - want).abs() < 1e-6, "{values:?}");
        }
    }
}
