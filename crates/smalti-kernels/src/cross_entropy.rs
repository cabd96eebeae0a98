//! Cross-entropy of logits against classes or against probabilities.
//!
//! With `m` the largest logit of a row and `S = Σ e^(xₖ - m) + partition_epsilon`:
//!
//! ```text
//! class t:          loss = ln S - (x_t - m)
//! probabilities t:  loss = Σ tᵢ · (ln S - (xᵢ - m))
//! backward:         dxᵢ = dloss · (T · e^(xᵢ - m) / S - tᵢ),   T = Σ tᵢ (1 for a class)
//! ```
//!
//! The published RQ-Transformer adds 1e-7 to the partition sum; the default is 0. `m` counts as a
//! constant in the gradient, which matters only where `partition_epsilon` does. A logit of -∞ is
//! allowed where its target is 0, and contributes nothing.
//!
//! The matrix of probabilities is never stored: for the way back each row keeps `m` and `S`.

use crate::Simd;
use crate::lanes::{Kernel, Lanes, dispatch};
use crate::math::exp;
use crate::softmax::largest;
use rayon::prelude::*;

/// Numbers that a task should at least have.
const TASK: usize = 16 << 10;

/// The loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossEntropy {
    /// Numbers in a row of logits.
    pub classes: usize,
    /// Added to the sum of exponentials, of which the largest is 1.
    pub partition_epsilon: f32,
}

/// What the logits should have said.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a> {
    /// One class for each row.
    Classes(&'a [u32]),
    /// A row of probabilities for each row of logits.
    Probabilities(&'a [f32]),
}

/// What the way back needs to know of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Partition {
    /// The largest logit.
    pub largest: f32,
    /// Sum of the exponentials above it, with the epsilon.
    pub sum: f32,
}

impl CrossEntropy {
    /// Writes the loss of each row.
    ///
    /// # Panics
    /// When lengths do not fit together, or a class is none of the classes.
    pub fn forward(
        &self,
        logits: &[f32],
        targets: Targets<'_>,
        losses: &mut [f32],
    ) -> Vec<Partition> {
        self.forward_on(Simd::active(), logits, targets, losses)
    }

    /// [`forward`](Self::forward) with the instructions of `simd`.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_on(
        &self,
        simd: Simd,
        logits: &[f32],
        targets: Targets<'_>,
        losses: &mut [f32],
    ) -> Vec<Partition> {
        self.check(logits, targets, losses.len());
        let mut partitions = vec![Partition::default(); losses.len()];
        let task = TASK.div_ceil(self.classes);
        partitions
            .par_chunks_mut(task)
            .zip(losses.par_chunks_mut(task))
            .zip(logits.par_chunks(task * self.classes))
            .enumerate()
            .for_each(|(i, ((partitions, losses), logits))| {
                let targets = targets.rows(i * task, losses.len(), self.classes);
                dispatch(
                    simd,
                    Forward {
                        loss: self,
                        logits,
                        targets,
                        losses,
                        partitions,
                    },
                );
            });
        partitions
    }

    /// Writes the gradient of the logits, given that of each row's loss.
    ///
    /// # Panics
    /// When lengths do not fit together, or a class is none of the classes.
    pub fn backward(
        &self,
        logits: &[f32],
        targets: Targets<'_>,
        rows: BackwardRows<'_>,
        grad_logits: &mut [f32],
    ) {
        self.backward_on(Simd::active(), logits, targets, rows, grad_logits);
    }

    /// [`backward`](Self::backward) with the instructions of `simd`.
    ///
    /// # Panics
    /// As [`backward`](Self::backward).
    pub fn backward_on(
        &self,
        simd: Simd,
        logits: &[f32],
        targets: Targets<'_>,
        rows: BackwardRows<'_>,
        grad_logits: &mut [f32],
    ) {
        let BackwardRows {
            partitions,
            grad_losses,
        } = rows;
        self.check(logits, targets, partitions.len());
        assert_eq!(
            grad_losses.len(),
            partitions.len(),
            "cross entropy: one gradient for each loss"
        );
        assert_eq!(
            grad_logits.len(),
            logits.len(),
            "cross entropy: one gradient for each logit"
        );
        let task = TASK.div_ceil(self.classes);
        grad_logits
            .par_chunks_mut(task * self.classes)
            .zip(logits.par_chunks(task * self.classes))
            .zip(
                partitions
                    .par_chunks(task)
                    .zip(grad_losses.par_chunks(task)),
            )
            .enumerate()
            .for_each(|(i, ((grad_logits, logits), (partitions, grad_losses)))| {
                let targets = targets.rows(i * task, partitions.len(), self.classes);
                let rows = BackwardRows {
                    partitions,
                    grad_losses,
                };
                dispatch(
                    simd,
                    Backward {
                        loss: self,
                        logits,
                        targets,
                        rows,
                        grad_logits,
                    },
                );
            });
    }

    fn check(&self, logits: &[f32], targets: Targets<'_>, rows: usize) {
        let classes = self.classes;
        assert!(classes > 0, "cross entropy: no classes");
        let numbers = logits.len();
        assert_eq!(
            numbers,
            rows * classes,
            "cross entropy: not {rows} rows of {classes} logits"
        );
        match targets {
            Targets::Classes(targets) => {
                assert_eq!(
                    targets.len(),
                    rows,
                    "cross entropy: one class for each of {rows} rows"
                );
                let wrong = targets
                    .iter()
                    .position(|target| *target as usize >= classes);
                if let Some(row) = wrong {
                    panic!(
                        "cross entropy: class {} of row {row} is not below {classes}",
                        targets[row]
                    );
                }
            }
            Targets::Probabilities(targets) => {
                assert_eq!(
                    targets.len(),
                    numbers,
                    "cross entropy: one probability for each logit"
                );
            }
        }
    }
}

