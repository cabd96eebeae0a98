//! How a codebook learns outside the optimiser: exponential moving averages and revival.
//!
//! With `n_k` vectors choosing code k in this update and `s_k` their sum:
//!
//! * `N_k ← γ·N_k + (1 − γ)·n_k`, `M_k ← γ·M_k + (1 − γ)·s_k`;
//! * dead codes are revived (below);
//! * `e_k ← M_k / (n·(N_k + ε)/(n + K·ε))` with `n = Σ N`.
//!
//! # Revival
//! [`Revival::BelowOne`] is the published rule of RQ-VAE: every code with `N_k < 1` takes the place of a
//! random vector of this batch, at every update. A code then survives only if it is chosen at least
//! once per update on average, so with a small batch most of the table is random at any time:
//! training, which quantizes with codes that were just placed on its own vectors, looks good, and
//! evaluation with the table left behind is terrible.
//!
//! [`Revival::Unused`] (the default) asks instead how long a code has not been chosen. A code starts
//! with the mean count `n/K`; unchosen it decays by γ, and when it has fallen below `γ^patience·n/K`,
//! that is after `patience` updates without a choice, it is revived and gets the mean count
//! again. The rule does not depend on the size of the batch, and between revivals the table
//! stands still, so training and evaluation see the same one.

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::kmeans::group;

/// When a code counts as dead, and what happens to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Revival {
    /// Codes stay where they are.
    Off {},
    /// A code not chosen for `patience` updates is placed on a random vector.
    Unused {
        /// Updates without a choice after which a code is dead.
        patience: u32,
    },
    /// The published rule: a code with a moving count below one is placed on a random vector.
    BelowOne {},
}

/// Where codes start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Start {
    /// Standard normal numbers.
    Normal {},
    /// K-means over the first vectors that training sees.
    KMeans {
        /// Rounds of k-means.
        iterations: usize,
    },
}

/// When the table is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateOrder {
    /// Once after all depths were quantized with one table: what evaluation does, too.
    Joint,
    /// After every depth, as the published RQ-VAE: depth d + 1 searches the table that depth d rewrote.
    PerDepth,
}

/// How a codebook learns outside the optimiser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Learning {
    /// γ of the moving averages, in (0, 1).
    pub decay: f32,
    /// ε of the Laplace smoothing.
    pub epsilon: f32,
    /// When the table is rewritten.
    pub order: UpdateOrder,
    /// What happens to dead codes.
    pub revival: Revival,
    /// Where codes start.
    pub start: Start,
}

impl Default for Learning {
    fn default() -> Self {
        Self {
            decay: 0.99,
            epsilon: 1e-5,
            order: UpdateOrder::Joint,
            revival: Revival::Unused { patience: 100 },
            start: Start::KMeans { iterations: 10 },
        }
    }
}

impl Learning {
    /// The published RQ-VAE's.
    pub fn published() -> Self {
        Self {
            order: UpdateOrder::PerDepth,
            revival: Revival::BelowOne {},
            start: Start::Normal {},
            ..Self::default()
        }
    }

    /// Everything that is wrong with the numbers.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !(self.decay > 0.0 && self.decay < 1.0) {
            problems.push(format!("decay must lie between 0 and 1, got {}", self.decay));
        }
        if self.epsilon.is_nan() || self.epsilon <= 0.0 {
            problems.push(format!("epsilon must be positive, got {}", self.epsilon));
        }
        if self.revival == (Revival::Unused { patience: 0 }) {
            problems.push("patience must be at least 1".into());
        }
        problems
    }
}

/// What one update did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpdateReport {
    /// Codes that were dead and got a new place.
    pub revived: usize,
    /// Different codes chosen in this batch, summed over codebooks.
    pub chosen: usize,
    /// Codes in all codebooks.
    pub codes: usize,
}

impl UpdateReport {
    /// Adds what another codebook's update did.
    pub fn merge(&mut self, other: &Self) {
        self.revived += other.revived;
        self.chosen += other.chosen;
        self.codes += other.codes;
    }
}

/// The random choices of a revival, so that a test can replay recorded ones.
pub(crate) trait Draws {
    /// The first `count` entries of a random permutation of `0..available`.
    fn permutation(&mut self, available: usize, count: usize) -> Vec<usize>;
    /// `count` numbers uniform in [0, 1).
    fn uniform(&mut self, count: usize) -> Vec<f32>;
}

impl<R: Rng> Draws for R {
    fn permutation(&mut self, available: usize, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..available).collect();
        order.partial_shuffle(self, count).0.to_vec()
    }

    fn uniform(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.random::<f32>()).collect()
    }
}

/// A codebook's table and moving averages on the host.
#[derive(Clone, Debug)]
pub(crate) struct Averages {
    /// The codes, K rows.
    pub table: Vec<f32>,
    /// N, K numbers.
    pub sizes: Vec<f32>,
    /// M, K rows.
    pub sums: Vec<f32>,
    /// Width of a row.
    pub width: usize,
}

