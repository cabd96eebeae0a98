//! The two passes over the codes for a block of queries.
//!
//! First pass: the smallest score of every chunk, for eight queries at a time. Second pass: the
//! chunks that may hold an answer are scored again, one query at a time, and the codes within the
//! error bounds go to [`decide`](super::decide).

use super::TopTwo;
use super::decide::{Bounds, decide};
use super::panels::{PANEL, Panels};
use crate::Simd;
use crate::lanes::{Kernel, Lanes, dispatch};
use crate::tile::{Left, accumulate};

/// Most queries in a block: each block reads the whole codebook once.
pub(super) const BLOCK: usize = 128;

/// Queries that share a panel while it is in registers.
const TILE: usize = 8;

/// What a block of queries asks of a codebook. Smaller scores are better.
pub(super) trait Queries {
    /// The codebook.
    fn panels(&self) -> &Panels;

    /// Number of queries.
    fn rows(&self) -> usize;

    /// Writes what the terms of every code are multiplied with for one query.
    fn factors(&self, row: usize, factors: &mut [f32]);

    /// Bounds the errors of one query's computed scores, for each chunk. False where scores may
    /// have overflowed.
    fn errors(&self, row: usize, errors: &mut [f64]) -> bool;

    /// The score in f64, up to a constant that depends on the query only.
    fn exact(&self, row: usize, code: usize) -> f64;

    /// What the caller is told of an exact score.
    fn reported(&self, exact: f64) -> f32;
}

/// A block of queries, prepared, with room for its chunk minima.
pub(super) struct Block<Q> {
    queries: Q,
    /// How many neighbours are wanted: 1 or 2.
    wanted: usize,
    /// `[tile, terms, 8]`
    factors: Vec<f32>,
    /// `[row, chunk]`
    minima: Vec<f32>,
}

impl<Q: Queries> Block<Q> {
    pub(super) fn new(queries: Q, wanted: usize) -> Self {
        let (terms, rows) = (queries.panels().terms, queries.rows());
        let tiles = rows.div_ceil(TILE);
        let mut factors = vec![0.0; tiles * TILE * terms];
        let mut own = vec![0.0; terms];
        for row in 0..rows {
            queries.factors(row, &mut own);
            let tile = &mut factors[row / TILE * TILE * terms..][..TILE * terms];
            for (k, factor) in own.iter().enumerate() {
                tile[k * TILE + row % TILE] = *factor;
            }
        }
        let minima = vec![0.0; tiles * TILE * queries.panels().chunks()];
        Self {
            queries,
            wanted,
            factors,
            minima,
        }
    }

    /// Calls `found(row, neighbours)` for every query of the block.
    pub(super) fn search(mut self, simd: Simd, mut found: impl FnMut(usize, TopTwo)) {
        let panels = self.queries.panels();
        let minima = Minima {
            panels,
            factors: &self.factors,
            minima: &mut self.minima,
        };
        dispatch(simd, minima);
        let mut near = Vec::new();
        let mut bounds = Bounds::new(panels.chunks());
        for row in 0..self.queries.rows() {
            let minima = &self.minima[row * panels.chunks()..][..panels.chunks()];
            near.clear();
            if self.queries.errors(row, &mut bounds.errors) {
                bounds.set(minima, self.wanted);
                let pass = Candidates {
                    panels,
                    factors: &self.factors,
                    row,
                    bounds: &bounds,
                    minima,
                    near: &mut near,
                };
                dispatch(simd, pass);
            } else {
                // Scores that overflow tell nothing: compare every code.
                near.extend(0..panels.size as u32);
            }
            found(row, decide(&self.queries, row, &near, self.wanted));
        }
    }
}

/// The first pass.
struct Minima<'a> {
    panels: &'a Panels,
    factors: &'a [f32],
    minima: &'a mut [f32],
}

impl Kernel for Minima<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let (terms, chunks) = (self.panels.terms, self.panels.chunks());
        for chunk in 0..chunks {
            let (columns, bias) = self.panels.chunk(chunk);
            let tiles = self.factors.chunks_exact(TILE * terms);
            for (factors, minima) in tiles.zip(self.minima.chunks_exact_mut(TILE * chunks)) {
                let smallest = tile_minima::<V>(factors, columns, bias, terms);
                for (row, smallest) in smallest.into_iter().enumerate() {
                    minima[row * chunks + chunk] = smallest.minimum();
                }
            }
        }
    }
}

/// Smallest scores of eight queries over the panels of a chunk, lane by lane.
#[inline(always)]
fn tile_minima<V: Lanes>(
    factors: &[f32],
    columns: &[f32],
    bias: &[f32],
    terms: usize,
) -> [V; TILE] {
    let left = Left {
        data: factors,
        row_stride: 1,
        k_stride: TILE,
    };
    let mut smallest = [V::splat(f32::INFINITY); TILE];
    let panels = columns.chunks_exact(PANEL * terms);
    for (columns, bias) in panels.zip(bias.chunks_exact(PANEL)) {
        let mut lane = 0;
        while lane < PANEL {
            let start = [V::load(&bias[lane..]), V::load(&bias[lane + V::N..])];
            let scores: [[V; 2]; TILE] =
                accumulate(left, &columns[lane..], PANEL, terms, [start; TILE]);
            for (smallest, scores) in smallest.iter_mut().zip(scores) {
                *smallest = scores[0].min(scores[1]).min(*smallest);
            }
            lane += 2 * V::N;
        }
    }
    smallest
}

/// The second pass for one query.
struct Candidates<'a> {
    panels: &'a Panels,
    factors: &'a [f32],
    row: usize,
    bounds: &'a Bounds,
    minima: &'a [f32],
    near: &'a mut Vec<u32>,
}

impl Kernel for Candidates<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let panels = self.panels;
        let terms = panels.terms;
        let tile = &self.factors[self.row / TILE * TILE * terms..][..TILE * terms];
        let left = Left {
            data: &tile[self.row % TILE..],
            row_stride: 0,
            k_stride: TILE,
        };
        for (chunk, minimum) in self.minima.iter().enumerate() {
            let limit = self.bounds.limit(chunk);
            // Written so that a NaN counts as a candidate.
            if *minimum > limit {
                continue;
            }
            let (columns, bias) = panels.chunk(chunk);
            let first = chunk * panels.chunk_panels * PANEL;
            for (panel, bias) in bias.chunks_exact(PANEL).enumerate() {
                let columns = &columns[panel * PANEL * terms..][..PANEL * terms];
                let mut lane = 0;
                while lane < PANEL {
                    let start = [V::load(&bias[lane..]), V::load(&bias[lane + V::N..])];
                    let [scores] =
                        accumulate::<V, 1, 2>(left, &columns[lane..], PANEL, terms, [start]);
                    for (part, scores) in scores.into_iter().enumerate() {
                        let mut bits = scores.less_or_equal(V::splat(limit));
                        while bits != 0 {
                            let code = first + panel * PANEL + lane + part * V::N;
                            self.near.push(code as u32 + bits.trailing_zeros());
                            bits &= bits - 1;
                        }
                    }
                    lane += 2 * V::N;
                }
            }
        }
    }
}
