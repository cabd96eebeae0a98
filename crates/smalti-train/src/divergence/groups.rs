//! The same for whole groups, with the codes and the search of the quantizer itself.
//!
//! For each codebook size K the sampled groups are quantized and their error is taken in units of σ:
//! Σ((ẑ − μ)/σ)² / m, which is 1 on average for a sample of the posterior, what the decoder was trained on. Where
//! log2 K is well above the group's divergence R the error stays near or below that; below R it grows without bound.
//! Beside it stand the share of groups with an error of 1 or more, and the two bounds on it.

use std::ops::RangeInclusive;

use rand::seq::index;
use serde::{Deserialize, Serialize};

use super::curve::{Averages, Bins};
use super::moments::{Moments, stream};
use super::theory::{GroupBounds, Scalar};
use crate::error::TrainError;

/// Quantizes a latent map: takes log2 K and `[2m, count]`, gives the codes' values `[m, count]`.
pub type Search<'a> = dyn FnMut(u32, &[f32]) -> Result<Vec<f32>, TrainError> + 'a;

/// How much is quantized.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupExperiment {
    /// log2 K
    pub codebook_bits: RangeInclusive<u32>,
    /// Groups that are quantized.
    pub groups: usize,
    /// Of the choice of groups.
    pub seed: u64,
}

/// What happened at one distance of log2 K from R.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupPoint {
    /// Mean of log2 K − R.
    pub excess_bits: f64,
    /// Quantized groups.
    pub count: usize,
    /// Mean of Σ((ẑ − μ)/σ)² / m.
    pub error: f64,
    /// Share of groups where that is 1 or more.
    pub large_errors: f64,
    /// No less than this, if codes were independent.
    pub at_least: f64,
    /// No more than this, if codes were independent and the nearest were chosen.
    pub at_most: f64,
}

/// The errors of groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupCurve {
    /// Channels of a group.
    pub size: usize,
    /// Groups that were quantized with each codebook.
    pub groups: usize,
    /// All codebook sizes together.
    pub points: Vec<GroupPoint>,
    /// Each codebook size.
    pub sizes: Vec<GroupSize>,
}

/// One codebook size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupSize {
    /// log2 K
    pub codebook_bits: u32,
    /// The averages of all that was quantized with it.
    pub all: GroupPoint,
    /// The same, by the distance of log2 K from R.
    pub points: Vec<GroupPoint>,
}

impl GroupExperiment {
    /// Quantizes groups of these posteriors; `channels` lists the channels of each group.
    ///
    /// # Errors
    /// Those of `quantize`.
    ///
    /// # Panics
    /// When there is no position or no group, or groups differ in size.
    pub fn run(
        &self,
        moments: &Moments,
        channels: &[Vec<usize>],
        quantize: &mut Search<'_>,
    ) -> Result<GroupCurve, TrainError> {
        let size = channels[0].len();
        assert!(channels.iter().all(|group| group.len() == size));
        let places = self.sample(moments, channels);
        let groups: Vec<Vec<Scalar>> = places
            .iter()
            .map(|(position, group)| moments.group(*position, group))
            .collect();
        let map = moments.map(&places);
        let bounds = GroupBounds::new(size);
        let (mut all, mut sizes) = (Bins::new(), Vec::new());
        for codebook_bits in self.codebook_bits.clone() {
            let values = quantize(codebook_bits, &map)?;
            let mut bins = Bins::new();
            for (place, group) in groups.iter().enumerate() {
                let value = |i: usize| f64::from(values[i * groups.len() + place]);
                let error = normalized_error(group, value);
                let bits = f64::from(codebook_bits);
                let (least, most) = bounds.large_error(group, bits);
                let excess = bits - group.iter().map(Scalar::bits).sum::<f64>();
                let numbers = [error, f64::from(u8::from(error >= 1.0)), least, most];
                bins.add(excess, numbers);
                all.add(excess, numbers);
            }
            sizes.push(GroupSize {
                codebook_bits,
                all: point(&bins.total()),
                points: points(&bins),
            });
        }
        Ok(GroupCurve {
            size,
            groups: groups.len(),
            points: points(&all),
            sizes,
        })
    }

    fn sample<'a>(
        &self,
        moments: &Moments,
        channels: &'a [Vec<usize>],
    ) -> Vec<(usize, &'a [usize])> {
        let total = moments.positions() * channels.len();
        assert!(total > 0, "posteriors of at least one position");
        let places = index::sample(&mut stream(self.seed), total, self.groups.min(total));
        let place = |place: usize| {
            (
                place / channels.len(),
                &channels[place % channels.len()][..],
            )
        };
        places.into_iter().map(place).collect()
    }
}

