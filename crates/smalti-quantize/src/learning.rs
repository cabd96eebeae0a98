//! How a codebook learns outside the optimiser: exponential moving averages and revival.
//!
//! With `n_k` vectors choosing code k in this update and `s_k` their sum:
//!
//! * `N_k ← γ·N_k + (1 − γ)·n_k`, `M_k ← γ·M_k + (1 − γ)·s_k`;
//! * dead codes are revived (below);
//! * `e_k ← M_k / (n·(N_k + ε)/(n + K·ε))` with `n = Σ N`.
//!
//! # Revival
//! [`Revival::BelowOne`] is the published rule of RQ-VAE: every code with `N_k < 1` takes the place
//! of a random vector of this batch, at every update. A code then survives only if it is chosen at
//! least once per update on average, so with a small batch most of the table is random at any time.
//! Together with [`UpdateOrder::PerDepth`], where a depth searches a table that was placed on this
//! very batch a moment before, training looks good and evaluation with the table that is left
//! behind is terrible: at 64 vectors an update and a depth of four, five times the commitment loss
//! and 160 times the error of the last depth (a test repeats it). [`UpdateOrder::Joint`] sees the
//! same table in training and evaluation.
//!
//! [`Revival::Unused`] (the default) asks instead how long a code has not been chosen: it is dead
//! after `patience` updates without a choice, whatever the size of the batch and however unevenly
//! the codes are used. (A threshold on `N_k` relative to its mean, tried first, gives up codes that
//! serve a rare kind of vector whenever a few codes serve most of the batch, as flat backgrounds
//! do: with nine tenths of the vectors at one point it doubled the error at a depth of four.)
//!
//! A dead code becomes a sibling of the code that a random vector chose, a fifth of the way from
//! that code to the vector, with the mean count `n/K`. It is *not* placed on the vector itself: in
//! a wide space a single vector lies further from all others than their mean does, so nothing else
//! ever chooses it, and it dies again. Measured with 256 codes of width 64 on eight normal
//! clusters, 64 vectors an update: 7 to 36 % of the codes in use with codes placed on vectors, 99
//! to 100 % with siblings.

use std::collections::HashSet;

use burn::tensor::Tensor;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use smalti_nn::Noise;
use smalti_nn::nearest::id_values;
use smalti_nn::state::host_values;

use crate::constraint::Divergence;
use crate::kmeans::{between, group};
use crate::soft_choices::SoftChoices;
use crate::{Codes, QuantizeError, Quantized, Quantizer};

/// When a code counts as dead, and what happens to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Revival {
    /// Codes stay where they are.
    Off {},
    /// A code not chosen for `patience` updates becomes a sibling of a code that is.
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
    /// After every depth, as the published RQ-VAE: depth d + 1 searches the table that depth d
    /// rewrote.
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

/// How far along the way from a chosen code to a vector that chose it a revived code is placed.
///
/// 0.5 left 2 to 4 % of the codes unused at a width of 64, where 0.2 left none; no difference at 4
/// and 16.
const SIBLING: f32 = 0.2;

/// Beyond this, sums over squares could leave the range of `f32`.
const LARGEST: f32 = 1e15;

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
            problems.push(format!(
                "decay must lie between 0 and 1, got {}",
                self.decay
            ));
        }
        if !self.epsilon.is_finite() || self.epsilon <= 0.0 {
            problems.push(format!(
                "epsilon must be positive and finite, got {}",
                self.epsilon
            ));
        }
        if self.revival == (Revival::Unused { patience: 0 }) {
            problems.push("patience must be at least 1, got 0".into());
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
    /// How far Gaussian latents are from their prior; none for other latents.
    pub divergence: Option<Divergence>,
    /// How decided choices by logits were; none for others.
    pub choices: Option<SoftChoices>,
}

impl UpdateReport {
    /// Adds what another codebook's update did, or the next batch's.
    pub fn merge(&mut self, other: &Self) {
        self.revived += other.revived;
        self.chosen += other.chosen;
        self.codes += other.codes;
        match (&mut self.divergence, &other.divergence) {
            (Some(divergence), Some(later)) => divergence.merge(later),
            (none, later) => *none = none.or(*later),
        }
        match (&mut self.choices, &other.choices) {
            (Some(choices), Some(others)) => choices.merge(others),
            (none, others) => *none = none.or(*others),
        }
    }
}