impl Averages {
    /// Moves N and M toward the vectors that chose each code, and revives dead codes. The table stays.
    pub fn absorb(
        &mut self,
        vectors: &[f32],
        ids: &[u32],
        learning: &Learning,
        draws: &mut dyn Draws,
    ) -> UpdateReport {
        let count = self.sizes.len();
        let (counts, sums) = group(vectors, self.width, ids, count);
        let (old, new) = (learning.decay, 1.0 - learning.decay);
        for (size, n) in self.sizes.iter_mut().zip(&counts) {
            *size = *size * old + n * new;
        }
        for (average, sum) in self.sums.iter_mut().zip(&sums) {
            *average = *average * old + sum * new;
        }
        let revived = match learning.revival {
            Revival::Off {} => 0,
            Revival::BelowOne {} => self.revive_below_one(vectors, draws),
            Revival::Unused { patience } => self.revive_unused(vectors, learning.decay.powi(patience as i32), draws),
        };
        UpdateReport { revived, chosen: counts.iter().filter(|n| **n > 0.0).count(), codes: count }
    }

    /// Rewrites the table from the averages, with Laplace smoothing.
    pub fn rewrite(&mut self, epsilon: f32) {
        let count = self.sizes.len() as f32;
        let total: f32 = self.sizes.iter().sum();
        let rows = self.table.chunks_exact_mut(self.width).zip(self.sums.chunks_exact(self.width));
        for ((code, sum), size) in rows.zip(&self.sizes) {
            let smoothed = total * (size + epsilon) / (total + count * epsilon);
            for (c, s) in code.iter_mut().zip(sum) {
                *c = s / smoothed;
            }
        }
    }

    fn revive_unused(&mut self, vectors: &[f32], fraction: f32, draws: &mut dyn Draws) -> usize {
        let mean = self.sizes.iter().sum::<f32>() / self.sizes.len() as f32;
        let dead: Vec<usize> = (0..self.sizes.len()).filter(|&k| self.sizes[k] < fraction * mean).collect();
        let available = vectors.len() / self.width;
        // With fewer vectors than dead codes the rest waits for the next update.
        let places = draws.permutation(available, dead.len().min(available));
        for (&code, &vector) in dead.iter().zip(&places) {
            self.place(code, &vectors[vector * self.width..][..self.width], mean);
        }
        places.len()
    }

    fn revive_below_one(&mut self, vectors: &[f32], draws: &mut dyn Draws) -> usize {
        let (count, width) = (self.sizes.len(), self.width);
        let available = vectors.len() / width;
        let mut candidates = vectors.to_vec();
        if available < count {
            candidates = vectors.repeat(count.div_ceil(available));
            let scale = 0.01 / (width as f32).sqrt();
            for (value, noise) in candidates.iter_mut().zip(draws.uniform(vectors.len() * count.div_ceil(available))) {
                *value += noise * scale;
            }
        }
        let places = draws.permutation(candidates.len() / width, count);
        let dead: Vec<usize> = (0..count).filter(|&k| self.sizes[k] < 1.0).collect();
        for &code in &dead {
            self.place(code, &candidates[places[code] * width..][..width], 1.0);
        }
        dead.len()
    }

    /// Puts a code on a vector, with the count `size`.
    fn place(&mut self, code: usize, vector: &[f32], size: f32) {
        let row = code * self.width..(code + 1) * self.width;
        self.sizes[code] = size;
        for (sum, v) in self.sums[row.clone()].iter_mut().zip(vector) {
            *sum = v * size;
        }
        self.table[row].copy_from_slice(vector);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn averages(count: usize) -> Averages {
        let table: Vec<f32> = (0..count).map(|k| k as f32 * 10.0).collect();
        Averages { sums: table.clone(), table, sizes: vec![1.0; count], width: 1 }
    }

    #[test]
    fn a_code_is_revived_after_its_patience_and_not_before() {
        let learning = Learning { revival: Revival::Unused { patience: 20 }, ..Learning::default() };
        let mut averages = averages(4);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let revived_at = (1..100).find(|_| {
            // Four vectors an update keep the mean count at one; nobody chooses code 3.
            let report = averages.absorb(&[0.0, 10.0, 20.0, 10.0], &[0, 1, 2, 1], &learning, &mut rng);
            averages.rewrite(learning.epsilon);
            report.revived > 0
        });
        assert_eq!(revived_at, Some(21));
        assert!([0.0, 10.0, 20.0].iter().any(|v| (v - averages.table[3]).abs() < 1e-2));
    }

    #[test]
    fn averages_converge_to_the_mean_of_the_vectors() {
        let learning = Learning { revival: Revival::Off {}, decay: 0.9, ..Learning::default() };
        let mut averages = averages(2);
        for _ in 0..200 {
            averages.absorb(&[1.0, 3.0, 8.0, 8.0], &[0, 0, 1, 1], &learning, &mut ChaCha8Rng::seed_from_u64(1));
            averages.rewrite(learning.epsilon);
        }
        assert!((averages.table[0] - 2.0).abs() < 1e-3 && (averages.table[1] - 8.0).abs() < 1e-3);
    }

    #[test]
    fn validation_names_every_problem() {
        let learning = Learning { decay: 1.0, epsilon: 0.0, revival: Revival::Unused { patience: 0 }, ..Learning::default() };
        assert_eq!(learning.problems().len(), 3);
        assert!(Learning::default().problems().is_empty() && Learning::published().problems().is_empty());
    }
}
