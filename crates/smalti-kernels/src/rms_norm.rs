//! Root-mean-square normalisation of rows (Zhang & Sennrich 2019, equation 4, with an ε under the root).
//!
//! `x̂ = x · rstd`, `rstd = 1 / √(mean(x²) + ε)` over each row of `width` numbers, `y = γ·x̂` by column.
//! Backward: dγ = Σ dy·x̂ over the rows, and `dx = rstd · (γ·dy - x̂ · mean(γ·dy·x̂))`, the mean over
//! the row.
//!
//! Nothing but each row's `rstd` is kept for the way back. How rows are dealt to
//! threads and summed over stands in `rows`.

use crate::Simd;
use crate::lanes::{Kernel, Lanes, dispatch};
use crate::rows::{each_task, load, places, store, summed};

/// A root-mean-square norm with its parameter; the width of a row is its length.
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm<'a> {
    /// Added to the mean square.
    pub eps: f32,
    /// Factor of each column.
    pub gamma: &'a [f32],
}

impl RmsNorm<'_> {
    /// Normalises the rows of `input` into `output`; returns the factor `rstd` of each row.
    ///
    /// # Panics
    /// When lengths do not fit together.
    pub fn forward(&self, input: &[f32], output: &mut [f32]) -> Vec<f32> {
        self.forward_on(Simd::active(), input, output)
    }

    /// [`forward`](Self::forward) with the instructions of `simd`.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_on(&self, simd: Simd, input: &[f32], output: &mut [f32]) -> Vec<f32> {
        let (rows, width) = (self.rows(input.len()), self.gamma.len());
        assert_eq!(
            output.len(),
            input.len(),
            "RMS norm: output and input differ in length"
        );
        let mut found = vec![0.0; rows];
        each_task(
            width,
            &mut found,
            (input, output),
            |found, input, output| {
                dispatch(
                    simd,
                    Forward {
                        norm: self,
                        input,
                        output,
                        found,
                    },
                );
            },
        );
        found
    }

    /// Writes the gradient of the input to `grad_input` and returns that of `gamma`.
    ///
    /// # Panics
    /// When lengths do not fit together.
    pub fn backward(
        &self,
        input: &[f32],
        factors: &[f32],
        grad_output: &[f32],
        grad_input: &mut [f32],
    ) -> Vec<f32> {
        assert_eq!(
            grad_output.len(),
            input.len(),
            "RMS norm: gradient and input differ in length"
        );
        let simd = Simd::active();
        self.backward_on(simd, input, factors, Some(grad_output), grad_input)
    }

    /// [`backward`](Self::backward) where `grad` holds the gradient of the output before and that of
    /// the input after.
    ///
    /// # Panics
    /// When lengths do not fit together.
    pub fn backward_in_place(&self, input: &[f32], factors: &[f32], grad: &mut [f32]) -> Vec<f32> {
        self.backward_on(Simd::active(), input, factors, None, grad)
    }

    /// [`backward`](Self::backward), or without `grad_output`
    /// [`backward_in_place`](Self::backward_in_place), with the instructions of `simd`.
    ///
    /// # Panics
    /// When lengths do not fit together.
    pub fn backward_on(
        &self,
        simd: Simd,
        input: &[f32],
        factors: &[f32],
        grad_output: Option<&[f32]>,
        grad_input: &mut [f32],
    ) -> Vec<f32> {
        let (rows, width) = (self.rows(input.len()), self.gamma.len());
        assert_eq!(
            grad_input.len(),
            input.len(),
            "RMS norm: gradient and input differ in length"
        );
        assert_eq!(factors.len(), rows, "RMS norm: one factor a row");
        summed((width, width), grad_input, |rows, grad_input| {
            let range = rows.start * width..rows.end * width;
            dispatch(
                simd,
                Backward {
                    norm: self,
                    input: &input[range.clone()],
                    factors: &factors[rows],
                    grad_output: grad_output.map(|grad| &grad[range]),
                    grad_input,
                },
            )
        })
    }

    fn rows(&self, total: usize) -> usize {
        let width = self.gamma.len();
        assert!(
            width > 0 && total.is_multiple_of(width),
            "RMS norm: {total} numbers are no rows of {width}"
        );
        total / width
    }
}

struct Forward<'a> {
    norm: &'a RmsNorm<'a>,
    input: &'a [f32],
    output: &'a mut [f32],
    found: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let RmsNorm { eps, gamma } = *self.norm;
        let width = gamma.len();
        let rows = self
            .input
            .chunks_exact(width)
            .zip(self.output.chunks_exact_mut(width));
        for ((input, output), found) in rows.zip(self.found) {
            let mean = squares::<V>(input) / width as f32;
            *found = 1.0 / (mean + eps).sqrt();
            let factor = V::splat(*found);
            for place in places::<V>(width) {
                let normalised = load::<V>(input, &place) * factor;
                store(normalised * load(gamma, &place), output, &place);
            }
        }
    }
}

/// Sum of squares in four chains.
#[inline(always)]
fn squares<V: Lanes>(values: &[f32]) -> f32 {
    let mut sums = [V::splat(0.0); 4];
    let mut blocks = values.chunks_exact(4 * V::N);
    for block in &mut blocks {
        for (sum, part) in sums.iter_mut().zip(block.chunks_exact(V::N)) {
            let x = V::load(part);
            *sum = x.mul_add(x, *sum);
        }
    }
    for part in blocks.remainder().chunks(V::N) {
        let x = V::load_part(part, 0.0);
        sums[0] = x.mul_add(x, sums[0]);
    }
    ((sums[0] + sums[1]) + (sums[2] + sums[3])).sum()
}

