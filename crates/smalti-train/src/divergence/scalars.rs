//! The theorems made visible: scalars of a trained VAE, quantized with independent normal codes.
//!
//! For each codebook size K and several codebooks of K independent draws from N(0, 1), every sampled scalar is
//! quantized to its nearest code, and what is counted is exactly the theorems' event, |ẑ − μ| ≥ σ. Averages over
//! bins of log2 K − R stand beside the exact probability and beside both bounds, once with each scalar's own c₁ and
//! c₂ (each scalar is an instance of the theorem; the mean of the bounds bounds the mean) and once with the
//! largest c₁ and c₂ of all scalars, as the theorems are worded.

use std::ops::RangeInclusive;

use rand::seq::index;
use serde::{Deserialize, Serialize};
use smalti_nn::Noise;

use super::curve::{Averages, Bins};
use super::moments::{Moments, stream};
use super::theory::{Scalar, at_least, at_most};

/// How much is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct ScalarExperiment {
    /// log2 K
    pub codebook_bits: RangeInclusive<u32>,
    /// Scalars that are quantized.
    pub scalars: usize,
    /// Codebooks of each size.
    pub codebooks: usize,
    /// Of all draws.
    pub seed: u64,
}

/// What happened at one distance of log2 K from R.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScalarPoint {
    /// Mean of log2 K − R.
    pub excess_bits: f64,
    /// Quantized scalars.
    pub count: usize,
    /// Share with |ẑ − μ| ≥ σ.
    pub large_errors: f64,
    /// Their probability, (1 − P)ᴷ.
    pub exact: f64,
    /// Theorem 3.2 with each scalar's own c₂.
    pub at_least: f64,
    /// Theorem 3.1 with each scalar's own c₁.
    pub at_most: f64,
    /// Theorem 3.2 with one c₂ for all.
    pub at_least_common: f64,
    /// Theorem 3.1 with one c₁ for all.
    pub at_most_common: f64,
}

/// The large errors of scalars.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScalarCurve {
    /// Scalars that were quantized with each codebook.
    pub scalars: usize,
    /// Codebooks of each size.
    pub codebooks: usize,
    /// The largest |μσ|.
    pub c1: f64,
    /// The largest |μ| + σ.
    pub c2: f64,
    /// All codebook sizes together.
    pub points: Vec<ScalarPoint>,
    /// Each codebook size.
    pub sizes: Vec<ScalarSize>,
}

/// One codebook size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScalarSize {
    /// log2 K
    pub codebook_bits: u32,
    /// The averages of all that was quantized with it.
    pub all: ScalarPoint,
    /// The same, by the distance of log2 K from R.
    pub points: Vec<ScalarPoint>,
}

impl ScalarExperiment {
    /// Quantizes scalars of these posteriors.
    ///
    /// # Panics
    /// When there is no position.
    pub fn run(&self, moments: &Moments) -> ScalarCurve {
        let scalars = self.sample(moments);
        let most = |value: fn(&Scalar) -> f64| scalars.iter().map(value).fold(0.0, f64::max);
        let (c1, c2) = (most(Scalar::c1), most(Scalar::c2));
        let mut all = Bins::new();
        let mut sizes = Vec::new();
        let mut noise = Noise::from_seed(self.seed);
        for codebook_bits in self.codebook_bits.clone() {
            let mut bins = Bins::new();
            let rows: Vec<(f64, [f64; 5])> = scalars
                .iter()
                .map(|scalar| predicted(scalar, codebook_bits, (c1, c2)))
                .collect();
            for _ in 0..self.codebooks {
                let codes = sorted_codes(codebook_bits, &mut noise);
                for (scalar, (excess, theory)) in scalars.iter().zip(&rows) {
                    let measured = f64::from(u8::from(is_large(scalar, &codes)));
                    let [exact, least, most, least_common, most_common] = *theory;
                    let numbers = [measured, exact, least, most, least_common, most_common];
                    bins.add(*excess, numbers);
                    all.add(*excess, numbers);
                }
            }
            sizes.push(ScalarSize {
                codebook_bits,
                all: point(&bins.total()),
                points: points(&bins),
            });
        }
        ScalarCurve {
            scalars: scalars.len(),
            codebooks: self.codebooks,
            c1,
            c2,
            points: points(&all),
            sizes,
        }
    }

