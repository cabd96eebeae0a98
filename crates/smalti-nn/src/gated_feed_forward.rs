//! The gated perceptron of LLaMA's blocks.
//!
//! `y = W₂·(silu(W₁·x) ⊙ W₃·x)`, width `E` to `H` and back, no biases; Shazeer 2020, arXiv 2002.05202,
//! equation 6 (SwiGLU). `[…, E]` to the same shape. Names are those of published files.

use burn::module::Module;
use burn::tensor::{Tensor, activation::silu};
use smalti_kernels::gated::{silu_product as forward, silu_product_backward as backward};

use crate::hook::{self, CpuOp, CpuTensor, cpu_tensor, elements, writable};
use crate::{Init, Linear};

/// A gate, what it lets through, and the way back.
#[derive(Module, Debug)]
pub struct GatedFeedForward {
    /// Makes the gate, `[hidden, width]`.
    pub w1: Linear,
    /// Back to the width, `[width, hidden]`.
    pub w2: Linear,
    /// Makes what passes the gate, `[hidden, width]`.
    pub w3: Linear,
}

impl GatedFeedForward {
    /// Weights normal with the given deviation.
    pub fn normal(width: usize, hidden: usize, deviation: f32, init: &mut Init) -> Self {
        Self {
            w1: Linear::unbiased(width, hidden, deviation, init),
            w2: Linear::unbiased(hidden, width, deviation, init),
            w3: Linear::unbiased(width, hidden, deviation, init),
        }
    }

    /// `[batch, length, width]` to the same shape.
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let gate = self.w1.forward(input.clone());
        self.w2.forward(silu_product(gate, self.w3.forward(input)))
    }
}

/// `a·σ(a)·b`, element by element.
pub fn silu_product<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    assert_eq!(a.dims(), b.dims(), "a gate for each element");
    match hook::call(Gate, [a.into_dispatch(), b.into_dispatch()]) {
        Ok(output) => output,
        Err(inputs) => {
            let [a, b] = inputs.map(Tensor::from_dispatch);
            composed(a, b)
        }
    }
}

/// [`silu_product`] made of burn's own operations.
fn composed<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    silu(a) * b
}

/// The gate of the CPU.
#[derive(Clone, Copy, Debug)]
struct Gate;

impl CpuOp<2> for Gate {
    type Saved = ();
    const CHEAP: bool = true;

    fn forward(&self, [a, b]: &[CpuTensor; 2]) -> (CpuTensor, ()) {
        let mut output = hook::output(elements(a).len());
        forward(elements(a), elements(b), &mut output);
        (cpu_tensor(output, a.layout().shape().clone()), ())
    }

    fn backward(
        &self,
        [a, b]: &[CpuTensor; 2],
        _: (),
        mut grad: CpuTensor,
        [of_a, of_b]: [bool; 2],
    ) -> [Option<CpuTensor>; 2] {
        let (a_values, b_values) = (elements(a), elements(b));
        let mut grad_a = hook::output(a_values.len());
        match writable(&mut grad) {
            Some(grad) => backward(a_values, b_values, grad, &mut grad_a),
            None => {
                let mut values = hook::output(a_values.len());
                values.copy_from_slice(elements(&grad));
                backward(a_values, b_values, &mut values, &mut grad_a);
                grad = cpu_tensor(values, b.layout().shape().clone());
            }
        }
        let grad_a = of_a.then(|| cpu_tensor(grad_a, a.layout().shape().clone()));
        [grad_a, of_b.then_some(grad)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::agreement::{Inputs, assert_agree, assert_slopes};
    use burn::tensor::Device;

    #[test]
    fn kernel_and_composition_agree() {
        let shapes: [&[usize]; 2] = [&[2, 3, 17], &[2, 3, 17]];
        let own = |i: &Inputs| silu_product::<3>(i.get(0), i.get(1));
        let other = |i: &Inputs| composed::<3>(i.get(0), i.get(1));
        assert_agree(&shapes, 1e-5, own, other);
        assert_slopes(&shapes, own);
        let twice = |i: &Inputs| silu_product::<3>(i.get(0), i.get(0));
        let other = |i: &Inputs| composed::<3>(i.get(0), i.get(0));
        assert_agree(&shapes[..1], 1e-5, twice, other);
    }

    #[test]
    fn the_first_matrix_makes_the_gate() {
        let mut init = Init::new(&Device::flex(), 1);
        let layer = GatedFeedForward::normal(4, 6, 0.7, &mut init);
        let input = init.normal([2, 3, 4], 1.0).val();
        let [gate, passed] = [&layer.w1, &layer.w3].map(|w| w.forward(input.clone()));
        let expected = layer.w2.forward(silu(gate) * passed);
        let close = layer
            .forward(input)
            .all_close(expected, Some(1e-5), Some(1e-6));
        assert!(close);
    }
}
