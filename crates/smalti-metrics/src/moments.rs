//! Mean and covariance of vectors of images, gathered without keeping the vectors.
//!
//! `μ = Σx/N`, `Σ = Σ(x − μ)(x − μ)ᵀ/(N − 1)` in `f64`. Vectors are taken in blocks of [`BLOCK`]; the
//! scatter of a block about its own mean is added to that of all before it by the pairwise rule of Chan,
//! Golub, LeVeque 1979: `S ← S + S_b + (n·m/(n + m))·δδᵀ` with δ the difference of the means. That is as
//! exact as a second pass over the vectors. State: `width²` numbers and less than a block of vectors. The
//! result depends on the order of the vectors only, not on how many come at a time.

use crate::MetricError;
use crate::features::{Features, check_rows, enough, same_width};
use crate::matrix::Matrix;

/// Vectors that are taken together.
const BLOCK: usize = 256;

/// Gathers mean and covariance.
#[derive(Debug, Clone)]
pub struct FeatureMoments {
    waiting: Features,
    count: u64,
    mean: Vec<f64>,
    scatter: Matrix,
}

/// The Gaussian that has a set's mean and covariance.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureStatistics {
    count: u64,
    mean: Vec<f64>,
    covariance: Matrix,
}

impl FeatureMoments {
    /// Of vectors of so many numbers.
    pub fn new(width: usize) -> Self {
        Self {
            waiting: Features::new(width),
            count: 0,
            mean: vec![0.0; width],
            scatter: Matrix::zeros(width, width),
        }
    }

    /// Adds vectors, one behind the other. Nothing is added when one of them cannot be.
    pub fn observe(&mut self, rows: &[f32]) -> Result<(), MetricError> {
        let width = self.waiting.width();
        check_rows(rows, width)?;
        let mut rest = rows;
        while !rest.is_empty() {
            let room = (BLOCK - self.waiting.len()) * width;
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.waiting.extend(now)?;
            rest = later;
            if self.waiting.len() == BLOCK {
                self.take();
            }
        }
        Ok(())
    }

    /// Vectors so far.
    pub fn count(&self) -> u64 {
        self.count + self.waiting.len() as u64
    }

    /// Mean and covariance of all so far.
    ///
    /// # Errors
    /// With fewer than two vectors.
    pub fn statistics(&self) -> Result<FeatureStatistics, MetricError> {
        enough("the Fréchet distance", "the set", (self.count(), 2))?;
        let mut all = self.clone();
        all.take();
        let scale = 1.0 / (all.count - 1) as f64;
        all.scatter
            .values_mut()
            .iter_mut()
            .for_each(|s| *s *= scale);
        Ok(FeatureStatistics {
            count: all.count,
            mean: all.mean,
            covariance: all.scatter,
        })
    }

    /// Adds the waiting vectors to the moments.
    fn take(&mut self) {
        let (width, added) = (self.waiting.width(), self.waiting.len());
        if added == 0 {
            return;
        }
        let mut mean = vec![0.0; width];
        for row in self.waiting.values().chunks_exact(width) {
            for (m, &v) in mean.iter_mut().zip(row) {
                *m += f64::from(v);
            }
        }
        mean.iter_mut().for_each(|m| *m /= added as f64);
        self.scatter
            .add_gram(&self.waiting.block((0, added), &mean));
        let (before, added) = (self.count as f64, added as f64);
        let difference: Vec<f64> = mean.iter().zip(&self.mean).map(|(b, a)| b - a).collect();
        let weight = before * added / (before + added);
        let rows = self.scatter.values_mut().chunks_exact_mut(width);
        for (row, d) in rows.zip(&difference) {
            for (s, e) in row.iter_mut().zip(&difference) {
                *s += weight * d * e;
            }
        }
        for (mean, d) in self.mean.iter_mut().zip(&difference) {
            *mean += d * added / (before + added);
        }
        self.count += added as u64;
        self.waiting = Features::new(width);
    }
}

