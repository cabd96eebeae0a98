//! Which scores can belong to an answer, and the exact comparison of those that can.

use super::TopTwo;
use super::scan::Queries;

/// Half the distance between 1 and the next f32: the relative error of one rounding.
pub(super) const ROUNDING: f64 = 1.0 / (1 << 24) as f64;

/// For one query: how large the computed score of a code may be if the code is an answer.
pub(super) struct Bounds {
    /// Error bound of each chunk's scores, set by [`Queries::errors`].
    pub(super) errors: Vec<f64>,
    /// True scores of the wanted number of codes are at most this.
    ceiling: f64,
}

impl Bounds {
    pub(super) fn new(chunks: usize) -> Self {
        Self {
            errors: vec![0.0; chunks],
            ceiling: 0.0,
        }
    }

    /// Takes the smallest computed score of each chunk, after the errors were set.
    pub(super) fn set(&mut self, minima: &[f32], wanted: usize) {
        let mut least = [f64::INFINITY; 2];
        for (error, minimum) in self.errors.iter().zip(minima) {
            let above = f64::from(*minimum) + *error;
            if above < least[0] {
                least = [above, least[0]];
            } else if above < least[1] {
                least[1] = above;
            }
        }
        self.ceiling = least[wanted - 1];
    }

    /// The largest score that a code of this chunk can have been given if it is an answer.
    #[inline(always)]
    pub(super) fn limit(&self, chunk: usize) -> f32 {
        let limit = self.ceiling + self.errors[chunk];
        // The padding's infinite scores stay outside; the next f32 makes up for the cast.
        if limit < f64::from(f32::MAX) {
            (limit as f32).next_up()
        } else {
            f32::MAX
        }
    }
}

/// The best of the codes in `near`, which are in ascending order, by their exact scores.
pub(super) fn decide(queries: &impl Queries, row: usize, near: &[u32], wanted: usize) -> TopTwo {
    assert!(
        !near.is_empty(),
        "the best code is always among the candidates"
    );
    if wanted == 1 && near.len() == 1 {
        return TopTwo {
            index: near[0],
            ..TopTwo::default()
        };
    }
    let (mut index, mut best, mut second) = (near[0], f64::INFINITY, f64::INFINITY);
    for &code in near {
        let score = queries.exact(row, code as usize);
        if score < best {
            second = best;
            (index, best) = (code, score);
        } else if score < second {
            second = score;
        }
    }
    TopTwo {
        index,
        best: queries.reported(best),
        second: queries.reported(second),
    }
}
