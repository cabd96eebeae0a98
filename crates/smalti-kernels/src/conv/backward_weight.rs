//! The gradients of the weight and the bias.
//!
//! ```text
//! grad_weight[o, c, ky, kx] = Σ_{n,y,x} grad_output[n, o, y, x] · window(n, c, ky, kx; y, x)
//! grad_bias[o]              = Σ_{n,y,x} grad_output[n, o, y, x]
//! ```
//!
//! Both factors lie along the pixels, so the inner-product tile reads the output's gradient in place
//! and the windows from the planes of [`super::windows`]; nothing is transposed.
//!
//! The pixels are cut into chunks and the input channels into groups, one task each; a task's sums
//! are its own, and the chunks are added up in order at the end. The cut depends on the shape
//! alone, so the result does not depend on the number of threads.

use rayon::prelude::*;

use super::forward::windows;
use super::shape::ConvShape;
use super::windows::{Block, Cut, EdgeMasks, Expand, Planes, Windows};
use crate::Simd;
use crate::gemm::PARALLEL_FROM;
use crate::gemm::dispatch;
use crate::gemm::dot::{self, DotTile, Steps};
use crate::gemm::scratch::{Shared, with_scratch};

/// Output pixels that a tile sums over between two visits of its sums.
const PIXELS: usize = 1024;

/// Values of planes that a group of channels may fill: a quarter of a megabyte.
const PLANE_VALUES: usize = 1 << 16;

/// Tasks to cut the work into, where it is large enough.
const TASKS: usize = 32;

/// Values that the sums of all chunks may fill: eight megabytes.
const SUM_VALUES: usize = 1 << 21;

/// Computes the gradients of a convolution's weight and bias on the widest path of this processor.
/// Both are overwritten.
///
/// # Panics
/// When the shape is not valid or a slice has the wrong length.
pub fn conv2d_backward_weight(
    shape: &ConvShape,
    input: &[f32],
    grad_output: &[f32],
    grad_weight: &mut [f32],
    grad_bias: Option<&mut [f32]>,
) {
    conv2d_backward_weight_on(
        Simd::active(),
        shape,
        [input, grad_output],
        grad_weight,
        grad_bias,
    );
}

/// [`conv2d_backward_weight`] of `[input, grad_output]` on a given path.
///
/// # Panics
/// As [`conv2d_backward_weight`], or when the processor does not have the path.
pub fn conv2d_backward_weight_on(
    simd: Simd,
    shape: &ConvShape,
    [input, grad_output]: [&[f32]; 2],
    grad_weight: &mut [f32],
    grad_bias: Option<&mut [f32]>,
) {
    dispatch::assert_available(simd);
    shape.check(input.len(), grad_weight.len(), grad_output.len());
    if let Some(bias) = &grad_bias {
        assert_eq!(
            bias.len(),
            shape.out_channels,
            "the bias gradient has {} values",
            bias.len()
        );
    }
    let plan = Plan::new(simd, shape, input, grad_output);
    with_scratch(plan.chunks * plan.chunk_len(), |sums| {
        sums.fill(0.0);
        let shared = Shared::new(sums);
        let with_bias = grad_bias.is_some();
        let tasks = plan.chunks * plan.groups;
        if tasks > 1 && shape.multiply_adds() >= PARALLEL_FROM {
            (0..tasks)
                .into_par_iter()
                .for_each(|t| plan.task(t, shared, with_bias));
        } else {
            (0..tasks).for_each(|t| plan.task(t, shared, with_bias));
        }
        plan.add_chunks(sums, grad_weight, grad_bias);
    });
}

/// How the work is cut up; everything that tasks share.
struct Plan<'a> {
    simd: Simd,
    shape: &'a ConvShape,
    windows: Windows,
    masks: EdgeMasks,
    input: &'a [f32],
    grad_output: &'a [f32],
    cut: Cut,
    /// Runs of blocks of pixels, each summed by itself.
    chunks: usize,
    /// Groups of input channels.
    groups: usize,
}

