//! Nearest code: which row of a codebook is closest to each query.
//!
//! For every query `x` the index `argmin_k ‖x - c_k‖²` (or `argmax_k x·c_k`), ties going to the
//! lowest index. The matrix of distances never exists: `‖x - c‖²/2 - ‖x‖²/2 = ‖c‖²/2 - x·c` is
//! computed in registers for eight queries and a panel of codes at a time, and only the smallest
//! value of each chunk of codes is kept.
//!
//! # Exactness
//!
//! Those f32 scores have rounding errors, and two codes can be closer than them. Each chunk of codes
//! carries a rigorous bound on the error of its scores; every code whose score is within the bounds
//! of the best is compared again by `Σ (x - c)²` summed in f64 in order of dimension. The answer is
//! therefore the one that f64 gives, for every vector width and any number of threads. Usually one
//! code is left after the first step and nothing is computed twice. Many equal codes cost time: all
//! of them are compared in f64.
//!
//! Codes and queries are taken relative to the mean code before they are multiplied (the distance
//! does not notice), so that a codebook far from the origin does not lose its digits.
//!
//! [`WeightedIndex`] searches by Gaussians instead of points, with the same two passes.
//!
//! # State
//!
//! [`CodebookIndex`] copies the codes into panels of 32 once; it must be rebuilt when codes change,
//! which costs about as much as searching for three hundred queries.

mod decide;
mod panels;
mod plain;
mod scan;
#[cfg(test)]
mod tests;
mod weighted;

use crate::Simd;
use plain::{Plain, PlainQueries};
use rayon::prelude::*;
use scan::{BLOCK, Block};
use thiserror::Error;

pub use weighted::WeightedIndex;

/// What makes a code the nearest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Smallest squared Euclidean distance.
    Euclidean,
    /// Largest inner product. With codes of unit length this is the largest cosine.
    InnerProduct,
}

/// What can be wrong with a codebook or with queries.
#[derive(Debug, Error, PartialEq)]
pub enum NearestError {
    /// The codes are not a whole number of rows, or none at all.
    #[error(
        "a codebook needs 1 to 2^31 rows of code_dim numbers, got {values} numbers for code_dim {code_dim}"
    )]
    CodebookShape {
        /// Numbers given.
        values: usize,
        /// Width of a row.
        code_dim: usize,
    },
    /// A code has a NaN or an infinity.
    #[error("code {row} of the codebook is not finite")]
    NonFiniteCode {
        /// First such row.
        row: usize,
    },
    /// A query has a NaN or an infinity.
    #[error("query {row} is not finite, it has no nearest code")]
    NonFiniteQuery {
        /// First such row.
        row: usize,
    },
    /// Queries and results do not fit together.
    #[error(
        "queries need code_dim ({code_dim}) numbers for each result, got {values} numbers for {results} results"
    )]
    QueryShape {
        /// Numbers given.
        values: usize,
        /// Width of a row.
        code_dim: usize,
        /// Places for results.
        results: usize,
    },
    /// A Gaussian is too narrow or too wide.
    #[error("query {row} has the log-variance {value}, expected -80 to 80")]
    LogVariance {
        /// First such row.
        row: usize,
        /// Its log-variance.
        value: f32,
    },
}

/// The nearest code, with how near it and the runner-up are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TopTwo {
    /// The nearest code.
    pub index: u32,
    /// Its squared distance, its inner product or its score.
    pub best: f32,
    /// The same of the second nearest code; infinitely far where the codebook has one code.
    pub second: f32,
}

impl TopTwo {
    /// How much further away the runner-up is; never negative. A margin within the rounding error
    /// of whoever computed the queries means that another implementation may choose differently.
    pub fn margin(&self) -> f32 {
        (self.second - self.best).abs()
    }
}

/// A codebook laid out for searching.
#[derive(Clone, Debug)]
pub struct CodebookIndex(Plain);

impl CodebookIndex {
    /// Lays out `codes`, rows of `code_dim` numbers.
    ///
    /// # Errors
    /// When the numbers are not whole rows, or one is not finite.
    pub fn new(codes: Vec<f32>, code_dim: usize, metric: Metric) -> Result<Self, NearestError> {
        check_codebook(&codes, code_dim)?;
        Ok(Self(Plain::new(codes, code_dim, metric)))
    }

