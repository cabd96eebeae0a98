//! A codebook of standard normal vectors, made from a seed and never stored.
//!
//! With [`Generator::Sobol`], bit for bit the published models': scrambled Sobol points
//! ([`sobol`]) as f32 fractions `u = x·2⁻³⁰`, through the inverse of the normal
//! distribution function in f64, rounded to f32. Rounding to 24 bits can make `u` exactly 1, and a
//! point can be 0, about once in thirty seeds at 2²⁰ numbers; the published code then has infinite
//! codes and NaN scores. Here `u` is moved to the nearest value that has a finite image, 1 − 2⁻²⁴ or
//! 2⁻³⁰. No codebook of seed 42 needs it.
//!
//! With [`Generator::Iid`], independent normal numbers, as the paper describes: the upper 52 bits of
//! ChaCha8's 64-bit outputs as the middles of 2⁵² equal intervals, through the same function.
//!
//! A smaller codebook of the same width and seed is the beginning of a larger one.

use std::fmt;
use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use smalti_nn::nearest::WeightedIndex;

use super::GaussianConfig;
use crate::normal::inverse_cdf;
use crate::sobol;

/// Where the numbers of a codebook come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Generator {
    /// A scrambled Sobol sequence: evenly spread, what the published models have.
    #[default]
    Sobol,
    /// Independent random numbers.
    Iid,
}

impl Generator {
    /// `size` codes of `code_dim` numbers, one after the other.
    ///
    /// # Panics
    /// With [`Generator::Sobol`], when `code_dim` is above 32 or the seed does not fit 32 bits.
    pub fn codes(self, size: usize, code_dim: usize, seed: u64) -> Vec<f32> {
        match self {
            Self::Sobol => {
                let seed = u32::try_from(seed).expect("a Sobol seed has 32 bits");
                let points = sobol::scrambled_points(code_dim, size, seed);
                points.into_iter().map(normal_of_point).collect()
            }
            Self::Iid => {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                let step = 1.0 / (1_u64 << 52) as f64;
                let mut number = || ((rng.next_u64() >> 12) as f64 + 0.5) * step;
                (0..size * code_dim)
                    .map(|_| inverse_cdf(number()) as f32)
                    .collect()
            }
        }
    }
}

/// The normal number of one coordinate of a Sobol point.
fn normal_of_point(point: u32) -> f32 {
    let step = 1.0 / (1_u32 << sobol::BITS) as f32;
    // The conversion rounds to 24 bits.
    let u = (point as f32 * step).clamp(step, 1.0_f32.next_down());
    inverse_cdf(f64::from(u)) as f32
}

/// The codebook of every depth; depths of one size share it.
#[derive(Clone)]
pub(super) struct Codebooks(Vec<Arc<WeightedIndex>>);

impl Codebooks {
    pub(super) fn new(config: &GaussianConfig) -> Self {
        let mut books: Vec<Arc<WeightedIndex>> = Vec::new();
        for size in config.sizes() {
            let known = books.iter().find(|book| book.codebook_size() == size);
            let book = known.cloned().unwrap_or_else(|| {
                let codes = config.generator.codes(size, config.code_dim, config.seed);
                let index = WeightedIndex::new(codes, config.code_dim, config.beta);
                Arc::new(index.expect("a codebook is whole rows of finite numbers"))
            });
            books.push(book);
        }
        Self(books)
    }

    pub(super) fn at(&self, depth: usize) -> &WeightedIndex {
        &self.0[depth]
    }
}

impl fmt::Debug for Codebooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<usize> = self.0.iter().map(|book| book.codebook_size()).collect();
        f.debug_tuple("Codebooks").field(&sizes).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_codes_of_seed_42() {
        let codes = Generator::Sobol.codes(2, 16, 42);
        let first = [2.808_758_5, -1.257_057_5, 0.926_777_07, -0.203_346_36];
        let second = [-0.190_966_09, 1.143_120_2, -1.062_447_5, 0.676_323_06];
        for (got, expected) in [(&codes[..4], first), (&codes[16..20], second)] {
            for (g, e) in got.iter().zip(expected) {
                assert!((g - e).abs() <= f32::EPSILON * e.abs(), "{g} {e}");
            }
        }
    }

    #[test]
    fn the_statistics_of_the_published_codebook() {
        let codes = Generator::Sobol.codes(65536, 16, 42);
        let count = codes.len() as f64;
        let mean = codes.iter().map(|c| f64::from(*c)).sum::<f64>() / count;
        let square = codes.iter().map(|c| f64::from(*c).powi(2)).sum::<f64>() / count;
        assert!((mean - 7.1e-7).abs() < 1e-8, "{mean}");
        assert!((square - 0.999_993).abs() < 1e-6, "{square}");
        let lengths = codes.chunks_exact(16).map(|code| {
            let squares = code.iter().map(|c| f64::from(*c).powi(2));
            squares.sum::<f64>()
        });
        let (least, greatest) = lengths.fold((f64::MAX, 0.0_f64), |(a, b), l| (a.min(l), b.max(l)));
        assert!((least - 2.4495).abs() < 1e-4 && (greatest - 50.8944).abs() < 1e-4);
        let (least, greatest) = codes
            .iter()
            .fold((f32::MAX, f32::MIN), |(a, b), c| (a.min(*c), b.max(*c)));
        assert!((least + 4.6712).abs() < 1e-4 && (greatest - 4.6722).abs() < 1e-4);
    }

    #[test]
    fn points_at_the_ends_have_finite_images() {
        let last = (1 << sobol::BITS) - 1;
        // The last 32 points round to u = 1.
        for point in [0, 1, last - 32, last - 31, last] {
            let value = normal_of_point(point);
            assert!(value.is_finite() && value.abs() > 5.0, "{point}: {value}");
        }
        assert_eq!(normal_of_point(0), normal_of_point(1));
        assert_eq!(normal_of_point(last), normal_of_point(last - 64));
        assert!(normal_of_point(last - 128) < normal_of_point(last));
    }

    #[test]
    fn independent_numbers_are_normal_and_differ_between_seeds() {
        let codes = Generator::Iid.codes(4096, 8, 1);
        let count = codes.len() as f64;
        let moment = |n: i32| codes.iter().map(|c| f64::from(*c).powi(n)).sum::<f64>() / count;
        // Standard errors: 0.0055, 0.0078, 0.021 and 0.054.
        let [mean, variance, skew, kurtosis] = [1, 2, 3, 4].map(moment);
        assert!(mean.abs() < 0.025 && (variance - 1.0).abs() < 0.035);
        assert!(skew.abs() < 0.1 && (kurtosis - 3.0).abs() < 0.25);
        assert_ne!(codes, Generator::Iid.codes(4096, 8, 2));
        assert_eq!(codes[..80], Generator::Iid.codes(10, 8, 1));
        // A width that Sobol's table does not have.
        assert_eq!(Generator::Iid.codes(3, 48, 1).len(), 144);
    }
}
