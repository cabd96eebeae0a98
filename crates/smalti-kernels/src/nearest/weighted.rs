//! Which code of a codebook stands best for a Gaussian: the search of Gaussian Quant (Xu et al.,
//! arXiv 2512.06609, eq. 8).
//!
//! A query is a Gaussian with independent dimensions, given by its means `μ` and the logarithms
//! `v` of its variances. The answer is
//!
//! `argmax_j s_j`, `s_j = Σ_i [ -w_i·(c_ji - μ_i)² + β·c_ji² ]`, `w_i = exp(-v_i)`,
//!
//! ties going to the lowest index. With `β = 1` this orders codes by the ratio of the query's density
//! to the standard normal's, with `β = 0` by the distance in units of the standard deviation.
//!
//! # Exactness
//!
//! As for [`CodebookIndex`](super::CodebookIndex). The first pass computes `Σ a_i·c_ji² + b_i·c_ji`
//! with `a = w - β` and `b = -2wμ`, one matrix product with the panels `[c² | c]`. Codes within a
//! rigorous bound of its errors are compared by `-s_j` as written above, summed in f64 in order of
//! dimension from the f32 means and log-variances, and the answer is the one that all codes compared
//! so would give. Narrow Gaussians (a standard deviation of 1e-4) cost exact comparisons, not digits.

use super::decide::ROUNDING;
use super::panels::{Entry, Panels};
use super::scan::{Block, Queries};
use super::{NearestError, TopTwo, check_codebook, first_non_finite, in_blocks};
use crate::Simd;

/// Beyond this, `exp(±v)` comes near the ends of f32.
const LARGEST_LOG_VARIANCE: f32 = 80.0;

/// A codebook laid out for searching by Gaussians.
///
/// It takes three times the memory of the codes.
#[derive(Clone, Debug)]
pub struct WeightedIndex {
    code_dim: usize,
    beta: f64,
    codes: Vec<f32>,
    /// The largest absolute value of each dimension.
    reach: Vec<f64>,
    panels: Panels,
}

impl WeightedIndex {
    /// Lays out `codes`, rows of `code_dim` numbers.
    ///
    /// # Errors
    /// When the numbers are not whole rows, or one is not finite.
    ///
    /// # Panics
    /// When `beta` is not finite.
    pub fn new(codes: Vec<f32>, code_dim: usize, beta: f64) -> Result<Self, NearestError> {
        assert!(beta.is_finite(), "beta must be finite, got {beta}");
        check_codebook(&codes, code_dim)?;
        let panels = Panels::new(codes.len() / code_dim, 2 * code_dim, |code, terms| {
            let (squares, values) = terms.split_at_mut(code_dim);
            let code = &codes[code * code_dim..][..code_dim];
            for ((square, value), c) in squares.iter_mut().zip(values).zip(code) {
                (*square, *value) = (c * c, *c);
            }
            Entry {
                bias: 0.0,
                length: 0.0,
            }
        });
        let mut reach = vec![0.0_f64; code_dim];
        for code in codes.chunks_exact(code_dim) {
            for (reach, c) in reach.iter_mut().zip(code) {
                *reach = reach.max(f64::from(c.abs()));
            }
        }
        Ok(Self {
            code_dim,
            beta,
            codes,
            reach,
            panels,
        })
    }

    /// The codes, rows of [`code_dim`](Self::code_dim) numbers.
    pub fn codes(&self) -> &[f32] {
        &self.codes
    }

    /// Number of codes.
    pub fn codebook_size(&self) -> usize {
        self.panels.size
    }

    /// Width of a code.
    pub fn code_dim(&self) -> usize {
        self.code_dim
    }

    /// How strongly codes far from the origin are preferred.
    pub fn beta(&self) -> f64 {
        self.beta
    }

    /// Writes the best code for each row of `means` and `log_variances` to `out`.
    ///
    /// # Errors
    /// When the lengths do not fit, a number is not finite or a log-variance is outside ±80; `out`
    /// is then unspecified.
    pub fn search(
        &self,
        means: &[f32],
        log_variances: &[f32],
        out: &mut [u32],
    ) -> Result<(), NearestError> {
        self.search_on(Simd::active(), means, log_variances, out)
    }

