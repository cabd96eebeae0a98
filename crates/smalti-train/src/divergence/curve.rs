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
        let bin = self
            .0
            .entry((excess_bits * PER_BIT).floor() as i64)
            .or_insert(Bin {
                count: 0,
                excess: 0.0,
                sums: [0.0; N],
            });
        bin.count += 1;
        bin.excess += excess_bits;
        bin.sums
            .iter_mut()
            .zip(numbers)
            .for_each(|(sum, number)| *sum += number);
    }

    /// The averages of all bins with enough samples, from the least excess to the greatest.
    pub(super) fn averages(&self) -> Vec<Averages<N>> {
        let full = self.0.values().filter(|bin| bin.count >= FEWEST);
        let average = |bin: &Bin<N>| Averages {
            count: bin.count,
            excess_bits: bin.excess / bin.count as f64,
            means: bin.sums.map(|sum| sum / bin.count as f64),
        };
        full.map(average).collect()
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
    }
}
