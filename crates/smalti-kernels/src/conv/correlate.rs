//! The forward kernel: windows times weights, as a product that is never laid out in full.
//!
//! ```text
//! output[n, o, y, x] = bias[o] + Σ_{c,ty,tx} weight[o, c, ty, tx] · window(n, c, ty, tx; y, x)
//! ```
//!
//! is C = A · B with A the weights (`[out, steps]`, a step being one channel and tap) and B the windows
//! (`[steps, pixels]`), which the outer-product tile reads from the planes of [`super::windows`]
//! through its offset table. Blocks of pixels are shared out to threads; a block takes the channels
//! in groups, so that its planes stay in the second cache. The gradient of the input is the same
//! kernel with turned weights, once for each remainder of the stride ([`super::backward_input`]).

use rayon::prelude::*;

use super::weights::{ChannelGroups, Weights};
use super::windows::{Block, Cut, EdgeMasks, Expand, Planes, Windows};
use crate::Simd;
use crate::gemm::PARALLEL_FROM;
use crate::gemm::dispatch;
use crate::gemm::outer::{self, Finish, OuterTile};
use crate::gemm::scratch::{Shared, with_scratch};

/// Values of planes that a block of pixels may fill: a quarter of a megabyte.
const PLANE_VALUES: usize = 1 << 16;

/// Values of output that several correlations write in turns: a quarter of a megabyte.
const UNIT_VALUES: usize = 1 << 16;

/// Where pixel (y, x) of output o of image n goes: `first + n · image + o · channel + y · row + x ·
/// column`.
#[derive(Clone, Copy)]
pub(super) struct Places {
    pub(super) first: usize,
    pub(super) image: usize,
    pub(super) channel: usize,
    pub(super) row: usize,
    pub(super) column: usize,
}

/// A correlation to compute.
pub(super) struct Correlation<'a> {
    pub(super) windows: Windows,
    pub(super) batch: usize,
    pub(super) in_channels: usize,
    pub(super) out_channels: usize,
    pub(super) input: &'a [f32],
    pub(super) weights: Weights<'a>,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) output: Shared<'a>,
    pub(super) places: Places,
}

/// Computes correlations on the path `simd`. Several of them interleave their outputs: they then take
/// turns, some images at a time, so that lines they share are still in the second cache.
pub(super) fn run(simd: Simd, works: &[Correlation]) {
    let prepared: Vec<_> = works
        .iter()
        .map(|work| {
            let groups =
                ChannelGroups::new(simd, &work.weights, [work.in_channels, work.out_channels]);
            let len = groups.packed_len();
            (work, groups, len)
        })
        .collect();
    let packed_len = prepared.iter().map(|(_, _, len)| len).sum();
    with_scratch(packed_len, |mut free| {
        let mut plans = Vec::with_capacity(works.len());
        for (work, groups, len) in prepared {
            let (packed, rest) = free.split_at_mut(len);
            groups.pack(&work.weights, packed);
            plans.push(Plan::new(simd, work, groups, packed));
            free = rest;
        }
        let units = units(&plans);
        let splits = plans.iter().map(|plan| plan.splits).max().unwrap_or(1);
        let task = |index: usize| {
            let (unit, split) = (index / splits, [index % splits, splits]);
            for plan in &plans {
                let blocks = [unit, unit + 1].map(|u| u * plan.cut.blocks / units);
                (blocks[0]..blocks[1]).for_each(|block| plan.task(block, split));
            }
        };
        let tasks = units * splits;
        if tasks > 1 && plans.iter().any(|plan| plan.parallel) {
            (0..tasks).into_par_iter().for_each(task);
        } else {
            (0..tasks).for_each(task);
        }
    });
}

/// How many shares the blocks of pixels go in: one each; or, where several correlations write one
/// output, shares of some images whose output fits the second cache.
fn units(plans: &[Plan]) -> usize {
    let most = plans.iter().map(|plan| plan.cut.blocks).max().unwrap_or(0);
    let Some(work) = plans
        .first()
        .map(|plan| plan.work)
        .filter(|_| plans.len() > 1)
    else {
        return most;
    };
    let values = work.batch * work.places.image;
    values
        .div_ceil(UNIT_VALUES)
        .max(4 * rayon::current_num_threads())
        .min(most)
}

impl Correlation<'_> {
    fn multiply_adds(&self) -> usize {
        self.batch
            * self.windows.out_pixels()
            * self.out_channels
            * self.in_channels
            * self.windows.taps()
    }
}

