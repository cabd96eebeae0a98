//! The two passes over the codes for a block of queries.
//!
//! First pass: the smallest score of every chunk, for eight queries at a time. Second pass: the
//! chunks that may hold an answer are scored again, one query at a time, and the codes within the
//! error bounds go to [`decide`](super::decide).

use super::decide::{Bounds, decide};
use super::panels::{PANEL, Panels};
use super::{Metric, TopTwo};
use crate::Simd;
use crate::lanes::{Kernel, Lanes, dispatch};
use crate::tile::{Left, accumulate};

/// Most queries in a block: each block reads the whole codebook once.
pub(super) const BLOCK: usize = 128;

/// Queries that share a panel while it is in registers.
const TILE: usize = 8;

/// A block of queries, prepared, with room for its chunk minima.
pub(super) struct Block<'a> {
    panels: &'a Panels,
    queries: &'a [f32],
    rows: usize,
    /// How many neighbours are wanted: 1 or 2.
    wanted: usize,
    /// `[tile, code_dim, 8]`: the centred queries with their sign turned.
    turned: Vec<f32>,
    /// Length of each centred query.
    lengths: Vec<f32>,
    /// `[row, chunk]`
    minima: Vec<f32>,
}

impl<'a> Block<'a> {
    pub(super) fn new(panels: &'a Panels, queries: &'a [f32], wanted: usize) -> Self {
        let code_dim = panels.code_dim;
        let rows = queries.len() / code_dim;
        let tiles = rows.div_ceil(TILE);
        let mut turned = vec![0.0; tiles * TILE * code_dim];
        let mut lengths = vec![0.0; rows];
        for (row, query) in queries.chunks_exact(code_dim).enumerate() {
            let tile = &mut turned[row / TILE * TILE * code_dim..][..TILE * code_dim];
            let mut square = 0.0_f64;
            for (k, (value, middle)) in query.iter().zip(&panels.centre).enumerate() {
                let value = middle - value;
                tile[k * TILE + row % TILE] = value;
                square += f64::from(value) * f64::from(value);
            }
            lengths[row] = square.sqrt() as f32;
        }
        let minima = vec![0.0; tiles * TILE * panels.chunks()];
        Self {
            panels,
            queries,
            rows,
            wanted,
            turned,
            lengths,
            minima,
        }
    }

    /// Calls `found(row, neighbours)` for every query of the block.
    pub(super) fn search(mut self, simd: Simd, mut found: impl FnMut(usize, TopTwo)) {
        dispatch(simd, Minima(&mut self));
        let mut near = Vec::new();
        let mut bounds = Bounds::new(self.panels);
        for row in 0..self.rows {
            let chunks = self.panels.chunks();
            let minima = &self.minima[row * chunks..][..chunks];
            near.clear();
            if bounds.set(minima, self.lengths[row], self.wanted) {
                let pass = Candidates {
                    block: &self,
                    row,
                    bounds: &bounds,
                    minima,
                    near: &mut near,
                };
                dispatch(simd, pass);
            } else {
                // Scores that overflow tell nothing: compare every code.
                near.extend(0..self.panels.size as u32);
            }
            let query = &self.queries[row * self.panels.code_dim..][..self.panels.code_dim];
            found(row, decide(self.panels, query, &near, self.wanted));
        }
    }
}

/// The first pass.
struct Minima<'a, 'b>(&'a mut Block<'b>);

impl Kernel for Minima<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Block {
            panels,
            turned,
            minima,
            ..
        } = self.0;
        let (code_dim, chunks) = (panels.code_dim, panels.chunks());
        for chunk in 0..chunks {
            let (columns, bias) = panels.chunk(chunk);
            let tiles = turned.chunks_exact(TILE * code_dim);
            for (queries, minima) in tiles.zip(minima.chunks_exact_mut(TILE * chunks)) {
                let smallest = tile_minima::<V>(queries, columns, bias, code_dim);
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
    queries: &[f32],
    columns: &[f32],
    bias: &[f32],
    code_dim: usize,
) -> [V; TILE] {
    let left = Left {
        data: queries,
        row_stride: 1,
        k_stride: TILE,
    };
    let mut smallest = [V::splat(f32::INFINITY); TILE];
    let panels = columns.chunks_exact(PANEL * code_dim);
    for (columns, bias) in panels.zip(bias.chunks_exact(PANEL)) {
        let mut lane = 0;
        while lane < PANEL {
            let start = [V::load(&bias[lane..]), V::load(&bias[lane + V::N..])];
            let scores: [[V; 2]; TILE] =
                accumulate(left, &columns[lane..], PANEL, code_dim, [start; TILE]);
            for (smallest, scores) in smallest.iter_mut().zip(scores) {
                *smallest = scores[0].min(scores[1]).min(*smallest);
            }
            lane += 2 * V::N;
        }
    }
    smallest
}

/// The second pass for one query.
struct Candidates<'a, 'b> {
    block: &'a Block<'b>,
    row: usize,
    bounds: &'a Bounds<'b>,
    minima: &'a [f32],
    near: &'a mut Vec<u32>,
}

impl Kernel for Candidates<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let panels = self.block.panels;
        let code_dim = panels.code_dim;
        let tile = &self.block.turned[self.row / TILE * TILE * code_dim..][..TILE * code_dim];
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
                let columns = &columns[panel * PANEL * code_dim..][..PANEL * code_dim];
                let mut lane = 0;
                while lane < PANEL {
                    let start = [V::load(&bias[lane..]), V::load(&bias[lane + V::N..])];
                    let [scores] =
                        accumulate::<V, 1, 2>(left, &columns[lane..], PANEL, code_dim, [start]);
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

/// How far two codes are apart in the order of preference: smaller is nearer.
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
