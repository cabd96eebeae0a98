//! Kernels in Winograd's form, packed for the outer-product tile.
//!
//! `U = G g Gᵀ` for every output and input channel, as `[tile of outputs][36][input][output in the
//! tile]`: what one tile of outputs multiplies with is contiguous.

use rayon::prelude::*;

use super::POINTS;
use super::transforms::of_kernel;
use crate::Simd;
use crate::gemm::PARALLEL_FROM;
use crate::gemm::dispatch::{self, Job};
use crate::gemm::outer::{self, MAX_ROWS};
use crate::gemm::vector::Vector;

/// Kernels as they lie in memory: value t of output o and input c is `data[o · out_stride + c ·
/// in_stride + t]`, or that of 8 − t where the kernel is turned by 180 degrees.
pub(super) struct Kernels<'a> {
    pub(super) data: &'a [f32],
    pub(super) out_stride: usize,
    pub(super) in_stride: usize,
    pub(super) turned: bool,
    pub(super) in_channels: usize,
    pub(super) out_channels: usize,
}

impl Kernels<'_> {
    /// Values of one packed tile; tiles stand this far apart whatever their height.
    pub(super) fn tile_len(&self, simd: Simd) -> usize {
        POINTS * self.in_channels * outer::max_rows(simd)
    }

    /// Packs everything for the path `simd`.
    pub(super) fn pack(&self, simd: Simd, to: &mut [f32]) {
        let tiles: Vec<_> = outer::row_tiles(simd, self.out_channels).collect();
        let one = |((first, rows), to): (&(usize, usize), &mut [f32])| {
            let tile = Tile {
                kernels: self,
                first: *first,
                rows: *rows,
                to,
            };
            // SAFETY: the path was checked on entry; the job holds no bare pointers.
            unsafe { dispatch::run(simd, tile) }
        };
        let chunks = self.tile_len(simd);
        if self.in_channels * self.out_channels * POINTS >= PARALLEL_FROM / 4 {
            tiles
                .par_iter()
                .zip(to.par_chunks_mut(chunks))
                .for_each(one);
        } else {
            tiles.iter().zip(to.chunks_mut(chunks)).for_each(one);
        }
    }
}

/// One tile of outputs.
struct Tile<'a> {
    kernels: &'a Kernels<'a>,
    first: usize,
    rows: usize,
    to: &'a mut [f32],
}

impl Job for Tile<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self {
            kernels,
            first,
            rows,
            to,
        } = self;
        let step = kernels.in_channels * rows;
        for c in 0..kernels.in_channels {
            let mut g = [[0.0; MAX_ROWS]; 9];
            // An index, because each kernel is spread over nine arrays.
            for r in 0..rows {
                let at = (first + r) * kernels.out_stride + c * kernels.in_stride;
                let kernel = &kernels.data[at..at + 9];
                for (t, g) in g.iter_mut().enumerate() {
                    g[r] = kernel[if kernels.turned { 8 - t } else { t }];
                }
            }
            let left = of_kernel([&g[0], &g[3], &g[6]]);
            let middle = of_kernel([&g[1], &g[4], &g[7]]);
            let right = of_kernel([&g[2], &g[5], &g[8]]);
            for (i, ((left, middle), right)) in left.iter().zip(&middle).zip(&right).enumerate() {
                let row = of_kernel([left, middle, right]);
                for (j, values) in row.iter().enumerate() {
                    let at = (6 * i + j) * step + c * rows;
                    to[at..at + rows].copy_from_slice(&values[..rows]);
                }
            }
        }
    }
}
