//! Weight gradients with many input channels: outer products, a pixel at a time.
//!
//! For one tap the gradient is `grad_output · inputᵀ`, the input shifted by the tap. The outer-product
//! tile sums it over pixels: a step is an output pixel, its rows are outputs (packed), its vectors are
//! channels of the input pixel under the tap. So a block of the input is laid out channels last, and
//! the table that leads from step to input pixel differs from tap to tap: stride and padding are in
//! the table alone, with one pixel of zeros for what lies outside.

use super::super::windows::Block;
use super::{Layer, SumPlaces};
use crate::gemm::dispatch;
use crate::gemm::outer::{self, Finish, OuterTile};
use crate::gemm::pack::{self, Pack};
use crate::gemm::scratch::with_scratch;

/// Steps between two visits of the sums: a pair of vectors of that many pixels fits the first cache.
const DEPTH: usize = 256;

/// Values of the input that a block may hold: half a megabyte.
const INPUT_VALUES: usize = 1 << 17;

/// Channels of the input that are laid out at once, at most.
const CHANNELS: usize = 128;

#[derive(Clone, Copy)]
pub(super) struct Wide<'a> {
    layer: Layer<'a>,
}

/// A block's part of the input, `[image][row][column][channel]`, and then one pixel of zeros.
#[derive(Clone, Copy)]
struct Input {
    /// Rows of each image: from, to.
    rows: [usize; 2],
    /// Input pixels, the one of zeros not counted.
    pixels: usize,
    /// From one pixel to the next: at least the channels in whole vectors.
    pixel_len: usize,
}

impl<'a> Wide<'a> {
    pub(super) fn new(layer: Layer<'a>) -> Self {
        Self { layer }
    }

    /// Channels in whole vectors.
    fn row_len(&self) -> usize {
        self.layer
            .shape
            .in_channels
            .next_multiple_of(dispatch::lanes(self.layer.simd))
    }

    pub(super) fn places(&self) -> SumPlaces {
        let (taps, tap) = (self.layer.windows.taps(), self.row_len());
        let len = self.layer.shape.out_channels * taps * tap;
        SumPlaces {
            output: taps * tap,
            channel: 1,
            tap,
            len,
        }
    }

    /// Output pixels in a block.
    pub(super) fn pixels(&self) -> usize {
        let windows = &self.layer.windows;
        let per_output = windows.in_pixels().div_ceil(windows.out_pixels()).max(1);
        let channels = self
            .row_len()
            .min(CHANNELS)
            .max(self.layer.shape.out_channels.min(512));
        (INPUT_VALUES / channels / per_output).clamp(256, 2048)
    }

    /// The fewest channels worth a task: below, packing the output's gradient again costs too much.
    pub(super) fn smallest_group(&self) -> usize {
        2 * dispatch::lanes(self.layer.simd) * 4usize.div_ceil(self.layer.windows.taps())
    }

    /// Sums a block of pixels for channels `channels[0]..channels[1]`, whole vectors: added to what is
    /// there or in its place.
    pub(super) fn block(&self, block: Block, channels: [usize; 2], (sums, add): (*mut f32, bool)) {
        let shape = self.layer.shape;
        let steps = block.pixels(&self.layer.windows);
        let tile_len =
            (outer::max_rows(self.layer.simd) * steps + pack::SLACK).next_multiple_of(16);
        let tiles: Vec<_> = outer::row_tiles(self.layer.simd, shape.out_channels).collect();
        with_scratch(tiles.len() * tile_len, |grad| {
            for ((first, rows), to) in tiles.iter().zip(grad.chunks_exact_mut(tile_len)) {
                self.pack_grad(block, [*first, *rows], to);
            }
            let mut table = vec![0; steps];
            for first in (channels[0]..channels[1]).step_by(CHANNELS) {
                let channels = [first, (first + CHANNELS).min(channels[1])];
                let input = self.input(block, channels);
                with_scratch(
                    (input.pixels + 1) * input.pixel_len + pack::SLACK,
                    |buffer| {
                        self.lay_out(block, channels, &input, buffer);
                        for tap in 0..self.layer.windows.taps() {
                            self.fill_table(block, tap, &input, &mut table);
                            let sums = sums.wrapping_add(tap * self.row_len() + first);
                            let tap = Tap {
                                buffer,
                                table: &table,
                                grad,
                                tile_len,
                                sums,
                                add,
                            };
                            self.multiply(&tap, channels[1] - first, &tiles);
                        }
                    },
                );
            }
        });
    }

    /// The output's gradient for some outputs, `[pixel][output]`.
    fn pack_grad(&self, block: Block, [first, rows]: [usize; 2], to: &mut [f32]) {
        let (shape, pixels) = (self.layer.shape, self.layer.windows.out_pixels());
        let depth = block.row_count() * self.layer.windows.out_width;
        for (i, image) in (block.images[0]..block.images[1]).enumerate() {
            let start = block.rows[0] * self.layer.windows.out_width;
            let from = (image * shape.out_channels + first) * pixels + start;
            let pack = Pack {
                from: self.layer.grad_output[from..].as_ptr(),
                item_stride: pixels,
                step_stride: 1,
                items: rows,
                depth,
                to: to[i * depth * rows..].as_mut_ptr(),
                stride: rows,
            };
            // SAFETY: the outputs' pixels lie inside the gradient; `to` has room for all images and
            // the slack; the path was checked on entry.
            unsafe { dispatch::run(self.layer.simd, pack) };
        }
    }

