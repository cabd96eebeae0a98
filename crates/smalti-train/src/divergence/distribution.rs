//! How numbers are distributed: mean, ends, quantiles.

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
}

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
        }
    }
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
    }
}