impl<'a> Plan<'a> {
    fn new(simd: Simd, shape: &'a ConvShape, input: &'a [f32], grad_output: &'a [f32]) -> Self {
        let windows = windows(shape);
        let cut = windows.cut(shape.batch, PIXELS);
        let masks = EdgeMasks::new(&windows);
        let plan = Self {
            simd,
            shape,
            windows,
            masks,
            input,
            grad_output,
            cut,
            chunks: 1,
            groups: 1,
        };
        // Chunks first: channel groups all read the output's gradient again.
        let room = SUM_VALUES / plan.chunk_len().max(1);
        let wanted = (shape.multiply_adds() / PARALLEL_FROM).clamp(1, TASKS);
        let chunks = wanted.min(room).min(cut.blocks).max(1);
        let groups = wanted.div_ceil(chunks).clamp(1, shape.in_channels.max(1));
        Self {
            chunks,
            groups,
            ..plan
        }
    }

    /// Outputs rounded up to whole tiles: one step's row of sums.
    fn row_len(&self) -> usize {
        self.shape.out_channels.next_multiple_of(dot::MAX_ROWS)
    }

    /// The sums of one chunk: a row for each channel and tap, and one for the bias.
    fn chunk_len(&self) -> usize {
        (self.shape.in_channels * self.windows.taps() + 1) * self.row_len()
    }

    /// One chunk of pixels, one group of input channels.
    fn task(&self, index: usize, sums: Shared, with_bias: bool) {
        let (chunk, group) = (index / self.groups, index % self.groups);
        let blocks = [chunk, chunk + 1].map(|c| c * self.cut.blocks / self.chunks);
        let channels = [group, group + 1].map(|g| g * self.shape.in_channels / self.groups);
        let chunk_start = chunk * self.chunk_len();
        let [images, rows] = self.cut.largest(&self.windows);
        let largest = self.windows.planes(images, rows);
        let at_once = (PLANE_VALUES / largest.channel_len)
            .max(1)
            .min(channels[1] - channels[0]);
        with_scratch(largest.buffer_len(at_once), |buffer| {
            let mut tables = Tables::default();
            for block in blocks[0]..blocks[1] {
                let block = self.cut.block(&self.windows, self.shape.batch, block);
                let planes = self.windows.planes(block.image_count(), block.row_count());
                tables.fill(self, &block, &planes);
                if with_bias && group == 0 {
                    let start =
                        chunk_start + self.shape.in_channels * self.windows.taps() * self.row_len();
                    self.bias(&tables, sums.at(start));
                }
                for first in (channels[0]..channels[1]).step_by(at_once.max(1)) {
                    let channels = [first, (first + at_once).min(channels[1])];
                    self.expand(channels, block, &planes, buffer);
                    let start = chunk_start + first * self.windows.taps() * self.row_len();
                    self.channels(
                        channels[1] - first,
                        (&planes, &tables),
                        buffer,
                        sums.at(start),
                    );
                }
            }
        });
    }

    fn expand(&self, channels: [usize; 2], block: Block, planes: &Planes, to: &mut [f32]) {
        let (windows, masks, input) = (&self.windows, &self.masks, self.input);
        let all_channels = self.shape.in_channels;
        Expand {
            windows,
            planes,
            masks,
            input,
            all_channels,
            channels,
            block,
            to,
        }
        .fill(self.simd);
    }

    /// All outputs against the expanded channels: adds to their rows of sums, which start at `sums`.
    fn channels(
        &self,
        channels: usize,
        (planes, tables): (&Planes, &Tables),
        buffer: &[f32],
        sums: *mut f32,
    ) {
        let (windows, taps) = (&self.windows, self.windows.taps());
        let step = |k: usize| {
            let (channel, tap) = (k / taps, k % taps);
            let tap = planes.tap(windows, tap / windows.taps_x, tap % windows.taps_x);
            buffer
                .as_ptr()
                .wrapping_add(channel * planes.channel_len + tap)
        };
        let (steps, at_once) = (channels * taps, dot::max_columns(self.simd));
        for output in (0..self.shape.out_channels).step_by(dot::MAX_ROWS) {
            for first in (0..steps).step_by(at_once) {
                let columns = (steps - first).min(at_once);
                let y = std::array::from_fn(|s| step(first + s.min(columns - 1)));
                let out = sums.wrapping_add(first * self.row_len() + output);
                self.tile(output, columns, (y, tables.steps()), out);
            }
        }
    }

