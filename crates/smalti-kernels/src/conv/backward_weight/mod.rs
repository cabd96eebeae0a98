//! The gradients of the weight and the bias.
//!
//! ```text
//! grad_weight[o, c, ky, kx] = Σ_{n,y,x} grad_output[n, o, y, x] · window(n, c, ky, kx; y, x)
//! grad_bias[o]              = Σ_{n,y,x} grad_output[n, o, y, x]
//! ```
//!
//! The pixels are cut into chunks and the input channels into groups, one task each; a task's sums
//! are its own, and the chunks are added up in order at the end. The cut depends on the shape
//! alone, so the result does not depend on the number of threads. Within a task the product is
//! formed in one of two ways: [`wide`] with many input channels, [`narrow`] with few, as in the
//! first layer of a network.

mod narrow;
mod wide;

use rayon::prelude::*;

use self::narrow::Narrow;
use self::wide::Wide;
use super::forward::windows;
use super::shape::ConvShape;
use super::windows::{Block, Cut, Windows};
use super::winograd;
use crate::Simd;
use crate::gemm::PARALLEL_FROM;
use crate::gemm::dispatch;
use crate::gemm::dot::{self, DotTile, Steps};
use crate::gemm::scratch::{Shared, with_scratch};

/// Tasks to cut the work into, where it is large enough.
const TASKS: usize = 32;

/// Values that the sums of all chunks may fill: eight megabytes.
const SUM_VALUES: usize = 1 << 21;

/// Output pixels in a chunk, at least: with fewer, handling the sums is too large a share.
const CHUNK_PIXELS: usize = 512;

/// From this many input channels on, whole vectors of channels are worth their unused lanes.
const WIDE_FROM: usize = 24;

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
    if winograd::applies_to_weight(shape) {
        winograd::backward_weight(simd, shape, [input, grad_output], grad_weight);
        if let Some(bias) = grad_bias {
            channel_sums(shape, grad_output, bias);
        }
        return;
    }
    let plan = Plan::new(Layer {
        simd,
        shape,
        windows: windows(shape),
        input,
        grad_output,
    });
    with_scratch(plan.chunks * plan.chunk_len(), |sums| {
        plan.clear(sums);
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
        plan.add_chunks(sums);
        plan.write(sums, grad_weight, grad_bias);
    });
}

/// The sum over each output channel: sixteen partial sums in `f64`.
fn channel_sums(shape: &ConvShape, grad_output: &[f32], sums: &mut [f32]) {
    const LINE: usize = 16;
    let pixels = shape.out_height() * shape.out_width();
    let plane_sum = |plane: &[f32]| -> f64 {
        let (lines, rest) = plane.as_chunks::<LINE>();
        let mut lanes = [0.0f64; LINE];
        for line in lines {
            lanes
                .iter_mut()
                .zip(line)
                .for_each(|(sum, &value)| *sum += f64::from(value));
        }
        lanes.iter().sum::<f64>() + rest.iter().map(|&value| f64::from(value)).sum::<f64>()
    };
    sums.par_iter_mut().enumerate().for_each(|(channel, sum)| {
        let planes = (0..shape.batch).map(|image| (image * shape.out_channels + channel) * pixels);
        *sum = planes
            .map(|start| plane_sum(&grad_output[start..start + pixels]))
            .sum::<f64>() as f32;
    });
}

/// The operands.
#[derive(Clone, Copy)]
struct Layer<'a> {
    simd: Simd,
    shape: &'a ConvShape,
    windows: Windows,
    input: &'a [f32],
    grad_output: &'a [f32],
}

/// Where the sum for output o, input channel c and tap t lies: `o · output + c · channel + t · tap`,
/// within `len` values.
#[derive(Clone, Copy)]
struct SumPlaces {
    output: usize,
    channel: usize,
    tap: usize,
    len: usize,
}

