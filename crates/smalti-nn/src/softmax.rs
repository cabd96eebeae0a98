//! Softmax of rows: `y_k = e^{x_k} / Σ_j e^{x_j}`, `[rows, classes]` to `[rows, classes]`.
//!
//! For probabilities that are needed as such; cross entropies and attention have operations of their own that
//! keep no table of them.

use burn::tensor::{Tensor, activation};
use smalti_kernels::softmax as kernel;

use crate::hook::{self, CpuOp, CpuTensor, changed, cpu_tensor, dims, elements};

/// The softmax of every row; see the [module's documentation](self).
pub fn softmax(logits: Tensor<2>) -> Tensor<2> {
    match hook::call(Rows, [logits.into_dispatch()]) {
        Ok(output) => output,
        Err([logits]) => activation::softmax(Tensor::from_dispatch(logits), 1),
    }
}

/// The softmax of the CPU.
#[derive(Clone, Copy, Debug)]
struct Rows;

impl CpuOp<1> for Rows {
    /// The output.
    type Saved = CpuTensor;
    const CHEAP: bool = false;

    fn forward(&self, [logits]: &[CpuTensor; 1]) -> (CpuTensor, CpuTensor) {
        let [rows, classes] = dims(logits);
        let values = elements(logits);
        let mut output = hook::output(values.len());
        if !values.is_empty() {
            kernel::softmax(classes, values, &mut output);
        }
        let output = cpu_tensor(output, [rows, classes]);
        (output.clone(), output)
    }

    fn backward(
        &self,
        [logits]: &[CpuTensor; 1],
        output: CpuTensor,
        grad: CpuTensor,
        _: [bool; 1],
    ) -> [Option<CpuTensor>; 1] {
        let [_, classes] = dims(logits);
        let output = elements(&output);
        [Some(changed(grad, |grad| {
            if !grad.is_empty() {
                kernel::softmax_backward(classes, output, grad);
            }
        }))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::agreement::{assert_agree, assert_slopes};
    use crate::state::host_values;
    use burn::tensor::Device;

    #[test]
    fn kernel_and_composition_agree() {
        for shape in [[3, 5], [1, 1], [40, 33]] {
            assert_agree(
                &[&shape],
                2e-6,
                |i| softmax(i.get(0)),
                |i| activation::softmax(i.get::<2>(0), 1),
            );
        }
    }

    #[test]
    fn gradients_are_slopes() {
        assert_slopes(&[&[4, 6]], |i| softmax(i.get(0)));
    }

    #[test]
    fn rows_are_distributions_however_large_their_logits() {
        let logits = Tensor::from_data([[1e4f32, 1e4, -1e4], [0.0, 0.0, 0.0]], &Device::flex());
        let rows = host_values(softmax(logits));
        let third = 1.0 / 3.0;
        for (got, want) in rows.iter().zip([0.5, 0.5, 0.0, third, third, third]) {
            assert!((got - want).abs() < 1e-6, "{rows:?}");
        }
        let none = softmax(Tensor::zeros([0, 3], &Device::flex()));
        assert_eq!(none.dims(), [0, 3]);
    }
}
