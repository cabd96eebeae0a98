//! Probabilities that are the softmax of logits.

use super::{Found, Logarithm, add, gather, rows_per_task};
use crate::Simd;
use crate::lanes::{Kernel, Lanes, dispatch};
use crate::softmax::{exponentials, largest, softmax_backward_on, softmax_on};
use rayon::prelude::*;

/// The entropies of the choices of rows of `width` logits and the use of all codes, `[width]`; the
/// logits are replaced by the slopes of the summed entropy over them.
///
/// # Panics
/// When lengths do not fit together.
pub fn choices(width: usize, logits: &mut [f32], logarithm: Logarithm) -> Found {
    choices_on(Simd::active(), width, logits, logarithm)
}

/// [`choices`] with the instructions of `simd`.
///
/// # Panics
/// As [`choices`].
pub(super) fn choices_on(
    simd: Simd,
    width: usize,
    logits: &mut [f32],
    logarithm: Logarithm,
) -> Found {
    assert!(
        width > 0 && logits.len().is_multiple_of(width),
        "entropy: {} numbers are no rows of {width}",
        logits.len()
    );
    let task = rows_per_task(logits.len() / width, width) * width;
    let found = logits.par_chunks_mut(task).map(|logits| {
        dispatch(
            simd,
            Choices {
                width,
                logits,
                logarithm,
            },
        )
    });
    gather(found.collect(), width)
}

/// Replaces logits by the slopes of `Σ weight · p` over them, for a weight of every code, `[width]`.
///
/// # Panics
/// When lengths do not fit together.
pub fn weighted(logits: &mut [f32], weights: &[f32]) {
    let (simd, width) = (Simd::active(), weights.len());
    let mut p = vec![0.0; logits.len()];
    softmax_on(simd, width, logits, &mut p);
    for row in logits.chunks_exact_mut(width) {
        row.copy_from_slice(weights);
    }
    softmax_backward_on(simd, width, &p, logits);
}

struct Choices<'a> {
    width: usize,
    logits: &'a mut [f32],
    logarithm: Logarithm,
}

impl Kernel for Choices<'_> {
    type Output = Found;

    #[inline(always)]
    fn run<V: Lanes>(self) -> Found {
        let Self {
            width,
            logits,
            logarithm,
        } = self;
        let (mut usage, mut p) = (vec![0.0; width], vec![0.0; width]);
        let mut entropy = 0.0;
        for logits in logits.chunks_exact_mut(width) {
            let most = largest::<V>(logits);
            let total = exponentials::<V>(logits, most, &mut p);
            let share = 1.0 / total;
            for p in &mut p {
                *p *= share;
            }
            add(&mut usage, &p);
            entropy += f64::from(if logarithm == Logarithm::Exact {
                exact(&p, logits, most + total.ln())
            } else {
                other(&p, logits, logarithm)
            });
        }
        Found { entropy, usage }
    }
}

/// The entropy; turns logits into `−p·(ln p + H)`.
#[inline(always)]
fn exact(p: &[f32], logits: &mut [f32], log_sum: f32) -> f32 {
    for logit in logits.iter_mut() {
        *logit -= log_sum;
    }
    let entropy = -dot(p, logits);
    for (slope, p) in logits.iter_mut().zip(p) {
        *slope = -p * (*slope + entropy);
    }
    entropy
}

/// The same with another logarithm: slopes `p·(w − Σ p·w)` for `w` the slope of a term.
#[inline(always)]
fn other(p: &[f32], logits: &mut [f32], logarithm: Logarithm) -> f32 {
    let mut entropy = 0.0;
    for (slope, p) in logits.iter_mut().zip(p) {
        let (term, over_p) = logarithm.term(*p);
        entropy += term;
        *slope = over_p;
    }
    let mean = dot(p, logits);
    for (slope, p) in logits.iter_mut().zip(p) {
        *slope = p * (*slope - mean);
    }
    entropy
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let ((a, rest_a), (b, rest_b)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (a, b) in a.iter().zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    let rest = rest_a.iter().zip(rest_b).map(|(a, b)| a * b);
    lanes.iter().sum::<f32>() + rest.sum::<f32>()
}
