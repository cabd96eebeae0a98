//! The inner-product tile: up to four rows of X against up to [`MAX_COLUMNS`] rows of Y.
//!
//! `out[y][x] += Σ_q X[x][q] · Y[y][q]`, both sides read as vectors along q. Nothing is packed and
//! nothing is transposed, which is right where q is long and both sides lie along it: the weight
//! gradient of a convolution (q = pixels), and a linear layer on few rows (q = features), where
//! the weights stream through once.
//!
//! A step of q is found through two tables, so q may wander over images and strips. Lanes are
//! summed apart and put together once at the end, in a fixed order.

use super::dispatch::Job;
use super::vector::Vector;
use crate::Simd;

/// Rows of X in one tile, on every path.
pub(crate) const MAX_ROWS: usize = 4;

/// The largest number of rows of Y in a tile on any path.
pub(crate) const MAX_COLUMNS: usize = 5;

/// Rows of Y in one tile on the path `simd`: what the registers hold.
pub(crate) fn max_columns(simd: Simd) -> usize {
    match simd {
        // Six would fit too, but the compiler reads all columns ahead and spills sums.
        Simd::Avx512 | Simd::Neon => 5,
        Simd::Avx2 | Simd::Portable => 2,
    }
}

/// The steps of q: vectors at `x_offsets[t]` and `y_offsets[t]`. The first `full` steps are whole
/// vectors, the `partial` ones after them have `lanes` lanes each.
#[derive(Clone, Copy)]
pub(crate) struct Steps {
    pub(crate) x_offsets: *const usize,
    pub(crate) y_offsets: *const usize,
    pub(crate) full: usize,
    pub(crate) partial: usize,
    pub(crate) lanes: usize,
}

/// One tile of work. Valid pointers: the tables for `full + partial` offsets, `x + r · x_stride`
/// and `y[s]` plus every offset for a whole vector (`lanes` of it in partial steps), and `out + s ·
/// out_stride` for `MAX_ROWS` values.
pub(crate) struct DotTile {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) x: *const f32,
    pub(crate) x_stride: usize,
    pub(crate) y: [*const f32; MAX_COLUMNS],
    pub(crate) steps: Steps,
    /// Four sums for each column; those beyond `rows` are left as they are.
    pub(crate) out: *mut f32,
    pub(crate) out_stride: usize,
    /// Multiplies the sums before they are added to `out`.
    pub(crate) alpha: f32,
    /// How much further on the rows of Y lie that will be read next, or 0: asking for them early hides
    /// the way from memory, which the processor's own guesses do not for rows of a few kilobytes.
    pub(crate) ahead: usize,
}

impl Job for DotTile {
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
                rows => unreachable!("a tile has 1 to 4 rows, not {rows}"),
            }
        }
    }
}

impl DotTile {
    #[inline(always)]
    unsafe fn rows<V: Vector, const ROWS: usize>(&self) {
        // SAFETY: as for `run`.
        unsafe {
            match self.columns {
                1 => self.sum::<V, ROWS, 1>(),
                2 => self.sum::<V, ROWS, 2>(),
                3 => self.sum::<V, ROWS, 3>(),
                4 => self.sum::<V, ROWS, 4>(),
                5 => self.sum::<V, ROWS, 5>(),
                columns => unreachable!("a tile has 1 to 5 columns, not {columns}"),
            }
        }
    }

