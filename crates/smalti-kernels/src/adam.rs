//! One step of Adam or AdamW in a single pass over parameters, gradients and moments.
//!
//! Kingma & Ba 2015, algorithm 1, and Loshchilov & Hutter 2019, algorithm 2, in the order of
//! operations of PyTorch's optimisers, with `g` the gradient times `grad_scale`:
//!
//! ```text
//! L2:         g ← g + weight_decay · p
//! decoupled:  p ← p · (1 - lr · weight_decay)
//! m ← m + (1 - β₁)(g - m)
//! v ← β₂ v + (1 - β₂) g²
//! p ← p - lr / (1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + eps)
//! ```
//!
//! Constants are computed in f64 and rounded once. Every number is updated on its own, so results
//! depend neither on the number of threads nor on how parameters are cut into slices.
//!
//! Beside it what a training step also needs: [`average_weights`] and [`sum_of_squares`].

use crate::Simd;
use crate::lanes::{Kernel, Lanes, dispatch};
use rayon::prelude::*;

/// Numbers in a task, a power of two, so that pieces start at register boundaries.
const TASK: usize = 16 << 10;

/// How weights are pulled to zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WeightDecay {
    /// Added to the gradient (Adam).
    L2(f32),
    /// Taken off the weights beside the gradient (AdamW).
    Decoupled(f32),
}

/// The constants of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Step length.
    pub learning_rate: f64,
    /// How much of the first moment stays (β₁).
    pub beta1: f64,
    /// How much of the second moment stays (β₂).
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// How weights are pulled to zero.
    pub weight_decay: WeightDecay,
    /// The gradient is multiplied by it first: 1, or less where its norm is clipped.
    pub grad_scale: f32,
}

/// A parameter and its moments, each of the length of its gradient.
#[derive(Debug)]
pub struct AdamState<'a> {
    /// The parameter.
    pub parameter: &'a mut [f32],
    /// Running mean of the gradient (m).
    pub first: &'a mut [f32],
    /// Running mean of its square (v).
    pub second: &'a mut [f32],
}

impl Adam {
    /// Takes step number `step`, counted from 1.
    ///
    /// # Panics
    /// When lengths differ or `step` is 0.
    pub fn step(&self, step: u64, state: AdamState<'_>, grad: &[f32]) {
        self.step_on(Simd::active(), step, state, grad);
    }

    /// [`step`](Self::step) with the instructions of `simd`.
    ///
    /// # Panics
    /// As [`step`](Self::step).
    pub fn step_on(&self, simd: Simd, step: u64, state: AdamState<'_>, grad: &[f32]) {
        let AdamState {
            parameter,
            first,
            second,
        } = state;
        let lengths = [parameter.len(), first.len(), second.len()];
        assert_eq!(
            lengths,
            [grad.len(); 3],
            "adam: parameter, moments and gradient differ in length"
        );
        let constants = self.constants(step);
        parameter
            .par_chunks_mut(TASK)
            .zip(grad.par_chunks(TASK))
            .zip(first.par_chunks_mut(TASK).zip(second.par_chunks_mut(TASK)))
            .for_each(|((parameter, grad), (first, second))| {
                let state = AdamState {
                    parameter,
                    first,
                    second,
                };
                dispatch(
                    simd,
                    Step {
                        constants,
                        state,
                        grad,
                    },
                );
            });
    }

    fn constants(&self, step: u64) -> Constants {
        assert!(step > 0, "adam: steps are counted from 1");
        let power = i32::try_from(step).unwrap_or(i32::MAX);
        let (l2, keep) = match self.weight_decay {
            WeightDecay::L2(decay) => (decay, 1.0),
            WeightDecay::Decoupled(decay) => (0.0, 1.0 - self.learning_rate * f64::from(decay)),
        };
        Constants {
            grad_scale: self.grad_scale,
            l2,
            keep: keep as f32,
            first_share: (1.0 - self.beta1) as f32,
            second_keep: self.beta2 as f32,
            second_share: (1.0 - self.beta2) as f32,
            root_correction: (1.0 - self.beta2.powi(power)).sqrt() as f32,
            eps: self.eps as f32,
            length: (-self.learning_rate / (1.0 - self.beta1.powi(power))) as f32,
        }
    }
}

/// What is the same for every number of a step.
#[derive(Clone, Copy)]
struct Constants {
    grad_scale: f32,
    l2: f32,
    keep: f32,
    first_share: f32,
    second_keep: f32,
    second_share: f32,
    root_correction: f32,
    eps: f32,
    length: f32,
}

struct Step<'a> {
    constants: Constants,
    state: AdamState<'a>,
    grad: &'a [f32],
}