    /// The sum of the output's gradient itself: a tile against ones.
    fn bias(&self, tables: &Tables, sums: *mut f32) {
        const ONES: [f32; 16] = [1.0; 16];
        for output in (0..self.shape.out_channels).step_by(dot::MAX_ROWS) {
            let steps = Steps {
                y_offsets: tables.zeros.as_ptr(),
                ..tables.steps()
            };
            self.tile(
                output,
                1,
                ([ONES.as_ptr(); dot::MAX_COLUMNS], steps),
                sums.wrapping_add(output),
            );
        }
    }

    fn tile(
        &self,
        output: usize,
        columns: usize,
        (y, steps): ([*const f32; dot::MAX_COLUMNS], Steps),
        out: *mut f32,
    ) {
        let pixels = self.windows.out_pixels();
        let tile = DotTile {
            rows: (self.shape.out_channels - output).min(dot::MAX_ROWS),
            columns,
            x: self.grad_output[output * pixels..].as_ptr(),
            x_stride: pixels,
            y,
            steps,
            out,
            out_stride: self.row_len(),
            alpha: 1.0,
        };
        // SAFETY: the tables stay inside the block's pixels of the gradient and of the planes; the
        // sums have whole tiles of rows and are this task's alone; the path was checked on entry.
        unsafe { dispatch::run(self.simd, tile) };
    }

    /// Adds the chunks up, in order, into the gradients.
    fn add_chunks(&self, sums: &[f32], grad_weight: &mut [f32], grad_bias: Option<&mut [f32]>) {
        let steps = self.shape.in_channels * self.windows.taps();
        let (row_len, chunk_len) = (self.row_len(), self.chunk_len());
        let total = |k: usize, o: usize| {
            (0..self.chunks)
                .map(|c| sums[c * chunk_len + k * row_len + o])
                .sum::<f32>()
        };
        let row = |(o, row): (usize, &mut [f32])| {
            row.iter_mut()
                .enumerate()
                .for_each(|(k, to)| *to = total(k, o));
        };
        grad_weight
            .par_chunks_mut(steps.max(1))
            .enumerate()
            .for_each(row);
        if let Some(bias) = grad_bias {
            bias.iter_mut()
                .enumerate()
                .for_each(|(o, to)| *to = total(steps, o));
        }
    }
}

/// Where a block's vectors of pixels lie in the output's gradient and in the planes.
#[derive(Default)]
struct Tables {
    grad: Vec<usize>,
    plane: Vec<usize>,
    zeros: Vec<usize>,
    full: usize,
    lanes: usize,
}

impl Tables {
    fn fill(&mut self, plan: &Plan, block: &Block, planes: &Planes) {
        let width = dispatch::lanes(plan.simd);
        let image_len = plan.shape.out_channels * plan.windows.out_pixels();
        let pixels = block.row_count() * plan.windows.out_width;
        let whole = pixels - pixels % width;
        let starts: Vec<[usize; 2]> = (0..block.image_count())
            .map(|i| {
                let grad =
                    (block.images[0] + i) * image_len + block.rows[0] * plan.windows.out_width;
                [grad, i * planes.image_len]
            })
            .collect();
        let whole_vectors = starts
            .iter()
            .flat_map(|s| (0..whole).step_by(width).map(move |p| s.map(|s| s + p)));
        let partial = starts
            .iter()
            .filter(|_| whole < pixels)
            .map(|s| s.map(|s| s + whole));
        let all: Vec<[usize; 2]> = whole_vectors.chain(partial).collect();
        self.grad = all.iter().map(|at| at[0]).collect();
        self.plane = all.iter().map(|at| at[1]).collect();
        self.zeros = vec![0; all.len()];
        self.full = starts.len() * (whole / width);
        self.lanes = pixels - whole;
    }

    fn steps(&self) -> Steps {
        Steps {
            x_offsets: self.grad.as_ptr(),
            y_offsets: self.plane.as_ptr(),
            full: self.full,
            partial: self.grad.len() - self.full,
            lanes: self.lanes,
        }
    }
}
