//! Weight gradients with few input channels: inner products along the pixels.
//!
//! Both factors lie along the pixels, so the inner-product tile reads the output's gradient in place
//! and the windows from the planes of [`super::super::windows`]; nothing is transposed, and no lane
//! is lost however few channels there are.

use super::super::windows::{Block, EdgeMasks, Expand, Planes};
use super::{GradTable, Layer, SumPlaces};
use crate::gemm::dispatch;
use crate::gemm::dot::{self, DotTile};
use crate::gemm::scratch::with_scratch;

/// Output pixels that a tile sums over between two visits of its sums.
pub(super) const PIXELS: usize = 1024;

/// Values of planes that a group of channels may fill: a quarter of a megabyte.
const PLANE_VALUES: usize = 1 << 16;

pub(super) struct Narrow<'a> {
    layer: Layer<'a>,
    masks: EdgeMasks,
}

impl<'a> Narrow<'a> {
    pub(super) fn new(layer: Layer<'a>) -> Self {
        let masks = EdgeMasks::new(&layer.windows);
        Self { layer, masks }
    }

    /// Outputs rounded up to whole tiles: one step's row of sums.
    fn row_len(&self) -> usize {
        self.layer
            .shape
            .out_channels
            .next_multiple_of(dot::MAX_ROWS)
    }

    pub(super) fn places(&self) -> SumPlaces {
        let (taps, tap) = (self.layer.windows.taps(), self.row_len());
        let len = self.layer.shape.in_channels * taps * tap;
        SumPlaces {
            output: 1,
            channel: taps * tap,
            tap,
            len,
        }
    }

    /// Adds a block of pixels to the sums of channels `channels[0]..channels[1]`.
    pub(super) fn block(&self, block: Block, channels: [usize; 2], sums: *mut f32) {
        let Layer {
            simd,
            shape,
            ref windows,
            input,
            ..
        } = self.layer;
        let planes = windows.planes(block.image_count(), block.row_count());
        let mut grad = GradTable::default();
        grad.fill(&self.layer, block);
        let offsets = self.plane_offsets(block, &planes);
        let at_once =
            (PLANE_VALUES / planes.channel_len).clamp(1, (channels[1] - channels[0]).max(1));
        with_scratch(planes.buffer_len(at_once), |buffer| {
            for first in (channels[0]..channels[1]).step_by(at_once) {
                let channels = [first, (first + at_once).min(channels[1])];
                let (masks, all_channels) = (&self.masks, shape.in_channels);
                let to = &mut *buffer;
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
                .fill(simd);
                let sums = sums.wrapping_add(first * self.places().channel);
                self.channels(
                    channels[1] - first,
                    (&planes, &*buffer),
                    (&grad, &offsets),
                    sums,
                );
            }
        });
    }

    /// Where the vectors of [`GradTable`] lie in the planes.
    fn plane_offsets(&self, block: Block, planes: &Planes) -> Vec<usize> {
        let width = dispatch::lanes(self.layer.simd);
        let pixels = block.row_count() * self.layer.windows.out_width;
        let whole = pixels - pixels % width;
        let images = (0..block.image_count()).map(|i| i * planes.image_len);
        let full = images
            .clone()
            .flat_map(|i| (0..whole).step_by(width).map(move |p| i + p));
        let partial = images.filter(|_| whole < pixels).map(|i| i + whole);
        full.chain(partial).collect()
    }

    /// All outputs against the expanded channels: adds to their rows of sums, which start at `sums`.
    fn channels(
        &self,
        channels: usize,
        (planes, buffer): (&Planes, &[f32]),
        (grad, offsets): (&GradTable, &[usize]),
        sums: *mut f32,
    ) {
        let Layer {
            simd,
            shape,
            ref windows,
            grad_output,
            ..
        } = self.layer;
        let taps = windows.taps();
        let step = |k: usize| {
            let (channel, tap) = (k / taps, k % taps);
            let tap = planes.tap(windows, tap / windows.taps_x, tap % windows.taps_x);
            buffer
                .as_ptr()
                .wrapping_add(channel * planes.channel_len + tap)
        };
        let (steps, at_once) = (channels * taps, dot::max_columns(simd));
        for output in (0..shape.out_channels).step_by(dot::MAX_ROWS) {
            for first in (0..steps).step_by(at_once) {
                let columns = (steps - first).min(at_once);
                let tile = DotTile {
                    rows: (shape.out_channels - output).min(dot::MAX_ROWS),
                    columns,
                    x: grad_output[output * windows.out_pixels()..].as_ptr(),
                    x_stride: windows.out_pixels(),
                    y: std::array::from_fn(|s| step(first + s.min(columns - 1))),
                    steps: grad.steps(offsets),
                    out: sums.wrapping_add(first * self.row_len() + output),
                    out_stride: self.row_len(),
                    alpha: 1.0,
                    ahead: 0,
                };
                // SAFETY: the tables stay inside the block's pixels of the gradient and of the
                // planes; the sums have whole tiles of rows and are this task's alone; the path
                // was checked on entry.
                unsafe { dispatch::run(simd, tile) };
            }
        }
    }
}
