//! The way forward for a block of queries of one head.

use super::blocks::{Size, copy_padded, multiply, padded, transpose};
use super::{Attention, BLOCK, Inputs};
use crate::lanes::{Kernel, Lanes};
use crate::softmax::{exponentials_in_place, largest, scale};
use crate::tile::Left;

pub(super) struct Forward<'a> {
    pub(super) shape: &'a Attention,
    pub(super) inputs: Inputs<'a>,
    /// The first query of the block.
    pub(super) first: usize,
    pub(super) output: &'a mut [f32],
    pub(super) log_sums: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self {
            shape,
            inputs,
            first,
            output,
            log_sums,
        } = self;
        let (rows, width) = (log_sums.len(), shape.head_dim);
        let stride = padded(width);
        let mut queries = inputs.q[first * width..(first + rows) * width].to_vec();
        scale::<V>(&mut queries, shape.scale);
        let mut state = State {
            keys: vec![0.0; width * BLOCK],
            values: vec![0.0; BLOCK * stride],
            scores: vec![0.0; rows * BLOCK],
            sums: vec![0.0; rows * stride],
            maxima: vec![f32::NEG_INFINITY; rows],
            totals: vec![0.0; rows],
        };
        let visible = shape.visible(first + rows - 1);
        for start in (0..visible).step_by(BLOCK) {
            let end = (start + BLOCK).min(shape.keys);
            let place = start * width..end * width;
            transpose::<V>(&inputs.k[place.clone()], width, &mut state.keys, BLOCK);
            copy_padded(&inputs.v[place], width, &mut state.values);
            let left = Left {
                data: &queries,
                row_stride: width,
                k_stride: 1,
            };
            let size = Size {
                rows,
                depth: width,
                stride: BLOCK,
            };
            multiply::<V>(size, left, &state.keys, &mut state.scores, false);
            for row in 0..rows {
                let seen = shape.visible(first + row).min(end).saturating_sub(start);
                state.weigh::<V>(row, seen, stride);
            }
            let left = Left {
                data: &state.scores,
                row_stride: BLOCK,
                k_stride: 1,
            };
            let size = Size {
                rows,
                depth: end - start,
                stride,
            };
            multiply::<V>(size, left, &state.values, &mut state.sums, true);
        }
        let sums = state.sums.chunks_exact_mut(stride);
        for (row, (sums, output)) in sums.zip(output.chunks_exact_mut(width)).enumerate() {
            scale::<V>(sums, 1.0 / state.totals[row]);
            output.copy_from_slice(&sums[..width]);
            log_sums[row] = state.maxima[row] + state.totals[row].ln();
        }
    }
}

/// What is carried from one block of keys to the next, and room for one block.
struct State {
    /// `[head_dim, 64]`
    keys: Vec<f32>,
    /// `[64, padded head_dim]`
    values: Vec<f32>,
    /// `[rows, 64]`: scores, then weights.
    scores: Vec<f32>,
    /// `[rows, padded head_dim]`: weighted sums of the values, not yet divided.
    sums: Vec<f32>,
    /// Largest score of each row so far.
    maxima: Vec<f32>,
    /// Sum of the weights of each row so far.
    totals: Vec<f32>,
}

impl State {
    /// Turns the scores of a row, of which the first `seen` count, into weights.
    #[inline(always)]
    fn weigh<V: Lanes>(&mut self, row: usize, seen: usize, stride: usize) {
        let (scores, hidden) = self.scores[row * BLOCK..][..BLOCK].split_at_mut(seen);
        hidden.fill(0.0);
        if seen == 0 {
            return;
        }
        let (before, highest) = (self.maxima[row], largest::<V>(scores));
        // A NaN among the scores must not be lost in this comparison.
        let now = if highest <= before { before } else { highest };
        // Nothing is there to correct where these are the first scores of the row.
        if now != before && before != f32::NEG_INFINITY {
            let correction = (before - now).exp();
            self.totals[row] *= correction;
            scale::<V>(&mut self.sums[row * stride..][..stride], correction);
        }
        self.maxima[row] = now;
        self.totals[row] += exponentials_in_place::<V>(scores, now);
    }
}