enum Way<'a> {
    Wide(Wide<'a>),
    Narrow(Narrow<'a>),
}

/// How the work is cut up; everything that tasks share.
struct Plan<'a> {
    layer: Layer<'a>,
    way: Way<'a>,
    places: SumPlaces,
    cut: Cut,
    /// Runs of blocks of pixels, each summed by itself.
    chunks: usize,
    /// Groups of input channels.
    groups: usize,
}

impl<'a> Plan<'a> {
    fn new(layer: Layer<'a>) -> Self {
        let shape = layer.shape;
        let (way, places, pixels, smallest_group) = if shape.in_channels >= WIDE_FROM {
            let wide = Wide::new(layer);
            (
                Way::Wide(wide),
                wide.places(),
                wide.pixels(),
                wide.smallest_group(),
            )
        } else {
            let narrow = Narrow::new(layer);
            let places = narrow.places();
            (Way::Narrow(narrow), places, narrow::PIXELS, 1)
        };
        let cut = layer.windows.cut(shape.batch, pixels);
        let plan = Self {
            layer,
            way,
            places,
            cut,
            chunks: 1,
            groups: 1,
        };
        // Chunks first: channel groups all read the output's gradient again.
        let room = (SUM_VALUES / plan.chunk_len())
            .min(shape.batch * layer.windows.out_pixels() / CHUNK_PIXELS)
            .max(1);
        let wanted = (shape.multiply_adds() / PARALLEL_FROM).clamp(1, TASKS);
        let chunks = wanted.min(room).min(cut.blocks.max(1));
        let most = (shape.in_channels / smallest_group).max(1);
        let groups = wanted.div_ceil(chunks).clamp(1, most);
        Self {
            chunks,
            groups,
            ..plan
        }
    }

    /// The sums of one chunk: those of the weights, then those of the bias.
    fn chunk_len(&self) -> usize {
        (self.places.len
            + self
                .layer
                .shape
                .out_channels
                .next_multiple_of(dot::MAX_ROWS))
        .next_multiple_of(16)
    }

    /// Zeros where a task adds to its sums from the start; the wide way's first block overwrites.
    fn clear(&self, sums: &mut [f32]) {
        let added = if matches!(self.way, Way::Wide(_)) && self.cut.blocks > 0 {
            self.places.len
        } else {
            0
        };
        for chunk in sums.chunks_exact_mut(self.chunk_len()) {
            chunk[added..].fill(0.0);
        }
    }

    /// One chunk of pixels, one group of input channels.
    fn task(&self, index: usize, sums: Shared, with_bias: bool) {
        let (chunk, group) = (index / self.groups, index % self.groups);
        let blocks = [chunk, chunk + 1].map(|c| c * self.cut.blocks / self.chunks);
        let channels = self.group(group);
        let sums = |at: usize| sums.at(chunk * self.chunk_len() + at);
        let batch = self.layer.shape.batch;
        for number in blocks[0]..blocks[1] {
            let block = self.cut.block(&self.layer.windows, batch, number);
            match &self.way {
                Way::Wide(wide) => wide.block(block, channels, (sums(0), number > blocks[0])),
                Way::Narrow(narrow) => narrow.block(block, channels, sums(0)),
            }
            if with_bias && group == 0 {
                self.bias(block, sums(self.places.len));
            }
        }
    }

    /// Channels of group `g`: from, to; in whole vectors, where that is the way.
    fn group(&self, g: usize) -> [usize; 2] {
        let channels = self.layer.shape.in_channels;
        let unit = match self.way {
            Way::Wide(_) => 2 * dispatch::lanes(self.layer.simd),
            Way::Narrow(_) => 1,
        };
        [g, g + 1].map(|g| (channels.div_ceil(unit) * g / self.groups * unit).min(channels))
    }