/// How the work is cut up; everything that tasks share.
struct Plan<'a> {
    simd: Simd,
    work: &'a Correlation<'a>,
    groups: ChannelGroups,
    packed: &'a [f32],
    masks: EdgeMasks,
    cut: Cut,
    /// Tasks wanted for one block of pixels: each takes a share of the output tiles.
    splits: usize,
    tiles: Vec<(usize, usize)>,
    parallel: bool,
}

impl<'a> Plan<'a> {
    fn new(
        simd: Simd,
        work: &'a Correlation<'a>,
        groups: ChannelGroups,
        packed: &'a [f32],
    ) -> Self {
        let windows = &work.windows;
        let per_pixel = groups.largest() * windows.taps_x;
        let mut pixels = (PLANE_VALUES / per_pixel.max(1)).clamp(256, 2048);
        let parallel = work.multiply_adds() >= PARALLEL_FROM;
        let wanted = if parallel {
            4 * rayon::current_num_threads()
        } else {
            1
        };
        while pixels > 128 && windows.cut(work.batch, pixels).blocks < wanted {
            pixels /= 2;
        }
        let cut = windows.cut(work.batch, pixels);
        let tiles: Vec<_> = outer::row_tiles(simd, work.out_channels).collect();
        let splits = wanted
            .div_ceil(cut.blocks.max(1))
            .clamp(1, tiles.len().max(1));
        let masks = EdgeMasks::new(windows);
        Self {
            simd,
            work,
            groups,
            packed,
            masks,
            cut,
            splits,
            tiles,
            parallel,
        }
    }

    /// Block `index` of the pixels, share `split` of `splits` of the output tiles.
    fn task(&self, index: usize, [split, splits]: [usize; 2]) {
        let (work, windows) = (self.work, &self.work.windows);
        let block = self.cut.block(windows, work.batch, index);
        let planes = windows.planes(block.image_count(), block.row_count());
        let tiles = [split, split + 1].map(|s| s * self.tiles.len() / splits);
        let largest = self.groups.largest();
        with_scratch(planes.buffer_len(largest), |buffer| {
            let mut offsets = Vec::with_capacity(largest * self.groups.taps);
            for g in 0..self.groups.groups {
                let channels = self.groups.group(g);
                let (input, all_channels, to) = (work.input, work.in_channels, &mut *buffer);
                let masks = &self.masks;
                Expand {
                    windows,
                    planes: &planes,
                    masks,
                    input,
                    all_channels,
                    channels,
                    block,
                    to,
                }
                .fill(self.simd);
                self.offsets(&planes, channels[1] - channels[0], &mut offsets);
                let group = Group {
                    plan: self,
                    index: g,
                    block,
                    planes,
                    buffer,
                    offsets: &offsets,
                };
                group.multiply(tiles);
            }
        });
    }

    /// The table of a group's steps.
    fn offsets(&self, planes: &Planes, channels: usize, to: &mut Vec<usize>) {
        let windows = &self.work.windows;
        let offset = |k| {
            let (channel, tap) = self.groups.step(channels, k);
            channel * planes.channel_len
                + planes.tap(windows, tap / windows.taps_x, tap % windows.taps_x)
        };
        to.clear();
        to.extend((0..channels * self.groups.taps).map(offset));
    }
}

/// One group of channels of one block, expanded.
struct Group<'a> {
    plan: &'a Plan<'a>,
    index: usize,
    block: Block,
    planes: Planes,
    buffer: &'a [f32],
    offsets: &'a [usize],
}

/// A run of pixels of one image that fills a vector, or part of one.
#[derive(Clone, Copy)]
struct Run {
    image: usize,
    pixel: usize,
    lanes: usize,
}

