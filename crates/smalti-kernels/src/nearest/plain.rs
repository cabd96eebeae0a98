//! Scores by distance or by inner product: `‖c‖²/2 - x·c` of centred codes and queries, or `-x·c`.

use super::Metric;
use super::decide::ROUNDING;
use super::panels::{Entry, Panels};
use super::scan::Queries;
use rayon::prelude::*;

/// Codes that one thread sums at once for their mean.
const SUMMED_TOGETHER: usize = 4096;

/// A codebook for [`Metric`], with what is needed to bound the errors of its scores.
#[derive(Clone, Debug)]
pub(super) struct Plain {
    pub(super) metric: Metric,
    pub(super) code_dim: usize,
    /// The codes as they were given, for exact comparisons.
    codes: Vec<f32>,
    /// What is subtracted from codes and queries: the mean code, or zero for inner products.
    centre: Vec<f32>,
    pub(super) panels: Panels,
}

impl Plain {
    pub(super) fn new(codes: Vec<f32>, code_dim: usize, metric: Metric) -> Self {
        let centre = match metric {
            Metric::Euclidean => mean_row(&codes, code_dim),
            Metric::InnerProduct => vec![0.0; code_dim],
        };
        let size = codes.len() / code_dim;
        let panels = Panels::new(size, code_dim, |code, terms| {
            let mut square = 0.0_f64;
            let code = &codes[code * code_dim..][..code_dim];
            for ((term, value), middle) in terms.iter_mut().zip(code).zip(&centre) {
                *term = value - middle;
                square += f64::from(*term) * f64::from(*term);
            }
            Entry {
                bias: match metric {
                    Metric::Euclidean => (square / 2.0) as f32,
                    Metric::InnerProduct => 0.0,
                },
                length: (square.sqrt() * (1.0 + 1e-6)) as f32,
            }
        });
        Self {
            metric,
            code_dim,
            codes,
            centre,
            panels,
        }
    }

    /// How far a code is from a query in the order of preference: smaller is nearer.
    pub(super) fn exact_score(metric: Metric, query: &[f32], code: &[f32]) -> f64 {
        let pairs = query
            .iter()
            .zip(code)
            .map(|(x, c)| (f64::from(*x), f64::from(*c)));
        match metric {
            Metric::Euclidean => pairs.map(|(x, c)| (x - c) * (x - c)).sum(),
            Metric::InnerProduct => -pairs.map(|(x, c)| x * c).sum::<f64>(),
        }
    }
}

/// A block of queries against a [`Plain`] codebook.
pub(super) struct PlainQueries<'a> {
    book: &'a Plain,
    queries: &'a [f32],
    /// Length of each centred query.
    lengths: Vec<f32>,
    /// A score is computed with one multiplication and one addition for each of the `n` dimensions,
    /// so its error is at most `γ·(‖c‖²/2 + ‖x‖‖c‖)` with `γ = 2n` roundings, and a few more for
    /// the bias and for centring x and c: `2n + 10` are taken.
    gamma: f64,
}

impl<'a> PlainQueries<'a> {
    pub(super) fn new(book: &'a Plain, queries: &'a [f32]) -> Self {
        let length = |query: &[f32]| {
            let centred = query.iter().zip(&book.centre).map(|(x, m)| m - x);
            let square: f64 = centred.map(|x| f64::from(x) * f64::from(x)).sum();
            square.sqrt() as f32
        };
        Self {
            book,
            queries,
            lengths: queries.chunks_exact(book.code_dim).map(length).collect(),
            gamma: (2 * book.code_dim + 10) as f64 * ROUNDING * 1.01,
        }
    }

    fn query(&self, row: usize) -> &[f32] {
        &self.queries[row * self.book.code_dim..][..self.book.code_dim]
    }
}

impl Queries for PlainQueries<'_> {
    fn panels(&self) -> &Panels {
        &self.book.panels
    }

    fn rows(&self) -> usize {
        self.lengths.len()
    }

    fn factors(&self, row: usize, factors: &mut [f32]) {
        for ((factor, value), middle) in factors
            .iter_mut()
            .zip(self.query(row))
            .zip(&self.book.centre)
        {
            *factor = middle - value;
        }
    }

    fn errors(&self, row: usize, errors: &mut [f64]) -> bool {
        let length = f64::from(self.lengths[row]);
        let mut largest = length;
        for (error, radius) in errors.iter_mut().zip(&self.book.panels.chunk_radius) {
            let radius = f64::from(*radius);
            let magnitude = radius * (radius / 2.0 + length);
            largest = largest.max(magnitude);
            // The second term stands for roundings of subnormal numbers.
            *error = self.gamma * magnitude + f64::from(f32::MIN_POSITIVE);
        }
        largest < f64::from(f32::MAX) / 4.0
    }

    fn exact(&self, row: usize, code: usize) -> f64 {
        let code = &self.book.codes[code * self.book.code_dim..][..self.book.code_dim];
        Plain::exact_score(self.book.metric, self.query(row), code)
    }

    fn reported(&self, exact: f64) -> f32 {
        match self.book.metric {
            Metric::Euclidean => exact as f32,
            Metric::InnerProduct => -exact as f32,
        }
    }
}

/// The mean code, or zero where the sum overflows.
fn mean_row(codes: &[f32], code_dim: usize) -> Vec<f32> {
    let sum_of = |part: &[f32]| {
        let mut sum = vec![0.0_f64; code_dim];
        for code in part.chunks_exact(code_dim) {
            for (sum, value) in sum.iter_mut().zip(code) {
                *sum += f64::from(*value);
            }
        }
        sum
    };
    // Parts of a fixed size and in order: the mean does not depend on the number of threads.
    let parts: Vec<Vec<f64>> = codes
        .par_chunks(SUMMED_TOGETHER * code_dim)
        .map(sum_of)
        .collect();
    let rows = (codes.len() / code_dim) as f64;
    (0..code_dim)
        .map(|k| (parts.iter().map(|part| part[k]).sum::<f64>() / rows) as f32)
        .collect()
}