impl Kernel for Step<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let AdamState {
            parameter,
            first,
            second,
        } = self.state;
        let whole = self.grad.len() / V::N * V::N;
        for start in (0..whole).step_by(V::N) {
            let (p, m, v) = update(
                &self.constants,
                V::load(&parameter[start..]),
                V::load(&self.grad[start..]),
                [V::load(&first[start..]), V::load(&second[start..])],
            );
            p.store(&mut parameter[start..]);
            m.store(&mut first[start..]);
            v.store(&mut second[start..]);
        }
        if whole < self.grad.len() {
            let (p, m, v) = update(
                &self.constants,
                V::load_part(&parameter[whole..], 0.0),
                V::load_part(&self.grad[whole..], 0.0),
                [
                    V::load_part(&first[whole..], 0.0),
                    V::load_part(&second[whole..], 0.0),
                ],
            );
            p.store_part(&mut parameter[whole..]);
            m.store_part(&mut first[whole..]);
            v.store_part(&mut second[whole..]);
        }
    }
}

#[inline(always)]
fn update<V: Lanes>(c: &Constants, p: V, grad: V, [m, v]: [V; 2]) -> (V, V, V) {
    let g = p.mul_add(V::splat(c.l2), grad * V::splat(c.grad_scale));
    let p = p * V::splat(c.keep);
    let m = (g - m).mul_add(V::splat(c.first_share), m);
    let v = (g * V::splat(c.second_share)).mul_add(g, v * V::splat(c.second_keep));
    let denominator = v.sqrt() / V::splat(c.root_correction) + V::splat(c.eps);
    (V::splat(c.length) * m / denominator + p, m, v)
}

/// `average ← decay · average + (1 - decay) · values`.
///
/// # Panics
/// When lengths differ.
pub fn average_weights(average: &mut [f32], values: &[f32], decay: f64) {
    average_weights_on(Simd::active(), average, values, decay);
}

/// [`average_weights`] with the instructions of `simd`.
///
/// # Panics
/// As [`average_weights`].
pub fn average_weights_on(simd: Simd, average: &mut [f32], values: &[f32], decay: f64) {
    assert_eq!(
        average.len(),
        values.len(),
        "average of weights: lengths differ"
    );
    let (keep, share) = (decay as f32, (1.0 - decay) as f32);
    average
        .par_chunks_mut(TASK)
        .zip(values.par_chunks(TASK))
        .for_each(|(average, values)| {
            dispatch(
                simd,
                Average {
                    average,
                    values,
                    keep,
                    share,
                },
            );
        });
}

struct Average<'a> {
    average: &'a mut [f32],
    values: &'a [f32],
    keep: f32,
    share: f32,
}

impl Kernel for Average<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let (keep, share) = (V::splat(self.keep), V::splat(self.share));
        let mut averages = self.average.chunks_exact_mut(V::N);
        let mut values = self.values.chunks_exact(V::N);
        for (average, value) in (&mut averages).zip(&mut values) {
            (V::load(average) * keep + V::load(value) * share).store(average);
        }
        let (average, value) = (averages.into_remainder(), values.remainder());
        let rest = V::load_part(average, 0.0) * keep + V::load_part(value, 0.0) * share;
        rest.store_part(average);
    }
}

/// `Σ x²` in f64, in pieces of fixed size that are added in order.
pub fn sum_of_squares(values: &[f32]) -> f64 {
    sum_of_squares_on(Simd::active(), values)
}

/// [`sum_of_squares`] with the instructions of `simd`; the sum is the same for all of them.
pub fn sum_of_squares_on(simd: Simd, values: &[f32]) -> f64 {
    let pieces: Vec<f64> = values
        .par_chunks(TASK)
        .map(|piece| dispatch(simd, Squares(piece)))
        .collect();
    pieces.iter().sum()
}

struct Squares<'a>(&'a [f32]);

impl Kernel for Squares<'_> {
    type Output = f64;
    #[inline(always)]
    fn run<V: Lanes>(self) -> f64 {
        // Plain loops over an array, which the compiler turns into the registers at hand.
        let mut sums = [0.0_f64; 16];
        let mut blocks = self.0.chunks_exact(16);
        for block in &mut blocks {
            for (sum, x) in sums.iter_mut().zip(block) {
                *sum += f64::from(*x) * f64::from(*x);
            }
        }
        for (sum, x) in sums.iter_mut().zip(blocks.remainder()) {
            *sum += f64::from(*x) * f64::from(*x);
        }
        let mut total = 0.0;
        for sum in sums {
            total += sum;
        }
        total
    }
}

#[cfg(test)]
mod tests;
