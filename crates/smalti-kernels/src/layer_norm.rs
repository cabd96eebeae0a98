//! Layer normalisation of rows (Ba, Kiros & Hinton 2016, equations 3 and 4).
//!
//! `x̂ = (x - mean) · rstd` over each row of `width` numbers, `y = γ·x̂ + β` by column.
//! Backward: dβ = Σ dy and dγ = Σ dy·x̂ over the rows, and
//! `dx = rstd · (γ·dy - mean(γ·dy) - x̂ · mean(γ·dy·x̂))`, the means over the row.
//!
//! Nothing but each row's moments is kept for the way back. How rows are dealt to
//! threads and summed over stands in `rows`.

use crate::Simd;
use crate::group_norm::AffineGradients;
use crate::lanes::{Kernel, Lanes, dispatch};
pub use crate::moments::Moments;
use crate::moments::moments;
use crate::rows::{each_task, load, places, store, summed};

/// A layer norm with its parameters; the width of a row is their length.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm<'a> {
    /// Added to the variance.
    pub eps: f32,
    /// Factor of each column.
    pub gamma: &'a [f32],
    /// Offset of each column.
    pub beta: &'a [f32],
}

impl LayerNorm<'_> {
    /// Normalises the rows of `input` into `output`; returns the moments of each row.
    ///
    /// # Panics
    /// When lengths do not fit together.
    pub fn forward(&self, input: &[f32], output: &mut [f32]) -> Vec<Moments> {
        self.forward_on(Simd::active(), input, output)
    }

    /// [`forward`](Self::forward) with the instructions of `simd`.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_on(&self, simd: Simd, input: &[f32], output: &mut [f32]) -> Vec<Moments> {
        let rows = self.rows(input.len());
        assert_eq!(
            output.len(),
            input.len(),
            "layer norm: output and input differ in length"
        );
        let mut found = vec![Moments::default(); rows];
        each_task(
            self.gamma.len(),
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

    /// Writes the gradient of the input to `grad_input` and returns those of the parameters.
    ///
    /// # Panics
    /// When lengths do not fit together.
    pub fn backward(
        &self,
        input: &[f32],
        moments: &[Moments],
        grad_output: &[f32],
        grad_input: &mut [f32],
    ) -> AffineGradients {
        assert_eq!(
            grad_output.len(),
            input.len(),
            "layer norm: gradient and input differ in length"
        );
        self.backward_on(
            Simd::active(),
            input,
            moments,
            Some(grad_output),
            grad_input,
        )
    }

    /// [`backward`](Self::backward) where `grad` holds the gradient of the output before and that of
    /// the input after.
    ///
    /// # Panics
    /// When lengths do not fit together.
    pub fn backward_in_place(
        &self,
        input: &[f32],
        moments: &[Moments],
        grad: &mut [f32],
    ) -> AffineGradients {
        self.backward_on(Simd::active(), input, moments, None, grad)
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
        moments: &[Moments],
        grad_output: Option<&[f32]>,
        grad_input: &mut [f32],
    ) -> AffineGradients {
        let (rows, width) = (self.rows(input.len()), self.gamma.len());
        assert_eq!(
            grad_input.len(),
            input.len(),
            "layer norm: gradient and input differ in length"
        );
        assert_eq!(moments.len(), rows, "layer norm: one pair of moments a row");
        let sums = summed((width, 2 * width), grad_input, |rows, grad_input| {
            let range = rows.start * width..rows.end * width;
            dispatch(
                simd,
                Backward {
                    norm: self,
                    input: &input[range.clone()],
                    moments: &moments[rows],
                    grad_output: grad_output.map(|grad| &grad[range]),
                    grad_input,
                },
            )
        });
        let (gamma, beta) = sums.split_at(width);
        AffineGradients {
            gamma: gamma.to_vec(),
            beta: beta.to_vec(),
        }
    }

    fn rows(&self, total: usize) -> usize {
        let width = self.gamma.len();
        assert_eq!(
            self.beta.len(),
            width,
            "layer norm: one beta for each gamma"
        );
        assert!(
            width > 0 && total.is_multiple_of(width),
            "layer norm: {total} numbers are no rows of {width}"
        );
        total / width
    }
}

struct Forward<'a> {
    norm: &'a LayerNorm<'a>,
    input: &'a [f32],
    output: &'a mut [f32],
    found: &'a mut [Moments],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let LayerNorm { eps, gamma, beta } = *self.norm;
        let width = gamma.len();
        let rows = self
            .input
            .chunks_exact(width)
            .zip(self.output.chunks_exact_mut(width));
        for ((input, output), found) in rows.zip(self.found) {
            *found = moments::<V>(input, eps);
            let (mean, rstd) = (V::splat(found.mean), V::splat(found.rstd));
            for place in places::<V>(width) {
                let normalised = (load::<V>(input, &place) - mean) * rstd;
                let y = normalised.mul_add(load(gamma, &place), load(beta, &place));
                store(y, output, &place);
            }
        }
    }
}

struct Backward<'a> {
    norm: &'a LayerNorm<'a>,
    input: &'a [f32],
    moments: &'a [Moments],
    grad_output: Option<&'a [f32]>,
    grad_input: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    /// Sums over the rows: dγ, then dβ.
    type Output = Vec<f32>;
    #[inline(always)]
    fn run<V: Lanes>(self) -> Vec<f32> {
        let gamma = self.norm.gamma;
        let width = gamma.len();
        let mut sums = vec![0.0; 2 * width];
        let (grad_gamma, grad_beta) = sums.split_at_mut(width);
        let rows = self
            .input
            .chunks_exact(width)
            .zip(self.grad_input.chunks_exact_mut(width));
        for (i, ((input, grad_input), moments)) in rows.zip(self.moments).enumerate() {
            let (mean, rstd) = (V::splat(moments.mean), V::splat(moments.rstd));
            let given = self.grad_output.map(|grad| &grad[i * width..][..width]);
            let mut means = [V::splat(0.0); 2];
            for place in places::<V>(width) {
                let normalised = (load::<V>(input, &place) - mean) * rstd;
                let dy: V = load(given.unwrap_or(grad_input), &place);
                store(
                    dy.mul_add(normalised, load(grad_gamma, &place)),
                    grad_gamma,
                    &place,
                );
                store(dy + load(grad_beta, &place), grad_beta, &place);
                let scaled = dy * load(gamma, &place);
                // Lanes past the end of the row are zero in dy, so they add nothing.
                means = [means[0] + scaled, scaled.mul_add(normalised, means[1])];
            }
            let [first, second] = means.map(|sum| V::splat(sum.sum() / width as f32));
            for place in places::<V>(width) {
                let normalised = (load::<V>(input, &place) - mean) * rstd;
                let dy: V = load(given.unwrap_or(grad_input), &place);
                let rest = (-normalised).mul_add(second, -first);
                store(
                    dy.mul_add(load(gamma, &place), rest) * rstd,
                    grad_input,
                    &place,
                );
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests;
