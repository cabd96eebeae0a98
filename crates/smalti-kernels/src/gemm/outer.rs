//! The outer-product tile: a few rows of A against two vectors of columns of B.
//!
//! For every step k of the inner dimension the tile adds `a[k][r] · b[k][lane]` to
//! `rows × 2·LANES` accumulators that live in registers. A is packed, `rows` values a step. A step's
//! two vectors of B are found through a table: `b[v] + offsets[k]`. So B may be a packed panel, a
//! plain row-major matrix, or an image of which every kernel tap reads a shifted view: a
//! convolution is this tile with another table.
//!
//! Every element is summed over k in ascending order by itself: its bits depend neither on the
//! tile's height nor on its place in the tile.

use super::dispatch::Job;
use super::vector::Vector;
use crate::Simd;

/// The largest number of rows of a tile on any path.
pub(crate) const MAX_ROWS: usize = 12;

/// The largest number of rows of a tile on the path `simd`: what the registers hold. (AVX-512 has
/// room for 14; with 12 the compiler keeps all sums in registers whatever surrounds the loop.)
pub(crate) fn max_rows(simd: Simd) -> usize {
    match simd {
        Simd::Avx512 => MAX_ROWS,
        Simd::Avx2 => 6,
        Simd::Neon => 8,
        Simd::Portable => 4,
    }
}

/// Splits `rows` into as few tiles as fit the registers, of nearly equal heights: `(start, height)`.
pub(crate) fn row_tiles(simd: Simd, rows: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let tiles = rows.div_ceil(max_rows(simd));
    (0..tiles).map(move |t| {
        let (start, end) = (t * rows / tiles, (t + 1) * rows / tiles);
        (start, end - start)
    })
}

/// What happens to the sums on their way to C: `c = alpha · sum + beta · c + bias`.
#[derive(Clone, Copy)]
pub(crate) struct Finish {
    pub(crate) alpha: f32,
    /// Zero: C is not read.
    pub(crate) beta: f32,
    /// One value a row, or null.
    pub(crate) row_bias: *const f32,
    /// One value a column for each of the two vectors, or null.
    pub(crate) column_bias: [*const f32; 2],
}

impl Finish {
    /// `c = sum`, or `c += sum`.
    pub(crate) fn plain(accumulate: bool) -> Self {
        let beta = if accumulate { 1.0 } else { 0.0 };
        Self {
            alpha: 1.0,
            beta,
            row_bias: std::ptr::null(),
            column_bias: [std::ptr::null(); 2],
        }
    }
}

/// One tile of work. Valid pointers: `a` for `depth · rows` values, `offsets` for `depth`, `b[v] +
/// offset` for a whole vector, `c[v] + r · c_stride` and the biases for the lanes named in `lanes`.
pub(crate) struct OuterTile {
    pub(crate) rows: usize,
    pub(crate) depth: usize,
    pub(crate) a: *const f32,
    pub(crate) b: [*const f32; 2],
    pub(crate) offsets: *const usize,
    pub(crate) c: [*mut f32; 2],
    pub(crate) c_stride: usize,
    /// Lanes of each vector that belong to C.
    pub(crate) lanes: [usize; 2],
    pub(crate) finish: Finish,
}

impl Job for OuterTile {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        // SAFETY: the caller vouches for the pointers as documented on the struct.
        unsafe {
            match self.rows {
                1 => self.rows::<V, 1>(),
                2 => self.rows::<V, 2>(),
                3 => self.rows::<V, 3>(),
                4 => self.rows::<V, 4>(),
                5 => self.rows::<V, 5>(),
                6 => self.rows::<V, 6>(),
                7 => self.rows::<V, 7>(),
                8 => self.rows::<V, 8>(),
                9 => self.rows::<V, 9>(),
                10 => self.rows::<V, 10>(),
                11 => self.rows::<V, 11>(),
                12 => self.rows::<V, 12>(),
                rows => unreachable!("a tile has 1 to 12 rows, not {rows}"),
            }
        }
    }
}