/// [`Learn::quantize_and_update`](crate::Learn::quantize_and_update) of a quantizer that learns
/// nothing outside the optimiser: counts which codes were chosen.
pub(crate) fn learn_nothing(
    quantizer: &impl Quantizer,
    latents: Tensor<4>,
    noise: &mut Noise,
) -> Result<(Quantized, UpdateReport), QuantizeError> {
    let values = host_values(latents.clone().inner());
    if values.is_empty() {
        return Err(QuantizeError::Empty);
    }
    let quantized = quantizer.quantize(latents, noise)?;
    check_range(&values)?;
    let codes = quantizer.spec().codebook_sizes.iter().sum();
    let report = UpdateReport {
        chosen: chosen(&quantized.codes),
        codes,
        ..UpdateReport::default()
    };
    Ok((quantized, report))
}

/// Different codes at every depth, summed.
pub(crate) fn chosen(codes: &Codes) -> usize {
    let ids = |depth| id_values(codes.at_depth(depth));
    let different = |depth| ids(depth).into_iter().collect::<HashSet<u32>>().len();
    (0..codes.dims()[1]).map(different).sum()
}

/// Refuses vectors that nothing can be learned from, before anything changes.
pub(crate) fn check_learnable(vectors: &[f32]) -> Result<(), QuantizeError> {
    if vectors.is_empty() {
        Err(QuantizeError::Empty)
    } else {
        check_range(vectors)
    }
}