struct Backward<'a> {
    norm: &'a RmsNorm<'a>,
    input: &'a [f32],
    factors: &'a [f32],
    grad_output: Option<&'a [f32]>,
    grad_input: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    /// Sums over the rows: dγ.
    type Output = Vec<f32>;
    #[inline(always)]
    fn run<V: Lanes>(self) -> Vec<f32> {
        let gamma = self.norm.gamma;
        let width = gamma.len();
        let mut grad_gamma = vec![0.0; width];
        let rows = self
            .input
            .chunks_exact(width)
            .zip(self.grad_input.chunks_exact_mut(width));
        for (i, ((input, grad_input), factor)) in rows.zip(self.factors).enumerate() {
            let factor = V::splat(*factor);
            let given = self.grad_output.map(|grad| &grad[i * width..][..width]);
            let mut along = V::splat(0.0);
            for place in places::<V>(width) {
                let normalised = load::<V>(input, &place) * factor;
                let dy: V = load(given.unwrap_or(grad_input), &place);
                let sum = dy.mul_add(normalised, load(&grad_gamma, &place));
                store(sum, &mut grad_gamma, &place);
                // Lanes past the end of the row are zero in dy, so they add nothing.
                along = (dy * load(gamma, &place)).mul_add(normalised, along);
            }
            let along = V::splat(along.sum() / width as f32);
            for place in places::<V>(width) {
                let normalised = load::<V>(input, &place) * factor;
                let dy: V = load(given.unwrap_or(grad_input), &place);
                let scaled = dy * load(gamma, &place);
                store(
                    (-normalised).mul_add(along, scaled) * factor,
                    grad_input,
                    &place,
                );
            }
        }
        grad_gamma
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::noise;

    /// Output, then the gradients of input and gamma of Σ output·grad, in f64.
    fn reference(x: &[f32], gamma: &[f32], grad: &[f32]) -> [Vec<f64>; 3] {
        let width = gamma.len();
        let n = width as f64;
        let mut out = [vec![], vec![], vec![0.0; width]];
        for (x, grad) in x.chunks_exact(width).zip(grad.chunks_exact(width)) {
            let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
            let (x, grad, gamma) = (wide(x), wide(grad), wide(gamma));
            let square = x.iter().map(|x| x * x).sum::<f64>() / n;
            let factor = 1.0 / (square + 1e-5).sqrt();
            let along = (0..width).map(|k| grad[k] * gamma[k] * x[k] * factor);
            let along = along.sum::<f64>() / n;
            for k in 0..width {
                let normal = x[k] * factor;
                out[0].push(gamma[k] * normal);
                out[1].push(factor * (gamma[k] * grad[k] - normal * along));
                out[2][k] += grad[k] * normal;
            }
        }
        out
    }

    fn close(got: &[f32], want: &[f64], tolerance: f64, what: &str) {
        assert_eq!(got.len(), want.len(), "{what}");
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            assert!(
                (f64::from(*g) - w).abs() <= tolerance * w.abs().max(1.0),
                "{what} at {i}: {g} for {w}"
            );
        }
    }

    #[test]
    fn agrees_with_f64_on_every_path() {
        for (rows, width) in [(1, 2), (3, 7), (5, 16), (2, 33), (70, 64), (1000, 65)] {
            let (x, grad) = (noise(rows * width, 1), noise(rows * width, 2));
            let gamma = noise(width, 3);
            let norm = RmsNorm {
                eps: 1e-5,
                gamma: &gamma,
            };
            let want = reference(&x, &gamma, &grad);
            for simd in Simd::available() {
                let name = format!("{simd:?} {rows} rows of {width}");
                let mut y = vec![f32::NAN; x.len()];
                let factors = norm.forward_on(simd, &x, &mut y);
                close(&y, &want[0], 3e-6, &name);
                let mut dx = vec![f32::NAN; x.len()];
                let sums = norm.backward_on(simd, &x, &factors, Some(&grad), &mut dx);
                close(&dx, &want[1], 2e-5, &format!("{name}: input"));
                // Sums of terms of either sign: their error grows with the root of their number.
                let tolerance = 1e-6 * (rows as f64).sqrt().max(10.0);
                close(&sums, &want[2], tolerance, &format!("{name}: gamma"));
                let mut over = grad.clone();
                assert_eq!(norm.backward_on(simd, &x, &factors, None, &mut over), sums);
                assert_eq!(over, dx, "{name}: in place");
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_nothing_and_rows_of_zeros_stay() {
        let mut x = noise(3000 * 96, 9);
        x[96..192].fill(0.0);
        let (grad, gamma) = (noise(3000 * 96, 10), noise(96, 11));
        let norm = RmsNorm {
            eps: 1e-5,
            gamma: &gamma,
        };
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| {
                let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
                let factors = norm.forward(&x, &mut y);
                let sums = norm.backward(&x, &factors, &grad, &mut dx);
                (y, dx, sums)
            })
        };
        let (y, dx, sums) = run(1);
        assert!(y[96..192].iter().all(|y| *y == 0.0));
        assert_eq!(run(3), (y, dx, sums));
    }
}