    fn sample(&self, moments: &Moments) -> Vec<Scalar> {
        let channels = moments.channels();
        let total = moments.positions() * channels;
        assert!(total > 0, "posteriors of at least one position");
        let wanted = self.scalars.min(total);
        let places = index::sample(&mut stream(self.seed), total, wanted);
        let scalar = |place: usize| moments.scalar(place / channels, place % channels);
        places.into_iter().map(scalar).collect()
    }
}

/// log2 K − R, and what the theory says of it.
fn predicted(scalar: &Scalar, codebook_bits: u32, (c1, c2): (f64, f64)) -> (f64, [f64; 5]) {
    let bits = f64::from(codebook_bits);
    let excess = bits - scalar.bits();
    let theory = [
        scalar.large_error(bits),
        at_least(excess, scalar.c2()),
        at_most(excess, scalar.c1()),
        at_least(excess, c2),
        at_most(excess, c1),
    ];
    (excess, theory)
}

fn sorted_codes(codebook_bits: u32, noise: &mut Noise) -> Vec<f64> {
    let draws = noise.normal_values(1 << codebook_bits);
    let mut codes: Vec<f64> = draws.into_iter().map(f64::from).collect();
    codes.sort_unstable_by(f64::total_cmp);
    codes
}

/// Whether no code lies closer to the mean than σ.
fn is_large(scalar: &Scalar, codes: &[f64]) -> bool {
    let first = codes.partition_point(|&code| code <= scalar.mean - scalar.deviation);
    codes
        .get(first)
        .is_none_or(|&code| code >= scalar.mean + scalar.deviation)
}

fn points(bins: &Bins<6>) -> Vec<ScalarPoint> {
    bins.averages().iter().map(point).collect()
}

fn point(averages: &Averages<6>) -> ScalarPoint {
    let [
        large_errors,
        exact,
        at_least,
        at_most,
        at_least_common,
        at_most_common,
    ] = averages.means;
    ScalarPoint {
        excess_bits: averages.excess_bits,
        count: averages.count,
        large_errors,
        exact,
        at_least,
        at_most,
        at_least_common,
        at_most_common,
    }
}

#[cfg(test)]
mod tests {
    use super::super::channels::tests::drawn;
    use super::*;

    fn curve() -> ScalarCurve {
        // One channel with about one bit, and one that does not fit the prior, with seven.
        let experiment = ScalarExperiment {
            codebook_bits: 0..=10,
            scalars: 3000,
            codebooks: 40,
            seed: 5,
        };
        experiment.run(&drawn(2, 4000, 1))
    }

    #[test]
    fn what_is_measured_lies_between_the_bounds_and_at_the_exact_probability() {
        let curve = curve();
        assert!(curve.points.len() > 10, "{curve:?}");
        let mut large = 0;
        for point in &curve.points {
            // Codebooks, not scalars, are what is random: 40 of each size.
            assert!((point.large_errors - point.exact).abs() < 0.2, "{point:?}");
            assert!(point.at_least <= point.exact + 1e-12, "{point:?}");
            assert!(point.exact <= point.at_most + 1e-12, "{point:?}");
            assert!(point.at_least_common <= point.at_least + 1e-12, "{point:?}");
            assert!(point.at_most <= point.at_most_common + 1e-12, "{point:?}");
            large += usize::from(point.large_errors > 0.5);
        }
        assert!(large > 0 && large < curve.points.len());
        let last = curve.points.last().unwrap();
        assert!(last.large_errors < 1e-3, "{last:?}");
        assert_eq!(curve.sizes.len(), 11);
        assert!(curve.sizes.iter().all(|size| size.all.count == 40 * 3000));
        let counted: usize = curve.points.iter().map(|point| point.count).sum();
        assert!(
            counted <= 11 * 40 * 3000 && counted > 10 * 40 * 3000,
            "{counted}"
        );
    }

    #[test]
    fn equal_seeds_give_equal_curves() {
        assert_eq!(curve(), curve());
    }

    #[test]
    fn an_error_is_large_from_sigma_on() {
        let scalar = Scalar {
            mean: 1.0,
            deviation: 0.5,
        };
        assert!(!is_large(&scalar, &[-3.0, 1.2, 7.0]));
        assert!(is_large(&scalar, &[0.5, 1.5]));
        assert!(!is_large(&scalar, &[0.6]));
        assert!(is_large(&scalar, &[0.1]) && is_large(&scalar, &[9.0]));
    }
}