    /// The sum of the output's gradient itself: inner products with ones.
    fn bias(&self, block: Block, sums: *mut f32) {
        const ONES: [f32; 16] = [1.0; 16];
        let Layer {
            simd,
            shape,
            windows,
            grad_output,
            ..
        } = self.layer;
        let (zeros, mut tables) = (vec![0; 1 + block.pixels(&windows)], GradTable::default());
        tables.fill(&self.layer, block);
        for output in (0..shape.out_channels).step_by(dot::MAX_ROWS) {
            let tile = DotTile {
                rows: (shape.out_channels - output).min(dot::MAX_ROWS),
                columns: 1,
                x: grad_output[output * windows.out_pixels()..].as_ptr(),
                x_stride: windows.out_pixels(),
                y: [ONES.as_ptr(); dot::MAX_COLUMNS],
                steps: tables.steps(&zeros),
                out: sums.wrapping_add(output),
                out_stride: dot::MAX_ROWS,
                alpha: 1.0,
                ahead: 0,
            };
            // SAFETY: the table stays inside the block's pixels of the gradient, and a vector is
            // read of the ones; the sums are this task's alone; the path was checked on entry.
            unsafe { dispatch::run(simd, tile) };
        }
    }

    /// Adds the chunks to the first one, in order.
    fn add_chunks(&self, sums: &mut [f32]) {
        const PIECE: usize = 1 << 14;
        let (first, rest) = sums.split_at_mut(self.chunk_len());
        first.par_chunks_mut(PIECE).enumerate().for_each(|(i, to)| {
            for chunk in rest.chunks_exact(self.chunk_len()) {
                let from = &chunk[i * PIECE..][..to.len()];
                to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
            }
        });
    }

    /// Writes the sums of the first chunk in the order of the weights.
    fn write(&self, sums: &[f32], grad_weight: &mut [f32], grad_bias: Option<&mut [f32]>) {
        let SumPlaces {
            output,
            channel,
            tap,
            len,
        } = self.places;
        let taps = self.layer.windows.taps();
        let row = |(o, row): (usize, &mut [f32])| {
            for (c, to) in row.chunks_exact_mut(taps).enumerate() {
                let from = &sums[o * output + c * channel..];
                to.iter_mut()
                    .enumerate()
                    .for_each(|(t, to)| *to = from[t * tap]);
            }
        };
        let row_len = (self.layer.shape.in_channels * taps).max(1);
        grad_weight
            .par_chunks_mut(row_len)
            .enumerate()
            .with_min_len(16)
            .for_each(row);
        if let Some(bias) = grad_bias {
            bias.copy_from_slice(&sums[len..][..bias.len()]);
        }
    }
}

/// Where a block's vectors of pixels lie in the output's gradient: whole vectors, then for each
/// image the rest.
#[derive(Default)]
struct GradTable {
    offsets: Vec<usize>,
    full: usize,
    lanes: usize,
}

impl GradTable {
    fn fill(&mut self, layer: &Layer, block: Block) {
        let (width, windows) = (dispatch::lanes(layer.simd), &layer.windows);
        let image_len = layer.shape.out_channels * windows.out_pixels();
        let pixels = block.row_count() * windows.out_width;
        let whole = pixels - pixels % width;
        let start = |i: usize| i * image_len + block.rows[0] * windows.out_width;
        self.offsets.clear();
        for image in block.images[0]..block.images[1] {
            self.offsets
                .extend((0..whole).step_by(width).map(|p| start(image) + p));
        }
        self.full = self.offsets.len();
        if whole < pixels {
            self.offsets
                .extend((block.images[0]..block.images[1]).map(|i| start(i) + whole));
        }
        self.lanes = pixels - whole;
    }

    /// The steps, with the other factor's offsets.
    fn steps(&self, other: &[usize]) -> Steps {
        let partial = self.offsets.len() - self.full;
        assert!(other.len() >= self.offsets.len());
        let (x_offsets, y_offsets) = (self.offsets.as_ptr(), other.as_ptr());
        Steps {
            x_offsets,
            y_offsets,
            full: self.full,
            partial,
            lanes: self.lanes,
        }
    }
}