impl OuterTile {
    #[inline(always)]
    unsafe fn rows<V: Vector, const ROWS: usize>(&self) {
        // SAFETY: `a` advances `depth` times by `ROWS`, `offsets` by one: inside what the caller
        // vouches for; B is read a whole vector at a time, as documented.
        unsafe {
            let mut sums = [[V::zero(); 2]; ROWS];
            let (mut a, mut offsets) = (self.a, self.offsets);
            let [b0, b1] = self.b;
            let end = offsets.add(self.depth);
            while offsets < end {
                let offset = *offsets;
                let (b0, b1) = (V::load(b0.add(offset)), V::load(b1.add(offset)));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let a = V::splat(*a.add(r));
                    sums[0] = sums[0].mul_add(a, b0);
                    sums[1] = sums[1].mul_add(a, b1);
                }
                a = a.add(ROWS);
                offsets = offsets.add(1);
            }
            if self.is_plain::<V>() {
                self.write_plain(&sums);
                return;
            }
            for (r, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    self.write::<V>(r, v, *sum);
                }
            }
        }
    }

    /// Whether all lanes are wanted and nothing but C or a row's bias is added: nearly always.
    #[inline(always)]
    fn is_plain<V: Vector>(&self) -> bool {
        let Finish {
            alpha,
            beta,
            column_bias,
            ..
        } = self.finish;
        let whole = self.lanes[0] == V::LANES && self.lanes[1] == V::LANES;
        whole && alpha == 1.0 && (beta == 0.0 || beta == 1.0) && column_bias[0].is_null()
    }

    #[inline(always)]
    unsafe fn write_plain<V: Vector>(&self, sums: &[[V; 2]]) {
        let bias = self.finish.row_bias;
        // SAFETY: all lanes belong to C, as `is_plain` says.
        unsafe {
            for (r, sums) in sums.iter().enumerate() {
                let c = [
                    self.c[0].add(r * self.c_stride),
                    self.c[1].add(r * self.c_stride),
                ];
                let mut values = *sums;
                if !bias.is_null() {
                    let bias = V::splat(*bias.add(r));
                    values = [values[0].add(bias), values[1].add(bias)];
                }
                if self.finish.beta != 0.0 {
                    values = [values[0].add(V::load(c[0])), values[1].add(V::load(c[1]))];
                }
                values[0].store(c[0]);
                values[1].store(c[1]);
            }
        }
    }

    #[inline(always)]
    unsafe fn write<V: Vector>(&self, r: usize, v: usize, sum: V) {
        let Finish {
            alpha,
            beta,
            row_bias,
            column_bias,
        } = self.finish;
        let lanes = self.lanes[v];
        // SAFETY: only the lanes that the caller vouches for are touched.
        unsafe {
            let c = self.c[v].add(r * self.c_stride);
            let mut value = if alpha == 1.0 {
                sum
            } else {
                sum.mul(V::splat(alpha))
            };
            if !row_bias.is_null() {
                value = value.add(V::splat(*row_bias.add(r)));
            }
            if !column_bias[v].is_null() {
                value = value.add(V::load_first(column_bias[v], lanes));
            }
            if lanes == V::LANES {
                if beta != 0.0 {
                    value = value.mul_add(V::splat(beta), V::load(c));
                }
                value.store(c);
            } else if lanes > 0 {
                if beta != 0.0 {
                    value = value.mul_add(V::splat(beta), V::load_first(c, lanes));
                }
                value.store_first(c, lanes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::dispatch;

    #[test]
    fn row_tiles_cover_all_rows_in_order() {
        for simd in Simd::available() {
            for rows in 1..70 {
                let mut next = 0;
                for (start, height) in row_tiles(simd, rows) {
                    assert_eq!(start, next);
                    assert!(height >= 1 && height <= max_rows(simd));
                    next += height;
                }
                assert_eq!(next, rows);
            }
        }
    }

    #[test]
    fn every_height_and_finish_matches_its_definition() {
        for simd in Simd::available() {
            let width = dispatch::lanes(simd);
            for rows in 1..=max_rows(simd) {
                for (lanes, beta) in [
                    ([width, width], 0.0),
                    ([width, 1], 0.5),
                    ([width - 1, 0], 1.0),
                ] {
                    check(simd, rows, lanes, beta);
                }
            }
        }
    }

    fn check(simd: Simd, rows: usize, lanes: [usize; 2], beta: f32) {
        let (depth, width) = (5, dispatch::lanes(simd));
        let a: Vec<f32> = (0..depth * rows).map(|i| (i % 7) as f32 - 3.0).collect();
        let b: Vec<f32> = (0..depth * 2 * width + 1)
            .map(|i| (i % 5) as f32 - 2.0)
            .collect();
        let offsets: Vec<usize> = (0..depth).rev().map(|k| k * 2 * width).collect();
        let row_bias: Vec<f32> = (0..rows).map(|r| r as f32).collect();
        let column_bias: Vec<f32> = (0..2 * width).map(|i| 0.25 * i as f32).collect();
        let mut c: Vec<f32> = (0..rows * 2 * width)
            .map(|i| if beta == 0.0 { f32::NAN } else { i as f32 })
            .collect();
        let before = c.clone();
        let column_bias_at = [column_bias.as_ptr(), column_bias[width..].as_ptr()];
        let finish = Finish {
            alpha: 2.0,
            beta,
            row_bias: row_bias.as_ptr(),
            column_bias: column_bias_at,
        };
        let c_at = c.as_mut_ptr();
        let tile = OuterTile {
            rows,
            depth,
            a: a.as_ptr(),
            b: [b.as_ptr(), b[width..].as_ptr()],
            offsets: offsets.as_ptr(),
            c: [c_at, c_at.wrapping_add(width)],
            c_stride: 2 * width,
            lanes,
            finish,
        };
        // SAFETY: all pointers span what the tile reads and writes; the path is available.
        unsafe { dispatch::run(simd, tile) };
        for r in 0..rows {
            for column in 0..2 * width {
                let at = r * 2 * width + column;
                if column % width >= lanes[column / width] {
                    assert_eq!(c[at].to_bits(), before[at].to_bits());
                    continue;
                }
                let sum: f32 = (0..depth)
                    .map(|k| a[k * rows + r] * b[offsets[k] + column])
                    .sum();
                let old = if beta == 0.0 { 0.0 } else { beta * before[at] };
                assert_eq!(c[at], 2.0 * sum + row_bias[r] + column_bias[column] + old);
            }
        }
    }
}
