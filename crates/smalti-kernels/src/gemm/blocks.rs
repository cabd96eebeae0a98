//! Products by blocks: packed panels, the outer-product tile.
//!
//! C is cut into blocks of rows and columns, one task each. A task walks the inner dimension in
//! steps of [`DEPTH`] and for each packs its part of A and B, which then stay in the second cache;
//! the tile of A that is being multiplied stays in the first.

use rayon::prelude::*;

use super::outer::{self, Finish, OuterTile};
use super::pack::{self, Pack};
use super::scratch::{Shared, with_scratch};
use super::{PARALLEL_FROM, Product, dispatch};
use crate::Simd;

/// Steps of the inner dimension between two visits of C.
const DEPTH: usize = 384;

/// Steps of B copied at a time: as many streams as the processor follows.
const STREAMS: usize = 16;

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
    let parallel = product.multiply_adds() >= PARALLEL_FROM;
    let wanted = if parallel {
        2 * rayon::current_num_threads()
    } else {
        1
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

/// A block of C and the steps of the inner dimension packed for it. Each pair is from, to.
struct Part<'a> {
    rows: [usize; 2],
    cols: [usize; 2],
    steps: [usize; 2],
    /// First row in the block and height of each tile.
    tiles: &'a [(usize, usize)],
}

impl Part<'_> {
    fn depth(&self) -> usize {
        self.steps[1] - self.steps[0]
    }
}

impl Blocks<'_> {
    /// The block of C of rows `rows[0]..rows[1]` and columns `cols[0]..cols[1]`.
    fn block(&self, rows: [usize; 2], cols: [usize; 2]) {
        let width = 2 * dispatch::lanes(self.simd);
        let k = self.product.a.cols;
        let panels = (cols[1] - cols[0]).div_ceil(width);
        let b_len = panels * width * k.min(DEPTH) + pack::SLACK;
        let a_len = (rows[1] - rows[0]) * k.min(DEPTH) + pack::SLACK;
        let tiles: Vec<_> = outer::row_tiles(self.simd, rows[1] - rows[0]).collect();
        with_scratch(b_len.next_multiple_of(16) + a_len, |scratch| {
            let (b, a) = scratch.split_at_mut(b_len.next_multiple_of(16));
            // At least one round, so that an empty sum still writes beta · C + bias.
            for first in (0..k.max(1)).step_by(DEPTH) {
                let steps = [first, (first + DEPTH).min(k)];
                let part = Part {
                    rows,
                    cols,
                    steps,
                    tiles: &tiles,
                };
                self.pack_b(&part, b);
                self.pack_a(&part, a);
                self.part(&part, a, b);
            }
        });
    }

    /// Packs the part's columns of B, panel after panel.
    fn pack_b(&self, part: &Part, to: &mut [f32]) {
        let b = &self.product.b;
        let (width, depth) = (2 * dispatch::lanes(self.simd), part.depth());
        // Rows of B in memory order, a few at a time; or whole columns, if they are contiguous.
        let at_once = if b.col_stride == 1 {
            STREAMS
        } else {
            depth.max(1)
        };
        for step in (0..depth).step_by(at_once) {
            for (panel, col) in (part.cols[0]..part.cols[1]).step_by(width).enumerate() {
                let pack = Pack {
                    from: b.at(part.steps[0] + step, col),
                    item_stride: b.col_stride,
                    step_stride: b.row_stride,
                    items: (part.cols[1] - col).min(width),
                    depth: (depth - step).min(at_once),
                    to: to[(panel * depth + step) * width..].as_mut_ptr(),
                    stride: width,
                };
                // SAFETY: the strip lies inside B; `to` has room for all panels and the slack, and
                // what spills over a strip of rows is none: they are copied, not transposed.
                unsafe { dispatch::run(self.simd, pack) };
            }
        }
    }

    /// Packs the part's rows of A, tile after tile.
    fn pack_a(&self, part: &Part, to: &mut [f32]) {
        let a = &self.product.a;
        for &(first, rows) in part.tiles {
            let pack = Pack {
                from: a.at(part.rows[0] + first, part.steps[0]),
                item_stride: a.row_stride,
                step_stride: a.col_stride,
                items: rows,
                depth: part.depth(),
                to: to[first * part.depth()..].as_mut_ptr(),
                stride: rows,
            };
            // SAFETY: the strip lies inside A; `to` has room for all tiles and the slack, and a tile
            // that spills over is followed by one that is packed later.
            unsafe { dispatch::run(self.simd, pack) };
        }
    }

    /// Multiplies what is packed: a tile of A stays in the first cache while the panels pass by.
    fn part(&self, part: &Part, a: &[f32], b: &[f32]) {
        let width = 2 * dispatch::lanes(self.simd);
        let panels = (part.cols[1] - part.cols[0]).div_ceil(width);
        for tile in part.tiles {
            (0..panels).for_each(|panel| self.tile(part, panel, *tile, (a, b)));
        }
    }

    /// One tile of C.
    fn tile(
        &self,
        part: &Part,
        panel: usize,
        (first, rows): (usize, usize),
        (a, b): (&[f32], &[f32]),
    ) {
        let (lanes, depth) = (dispatch::lanes(self.simd), part.depth());
        let col = part.cols[0] + panel * 2 * lanes;
        let left = part.cols[1] - col;
        let b = b[panel * 2 * lanes * depth..].as_ptr();
        let c = self.c.at((part.rows[0] + first) * self.c_stride + col);
        let tile = OuterTile {
            rows,
            depth,
            a: a[first * depth..].as_ptr(),
            b: [b, b.wrapping_add(lanes)],
            offsets: self.offsets.as_ptr(),
            c: [c, c.wrapping_add(lanes)],
            c_stride: self.c_stride,
            lanes: [left.min(lanes), left.saturating_sub(lanes).min(lanes)],
            finish: self.finish(part.steps[0] == 0, col),
        };
        // SAFETY: panels hold `depth` steps of two vectors, C has these rows and lanes and they are
        // this task's alone, the path was checked on entry.
        unsafe { dispatch::run(self.simd, tile) };
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
