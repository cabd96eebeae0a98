//! Products of small matrices with padded rows, and how matrices get there.

use crate::lanes::Lanes;
use crate::tile::{Left, accumulate};

/// Rows of a tile.
const ROWS: usize = 8;

/// The length of a padded row: whole pairs of registers on every path.
pub(super) fn padded(columns: usize) -> usize {
    columns.next_multiple_of(32)
}

/// Rows and depth of a product.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) rows: usize,
    pub(super) depth: usize,
    /// Length of the padded rows of the right factor and of the result.
    pub(super) stride: usize,
}

/// `out = left · right`, or with `add` `out += left · right`.
#[inline(always)]
pub(super) fn multiply<V: Lanes>(
    size: Size,
    left: Left<'_>,
    right: &[f32],
    out: &mut [f32],
    add: bool,
) {
    let mut row = 0;
    while row + ROWS <= size.rows {
        strip::<V, ROWS>(size, left, right, &mut out[row * size.stride..], (row, add));
        row += ROWS;
    }
    while row < size.rows {
        strip::<V, 1>(size, left, right, &mut out[row * size.stride..], (row, add));
        row += 1;
    }
}

/// `R` rows of the product.
#[inline(always)]
fn strip<V: Lanes, const R: usize>(
    size: Size,
    left: Left<'_>,
    right: &[f32],
    out: &mut [f32],
    (row, add): (usize, bool),
) {
    let left = Left {
        data: &left.data[row * left.row_stride..],
        ..left
    };
    for column in (0..size.stride).step_by(2 * V::N) {
        let mut sums = [[V::splat(0.0); 2]; R];
        if add {
            for (r, sums) in sums.iter_mut().enumerate() {
                let place = &out[r * size.stride + column..][..2 * V::N];
                *sums = [V::load(place), V::load(&place[V::N..])];
            }
        }
        let sums = accumulate(left, &right[column..], size.stride, size.depth, sums);
        for (r, sums) in sums.iter().enumerate() {
            let place = &mut out[r * size.stride + column..][..2 * V::N];
            sums[0].store(place);
            sums[1].store(&mut place[V::N..]);
        }
    }
}

/// Copies rows of `width` numbers into padded rows, with zeros behind.
#[inline(always)]
pub(super) fn copy_padded(source: &[f32], width: usize, target: &mut [f32]) {
    let stride = padded(width);
    for (source, target) in source
        .chunks_exact(width)
        .zip(target.chunks_exact_mut(stride))
    {
        target[..width].copy_from_slice(source);
        target[width..].fill(0.0);
    }
}

/// Copies padded rows back.
#[inline(always)]
pub(super) fn copy_out(source: &[f32], width: usize, target: &mut [f32]) {
    let stride = padded(width);
    for (source, target) in source
        .chunks_exact(stride)
        .zip(target.chunks_exact_mut(width))
    {
        target.copy_from_slice(&source[..width]);
    }
}

/// Writes rows of `width` numbers as columns of padded rows of `stride`, with zeros behind.
#[inline(always)]
pub(super) fn transpose<V: Lanes>(source: &[f32], width: usize, target: &mut [f32], stride: usize) {
    let rows = source.len() / width;
    let (whole_rows, whole_columns) = (rows / 8 * 8, width / 8 * 8);
    for row in (0..whole_rows).step_by(8) {
        for column in (0..whole_columns).step_by(8) {
            let from = &source[row * width + column..];
            V::transpose_8x8(from, width, &mut target[column * stride + row..], stride);
        }
    }
    for row in 0..rows {
        let done = if row < whole_rows { whole_columns } else { 0 };
        for column in done..width {
            target[column * stride + row] = source[row * width + column];
        }
    }
    for row in target.chunks_exact_mut(stride).take(width) {
        row[rows..].fill(0.0);
    }
}

/// `Σ a·b`
#[inline(always)]
pub(super) fn dot<V: Lanes>(a: &[f32], b: &[f32]) -> f32 {
    let mut sum = V::splat(0.0);
    for (a, b) in a.chunks(V::N).zip(b.chunks(V::N)) {
        sum = V::load_part(a, 0.0).mul_add(V::load_part(b, 0.0), sum);
    }
    sum.sum()
}

/// `Σ wⱼ · vⱼ` in four chains, a register of columns at a time.
#[inline(always)]
pub(super) fn weighted_sum<V: Lanes>(weights: &[f32], values: &[f32], output: &mut [f32]) {
    let width = output.len();
    for (i, output) in output.chunks_mut(V::N).enumerate() {
        let place = i * V::N..i * V::N + output.len();
        let mut sums = [V::splat(0.0); 4];
        for (weights, rows) in weights.chunks(4).zip(values.chunks(4 * width)) {
            let rows = rows.chunks_exact(width);
            for ((weight, row), sum) in weights.iter().zip(rows).zip(&mut sums) {
                *sum = V::splat(*weight).mul_add(V::load_part(&row[place.clone()], 0.0), *sum);
            }
        }
        ((sums[0] + sums[1]) + (sums[2] + sums[3])).store_part(output);
    }
}
