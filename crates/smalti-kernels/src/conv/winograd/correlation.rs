//! The forward kernel: blocks of tiles, from input to output.

use rayon::prelude::*;

use super::POINTS;
use super::kernels::Kernels;
use super::strips::{Planes, Strips};
use super::tiles::{Block, SIDE, Tiling};
use super::transforms::{of_input, to_output};
use crate::Simd;
use crate::gemm::dispatch::{self, Job};
use crate::gemm::outer::{self, Finish, OuterTile};
use crate::gemm::scratch::{Shared, with_scratch};
use crate::gemm::vector::Vector;

/// Values of V in a block, about: one and a quarter megabytes.
const BLOCK_VALUES: usize = 320 << 10;
/// Most tiles in a block: the products of a tile of outputs then fit the second cache beside V.
const BLOCK_TILES: usize = 128;

/// A correlation with 3×3 kernels at stride 1.
pub(super) struct Correlation<'a> {
    pub(super) batch: usize,
    pub(super) input: Planes<'a>,
    /// Channels, height and width.
    pub(super) output: [usize; 3],
    pub(super) bias: Option<&'a [f32]>,
    pub(super) to: Shared<'a>,
}

/// Computes a correlation on the path `simd`.
pub(super) fn run(simd: Simd, work: &Correlation, kernels: &Kernels) {
    let tile_len = kernels.tile_len(simd);
    let tiles: Vec<_> = outer::row_tiles(simd, kernels.out_channels).collect();
    with_scratch(tile_len * tiles.len(), |packed| {
        kernels.pack(simd, packed);
        let [_, height, width] = work.output;
        let wanted = (BLOCK_VALUES / (POINTS * work.input.channels)).min(BLOCK_TILES);
        let tiling = Tiling::new(simd, work.batch, [height, width], wanted);
        let plan = Plan {
            simd,
            work,
            packed,
            tile_len,
            tiles,
            offsets: (0..work.input.channels).map(|c| c * tiling.lanes).collect(),
            tiling,
        };
        let blocks = plan.tiling.blocks;
        if blocks >= 2 * rayon::current_num_threads() {
            (0..blocks)
                .into_par_iter()
                .for_each(|block| plan.block(block, false));
        } else {
            (0..blocks).for_each(|block| plan.block(block, true));
        }
    });
}

/// Everything that tasks share.
struct Plan<'a> {
    simd: Simd,
    work: &'a Correlation<'a>,
    tiling: Tiling,
    packed: &'a [f32],
    tile_len: usize,
    /// Tiles of output channels: first and how many.
    tiles: Vec<(usize, usize)>,
    /// Where input channel c starts in one point of V.
    offsets: Vec<usize>,
}

impl Plan<'_> {
    /// One block from input to output; `shared` if all threads are to work on it.
    fn block(&self, index: usize, shared: bool) {
        let block = self.tiling.block(index);
        let channels = self.offsets.len();
        with_scratch(POINTS * channels * self.tiling.lanes, |v| {
            let to = Shared::new(v);
            let transform = |channel| {
                transform_input(
                    self.simd,
                    (&self.tiling, block),
                    (self.work.input, channel),
                    to,
                );
            };
            if shared {
                (0..channels).into_par_iter().for_each(transform);
            } else {
                (0..channels).for_each(transform);
            }
            let v = &*v;
            let multiply = |tile| self.multiply(block, tile, v);
            if shared {
                (0..self.tiles.len()).into_par_iter().for_each(multiply);
            } else {
                (0..self.tiles.len()).for_each(multiply);
            }
        });
    }

    /// Multiplies one tile of output channels and writes its outputs.
    fn multiply(&self, block: Block, tile: usize, v: &[f32]) {
        let (first, rows) = self.tiles[tile];
        let lanes = self.tiling.lanes;
        with_scratch((POINTS * rows + SIDE * SIDE) * lanes, |scratch| {
            let (m, y) = scratch.split_at_mut(POINTS * rows * lanes);
            self.products(tile, v, m);
            for r in 0..rows {
                let job = TransformOutput {
                    m: m[r * lanes..].as_ptr(),
                    point: rows * lanes,
                    bias: self.work.bias.map_or(0.0, |bias| bias[first + r]),
                    y: y.as_mut_ptr(),
                    lanes,
                };
                // SAFETY: M has the row's lanes at every point, `y` has four lines of four values for
                // every lane; the path was checked on entry.
                unsafe { dispatch::run(self.simd, job) };
                self.write(block, first + r, y);
            }
        });
    }

    /// `M = U V` of one tile of output channels: `[36][output][lane]`.
    fn products(&self, tile: usize, v: &[f32], m: &mut [f32]) {
        let (_, rows) = self.tiles[tile];
        let (lanes, depth) = (self.tiling.lanes, self.offsets.len());
        let width = dispatch::lanes(self.simd);
        let u = &self.packed[tile * self.tile_len..][..self.tile_len];
        for point in 0..POINTS {
            for lane in (0..lanes).step_by(2 * width) {
                let b = v[point * depth * lanes + lane..].as_ptr();
                let c = m[point * rows * lanes + lane..].as_mut_ptr();
                let product = OuterTile {
                    rows,
                    depth,
                    a: u[point * depth * rows..].as_ptr(),
                    b: [b, b.wrapping_add(width)],
                    offsets: self.offsets.as_ptr(),
                    c: [c, c.wrapping_add(width)],
                    c_stride: lanes,
                    lanes: [width; 2],
                    finish: Finish::plain(false),
                };
                // SAFETY: U has `depth` steps of `rows` values, V and M have two whole vectors at
                // every step and row; the path was checked on entry.
                unsafe { dispatch::run(self.simd, product) };
            }
        }
    }

    /// Copies the block's outputs of one channel to their place.
    fn write(&self, block: Block, channel: usize, y: &[f32]) {
        let [channels, height, width] = self.work.output;
        let from = SIDE * block.column;
        let count = (SIDE * block.columns).min(width - from);
        for row in 0..block.rows {
            let (image, top) = self.tiling.place(block.row + row);
            for line in 0..SIDE.min(height - top) {
                let start = ((image * channels + channel) * height + top + line) * width + from;
                // SAFETY: these outputs belong to this block and channel alone.
                let to = unsafe { self.work.to.slice(start, count) };
                let at = SIDE * (line * self.tiling.lanes + row * block.columns);
                to.copy_from_slice(&y[at..at + count]);
            }
        }
    }
}