    #[inline(always)]
    unsafe fn sum<V: Vector, const ROWS: usize, const COLUMNS: usize>(&self) {
        let Steps {
            x_offsets,
            y_offsets,
            full,
            partial,
            lanes,
        } = self.steps;
        // Loops, not closures: a closure would not be compiled with the instructions.
        // SAFETY: every offset of the tables leads to memory that the caller vouches for.
        unsafe {
            let mut sums = [[V::zero(); ROWS]; COLUMNS];
            for t in 0..full {
                let (x_at, y_at) = (*x_offsets.add(t), *y_offsets.add(t));
                let mut x = [V::zero(); ROWS];
                for (r, x) in x.iter_mut().enumerate() {
                    *x = V::load(self.x.add(r * self.x_stride + x_at));
                }
                for (s, sums) in sums.iter_mut().enumerate() {
                    let y = V::load(self.y[s].add(y_at));
                    if self.ahead > 0 {
                        V::prefetch(self.y[s].wrapping_add(y_at + self.ahead));
                    }
                    for (sum, x) in sums.iter_mut().zip(x) {
                        *sum = sum.mul_add(x, y);
                    }
                }
            }
            for t in full..full + partial {
                let (x_at, y_at) = (*x_offsets.add(t), *y_offsets.add(t));
                let mut x = [V::zero(); ROWS];
                for (r, x) in x.iter_mut().enumerate() {
                    *x = V::load_first(self.x.add(r * self.x_stride + x_at), lanes);
                }
                for (s, sums) in sums.iter_mut().enumerate() {
                    let y = V::load_first(self.y[s].add(y_at), lanes);
                    for (sum, x) in sums.iter_mut().zip(x) {
                        *sum = sum.mul_add(x, y);
                    }
                }
            }
            for (s, sums) in sums.iter().enumerate() {
                let mut four = [V::zero(); MAX_ROWS];
                four[..ROWS].copy_from_slice(sums);
                let four = V::sums(four);
                let out = self.out.add(s * self.out_stride);
                for (r, sum) in four.iter().enumerate().take(ROWS) {
                    *out.add(r) += self.alpha * sum;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::dispatch;

    #[test]
    fn every_tile_matches_its_definition() {
        for simd in Simd::available() {
            for rows in 1..=MAX_ROWS {
                for columns in 1..=max_columns(simd) {
                    check(simd, rows, columns);
                }
            }
        }
    }

    fn check(simd: Simd, rows: usize, columns: usize) {
        let width = dispatch::lanes(simd);
        // Two whole steps, then two steps of one lane, in scattered places.
        let (x_offsets, y_offsets) = (
            [width, 0, 3 * width, 3 * width - 2],
            [0, 2 * width, width, 5],
        );
        let lane_counts = [width, width, 1, 1];
        let x: Vec<f32> = (0..rows * 4 * width)
            .map(|i| (i % 11) as f32 - 5.0)
            .collect();
        let y: Vec<f32> = (0..columns * 4 * width)
            .map(|i| (i % 7) as f32 - 3.0)
            .collect();
        let mut out = vec![1.0; columns * MAX_ROWS];
        let steps = Steps {
            x_offsets: x_offsets.as_ptr(),
            y_offsets: y_offsets.as_ptr(),
            full: 2,
            partial: 2,
            lanes: 1,
        };
        let y_rows =
            std::array::from_fn(|s| y.as_ptr().wrapping_add(s.min(columns - 1) * 4 * width));
        let tile = DotTile {
            rows,
            columns,
            x: x.as_ptr(),
            x_stride: 4 * width,
            y: y_rows,
            steps,
            out: out.as_mut_ptr(),
            out_stride: MAX_ROWS,
            alpha: 3.0,
            ahead: 0,
        };
        // SAFETY: all pointers span what the tile reads and writes; the path is available.
        unsafe { dispatch::run(simd, tile) };
        for s in 0..columns {
            for r in 0..MAX_ROWS {
                let mut sum = 0.0;
                for t in 0..4 {
                    for lane in 0..lane_counts[t] {
                        let x = x[(r % rows) * 4 * width + x_offsets[t] + lane];
                        sum += x * y[s * 4 * width + y_offsets[t] + lane];
                    }
                }
                let expected = if r < rows { 1.0 + 3.0 * sum } else { 1.0 };
                assert_eq!(
                    out[s * MAX_ROWS + r],
                    expected,
                    "{simd:?} rows {rows} columns {columns}"
                );
            }
        }
    }
}