    /// Number of codes.
    pub fn codebook_size(&self) -> usize {
        self.0.panels.size
    }

    /// Width of a code.
    pub fn code_dim(&self) -> usize {
        self.0.code_dim
    }

    /// What nearest means here.
    pub fn metric(&self) -> Metric {
        self.0.metric
    }

    /// Writes the nearest code of each row of `queries` to `out`.
    ///
    /// # Errors
    /// When the lengths do not fit, or a query is not finite; `out` is then unspecified.
    pub fn search(&self, queries: &[f32], out: &mut [u32]) -> Result<(), NearestError> {
        self.search_on(Simd::active(), queries, out)
    }

    /// [`search`](Self::search) with the instructions of `simd`.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub fn search_on(
        &self,
        simd: Simd,
        queries: &[f32],
        out: &mut [u32],
    ) -> Result<(), NearestError> {
        self.check(queries, out.len())?;
        in_blocks(out, |first, out| {
            let queries = self.part(queries, first, out.len());
            Block::new(queries, 1).search(simd, |row, top| out[row] = top.index);
        });
        Ok(())
    }

    /// Writes the nearest code of each row of `queries` to `out`, and the distances of the best two.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub fn search_top2(&self, queries: &[f32], out: &mut [TopTwo]) -> Result<(), NearestError> {
        self.search_top2_on(Simd::active(), queries, out)
    }

    /// [`search_top2`](Self::search_top2) with the instructions of `simd`.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub fn search_top2_on(
        &self,
        simd: Simd,
        queries: &[f32],
        out: &mut [TopTwo],
    ) -> Result<(), NearestError> {
        self.check(queries, out.len())?;
        in_blocks(out, |first, out| {
            let queries = self.part(queries, first, out.len());
            Block::new(queries, 2).search(simd, |row, top| out[row] = top);
        });
        Ok(())
    }

    fn part<'a>(&'a self, queries: &'a [f32], first: usize, rows: usize) -> PlainQueries<'a> {
        let code_dim = self.code_dim();
        PlainQueries::new(
            &self.0,
            &queries[first * code_dim..(first + rows) * code_dim],
        )
    }

    fn check(&self, queries: &[f32], results: usize) -> Result<(), NearestError> {
        let (values, code_dim) = (queries.len(), self.code_dim());
        if values != results * code_dim {
            return Err(NearestError::QueryShape {
                values,
                code_dim,
                results,
            });
        }
        match first_non_finite(queries, code_dim) {
            Some(row) => Err(NearestError::NonFiniteQuery { row }),
            None => Ok(()),
        }
    }
}

/// Gives out the results in blocks of queries, with the number of each block's first query.
fn in_blocks<T: Send>(out: &mut [T], block: impl Fn(usize, &mut [T]) + Sync) {
    // The answers do not depend on the blocks, so their size may follow the number of threads.
    let share = out
        .len()
        .div_ceil(rayon::current_num_threads())
        .next_multiple_of(8);
    let rows = share.clamp(1, BLOCK);
    out.par_chunks_mut(rows)
        .enumerate()
        .for_each(|(number, out)| block(number * rows, out));
}

/// Refuses codes that are not whole rows of finite numbers.
fn check_codebook(codes: &[f32], code_dim: usize) -> Result<(), NearestError> {
    let values = codes.len();
    if code_dim == 0
        || values == 0
        || !values.is_multiple_of(code_dim)
        || values / code_dim > 1 << 31
    {
        return Err(NearestError::CodebookShape { values, code_dim });
    }
    match first_non_finite(codes, code_dim) {
        Some(row) => Err(NearestError::NonFiniteCode { row }),
        None => Ok(()),
    }
}

/// The first row that has a number which is not finite.
fn first_non_finite(values: &[f32], width: usize) -> Option<usize> {
    // Sixteen at a time and without leaving early, which the compiler turns into vectors.
    let finite = |part: &[f32]| {
        part.iter()
            .fold(true, |all, x| all & (x.abs() < f32::INFINITY))
    };
    let part = values.chunks(4096).position(|part| !finite(part))?;
    let rest = values[part * 4096..].iter().position(|x| !x.is_finite())?;
    Some((part * 4096 + rest) / width)
}
