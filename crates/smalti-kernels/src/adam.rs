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
mod tests {
    use super::*;

    fn noise(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 24) as f32 * 2.0 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn adam(weight_decay: WeightDecay) -> Adam {
        let (learning_rate, beta1, beta2) = (0.01, 0.9, 0.95);
        Adam {
            learning_rate,
            beta1,
            beta2,
            eps: 1e-8,
            weight_decay,
            grad_scale: 0.5,
        }
    }

    /// The formulas of the module's head for one number, in f64.
    fn reference(adam: &Adam, step: i32, [p, m, v]: &mut [f64; 3], grad: f64) {
        let mut g = grad * f64::from(adam.grad_scale);
        match adam.weight_decay {
            WeightDecay::L2(decay) => g += f64::from(decay) * *p,
            WeightDecay::Decoupled(decay) => *p *= 1.0 - adam.learning_rate * f64::from(decay),
        }
        *m = adam.beta1 * *m + (1.0 - adam.beta1) * g;
        *v = adam.beta2 * *v + (1.0 - adam.beta2) * g * g;
        let (m_hat, v_hat) = (
            *m / (1.0 - adam.beta1.powi(step)),
            *v / (1.0 - adam.beta2.powi(step)),
        );
        *p -= adam.learning_rate * m_hat / (v_hat.sqrt() + adam.eps);
    }

    #[test]
    fn five_steps_agree_with_f64_on_every_path() {
        for count in [1, 16, 33, TASK + 5] {
            for decay in [
                WeightDecay::L2(0.1),
                WeightDecay::Decoupled(0.1),
                WeightDecay::L2(0.0),
            ] {
                let adam = adam(decay);
                for simd in Simd::available() {
                    let mut p = noise(count, 1);
                    let mut want: Vec<_> = p.iter().map(|p| [f64::from(*p), 0.0, 0.0]).collect();
                    let (mut m, mut v) = (vec![0.0; count], vec![0.0; count]);
                    for step in 1..=5 {
                        let grad = noise(count, 1 + step);
                        let state = AdamState {
                            parameter: &mut p,
                            first: &mut m,
                            second: &mut v,
                        };
                        adam.step_on(simd, step, state, &grad);
                        for (want, grad) in want.iter_mut().zip(&grad) {
                            reference(&adam, step as i32, want, f64::from(*grad));
                        }
                    }
                    for i in 0..count {
                        let close = |a: f32, b: f64| (f64::from(a) - b).abs() < 1e-6;
                        let good = close(p[i], want[i][0]) && close(m[i], want[i][1]);
                        assert!(
                            good && close(v[i], want[i][2]),
                            "{simd:?} {count} {decay:?} at {i}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_step_has_the_learning_rate_as_its_length() {
        let (mut p, mut m, mut v) = ([1.0], [0.0], [0.0]);
        let adam = Adam {
            grad_scale: 1.0,
            ..adam(WeightDecay::L2(0.0))
        };
        adam.step(
            1,
            AdamState {
                parameter: &mut p,
                first: &mut m,
                second: &mut v,
            },
            &[-300.0],
        );
        assert!((p[0] - 1.01).abs() < 1e-6, "{}", p[0]);
        adam.step(
            2,
            AdamState {
                parameter: &mut p,
                first: &mut m,
                second: &mut v,
            },
            &[f32::NAN],
        );
        assert!(p[0].is_nan() && m[0].is_nan() && v[0].is_nan());
    }

    #[test]
    fn a_late_step_has_no_correction_left() {
        let constants = adam(WeightDecay::L2(0.0)).constants(u64::MAX);
        assert_eq!((constants.root_correction, constants.length), (1.0, -0.01));
    }

    #[test]
    fn averages_move_by_their_share() {
        for simd in Simd::available() {
            for count in [1, 16, 37] {
                let (start, values) = (noise(count, 3), noise(count, 4));
                let mut average = start.clone();
                average_weights_on(simd, &mut average, &values, 0.99);
                for i in 0..count {
                    let want = 0.99 * f64::from(start[i]) + 0.01 * f64::from(values[i]);
                    assert!(
                        (f64::from(average[i]) - want).abs() < 1e-7,
                        "{simd:?} {count} at {i}"
                    );
                }
            }
        }
    }

    #[test]
    fn squares_are_summed_in_f64_whatever_the_path_and_the_threads() {
        let mut values = noise(3 * TASK + 7, 5);
        values[5] = 1e30;
        values[TASK] = 1e-30;
        let naive: f64 = values.iter().map(|x| f64::from(*x).powi(2)).sum();
        let sums: Vec<f64> = Simd::available()
            .into_iter()
            .map(|simd| sum_of_squares_on(simd, &values))
            .collect();
        assert!((sums[0] / naive - 1.0).abs() < 1e-12);
        assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(3)
            .build()
            .unwrap();
        assert_eq!(pool.install(|| sum_of_squares(&values)), sums[0]);
        assert_eq!(sum_of_squares(&[]), 0.0);
    }
}