impl Group<'_> {
    /// All pixels of the block against output tiles `tiles[0]..tiles[1]`.
    fn multiply(&self, tiles: [usize; 2]) {
        let windows = &self.plan.work.windows;
        let lanes = dispatch::lanes(self.plan.simd);
        let pixels = self.block.row_count() * windows.out_width;
        let per_image = pixels.div_ceil(lanes);
        let runs = per_image * self.block.image_count();
        let run = |r: usize| {
            let pixel = r % per_image * lanes;
            let lanes = if r < runs {
                (pixels - pixel).min(lanes)
            } else {
                0
            };
            // The second half of the last tile may be empty: it reads what the first reads.
            Run {
                image: r.min(runs - 1) / per_image,
                pixel,
                lanes,
            }
        };
        let places = self.plan.work.places;
        let contiguous = places.column == 1 && places.row == windows.out_width;
        // A tile of weights stays in the first cache while the pixels pass by.
        for t in tiles[0]..tiles[1] {
            for r in (0..runs).step_by(2) {
                let pair = [run(r), run(r + 1)];
                if contiguous {
                    self.tile(t, pair)
                } else {
                    self.scattered_tile(t, pair)
                }
            }
        }
    }

    /// A tile that goes straight to the output.
    fn tile(&self, t: usize, runs: [Run; 2]) {
        let places = self.plan.work.places;
        let channel = self.plan.tiles[t].0 * places.channel;
        let at = |run: Run| {
            let image = self.block.images[0] + run.image;
            let pixel = self.block.rows[0] * places.row + run.pixel;
            self.plan
                .work
                .output
                .at(places.first + image * places.image + channel + pixel)
        };
        self.run_tile(t, runs, runs.map(at), (places.channel, self.index > 0));
    }

    /// A tile whose pixels are not neighbours in the output: by way of a buffer.
    fn scattered_tile(&self, t: usize, runs: [Run; 2]) {
        const WIDTH: usize = 32;
        let places = self.plan.work.places;
        let mut values = [0.0; outer::MAX_ROWS * WIDTH];
        let at = values.as_mut_ptr();
        self.run_tile(t, runs, [at, at.wrapping_add(WIDTH / 2)], (WIDTH, false));
        let (first, rows) = self.plan.tiles[t];
        for (v, run) in runs.iter().enumerate() {
            let pixels = self.pixel_places(*run);
            let image = self.block.images[0] + run.image;
            let start = places.first + image * places.image + first * places.channel;
            for r in 0..rows {
                let values = &values[r * WIDTH + v * WIDTH / 2..][..run.lanes];
                // The bounds are checked once for the run's last pixel.
                let start = start + r * places.channel;
                self.plan
                    .work
                    .output
                    .at(start + pixels[run.lanes.max(1) - 1]);
                let to = self.plan.work.output.at(start);
                // SAFETY: these outputs and pixels are inside the output and this task's alone.
                unsafe {
                    if self.index > 0 {
                        values
                            .iter()
                            .zip(pixels)
                            .for_each(|(value, p)| *to.add(p) += value);
                    } else {
                        values
                            .iter()
                            .zip(pixels)
                            .for_each(|(value, p)| *to.add(p) = *value);
                    }
                }
            }
        }
    }

    /// Where a run's pixels go in their image.
    fn pixel_places(&self, run: Run) -> [usize; 16] {
        let places = self.plan.work.places;
        let width = self.plan.work.windows.out_width;
        let (mut y, mut x) = (self.block.rows[0] + run.pixel / width, run.pixel % width);
        let mut to = [0; 16];
        for to in to.iter_mut().take(run.lanes) {
            *to = y * places.row + x * places.column;
            x += 1;
            if x == width {
                (y, x) = (y + 1, 0);
            }
        }
        to
    }

    /// Multiplies output tile `t` with two runs of pixels into `c`, rows `to.0` apart, added to what is
    /// there if `to.1`.
    fn run_tile(&self, t: usize, runs: [Run; 2], c: [*mut f32; 2], to: (usize, bool)) {
        let plan = self.plan;
        let (first, rows) = plan.tiles[t];
        let b = runs.map(|run| &self.buffer[run.image * self.planes.image_len + run.pixel..]);
        let row_bias = match plan.work.bias {
            Some(bias) if self.index == 0 => bias[first..].as_ptr(),
            _ => std::ptr::null(),
        };
        let tile = OuterTile {
            rows,
            depth: self.offsets.len(),
            a: plan.packed[(self.index * plan.tiles.len() + t) * plan.groups.tile_len()..].as_ptr(),
            b: b.map(<[f32]>::as_ptr),
            offsets: self.offsets.as_ptr(),
            c,
            c_stride: to.0,
            lanes: runs.map(|run| run.lanes),
            finish: Finish {
                row_bias,
                ..Finish::plain(to.1)
            },
        };
        // SAFETY: the planes have every tap of these runs and a vector of slack, the packed tile has
        // these steps and rows, and the outputs are this task's alone.
        unsafe { dispatch::run(plan.simd, tile) };
    }
}
