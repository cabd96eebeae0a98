//! Averages over bins of log2 K − R: half a bit wide, each placed at the mean of what fell into it.

use std::collections::BTreeMap;

/// Bins for each bit.
const PER_BIT: f64 = 2.0;
/// Bins with fewer samples are left out: their averages would be noise.
pub(super) const FEWEST: usize = 40;

/// Sums of `N` numbers in each bin.
#[derive(Clone, Debug)]
pub(super) struct Bins<const N: usize>(BTreeMap<i64, Bin<N>>);

#[derive(Clone, Debug)]
struct Bin<const N: usize> {
    count: usize,
    excess: f64,
    sums: [f64; N],
}

/// The averages of one bin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Averages<const N: usize> {
    /// Samples.
    pub(super) count: usize,
    /// Mean of log2 K − R.
    pub(super) excess_bits: f64,
    /// Means of the numbers.
    pub(super) means: [f64; N],
}

impl<const N: usize> Bins<N> {
    /// No samples.
    pub(super) fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds one sample.
    pub(super) fn add(&mut self, excess_bits: f64, numbers: [f64; N]) {
        let bin = self.0.entry((excess_bits * PER_BIT).floor() as i64);
        bin.or_insert_with(Bin::new).add(&Bin {
            count: 1,
            excess: excess_bits,
            sums: numbers,
        });
    }

    /// The averages of all bins with enough samples, from the least excess to the greatest.
    pub(super) fn averages(&self) -> Vec<Averages<N>> {
        let full = self.0.values().filter(|bin| bin.count >= FEWEST);
        full.map(Bin::average).collect()
    }

    /// The averages of all samples, those of sparse bins included.
    ///
    /// # Panics
    /// When there are none.
    pub(super) fn total(&self) -> Averages<N> {
        let mut all = Bin::new();
        self.0.values().for_each(|bin| all.add(bin));
        assert!(all.count > 0, "no samples have no averages");
        all.average()
    }
}

impl<const N: usize> Bin<N> {
    fn new() -> Self {
        Self {
            count: 0,
            excess: 0.0,
            sums: [0.0; N],
        }
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.excess += other.excess;
        let sums = self.sums.iter_mut().zip(other.sums);
        sums.for_each(|(sum, more)| *sum += more);
    }

    fn average(&self) -> Averages<N> {
        let count = self.count as f64;
        Averages {
            count: self.count,
            excess_bits: self.excess / count,
            means: self.sums.map(|sum| sum / count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_meet_in_bins_of_half_a_bit() {
        let mut bins = Bins::new();
        for i in 0..FEWEST {
            bins.add(-0.2, [1.0, i as f64]);
            bins.add(0.2, [0.0, 3.0]);
            bins.add(0.4, [1.0, 3.0]);
        }
        bins.add(7.0, [0.0, 0.0]);
        let averages = bins.averages();
        assert_eq!(averages.len(), 2);
        assert_eq!((averages[0].count, averages[1].count), (FEWEST, 2 * FEWEST));
        assert!((averages[0].excess_bits + 0.2).abs() < 1e-12);
        assert!((averages[1].excess_bits - 0.3).abs() < 1e-12);
        assert_eq!(averages[0].means, [1.0, (FEWEST - 1) as f64 / 2.0]);
        assert_eq!(averages[1].means, [0.5, 3.0]);
        let total = bins.total();
        assert_eq!(total.count, 3 * FEWEST + 1);
        let excess = (FEWEST as f64 * 0.4 + 7.0) / (3 * FEWEST + 1) as f64;
        assert!((total.excess_bits - excess).abs() < 1e-12, "{total:?}");
    }
}