/// Refuses vectors whose squared distances could be NaN or infinite.
pub(crate) fn check_range(vectors: &[f32]) -> Result<(), QuantizeError> {
    if vectors.iter().any(|v| !v.is_finite()) {
        Err(QuantizeError::NonFinite)
    } else if vectors.iter().any(|v| v.abs() > LARGEST) {
        Err(QuantizeError::TooLarge)
    } else {
        Ok(())
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
    /// Updates since a code was last chosen, K numbers; none under rules that do not ask.
    pub idle: Vec<f32>,
    /// Width of a row.
    pub width: usize,
}

impl Averages {
    /// Moves N and M toward the vectors that chose each code, and revives dead codes. The table
    /// stays.
    pub(crate) fn absorb(
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
        for (idle, n) in self.idle.iter_mut().zip(&counts) {
            *idle = if *n > 0.0 { 0.0 } else { *idle + 1.0 };
        }
        let revived = match learning.revival {
            Revival::Off {} => 0,
            Revival::BelowOne {} => self.revive_below_one(vectors, draws),
            Revival::Unused { patience } => self.revive_unused(vectors, ids, patience, draws),
        };
        UpdateReport {
            revived,
            chosen: counts.iter().filter(|n| **n > 0.0).count(),
            codes: count,
            ..UpdateReport::default()
        }
    }

    /// Rewrites the table from the averages, with Laplace smoothing.
    pub(crate) fn rewrite(&mut self, epsilon: f32) {
        let count = self.sizes.len() as f32;
        let total: f32 = self.sizes.iter().sum();
        let rows = self
            .table
            .chunks_exact_mut(self.width)
            .zip(self.sums.chunks_exact(self.width));
        for ((code, sum), size) in rows.zip(&self.sizes) {
            let smoothed = total * (size + epsilon) / (total + count * epsilon);
            for (c, s) in code.iter_mut().zip(sum) {
                *c = s / smoothed;
            }
        }
    }

    /// Whether every number is, so that the table can be searched.
    pub(crate) fn is_finite(&self) -> bool {
        let all = |values: &[f32]| values.iter().all(|v| v.is_finite());
        all(&self.table) && all(&self.sizes) && all(&self.sums)
    }

    fn revive_unused(
        &mut self,
        vectors: &[f32],
        ids: &[u32],
        patience: u32,
        draws: &mut dyn Draws,
    ) -> usize {
        let width = self.width;
        let mean = self.sizes.iter().sum::<f32>() / self.sizes.len() as f32;
        let dead: Vec<usize> = (0..self.idle.len())
            .filter(|&k| self.idle[k] >= patience as f32)
            .collect();
        // With fewer vectors than dead codes the rest waits for the next update.
        let places = draws.permutation(ids.len(), dead.len().min(ids.len()));
        for (&code, &place) in dead.iter().zip(&places) {
            let chosen = &self.table[ids[place] as usize * width..][..width];
            let vector = &vectors[place * width..][..width];
            let sibling: Vec<f32> = between(chosen, vector, SIBLING).collect();
            self.place(code, &sibling, mean);
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
            for (value, noise) in candidates
                .iter_mut()
                .zip(draws.uniform(vectors.len() * count.div_ceil(available)))
            {
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
        if let Some(idle) = self.idle.get_mut(code) {
            *idle = 0.0;
        }
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
        Averages {
            sums: table.clone(),
            table,
            sizes: vec![1.0; count],
            idle: vec![0.0; count],
            width: 1,
        }
    }

    fn patient(patience: u32) -> Learning {
        Learning {
            revival: Revival::Unused { patience },
            ..Learning::default()
        }
    }

    #[test]
    fn a_code_is_revived_after_its_patience_and_not_before() {
        let mut averages = averages(4);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let revived_at = (1..100).find(|_| {
            // Nobody chooses code 3. The vectors lie above their codes.
            let report = averages.absorb(&[1.0, 11.0, 21.0], &[0, 1, 2], &patient(20), &mut rng);
            report.revived > 0
        });
        assert_eq!(revived_at, Some(20));
        // A fifth of the way from the code to the vector that chose it.
        assert!(
            [0.2, 10.2, 20.2].contains(&averages.table[3]),
            "{:?}",
            averages.table
        );
        assert_eq!(averages.sums[3], averages.table[3] * averages.sizes[3]);
        assert_eq!(averages.idle, [0.0; 4]);
    }

    #[test]
    fn a_rarely_chosen_code_is_kept_beside_busy_ones() {
        let mut averages = averages(3);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for step in 0..400 {
            let (mut vectors, mut ids) = (vec![0.0; 100], vec![0; 100]);
            if step % 19 == 0 {
                (vectors[0], vectors[1]) = (10.0, 20.0);
                (ids[0], ids[1]) = (1, 2);
            }
            assert_eq!(
                averages
                    .absorb(&vectors, &ids, &patient(20), &mut rng)
                    .revived,
                0
            );
        }
        assert!(averages.sizes[2] < averages.sizes[0] / 1000.0);
    }

    #[test]
    fn with_fewer_vectors_than_dead_codes_the_rest_waits() {
        let mut averages = averages(6);
        averages.idle = vec![0.0, 9.0, 9.0, 9.0, 9.0, 0.0];
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let report = averages.absorb(&[1.0, 2.0, 3.0], &[0, 0, 0], &patient(5), &mut rng);
        assert_eq!(
            report,
            UpdateReport {
                revived: 3,
                chosen: 1,
                codes: 6,
                ..UpdateReport::default()
            }
        );
        assert_eq!(averages.idle, [0.0, 0.0, 0.0, 0.0, 10.0, 1.0]);
    }

    #[test]
    fn averages_converge_to_the_mean_of_the_vectors() {
        let learning = Learning {
            revival: Revival::Off {},
            decay: 0.9,
            ..Learning::default()
        };
        let mut averages = averages(2);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..200 {
            averages.absorb(&[1.0, 3.0, 8.0, 8.0], &[0, 0, 1, 1], &learning, &mut rng);
            averages.rewrite(learning.epsilon);
        }
        assert!((averages.table[0] - 2.0).abs() < 1e-3 && (averages.table[1] - 8.0).abs() < 1e-3);
    }

    #[test]
    fn one_choice_an_update_keeps_a_code_under_the_published_rule() {
        // N = γ·1 + (1 − γ)·1 must not round to less than one, for any γ.
        for decay in [0.5, 0.9, 0.95, 0.99, 0.999, 0.9999] {
            let learning = Learning {
                decay,
                ..Learning::published()
            };
            let mut averages = averages(2);
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            let report = averages.absorb(&[0.0, 10.0], &[0, 1], &learning, &mut rng);
            assert_eq!(report.revived, 0, "decay {decay}");
            assert_eq!(
                averages
                    .absorb(&[0.0, 0.0], &[0, 0], &learning, &mut rng)
                    .revived,
                1
            );
        }
    }

    #[test]
    fn validation_names_every_problem() {
        let learning = Learning {
            decay: 1.0,
            epsilon: 0.0,
            ..patient(0)
        };
        assert_eq!(learning.problems().len(), 3);
        for wrong in [f32::NAN, -0.1, 0.0, 1.5] {
            let learning = Learning {
                decay: wrong,
                ..Learning::default()
            };
            assert!(learning.problems()[0].contains("decay must lie between 0 and 1"));
        }
        for wrong in [f32::NAN, f32::INFINITY] {
            assert_eq!(
                Learning {
                    epsilon: wrong,
                    ..Learning::default()
                }
                .problems()
                .len(),
                1
            );
        }
        let known = [Learning::default(), Learning::published()];
        assert!(known.iter().all(|learning| learning.problems().is_empty()));
    }
}
