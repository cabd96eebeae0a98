//! Softmax of rows: `yᵢ = e^(xᵢ - m) / Σ e^(xₖ - m)` with `m` the largest of the row.
//!
//! Entries of -∞ get the weight 0; a row of nothing else is NaN. Backward from the output alone:
//! `dx = y·(dy - Σ y·dy)`.

use crate::Simd;
use crate::lanes::{Kernel, Lanes, dispatch};
use crate::math::exp;
use rayon::prelude::*;

/// Numbers that a task should at least have.
const TASK: usize = 16 << 10;

/// Writes the softmax of each row of `width` numbers.
///
/// # Panics
/// When lengths do not fit together.
pub fn softmax(width: usize, input: &[f32], output: &mut [f32]) {
    softmax_on(Simd::active(), width, input, output);
}

/// [`softmax`] with the instructions of `simd`.
///
/// # Panics
/// As [`softmax`].
pub fn softmax_on(simd: Simd, width: usize, input: &[f32], output: &mut [f32]) {
    check(width, input, output);
    let task = TASK.div_ceil(width) * width;
    output
        .par_chunks_mut(task)
        .zip(input.par_chunks(task))
        .for_each(|(output, input)| {
            dispatch(
                simd,
                Forward {
                    width,
                    input,
                    output,
                },
            )
        });
}

/// Turns `grad`, the gradient of the rows of `output`, into that of the input.
///
/// # Panics
/// When lengths do not fit together.
pub fn softmax_backward(width: usize, output: &[f32], grad: &mut [f32]) {
    softmax_backward_on(Simd::active(), width, output, grad);
}

/// [`softmax_backward`] with the instructions of `simd`.
///
/// # Panics
/// As [`softmax_backward`].
pub fn softmax_backward_on(simd: Simd, width: usize, output: &[f32], grad: &mut [f32]) {
    check(width, output, grad);
    let task = TASK.div_ceil(width) * width;
    grad.par_chunks_mut(task)
        .zip(output.par_chunks(task))
        .for_each(|(grad, output)| {
            dispatch(
                simd,
                Backward {
                    width,
                    output,
                    grad,
                },
            )
        });
}

fn check(width: usize, first: &[f32], second: &[f32]) {
    assert_eq!(first.len(), second.len(), "softmax: lengths differ");
    assert!(
        width > 0 && first.len().is_multiple_of(width),
        "softmax: {} numbers are no rows of {width}",
        first.len()
    );
}

/// The largest number of a slice; anything where one is NaN.
#[inline(always)]
pub(crate) fn largest<V: Lanes>(values: &[f32]) -> f32 {
    let lowest = V::splat(f32::NEG_INFINITY);
    let mut best = [lowest; 2];
    let mut blocks = values.chunks_exact(2 * V::N);
    for block in &mut blocks {
        best[0] = best[0].max(V::load(block));
        best[1] = best[1].max(V::load(&block[V::N..]));
    }
    for part in blocks.remainder().chunks(V::N) {
        best[0] = best[0].max(V::load_part(part, f32::NEG_INFINITY));
    }
    -(-best[0].max(best[1])).minimum()
}

/// Writes `e^(x - shift)` and returns the sum of what was written.
#[inline(always)]
pub(crate) fn exponentials<V: Lanes>(input: &[f32], shift: f32, output: &mut [f32]) -> f32 {
    let shift = V::splat(shift);
    let mut sum = V::splat(0.0);
    for (x, y) in input.chunks(V::N).zip(output.chunks_mut(V::N)) {
        let e = exp(V::load_part(x, f32::NEG_INFINITY) - shift);
        sum = sum + e;
        e.store_part(y);
    }
    sum.sum()
}

/// Replaces each number by `e^(x - shift)` and returns the sum.
#[inline(always)]
pub(crate) fn exponentials_in_place<V: Lanes>(values: &mut [f32], shift: f32) -> f32 {
    let shift = V::splat(shift);
    let mut sum = V::splat(0.0);
    for part in values.chunks_mut(V::N) {
        let e = exp(V::load_part(part, f32::NEG_INFINITY) - shift);
        sum = sum + e;
        e.store_part(part);
    }
    sum.sum()
}

