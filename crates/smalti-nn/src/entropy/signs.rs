//! Codes that are signs.

use burn::tensor::Tensor;
use smalti_kernels::entropy::Signs;

use super::{Entropies, Logarithms, attach, composed, like, number, terms};
use crate::state::{host_values, on_cpu};

/// How the entropies of several groups are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// One distribution over the rows of all groups.
    Pooled,
    /// The mean of the groups' entropies.
    Mean,
    /// The sum: the entropy of all groups together, as if they were independent.
    Sum,
}

/// Entropies over codes in `{−1, +1}^bits`, one for each group of channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignEntropies {
    /// Bits of a group: neighbouring channels.
    pub bits: usize,
    /// s of `p(c) ∝ exp(s·x·c)`: a bit is set with the probability σ(2·s·x).
    pub sharpness: f32,
    /// What several groups make together.
    pub over: Over,
    /// How logarithms are kept finite.
    pub logarithms: Logarithms,
}

/// The entropy of the uses of all codes, and the slope over each use.
pub(super) struct Unused {
    pub(super) value: f64,
    /// `[groups, 2^bits]`
    pub(super) slopes: Vec<f32>,
}

impl SignEntropies {
    /// Of rows `[n, groups · bits]`.
    pub fn of(&self, rows: Tensor<2>) -> Entropies {
        if !on_cpu(&rows) {
            return composed::signs(self, rows);
        }
        let [count, width] = rows.dims();
        let shape = Signs {
            bits: self.bits,
            groups: width / self.bits,
            sharpness: self.sharpness,
        };
        let values = host_values(rows.clone().inner());
        let mut slopes = vec![0.0; values.len()];
        let found = shape.choices(&values, self.logarithms.sample.into(), &mut slopes);
        let share = self.share(count, shape.groups);
        slopes.iter_mut().for_each(|slope| *slope *= share as f32);
        let sample = number(found.entropy * share, &rows);
        let sample = attach(sample, &rows, like(slopes, &rows));

        let usage: Vec<f32> = found.usage.iter().map(|u| u / count as f32).collect();
        let mut unused = self.unused(&usage, shape.groups);
        let weights = &mut unused.slopes;
        weights.iter_mut().for_each(|w| *w /= count as f32);
        let mut slopes = vec![0.0; values.len()];
        shape.weighted(&values, weights, &mut slopes);
        let unused = number(unused.value, &rows);
        Entropies {
            sample,
            unused: attach(unused, &rows, like(slopes, &rows)),
        }
    }

    /// What the summed entropy of all choices is multiplied by.
    pub(super) fn share(&self, count: usize, groups: usize) -> f64 {
        match self.over {
            Over::Pooled | Over::Mean => 1.0 / (count * groups) as f64,
            Over::Sum => 1.0 / count as f64,
        }
    }

    /// `ln K − H` of the mean probabilities `[groups, 2^bits]`.
    pub(super) fn unused(&self, usage: &[f32], groups: usize) -> Unused {
        let size = 1usize << self.bits;
        let most = self.bits as f64 * std::f64::consts::LN_2;
        if self.over == Over::Pooled {
            let mean = |code| -> f32 {
                let uses = usage.iter().skip(code).step_by(size);
                uses.sum::<f32>() / groups as f32
            };
            let pooled: Vec<f32> = (0..size).map(mean).collect();
            let (entropy, slopes) = terms(&pooled, self.logarithms.codebook);
            let slopes: Vec<f32> = slopes.iter().map(|s| -s / groups as f32).collect();
            return Unused {
                value: most - entropy,
                slopes: slopes.repeat(groups),
            };
        }
        let share = match self.over {
            Over::Mean => 1.0 / groups as f64,
            _ => 1.0,
        };
        let (entropy, slopes) = terms(usage, self.logarithms.codebook);
        Unused {
            value: share * (groups as f64 * most - entropy),
            slopes: slopes.iter().map(|s| -s * share as f32).collect(),
        }
    }
}