/// What backward needs of each row.
#[derive(Clone, Copy, Debug)]
pub struct BackwardRows<'a> {
    /// What forward returned.
    pub partitions: &'a [Partition],
    /// The gradient of each row's loss.
    pub grad_losses: &'a [f32],
}

impl<'a> Targets<'a> {
    fn rows(self, first: usize, count: usize, classes: usize) -> Self {
        match self {
            Self::Classes(targets) => Self::Classes(&targets[first..first + count]),
            Self::Probabilities(targets) => {
                Self::Probabilities(&targets[first * classes..(first + count) * classes])
            }
        }
    }
}

struct Forward<'a> {
    loss: &'a CrossEntropy,
    logits: &'a [f32],
    targets: Targets<'a>,
    losses: &'a mut [f32],
    partitions: &'a mut [Partition],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let classes = self.loss.classes;
        let rows = self
            .logits
            .chunks_exact(classes)
            .zip(self.losses)
            .zip(self.partitions);
        for (row, ((logits, loss), partition)) in rows.enumerate() {
            let largest = largest::<V>(logits);
            let epsilon = self.loss.partition_epsilon;
            *loss = match self.targets {
                Targets::Classes(targets) => {
                    let sum = partition_sum::<V>(logits, largest) + epsilon;
                    *partition = Partition { largest, sum };
                    sum.ln() - (logits[targets[row] as usize] - largest)
                }
                Targets::Probabilities(targets) => {
                    let targets = &targets[row * classes..][..classes];
                    let (sum, mass, expected) = soft_sums::<V>(logits, targets, largest);
                    *partition = Partition {
                        largest,
                        sum: sum + epsilon,
                    };
                    mass * (sum + epsilon).ln() - expected
                }
            };
        }
    }
}

/// `Σ e^(x - m)`
#[inline(always)]
fn partition_sum<V: Lanes>(logits: &[f32], largest: f32) -> f32 {
    let shift = V::splat(largest);
    let mut sum = V::splat(0.0);
    let mut parts = logits.chunks_exact(V::N);
    for part in &mut parts {
        sum = sum + exp(V::load(part) - shift);
    }
    if !parts.remainder().is_empty() {
        sum = sum + exp(V::load_part(parts.remainder(), f32::NEG_INFINITY) - shift);
    }
    sum.sum()
}

/// `Σ e^(x - m)`, `Σ t` and `Σ t·(x - m)`.
#[inline(always)]
fn soft_sums<V: Lanes>(logits: &[f32], targets: &[f32], largest: f32) -> (f32, f32, f32) {
    let mut sums = [V::splat(0.0); 3];
    let shift = V::splat(largest);
    let mut parts = logits.chunks_exact(V::N);
    let mut goals = targets.chunks_exact(V::N);
    for (part, goal) in (&mut parts).zip(&mut goals) {
        soft_step(&mut sums, V::load(part) - shift, V::load(goal));
    }
    if !parts.remainder().is_empty() {
        let x = V::load_part(parts.remainder(), f32::NEG_INFINITY);
        soft_step(&mut sums, x - shift, V::load_part(goals.remainder(), 0.0));
    }
    (sums[0].sum(), sums[1].sum(), sums[2].sum())
}

#[inline(always)]
fn soft_step<V: Lanes>(sums: &mut [V; 3], x: V, target: V) {
    sums[0] = sums[0] + exp(x);
    sums[1] = sums[1] + target;
    // A masked logit is -∞, and 0 · ∞ is NaN.
    let zero = V::splat(0.0);
    let wanted = V::select_less(zero, target.abs(), x, zero);
    sums[2] = target.mul_add(wanted, sums[2]);
}

struct Backward<'a> {
    loss: &'a CrossEntropy,
    logits: &'a [f32],
    targets: Targets<'a>,
    rows: BackwardRows<'a>,
    grad_logits: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let classes = self.loss.classes;
        let rows = self
            .logits
            .chunks_exact(classes)
            .zip(self.grad_logits.chunks_exact_mut(classes));
        for (row, (logits, grad)) in rows.enumerate() {
            let Partition { largest, sum } = self.rows.partitions[row];
            let grad_loss = self.rows.grad_losses[row];
            match self.targets {
                Targets::Classes(targets) => {
                    probabilities::<V>(logits, largest, grad_loss / sum, grad);
                    grad[targets[row] as usize] -= grad_loss;
                }
                Targets::Probabilities(targets) => {
                    let targets = &targets[row * classes..][..classes];
                    let mass = crate::moments::sum::<V>(targets);
                    probabilities::<V>(logits, largest, mass * grad_loss / sum, grad);
                    let factor = V::splat(-grad_loss);
                    for (grad, target) in grad.chunks_mut(V::N).zip(targets.chunks(V::N)) {
                        let p = V::load_part(grad, 0.0);
                        V::load_part(target, 0.0)
                            .mul_add(factor, p)
                            .store_part(grad);
                    }
                }
            }
        }
    }
}

/// Writes `factor · e^(x - m)`.
#[inline(always)]
fn probabilities<V: Lanes>(logits: &[f32], largest: f32, factor: f32, output: &mut [f32]) {
    let (shift, factor) = (V::splat(largest), V::splat(factor));
    let mut from = logits.chunks_exact(V::N);
    let mut to = output.chunks_exact_mut(V::N);
    for (x, y) in (&mut from).zip(&mut to) {
        (exp(V::load(x) - shift) * factor).store(y);
    }
    if !from.remainder().is_empty() {
        let e = exp(V::load_part(from.remainder(), f32::NEG_INFINITY) - shift);
        (e * factor).store_part(to.into_remainder());
    }
}

#[cfg(test)]
mod tests;