/// Writes V of one input channel of a block: `v[point][channel][lane]`.
pub(super) fn transform_input(
    simd: Simd,
    (tiling, block): (&Tiling, Block),
    (planes, channel): (Planes, usize),
    v: Shared,
) {
    let lanes = tiling.lanes;
    let layout = Strips::of_input(tiling, block, dispatch::lanes(simd));
    with_scratch(layout.len(), |strips| {
        layout.fill((tiling, block), (planes, channel), strips);
        let job = TransformInput {
            layout,
            strips: strips.as_ptr(),
            v: v.at(channel * lanes),
            point: planes.channels * lanes,
            lanes,
        };
        // SAFETY: the strips are laid out as said; V has this channel's lanes at every point, and
        // they are this task's alone; the path was checked on entry.
        unsafe { dispatch::run(simd, job) };
    });
}

/// `V = Bᵀ d B` of one channel of a block. Valid pointers: `strips` as `layout` says, `v + point · p`
/// for `lanes` values of every point p.
struct TransformInput {
    layout: Strips,
    strips: *const f32,
    v: *mut f32,
    point: usize,
    lanes: usize,
}

impl Job for TransformInput {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        // SAFETY: as documented on the struct.
        unsafe {
            for lane in (0..self.lanes).step_by(V::LANES) {
                let mut columns = [[V::zero(); 6]; 6];
                for line in 0..6 {
                    let from = self.strips.add(self.layout.at(line, lane));
                    let [a, b, c, d] = V::load4(from);
                    let [e, f, _, _] = V::load4(from.add(self.layout.next()));
                    for (column, value) in columns.iter_mut().zip([a, b, c, d, e, f]) {
                        column[line] = value;
                    }
                }
                let mut lines = [[V::zero(); 6]; 6];
                for (j, column) in columns.iter().enumerate() {
                    for (line, value) in lines.iter_mut().zip(of_input(*column)) {
                        line[j] = value;
                    }
                }
                for (i, line) in lines.iter().enumerate() {
                    for (j, value) in of_input(*line).iter().enumerate() {
                        value.store(self.v.add((6 * i + j) * self.point + lane));
                    }
                }
            }
        }
    }
}

/// `Y = Aᵀ M A + bias` of one channel of a block, as four lines of `4 · lanes` values. Valid pointers:
/// `m + point · p` for `lanes` values of every point p, `y` for `16 · lanes` values.
struct TransformOutput {
    m: *const f32,
    point: usize,
    bias: f32,
    y: *mut f32,
    lanes: usize,
}

impl Job for TransformOutput {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        // SAFETY: as documented on the struct.
        unsafe {
            let bias = V::splat(self.bias);
            for lane in (0..self.lanes).step_by(V::LANES) {
                let mut lines = [[V::zero(); 6]; SIDE];
                for j in 0..6 {
                    let mut column = [V::zero(); 6];
                    for (i, m) in column.iter_mut().enumerate() {
                        *m = V::load(self.m.add((6 * i + j) * self.point + lane));
                    }
                    for (line, value) in lines.iter_mut().zip(to_output(column)) {
                        line[j] = value;
                    }
                }
                for (y, line) in lines.iter().enumerate() {
                    let [a, b, c, d] = to_output(*line);
                    let values = [a.add(bias), b.add(bias), c.add(bias), d.add(bias)];
                    V::store4(values, self.y.add(SIDE * (y * self.lanes + lane)));
                }
            }
        }
    }
}
