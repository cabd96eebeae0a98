//! Products by blocks: packed panels, the outer-product tile.
//!
//! C is cut into blocks of rows and columns, one task each. A task walks the inner dimension in
//! steps of [`DEPTH`]; for each it packs its columns of B (they stay in the second cache) and, tile
//! by tile, its rows of A (they stay in the first).

use rayon::prelude::*;

use super::outer::{self, Finish, OuterTile};
use super::pack::{self, Pack};
use super::scratch::{Shared, with_scratch};
use super::{PARALLEL_FROM, Product, dispatch};
use crate::Simd;

/// Steps of the inner dimension between two visits of C.
const DEPTH: usize = 256;

/// Rows and columns of C in a block, at most: packing is then a few percent of the multiplying.
const BLOCK: [usize; 2] = [276, 256];

pub(super) fn multiply(simd: Simd, product: &Product, c: Shared, c_stride: usize) {
    let (m, n) = (product.a.rows, product.b.cols);
    let width = 2 * dispatch::lanes(simd);
    let [rows, cols] = block_size(product, width);
    let offsets: Vec<usize> = (0..DEPTH.min(product.a.cols)).map(|k| k * width).collect();
    let blocks = Blocks {
        simd,
        product,
        offsets: &offsets,
        c,
        c_stride,
    };
    let across = n.div_ceil(cols);
    let tasks = m.div_ceil(rows) * across;
    let task = |t: usize| {
        let (row, col) = (t / across * rows, t % across * cols);
        blocks.block([row, (row + rows).min(m)], [col, (col + cols).min(n)]);
    };
    if tasks > 1 {
        (0..tasks).into_par_iter().for_each(task)
    } else {
        (0..tasks).for_each(task)
    }
}

/// Blocks small enough to keep the threads busy, large enough to be worth packing for. Elements do
/// not depend on the cut.
fn block_size(product: &Product, width: usize) -> [usize; 2] {
    let (m, n) = (product.a.rows, product.b.cols);
    let mut size = [m.min(BLOCK[0]), n.min(BLOCK[1]).next_multiple_of(width)];
    let wanted = if product.multiply_adds() < PARALLEL_FROM {
        1
    } else {
        2 * rayon::current_num_threads()
    };
    while m.div_ceil(size[0]) * n.div_ceil(size[1]) < wanted {
        let [rows, cols] = size;
        if rows * cols * product.a.cols < PARALLEL_FROM {
            break;
        }
        if cols >= rows && cols > width {
            size[1] = (cols / 2).next_multiple_of(width);
        } else if rows > 1 {
            size[0] = rows.div_ceil(2);
        } else {
            break;
        }
    }
    size
}

struct Blocks<'a> {
    simd: Simd,
    product: &'a Product<'a>,
    /// Where the steps of a packed panel of B start.
    offsets: &'a [usize],
    c: Shared<'a>,
    c_stride: usize,
}

impl Blocks<'_> {
    /// The block of C of rows `rows[0]..rows[1]` and columns `cols[0]..cols[1]`.
    fn block(&self, rows: [usize; 2], cols: [usize; 2]) {
        let width = 2 * dispatch::lanes(self.simd);
        let k = self.product.a.cols;
        let depth = k.min(DEPTH);
        let panels = (cols[1] - cols[0]).div_ceil(width);
        let a_len = outer::max_rows(self.simd) * depth + pack::SLACK;
        let b_len = (panels * width * depth + pack::SLACK).next_multiple_of(16);
        with_scratch(b_len + a_len, |scratch| {
            let (b, a) = scratch.split_at_mut(b_len);
            // At least one round, so that an empty sum still writes beta · C + bias.
            for first in (0..k.max(1)).step_by(DEPTH) {
                let steps = [first, (first + DEPTH).min(k)];
                self.pack_b(steps, cols, b);
                for (start, height) in outer::row_tiles(self.simd, rows[1] - rows[0]) {
                    self.row_tile([rows[0] + start, height], cols, steps, (&mut *a, &*b));
                }
            }
        });
    }

    /// Packs columns `cols` of B for the steps `steps`, panel after panel.
    fn pack_b(&self, steps: [usize; 2], cols: [usize; 2], to: &mut [f32]) {
        let b = &self.product.b;
        let width = 2 * dispatch::lanes(self.simd);
        let depth = steps[1] - steps[0];
        for (panel, col) in (cols[0]..cols[1]).step_by(width).enumerate() {
            let pack = Pack {
                from: b.at(steps[0], col),
                item_stride: b.col_stride,
                step_stride: b.row_stride,
                items: (cols[1] - col).min(width),
                depth,
                to: to[panel * width * depth..].as_mut_ptr(),
                stride: width,
            };
            // SAFETY: the strip lies inside B; `to` has room for all panels and the slack.
            unsafe { dispatch::run(self.simd, pack) };
        }
    }

    /// Rows `tile = [first, count]` of the block: packs them and passes over all panels.
    fn row_tile(
        &self,
        tile: [usize; 2],
        cols: [usize; 2],
        steps: [usize; 2],
        (a, b): (&mut [f32], &[f32]),
    ) {
        let [row, rows] = tile;
        let lanes = dispatch::lanes(self.simd);
        let depth = steps[1] - steps[0];
        let from = &self.product.a;
        let pack = Pack {
            from: from.at(row, steps[0]),
            item_stride: from.row_stride,
            step_stride: from.col_stride,
            items: rows,
            depth,
            to: a.as_mut_ptr(),
            stride: rows,
        };
        // SAFETY: the strip lies inside A; `a` has room for the tallest tile and the slack.
        unsafe { dispatch::run(self.simd, pack) };
        for (panel, col) in (cols[0]..cols[1]).step_by(2 * lanes).enumerate() {
            let left = cols[1] - col;
            let b = b[panel * 2 * lanes * depth..].as_ptr();
            let c = self.c.at(row * self.c_stride + col);
            let tile = OuterTile {
                rows,
                depth,
                a: a.as_ptr(),
                b: [b, b.wrapping_add(lanes)],
                offsets: self.offsets.as_ptr(),
                c: [c, c.wrapping_add(lanes)],
                c_stride: self.c_stride,
                lanes: [left.min(lanes), left.saturating_sub(lanes).min(lanes)],
                finish: self.finish(steps[0] == 0, col),
            };
            // SAFETY: panels hold `depth` steps of two vectors, C has these rows and lanes and they
            // are this task's alone, the path was checked on entry.
            unsafe { dispatch::run(self.simd, tile) };
        }
    }

    /// The first visit brings beta and the bias, the later ones add.
    fn finish(&self, first: bool, col: usize) -> Finish {
        let lanes = dispatch::lanes(self.simd);
        let Product {
            alpha, beta, bias, ..
        } = *self.product;
        let column_bias = match bias {
            Some(bias) if first => [0, 1].map(|v| bias[col..].as_ptr().wrapping_add(v * lanes)),
            _ => [std::ptr::null(); 2],
        };
        let beta = if first { beta } else { 1.0 };
        Finish {
            alpha,
            beta,
            column_bias,
            row_bias: std::ptr::null(),
        }
    }
}
