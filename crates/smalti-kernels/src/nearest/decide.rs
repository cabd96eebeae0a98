//! Which scores can belong to an answer, and the exact comparison of those that can.

use super::panels::Panels;
use super::scan::exact_score;
use super::{Metric, TopTwo};

/// Half the distance between 1 and the next f32: the relative error of one rounding.
const ROUNDING: f64 = 1.0 / (1 << 24) as f64;

/// For one query: how large the computed score of a code may be if the code is an answer.
///
/// A score is computed as `‖c‖²/2 - x·c` with one multiplication and one addition for each of the `n`
/// dimensions, so its error is at most `γ·(‖c‖²/2 + ‖x‖‖c‖)` with `γ = 2n` roundings, and a few more
/// for the bias and for centring x and c. [`Bounds::new`] takes `2n + 10`.
pub(super) struct Bounds<'a> {
    panels: &'a Panels,
    gamma: f64,
    /// Error bound of each chunk's scores.
    errors: Vec<f64>,
    /// True scores of the wanted number of codes are at most this.
    ceiling: f64,
}

impl<'a> Bounds<'a> {
    pub(super) fn new(panels: &'a Panels) -> Self {
        let gamma = (2 * panels.code_dim + 10) as f64 * ROUNDING * 1.01;
        Self {
            panels,
            gamma,
            errors: vec![0.0; panels.chunks()],
            ceiling: 0.0,
        }
    }

    /// Takes one query: the smallest computed score of each chunk and the query's length. False where
    /// scores may have overflowed.
    pub(super) fn set(&mut self, minima: &[f32], length: f32, wanted: usize) -> bool {
        let mut least = [f64::INFINITY; 2];
        let chunks = self
            .errors
            .iter_mut()
            .zip(minima)
            .zip(&self.panels.chunk_radius);
        let mut largest = f64::from(length);
        for ((error, minimum), radius) in chunks {
            let radius = f64::from(*radius);
            let magnitude = radius * (radius / 2.0 + f64::from(length));
            largest = largest.max(magnitude);
            // The second term stands for roundings of subnormal numbers.
            *error = self.gamma * magnitude + f64::from(f32::MIN_POSITIVE);
            let above = f64::from(*minimum) + *error;
            if above < least[0] {
                least = [above, least[0]];
            } else if above < least[1] {
                least[1] = above;
            }
        }
        self.ceiling = least[wanted - 1];
        largest < f64::from(f32::MAX) / 4.0
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
pub(super) fn decide(panels: &Panels, query: &[f32], near: &[u32], wanted: usize) -> TopTwo {
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
        let score = exact_score(panels.metric, query, panels.code(code as usize));
        if score < best {
            second = best;
            (index, best) = (code, score);
        } else if score < second {
            second = score;
        }
    }
    match panels.metric {
        Metric::Euclidean => TopTwo {
            index,
            best: best as f32,
            second: second as f32,
        },
        Metric::InnerProduct => TopTwo {
            index,
            best: -best as f32,
            second: -second as f32,
        },
    }
}