/// Σ((ẑ − μ)/σ)² / m
pub(super) fn normalized_error(group: &[Scalar], value: impl Fn(usize) -> f64) -> f64 {
    let squares = group.iter().enumerate().map(|(i, scalar)| {
        let error = (value(i) - scalar.mean) / scalar.deviation;
        error * error
    });
    squares.sum::<f64>() / group.len() as f64
}

fn points(bins: &Bins<4>) -> Vec<GroupPoint> {
    bins.averages().iter().map(point).collect()
}

fn point(averages: &Averages<4>) -> GroupPoint {
    let [error, large_errors, at_least, at_most] = averages.means;
    GroupPoint {
        excess_bits: averages.excess_bits,
        count: averages.count,
        error,
        large_errors,
        at_least,
        at_most,
    }
}

#[cfg(test)]
mod tests {
    use super::super::channels::tests::drawn;
    use super::*;
    use smalti_nn::Noise;

    /// The nearest of K independent codes in units of σ, by trying all.
    fn search(codebook_bits: u32, map: &[f32], size: usize) -> Vec<f32> {
        let count = map.len() / (2 * size);
        let codes =
            Noise::from_seed(u64::from(codebook_bits) + 40).normal_values(size << codebook_bits);
        let mut values = vec![0.0; size * count];
        for place in 0..count {
            let distance = |code: &&[f32]| {
                let error = |i: usize| {
                    let log_variance = map[(size + i) * count + place];
                    (code[i] - map[i * count + place]).powi(2) * (-log_variance).exp()
                };
                (0..size).map(error).sum::<f32>()
            };
            let best = codes
                .chunks_exact(size)
                .min_by(|a, b| distance(a).total_cmp(&distance(b)))
                .unwrap();
            (0..size).for_each(|i| values[i * count + place] = best[i]);
        }
        values
    }

    #[test]
    fn errors_are_large_below_the_divergence_and_small_above() {
        let moments = drawn(3, 2000, 4);
        // Means of about 1, deviations of about ¾: three bits for a group.
        let scale = [2.4, 1.2, 0.6f32];
        let shift = [0, 1, 2].map(|i| 3.0 * i as f32 - scale[i].recip());
        let moments = moments.normalized(&shift, &scale);
        let experiment = GroupExperiment {
            codebook_bits: 0..=8,
            groups: 600,
            seed: 1,
        };
        let mut sizes = Vec::new();
        let curve = experiment
            .run(&moments, &[vec![0, 1, 2]], &mut |bits, map| {
                sizes.push(bits);
                Ok(search(bits, map, 3))
            })
            .unwrap();
        assert_eq!(sizes, (0..=8).collect::<Vec<_>>());
        assert_eq!((curve.size, curve.groups), (3, 600));
        let small = &curve.sizes[0];
        assert_eq!((small.codebook_bits, small.all.count), (0, 600));
        // Twice the codes: all groups move by one bit.
        let step = curve.sizes[1].all.excess_bits - small.all.excess_bits;
        assert!((step - 1.0).abs() < 1e-9, "{step}");
        let (first, last) = (&curve.points[0], curve.points.last().unwrap());
        assert!(first.error > 1.5 && first.large_errors > 0.6, "{first:?}");
        assert!(last.error < 0.6 && last.large_errors < 0.1, "{last:?}");
        for point in &curve.points {
            // One codebook of each size: its luck shows.
            assert!(point.at_least - 0.2 <= point.large_errors, "{point:?}");
            assert!(point.large_errors <= point.at_most + 0.2, "{point:?}");
            assert!(point.at_least <= point.at_most, "{point:?}");
        }
    }

    #[test]
    fn the_error_is_in_units_of_sigma() {
        let group = [
            Scalar {
                mean: 1.0,
                deviation: 0.5,
            },
            Scalar {
                mean: -1.0,
                deviation: 2.0,
            },
        ];
        let error = normalized_error(&group, |i| [2.0, 1.0][i]);
        assert_eq!(error, (4.0 + 1.0) / 2.0);
    }

    #[test]
    fn a_failing_search_ends_the_experiment() {
        let experiment = GroupExperiment {
            codebook_bits: 2..=3,
            groups: 10,
            seed: 1,
        };
        let failed = experiment.run(&drawn(2, 50, 1), &[vec![0], vec![1]], &mut |_, _| {
            Err(TrainError::Request("no".into()))
        });
        assert!(failed.is_err());
    }
}
