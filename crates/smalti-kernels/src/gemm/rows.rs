//! A few rows of A against a B that is read once, in place.
//!
//! For up to [`super::FEW_ROWS`] rows the work is reading B. Its columns are contiguous, so each is
//! one stream: tiles of [`dot::max_columns`] streams against four rows of A at a time, and a tile's
//! streams are still in the first cache when the next four rows come.

use rayon::prelude::*;

use super::dispatch;
use super::dot::{self, DotTile, Steps};
use super::scratch::Shared;
use super::{FEW_ROWS, PARALLEL_FROM, Product};
use crate::Simd;

/// Values of B for one task: enough to be worth handing out, few enough to balance threads.
const TASK: usize = 1 << 15;

pub(super) fn multiply(simd: Simd, product: &Product, c: Shared, c_stride: usize) {
    let (n, k) = (product.b.cols, product.b.rows);
    let width = dispatch::lanes(simd);
    let offsets: Vec<usize> = (0..k.div_ceil(width)).map(|t| t * width).collect();
    let job = Streams {
        simd,
        product,
        offsets: &offsets,
        c,
        c_stride,
    };
    let tile = dot::max_columns(simd);
    let columns = (TASK / k.max(1))
        .next_multiple_of(tile)
        .clamp(tile, n.next_multiple_of(tile));
    let task = |t: usize| job.columns(t * columns, ((t + 1) * columns).min(n));
    let tasks = n.div_ceil(columns);
    if tasks > 1 && product.multiply_adds() >= PARALLEL_FROM.min(2 * TASK) {
        (0..tasks).into_par_iter().for_each(task);
    } else {
        (0..tasks).for_each(task);
    }
}

struct Streams<'a> {
    simd: Simd,
    product: &'a Product<'a>,
    offsets: &'a [usize],
    c: Shared<'a>,
    c_stride: usize,
}

impl Streams<'_> {
    /// Columns `from..to` of C, all rows.
    fn columns(&self, from: usize, to: usize) {
        let (a, b) = (&self.product.a, &self.product.b);
        let width = dispatch::lanes(self.simd);
        let (full, lanes) = (b.rows / width, b.rows % width);
        let offsets = self.offsets.as_ptr();
        let steps = Steps {
            x_offsets: offsets,
            y_offsets: offsets,
            full,
            partial: usize::from(lanes > 0),
            lanes,
        };
        let max = dot::max_columns(self.simd);
        for first in (from..to).step_by(max) {
            let columns = (to - first).min(max);
            let mut sums = [0.0; dot::MAX_COLUMNS * FEW_ROWS];
            for row in (0..a.rows).step_by(dot::MAX_ROWS) {
                let tile = DotTile {
                    rows: (a.rows - row).min(dot::MAX_ROWS),
                    columns,
                    x: a.at(row, 0),
                    x_stride: a.row_stride,
                    y: std::array::from_fn(|s| b.at(0, first + s.min(columns - 1))),
                    steps,
                    out: sums.as_mut_ptr().wrapping_add(row),
                    out_stride: FEW_ROWS,
                    alpha: self.product.alpha,
                    ahead: if row == 0 { columns * b.col_stride } else { 0 },
                };
                // SAFETY: steps stay inside the k values of rows of A and columns of B, `sums` has
                // room for all rows, and the path was checked on entry.
                unsafe { dispatch::run(self.simd, tile) };
            }
            self.write(first, columns, &sums);
        }
    }

    fn write(&self, first: usize, columns: usize, sums: &[f32; dot::MAX_COLUMNS * FEW_ROWS]) {
        let Product { a, bias, beta, .. } = *self.product;
        let mut biases = [0.0; dot::MAX_COLUMNS];
        if let Some(bias) = bias {
            biases[..columns].copy_from_slice(&bias[first..first + columns]);
        }
        for row in 0..a.rows {
            // SAFETY: these columns of C belong to this task alone.
            let c = unsafe { self.c.slice(row * self.c_stride + first, columns) };
            for (s, (c, bias)) in c.iter_mut().zip(biases).enumerate() {
                let value = sums[s * FEW_ROWS + row] + bias;
                *c = if beta == 0.0 {
                    value
                } else {
                    value + beta * *c
                };
            }
        }
    }
}