    /// [`search`](Self::search) with the instructions of `simd`.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub fn search_on(
        &self,
        simd: Simd,
        means: &[f32],
        log_variances: &[f32],
        out: &mut [u32],
    ) -> Result<(), NearestError> {
        self.check(means, log_variances, out.len())?;
        in_blocks(out, |first, out| {
            let queries = WeightedQueries::new(self, means, log_variances, first, out.len());
            Block::new(queries, 1).search(simd, |row, top| out[row] = top.index);
        });
        Ok(())
    }

    /// Writes the best code for each row to `out`, and the scores `s_j` of the best two.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub fn search_top2(
        &self,
        means: &[f32],
        log_variances: &[f32],
        out: &mut [TopTwo],
    ) -> Result<(), NearestError> {
        self.search_top2_on(Simd::active(), means, log_variances, out)
    }

    /// [`search_top2`](Self::search_top2) with the instructions of `simd`.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub fn search_top2_on(
        &self,
        simd: Simd,
        means: &[f32],
        log_variances: &[f32],
        out: &mut [TopTwo],
    ) -> Result<(), NearestError> {
        self.check(means, log_variances, out.len())?;
        in_blocks(out, |first, out| {
            let queries = WeightedQueries::new(self, means, log_variances, first, out.len());
            Block::new(queries, 2).search(simd, |row, top| out[row] = top);
        });
        Ok(())
    }

    fn check(
        &self,
        means: &[f32],
        log_variances: &[f32],
        results: usize,
    ) -> Result<(), NearestError> {
        let code_dim = self.code_dim;
        for given in [means, log_variances] {
            if given.len() != results * code_dim {
                return Err(NearestError::QueryShape {
                    values: given.len(),
                    code_dim,
                    results,
                });
            }
        }
        let rows = [means, log_variances].map(|given| first_non_finite(given, code_dim));
        if let Some(row) = rows.into_iter().flatten().min() {
            return Err(NearestError::NonFiniteQuery { row });
        }
        let outside = log_variances
            .iter()
            .position(|v| v.abs() > LARGEST_LOG_VARIANCE);
        match outside {
            Some(place) => Err(NearestError::LogVariance {
                row: place / code_dim,
                value: log_variances[place],
            }),
            None => Ok(()),
        }
    }
}

/// `-s` of one code in f64: smaller is better.
pub(super) fn exact_score(beta: f64, means: &[f32], weights: &[f64], code: &[f32]) -> f64 {
    let terms = means.iter().zip(weights).zip(code);
    terms
        .map(|((mean, weight), c)| {
            let c = f64::from(*c);
            let gap = c - f64::from(*mean);
            gap * gap * weight - beta * (c * c)
        })
        .sum()
}

/// `w = exp(-v)`
pub(super) fn weight(log_variance: f32) -> f64 {
    (-f64::from(log_variance)).exp()
}

/// A block of Gaussians against a codebook.
struct WeightedQueries<'a> {
    index: &'a WeightedIndex,
    means: &'a [f32],
    /// `w`, beside the means.
    weights: Vec<f64>,
}

impl<'a> WeightedQueries<'a> {
    fn new(
        index: &'a WeightedIndex,
        means: &'a [f32],
        log_variances: &[f32],
        first: usize,
        rows: usize,
    ) -> Self {
        let range = first * index.code_dim..(first + rows) * index.code_dim;
        Self {
            index,
            means: &means[range.clone()],
            weights: log_variances[range].iter().map(|v| weight(*v)).collect(),
        }
    }

    /// Mean and weight of each dimension of one query.
    fn query(&self, row: usize) -> (&[f32], &[f64]) {
        let range = row * self.index.code_dim..(row + 1) * self.index.code_dim;
        (&self.means[range.clone()], &self.weights[range])
    }
}

/// `a` and `b` of one dimension.
fn factors(beta: f64, mean: f32, weight: f64) -> (f64, f64) {
    (weight - beta, -2.0 * weight * f64::from(mean))
}

impl Queries for WeightedQueries<'_> {
    fn panels(&self) -> &Panels {
        &self.index.panels
    }

    fn rows(&self) -> usize {
        self.means.len() / self.index.code_dim
    }

    fn factors(&self, row: usize, out: &mut [f32]) {
        let (means, weights) = self.query(row);
        let (squares, values) = out.split_at_mut(self.index.code_dim);
        for (i, (mean, weight)) in means.iter().zip(weights).enumerate() {
            let (a, b) = factors(self.index.beta, *mean, *weight);
            (squares[i], values[i]) = (a as f32, b as f32);
        }
    }

    /// One bound for all chunks, from the largest code in each dimension.
    ///
    /// Each of the `2n` products is of two rounded factors, rounded, and takes part in at most `2n`
    /// additions: `2n + 3` roundings of `Σ |a|·c² + |b|·|c|`, for which `4n + 10` are taken. The
    /// other terms are roundings of subnormal numbers and those of the exact scores themselves.
    fn errors(&self, row: usize, errors: &mut [f64]) -> bool {
        let (means, weights) = self.query(row);
        let (mut magnitude, mut exact, mut tiny) = (0.0, 0.0, 1.0);
        let mut largest = 0.0_f64;
        for ((mean, weight), reach) in means.iter().zip(weights).zip(&self.index.reach) {
            let (a, b) = factors(self.index.beta, *mean, *weight);
            let (a, b, square) = (a.abs(), b.abs(), reach * reach);
            magnitude += a * square + b * reach;
            let gap = reach + f64::from(mean.abs());
            exact += weight * gap * gap + self.index.beta.abs() * square;
            tiny += a + b + square + reach;
            largest = largest.max(a).max(b).max(square);
        }
        let count = self.index.code_dim as f64;
        let error = (4.0 * count + 10.0) * ROUNDING * 1.01 * magnitude
            + (count + 8.0) * f64::EPSILON * exact
            + f64::from(f32::MIN_POSITIVE) * tiny;
        errors.fill(error);
        largest.max(magnitude) < f64::from(f32::MAX) / 4.0
    }

    fn exact(&self, row: usize, code: usize) -> f64 {
        let (means, weights) = self.query(row);
        let code = &self.index.codes[code * self.index.code_dim..][..self.index.code_dim];
        exact_score(self.index.beta, means, weights, code)
    }

    fn reported(&self, exact: f64) -> f32 {
        -exact as f32
    }
}
