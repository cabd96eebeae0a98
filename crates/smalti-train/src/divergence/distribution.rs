//! How numbers are distributed: mean, ends, quantiles, histogram.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A summary of numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// How many.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// The smallest.
    pub min: f64,
    /// A twentieth lies below.
    pub p05: f64,
    /// A quarter lies below.
    pub p25: f64,
    /// Half lies below.
    pub median: f64,
    /// A quarter lies above.
    pub p75: f64,
    /// A twentieth lies above.
    pub p95: f64,
    /// The largest.
    pub max: f64,
    /// How many lie where.
    pub histogram: Counts,
}

/// Numbers counted in bins of equal width.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Where the first bin begins.
    pub low: f64,
    /// The width of each.
    pub width: f64,
    /// The numbers in each.
    pub counts: Vec<u64>,
}

/// Bins of a histogram.
const BINS: usize = 48;

impl Distribution {
    /// Of finite numbers, in any order.
    ///
    /// # Panics
    /// When there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        assert!(!sorted.is_empty(), "no numbers have no distribution");
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |share| quantile(&sorted, share);
        Self {
            count: sorted.len(),
            mean: sorted.iter().sum::<f64>() / sorted.len() as f64,
            min: sorted[0],
            p05: at(0.05),
            p25: at(0.25),
            median: at(0.5),
            p75: at(0.75),
            p95: at(0.95),
            max: sorted[sorted.len() - 1],
            histogram: counts(&sorted),
        }
    }
}

/// The mean and where nine in ten lie.
impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mean, p05, p95, .. } = self;
        write!(f, "{mean:.2}, nine in ten between {p05:.2} and {p95:.2}")
    }
}

fn counts(sorted: &[f64]) -> Counts {
    let (low, high) = (sorted[0], sorted[sorted.len() - 1]);
    // One value repeated still needs bins with a width.
    let (low, width) = match high > low {
        true => (low, (high - low) / BINS as f64),
        false => (low - 0.5, 1.0 / BINS as f64),
    };
    let mut counts = vec![0; BINS];
    for value in sorted {
        counts[(((value - low) / width) as usize).min(BINS - 1)] += 1;
    }
    Counts { low, width, counts }
}

/// Between the two neighbours in proportion, as NumPy does.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, rest) = (place.floor() as usize, place.fract());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + rest * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_numbers() {
        let numbers = Distribution::of((0..=20).rev().map(f64::from));
        assert_eq!((numbers.min, numbers.max, numbers.mean), (0.0, 20.0, 10.0));
        assert_eq!(
            numbers.to_string(),
            "10.00, nine in ten between 1.00 and 19.00"
        );
        let inner = [
            numbers.p05,
            numbers.p25,
            numbers.median,
            numbers.p75,
            numbers.p95,
        ];
        for (found, expected) in inner.into_iter().zip([1.0, 5.0, 10.0, 15.0, 19.0]) {
            assert!((found - expected).abs() < 1e-12, "{inner:?}");
        }
        let bins = &numbers.histogram;
        assert_eq!(bins.counts.iter().sum::<u64>(), 21);
        assert_eq!((bins.counts[0], bins.counts[BINS - 1]), (1, 1));
        assert!((bins.low + bins.width * BINS as f64 - 20.0).abs() < 1e-12);
        let two = Distribution::of([1.0, 2.0]);
        assert!((two.p05 - 1.05).abs() < 1e-12 && two.median == 1.5);
    }

    #[test]
    fn one_number_is_all_of_its_distribution() {
        let one = Distribution::of([3.5]);
        assert_eq!(
            (one.count, one.min, one.p05, one.p95, one.max),
            (1, 3.5, 3.5, 3.5, 3.5)
        );
        assert_eq!(one.histogram.counts[BINS / 2], 1);
    }
}