impl FeatureStatistics {
    /// Of vectors that are all there.
    ///
    /// # Errors
    /// With fewer than two vectors.
    pub fn of(features: &Features) -> Result<Self, MetricError> {
        let mut moments = FeatureMoments::new(features.width());
        moments.observe(features.values())?;
        moments.statistics()
    }

    /// Vectors it was taken from.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Numbers of a vector.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// μ.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Σ, row by row.
    pub fn covariance(&self) -> &[f64] {
        self.covariance.values()
    }

    pub(crate) fn matrix(&self) -> &Matrix {
        &self.covariance
    }

    /// Whether there were too few vectors for a covariance of full rank: no more than numbers in a vector.
    pub fn is_singular(&self) -> bool {
        self.count <= self.width() as u64
    }

    pub(crate) fn require_comparable(&self, other: &Self) -> Result<(), MetricError> {
        same_width(self.width(), other.width())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;

    #[test]
    fn golden_means_and_covariances() {
        let golden = Golden::sets();
        for set in ["ref", "gen"] {
            let features = golden.features(&format!("feat_{set}"));
            let statistics = FeatureStatistics::of(&features).unwrap();
            let pairs = [
                (statistics.mean(), format!("mu_{set}_f64")),
                (statistics.covariance(), format!("sigma_{set}_f64")),
            ];
            for (got, name) in pairs {
                let expected = golden.numbers(&name);
                assert_eq!(got.len(), expected.len());
                for (got, expected) in got.iter().zip(expected) {
                    assert!((got - expected).abs() < 1e-13, "{name}: {got} {expected}");
                }
            }
        }
    }

    /// Vectors far from zero, of different spread.
    fn rows(count: usize, width: usize) -> Vec<f32> {
        let value = |i: usize| 1000.0 + (i as f32 * 0.731).sin() * (1 + i % width) as f32;
        (0..count * width).map(value).collect()
    }

    #[test]
    fn how_many_come_at_a_time_changes_nothing() {
        let (count, width) = (2 * BLOCK + 37, 5);
        let rows = rows(count, width);
        let mut at_once = FeatureMoments::new(width);
        at_once.observe(&rows).unwrap();
        let mut in_parts = FeatureMoments::new(width);
        for part in rows.chunks(width * 7) {
            in_parts.observe(part).unwrap();
        }
        assert_eq!(at_once.count(), count as u64);
        assert_eq!(
            at_once.statistics().unwrap(),
            in_parts.statistics().unwrap()
        );
    }

    #[test]
    fn blocks_give_the_covariance_of_two_passes() {
        let (count, width) = (3 * BLOCK + 11, 4);
        let rows = rows(count, width);
        let features = {
            let mut features = Features::new(width);
            features.extend(&rows).unwrap();
            features
        };
        let statistics = FeatureStatistics::of(&features).unwrap();
        let column = |c: usize| rows.iter().skip(c).step_by(width).map(|&v| f64::from(v));
        for a in 0..width {
            let mean = column(a).sum::<f64>() / count as f64;
            assert!((statistics.mean()[a] - mean).abs() < 1e-10);
            for b in 0..width {
                let other = column(b).sum::<f64>() / count as f64;
                let products = column(a)
                    .zip(column(b))
                    .map(|(x, y)| (x - mean) * (y - other));
                let expected = products.sum::<f64>() / (count - 1) as f64;
                let got = statistics.covariance()[a * width + b];
                assert!((got - expected).abs() < 1e-10, "{got} {expected}");
            }
        }
    }

    #[test]
    fn one_vector_has_no_covariance() {
        let mut moments = FeatureMoments::new(2);
        assert!(moments.observe(&[1.0]).is_err());
        moments.observe(&[1.0, 2.0]).unwrap();
        let error = moments.statistics().unwrap_err();
        assert!(matches!(
            error,
            MetricError::TooFew {
                needed: 2,
                got: 1,
                ..
            }
        ));
        moments.observe(&[3.0, 1.0]).unwrap();
        let statistics = moments.statistics().unwrap();
        assert!(statistics.is_singular());
        assert_eq!(statistics.covariance(), [2.0, -1.0, -1.0, 0.5]);
    }
}