    /// The part of the input under a block.
    fn input(&self, block: Block, channels: [usize; 2]) -> Input {
        let windows = &self.layer.windows;
        let inside = |row: isize| row.clamp(0, windows.in_height as isize) as usize;
        let begin = inside((block.rows[0] * windows.stride) as isize - windows.top);
        let last = ((block.rows[1] - 1) * windows.stride + windows.taps_y) as isize - windows.top;
        let rows = [begin, inside(last).max(begin)];
        let pixels = block.image_count() * (rows[1] - rows[0]) * windows.in_width;
        // An odd number of cache lines: pixels a power of two apart would share few cache sets.
        let pixel_len = ((channels[1] - channels[0]).div_ceil(16) | 1) * 16;
        Input {
            rows,
            pixels,
            pixel_len,
        }
    }

    /// Turns the input under a block to channels last.
    fn lay_out(&self, block: Block, channels: [usize; 2], input: &Input, to: &mut [f32]) {
        let windows = &self.layer.windows;
        let depth = (input.rows[1] - input.rows[0]) * windows.in_width;
        for (i, image) in (block.images[0]..block.images[1]).enumerate() {
            let plane = image * self.layer.shape.in_channels + channels[0];
            let from = plane * windows.in_pixels() + input.rows[0] * windows.in_width;
            let pack = Pack {
                from: self.layer.input[from..].as_ptr(),
                item_stride: windows.in_pixels(),
                step_stride: 1,
                items: channels[1] - channels[0],
                depth,
                to: to[i * depth * input.pixel_len..].as_mut_ptr(),
                stride: input.pixel_len,
            };
            // SAFETY: the channels' rows lie inside the input; `to` has room for all images, the
            // zeros and the slack; the path was checked on entry.
            unsafe { dispatch::run(self.layer.simd, pack) };
        }
        to[input.pixels * input.pixel_len..][..input.pixel_len].fill(0.0);
    }

    /// Where the input pixel of every output pixel lies under a tap.
    fn fill_table(&self, block: Block, tap: usize, input: &Input, table: &mut [usize]) {
        let windows = &self.layer.windows;
        let (ty, tx) = (tap / windows.taps_x, tap % windows.taps_x);
        let (len, zero) = (input.pixel_len, input.pixels * input.pixel_len);
        let columns = windows.inside(tx, windows.left, windows.in_width, windows.out_width);
        let rows_per_image = input.rows[1] - input.rows[0];
        for (row, table) in table.chunks_exact_mut(windows.out_width).enumerate() {
            let (image, y) = (
                row / block.row_count(),
                block.rows[0] + row % block.row_count(),
            );
            let y = (y * windows.stride + ty) as isize - windows.top;
            if y < 0 || y >= windows.in_height as isize {
                table.fill(zero);
                continue;
            }
            let row = image * rows_per_image + (y as usize - input.rows[0]);
            table[..columns[0]].fill(zero);
            for (x, at) in table
                .iter_mut()
                .enumerate()
                .take(columns[1])
                .skip(columns[0])
            {
                // Not negative: `inside` leaves out the columns where it would be.
                let column = (x * windows.stride + tx).wrapping_add_signed(-windows.left);
                *at = (row * windows.in_width + column) * len;
            }
            table[columns[1]..].fill(zero);
        }
    }

    /// All outputs against the channels of one tap.
    fn multiply(&self, tap: &Tap, channels: usize, tiles: &[(usize, usize)]) {
        let lanes = dispatch::lanes(self.layer.simd);
        let places = self.places();
        for (step, table) in tap.table.chunks(DEPTH).enumerate() {
            for channel in (0..channels).step_by(2 * lanes) {
                for (index, (first, rows)) in tiles.iter().enumerate() {
                    let b = tap.buffer[channel..].as_ptr();
                    let c = tap.sums.wrapping_add(first * places.output + channel);
                    let second = channel + lanes < channels;
                    let tile = OuterTile {
                        rows: *rows,
                        depth: table.len(),
                        a: tap.grad[index * tap.tile_len + step * DEPTH * rows..].as_ptr(),
                        b: [b, if second { b.wrapping_add(lanes) } else { b }],
                        offsets: table.as_ptr(),
                        c: [c, if second { c.wrapping_add(lanes) } else { c }],
                        c_stride: places.output,
                        lanes: [lanes, if second { lanes } else { 0 }],
                        finish: Finish::plain(tap.add || step > 0),
                    };
                    // SAFETY: the table leads to pixels of whole vectors inside the buffer, the packed
                    // gradient has a row for each of its steps, and the sums, whole vectors too, are
                    // this task's alone; the path was checked on entry.
                    unsafe { dispatch::run(self.layer.simd, tile) };
                }
            }
        }
    }
}

/// What one tap multiplies.
struct Tap<'a> {
    buffer: &'a [f32],
    table: &'a [usize],
    grad: &'a [f32],
    tile_len: usize,
    sums: *mut f32,
    add: bool,
}
