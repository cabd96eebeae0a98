//! Attention over positions, channels first.
//!
//! `o[c,i] = Σ_j w[i,j]·v[c,j]`, `w[i,·] = softmax_j(Σ_c q[c,i]·k[c,j] / √channels)`. With `dw` the
//! gradient of the weights and `ds` that of the scores behind it:
//! `dv[c,j] = Σ_i do[c,i]·w[i,j]`, `dw[i,j] = Σ_c do[c,i]·v[c,j]`, `dq[c,i] = Σ_j k[c,j]·ds[i,j] / √channels`,
//! `dk[c,j] = Σ_i q[c,i]·ds[i,j] / √channels`: products of matrices as they lie, so nothing is turned.

use burn::tensor::{Tensor, activation::softmax};
use smalti_kernels::gemm::{Batch, Matrix, MatrixMut, Product, gemm_batched};
use smalti_kernels::softmax::{softmax as softmax_rows, softmax_backward};

use crate::hook::{self, CpuOp, CpuTensor, cpu_tensor, dims, elements};

/// Attention of `query`, `key` and `value`, all `[batch, channels, positions]`.
pub(super) fn attend(query: Tensor<3>, key: Tensor<3>, value: Tensor<3>) -> Tensor<3> {
    match hook::call(
        Attend,
        [
            query.into_dispatch(),
            key.into_dispatch(),
            value.into_dispatch(),
        ],
    ) {
        Ok(output) => output,
        Err(inputs) => {
            let [query, key, value] = inputs.map(Tensor::from_dispatch);
            composed(query, key, value)
        }
    }
}

/// [`attend`] made of burn's own operations.
fn composed(query: Tensor<3>, key: Tensor<3>, value: Tensor<3>) -> Tensor<3> {
    let [_, channels, _] = query.dims();
    let query = query.mul_scalar((channels as f64).powf(-0.5));
    let weights = softmax(query.transpose().matmul(key), 2);
    value.matmul(weights.transpose())
}

/// The attention of the CPU; inputs are queries, keys and values.
#[derive(Clone, Copy, Debug)]
struct Attend;

/// How the matrices of one image lie.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    channels: usize,
    positions: usize,
}

impl Sizes {
    fn of(map: &CpuTensor) -> Self {
        let [batch, channels, positions] = dims(map);
        Self {
            batch,
            channels,
            positions,
        }
    }

    fn scale(self) -> f32 {
        (self.channels as f64).powf(-0.5) as f32
    }

    /// Elements of one image's queries, keys or values.
    fn map(self) -> usize {
        self.channels * self.positions
    }

    /// Elements of one image's weights.
    fn square(self) -> usize {
        self.positions * self.positions
    }

    /// `aᵀ·b` of two maps, `[positions, positions]` for each image.
    fn compare(self, a: &[f32], b: &[f32], alpha: f32) -> Vec<f32> {
        let Self {
            batch,
            channels,
            positions,
        } = self;
        let product = Product::new(
            Matrix::new(a, channels, positions).transposed(),
            Matrix::new(b, channels, positions),
        );
        let steps = Batch {
            count: batch,
            a_step: self.map(),
            b_step: self.map(),
            c_step: self.square(),
        };
        let mut output = hook::output(batch * self.square());
        let to = MatrixMut::new(&mut output, positions, positions);
        gemm_batched(&product.with_alpha(alpha), steps, to);
        output
    }

    /// `map · square` for each image, the square perhaps turned.
    fn mix(self, map: &[f32], square: &[f32], turned: bool, alpha: f32) -> CpuTensor {
        let Self {
            batch,
            channels,
            positions,
        } = self;
        let square = Matrix::new(square, positions, positions);
        let square = if turned { square.transposed() } else { square };
        let product = Product::new(Matrix::new(map, channels, positions), square);
        let steps = Batch {
            count: batch,
            a_step: self.map(),
            b_step: self.square(),
            c_step: self.map(),
        };
        let mut output = hook::output(batch * self.map());
        let to = MatrixMut::new(&mut output, channels, positions);
        gemm_batched(&product.with_alpha(alpha), steps, to);
        cpu_tensor(output, [batch, channels, positions])
    }
}

impl CpuOp<3> for Attend {
    /// The weights, `[batch, positions, positions]`.
    type Saved = CpuTensor;
    const CHEAP: bool = false;

    fn forward(&self, inputs: &[CpuTensor; 3]) -> (CpuTensor, CpuTensor) {
        let sizes = Sizes::of(&inputs[0]);
        let [query, key, value] = inputs.each_ref().map(elements);
        let scores = sizes.compare(query, key, sizes.scale());
        let mut weights = hook::output(scores.len());
        softmax_rows(sizes.positions, &scores, &mut weights);
        let output = sizes.mix(value, &weights, true, 1.0);
        (
            output,
            cpu_tensor(weights, [sizes.batch, sizes.positions, sizes.positions]),
        )
    }

    fn backward(
        &self,
        inputs: &[CpuTensor; 3],
        weights: CpuTensor,
        grad: CpuTensor,
        [of_query, of_key, of_value]: [bool; 3],
    ) -> [Option<CpuTensor>; 3] {
        let sizes = Sizes::of(&inputs[0]);
        let [query, key, value] = inputs.each_ref().map(elements);
        let (weights, grad) = (elements(&weights), elements(&grad));
        let grad_value = of_value.then(|| sizes.mix(grad, weights, false, 1.0));
        if !(of_query || of_key) {
            return [None, None, grad_value];
        }
        let mut scores = sizes.compare(grad, value, 1.0);
        softmax_backward(sizes.positions, weights, &mut scores);
        let scale = sizes.scale();
        let grad_query = of_query.then(|| sizes.mix(key, &scores, true, scale));
        let grad_key = of_key.then(|| sizes.mix(query, &scores, false, scale));
        [grad_query, grad_key, grad_value]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::agreement::{Inputs, assert_agree, assert_slopes};

    type Compute = fn(Tensor<3>, Tensor<3>, Tensor<3>) -> Tensor<3>;

    fn of(compute: Compute) -> impl Fn(&Inputs) -> Tensor<3> {
        move |inputs| compute(inputs.get(0), inputs.get(1), inputs.get(2))
    }

    #[test]
    fn kernel_and_composition_agree() {
        for (channels, positions) in [(3, 5), (20, 36)] {
            let shape = [2, channels, positions];
            assert_agree(&[&shape, &shape, &shape], 2e-5, of(attend), of(composed));
        }
        let shared = |f: Compute| move |i: &Inputs| f(i.get(0), i.get(0), i.get(0));
        assert_agree(&[&[2, 4, 6]], 2e-5, shared(attend), shared(composed));
    }

    #[test]
    fn gradients_are_slopes() {
        assert_slopes(&[&[2, 4, 5], &[2, 4, 5], &[2, 4, 5]], of(attend));
    }
}
