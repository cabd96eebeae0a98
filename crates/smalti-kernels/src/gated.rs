//! The gate of a SwiGLU perceptron: `y = a·σ(a)·b` (Shazeer 2020, equation 6).
//!
//! Backward: `da = dy·b·σ(a)·(1 + a·(1 - σ(a)))`, `db = dy·a·σ(a)`, from the inputs alone.

use crate::Simd;
use crate::lanes::{Kernel, Lanes, dispatch};
use crate::math::sigmoid;
use rayon::prelude::*;

/// Numbers in a task, a multiple of every register, so that pieces do not change results.
const TASK: usize = 16 << 10;

/// Writes `silu(a)·b`.
///
/// # Panics
/// When lengths differ.
pub fn silu_product(a: &[f32], b: &[f32], output: &mut [f32]) {
    silu_product_on(Simd::active(), a, b, output);
}

/// [`silu_product`] with the instructions of `simd`.
///
/// # Panics
/// When lengths differ.
pub fn silu_product_on(simd: Simd, a: &[f32], b: &[f32], output: &mut [f32]) {
    check([a.len(), b.len(), output.len()]);
    output
        .par_chunks_mut(TASK)
        .zip(a.par_chunks(TASK).zip(b.par_chunks(TASK)))
        .for_each(|(output, (a, b))| dispatch(simd, Forward { a, b, output }));
}

/// `grad` holds the gradient of the output before and that of `b` after; that of `a` goes to `grad_a`.
///
/// # Panics
/// When lengths differ.
pub fn silu_product_backward(a: &[f32], b: &[f32], grad: &mut [f32], grad_a: &mut [f32]) {
    silu_product_backward_on(Simd::active(), [a, b], grad, grad_a);
}

/// [`silu_product_backward`] of `[a, b]` with the instructions of `simd`.
///
/// # Panics
/// When lengths differ.
pub fn silu_product_backward_on(
    simd: Simd,
    [a, b]: [&[f32]; 2],
    grad: &mut [f32],
    grad_a: &mut [f32],
) {
    check([a.len(), b.len(), grad.len()]);
    check([a.len(), b.len(), grad_a.len()]);
    grad.par_chunks_mut(TASK)
        .zip(grad_a.par_chunks_mut(TASK))
        .zip(a.par_chunks(TASK).zip(b.par_chunks(TASK)))
        .for_each(|((grad, grad_a), (a, b))| {
            let kernel = Backward { a, b, grad, grad_a };
            dispatch(simd, kernel);
        });
}

fn check([a, b, c]: [usize; 3]) {
    assert!(a == b && b == c, "gate: lengths {a}, {b} and {c} differ");
}

struct Forward<'a> {
    a: &'a [f32],
    b: &'a [f32],
    output: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let inputs = self.a.chunks(V::N).zip(self.b.chunks(V::N));
        for ((a, b), output) in inputs.zip(self.output.chunks_mut(V::N)) {
            let (a, b) = (V::load_part(a, 0.0), V::load_part(b, 0.0));
            (a * sigmoid(a) * b).store_part(output);
        }
    }
}

struct Backward<'a> {
    a: &'a [f32],
    b: &'a [f32],
    grad: &'a mut [f32],
    grad_a: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let inputs = self.a.chunks(V::N).zip(self.b.chunks(V::N));
        let outputs = self.grad.chunks_mut(V::N).zip(self.grad_a.chunks_mut(V::N));
        for ((a, b), (grad, grad_a)) in inputs.zip(outputs) {
            let (a, b, dy) = (
                V::load_part(a, 0.0),
                V::load_part(b, 0.0),
                V::load_part(grad, 0.0),
            );
            let s = sigmoid(a);
            let slope = s * (a - a * s + V::splat(1.0));
            (dy * b * slope).store_part(grad_a);
            (dy * a * s).store_part(grad);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::noise;

    #[test]
    fn agrees_with_f64_on_every_path() {
        for count in [1, 15, 16, 1001, TASK + 3] {
            let scaled = |seed| noise(count, seed).iter().map(|x| x * 4.0).collect();
            let [a, b, dy]: [Vec<f32>; 3] = [1, 2, 3].map(scaled);
            for simd in Simd::available() {
                let (mut y, mut grad_a) = (vec![f32::NAN; count], vec![f32::NAN; count]);
                let mut grad = dy.clone();
                silu_product_on(simd, &a, &b, &mut y);
                silu_product_backward_on(simd, [&a, &b], &mut grad, &mut grad_a);
                for i in 0..count {
                    let (a, b, dy) = (f64::from(a[i]), f64::from(b[i]), f64::from(dy[i]));
                    let s = 1.0 / (1.0 + (-a).exp());
                    let wanted = [a * s * b, dy * b * s * (1.0 + a * (1.0 - s)), dy * a * s];
                    for (got, want) in [y[i], grad_a[i], grad[i]].into_iter().zip(wanted) {
                        let error = (f64::from(got) - want).abs();
                        assert!(
                            error <= 5e-6 * want.abs().max(1.0),
                            "{simd:?} at {a}: {got} for {want}"
                        );
                    }
                }
            }
        }
    }
}