/// Multiplies a slice by a number.
#[inline(always)]
pub(crate) fn scale<V: Lanes>(values: &mut [f32], factor: f32) {
    let factor = V::splat(factor);
    let mut parts = values.chunks_exact_mut(V::N);
    for part in &mut parts {
        (V::load(part) * factor).store(part);
    }
    let rest = parts.into_remainder();
    (V::load_part(rest, 0.0) * factor).store_part(rest);
}

struct Forward<'a> {
    width: usize,
    input: &'a [f32],
    output: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let rows = self.input.chunks_exact(self.width);
        for (input, output) in rows.zip(self.output.chunks_exact_mut(self.width)) {
            let sum = exponentials::<V>(input, largest::<V>(input), output);
            scale::<V>(output, 1.0 / sum);
        }
    }
}

struct Backward<'a> {
    width: usize,
    output: &'a [f32],
    grad: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let rows = self.output.chunks_exact(self.width);
        for (output, grad) in rows.zip(self.grad.chunks_exact_mut(self.width)) {
            let mut dot = V::splat(0.0);
            for (y, dy) in output.chunks(V::N).zip(grad.chunks(V::N)) {
                dot = V::load_part(y, 0.0).mul_add(V::load_part(dy, 0.0), dot);
            }
            let dot = V::splat(dot.sum());
            for (y, dy) in output.chunks(V::N).zip(grad.chunks_mut(V::N)) {
                (V::load_part(y, 0.0) * (V::load_part(dy, 0.0) - dot)).store_part(dy);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(x: &[f32]) -> Vec<f64> {
        let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let e: Vec<f64> = x.iter().map(|x| f64::from(x - largest).exp()).collect();
        let sum: f64 = e.iter().sum();
        e.iter().map(|e| e / sum).collect()
    }

    fn rows(count: usize, width: usize) -> Vec<f32> {
        (0..count * width)
            .map(|i| ((i * 7919) % 1009) as f32 / 50.0 - 10.0)
            .collect()
    }

    #[test]
    fn agrees_with_f64_on_every_path() {
        for (count, width) in [(1, 1), (3, 2), (4, 16), (5, 37), (2, 1000), (700, 33)] {
            let mut x = rows(count, width);
            x[width / 2] = if width > 1 { f32::NEG_INFINITY } else { 3.0 };
            for simd in Simd::available() {
                let mut y = vec![f32::NAN; x.len()];
                softmax_on(simd, width, &x, &mut y);
                let mut grad: Vec<f32> = rows(count, width).iter().map(|x| x * 0.1).rev().collect();
                let before = grad.clone();
                softmax_backward_on(simd, width, &y, &mut grad);
                for row in 0..count {
                    let place = row * width..(row + 1) * width;
                    let want = reference(&x[place.clone()]);
                    let dy = &before[place.clone()];
                    let dot: f64 = want.iter().zip(dy).map(|(y, d)| y * f64::from(*d)).sum();
                    for (k, i) in place.enumerate() {
                        let error = (f64::from(y[i]) - want[k]).abs();
                        assert!(
                            error <= 1e-6 * want[k] + 1e-37,
                            "{simd:?} {width}: {} {}",
                            y[i],
                            want[k]
                        );
                        let slope = want[k] * (f64::from(dy[k]) - dot);
                        assert!(
                            (f64::from(grad[i]) - slope).abs() < 1e-6,
                            "{simd:?} {width}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn large_logits_masked_rows_and_nan() {
        for simd in Simd::available() {
            let inf = f32::INFINITY;
            let x = [1e30, -1e30, 1e30, -inf, -inf, -inf, f32::NAN, 0.0, 1.0];
            let mut y = [0.0; 9];
            softmax_on(simd, 3, &x, &mut y);
            assert_eq!(y[..3], [0.5, 0.0, 0.5], "{simd:?}");
            assert!(y[3..].iter().all(|y| y.is_nan()), "{simd:?}: {y:?}");
        }
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let x = rows(5000, 17);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let (mut y, mut grad) = (vec![0.0; x.len()], x.clone());
            pool.install(|| {
                softmax(17, &x, &mut y);
                softmax_backward(17, &y, &mut grad);
            });
            (y, grad)
        };
        assert_eq!(run(1), run(3));
    }
}
