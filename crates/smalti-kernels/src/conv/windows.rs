//! Where the windows of a convolution lie, and the shifted copies that turn it into products.
//!
//! Tap (ty, tx) of the window of output pixel (y, x) is the input at
//!
//! ```text
//! (y · stride + ty − top,  x · stride + tx − left),   zero outside the image.
//! ```
//!
//! A product wants, for each tap, that value for a run of neighbouring output pixels side by side.
//! The full copy (im2col) holds every input value once for each tap. Here only the horizontal part
//! is copied: for each channel and tx one plane whose row r holds, for every output column, the
//! input in row r. A vertical step is then a shift by a whole row, so
//!
//! ```text
//! tap (ty, tx) of pixels p, p+1, …  =  plane[tx][ty · out_width + p], …
//! ```
//!
//! for *any* run of pixels in row-major order, across row ends, at any width: a 3×3 kernel needs
//! three copies instead of nine. With a stride s, rows are sorted by their remainder modulo s
//! first, and ty reads the rows of remainder ty mod s from row ty / s on.

use crate::gemm::dispatch::{self, Job};
use crate::gemm::vector::Vector;

/// The geometry of the windows over images of one channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    pub(super) in_height: usize,
    pub(super) in_width: usize,
    pub(super) out_height: usize,
    pub(super) out_width: usize,
    pub(super) taps_y: usize,
    pub(super) taps_x: usize,
    pub(super) stride: usize,
    /// May be negative: the first window then starts inside the image.
    pub(super) top: isize,
    pub(super) left: isize,
}

impl Windows {
    pub(super) fn taps(&self) -> usize {
        self.taps_y * self.taps_x
    }

    pub(super) fn out_pixels(&self) -> usize {
        self.out_height * self.out_width
    }

    pub(super) fn in_pixels(&self) -> usize {
        self.in_height * self.in_width
    }

    /// The output columns, from and to, whose tap `tap` lies inside the image, given the padding
    /// before it and the widths (or rows, and heights).
    pub(super) fn inside(
        &self,
        tap: usize,
        before: isize,
        input: usize,
        output: usize,
    ) -> [usize; 2] {
        let (step, shift) = (self.stride as isize, tap as isize - before);
        let first_beyond = |limit: isize| (limit - shift + step - 1).div_euclid(step);
        let begin = first_beyond(0).clamp(0, output as isize);
        let end = first_beyond(input as isize).clamp(begin, output as isize);
        [begin as usize, end as usize]
    }

    /// The planes for `images` images and `rows` rows of outputs.
    pub(super) fn planes(&self, images: usize, rows: usize) -> Planes {
        let rows_per_phase = rows + (self.taps_y - 1) / self.stride;
        let phase_len = rows_per_phase * self.out_width;
        let image_len = self.stride.min(self.taps_y) * phase_len;
        // An odd number of cache lines: planes a power of two apart would share few cache sets.
        let plane_len = ((images * image_len + SLACK).div_ceil(16) | 1) * 16;
        Planes {
            rows_per_phase,
            phase_len,
            image_len,
            plane_len,
            channel_len: self.taps_x * plane_len,
        }
    }

    /// The pixels of the image in `cut`-sized pieces: see [`Cut`].
    pub(super) fn cut(&self, batch: usize, pixels: usize) -> Cut {
        let per_image = self.out_pixels().max(1);
        if per_image > pixels {
            let strips = self.out_height.div_ceil((pixels / self.out_width).max(1));
            Cut {
                images: 1,
                strips,
                blocks: batch * strips,
            }
        } else {
            let images = (pixels / per_image).min(batch).max(1);
            Cut {
                images,
                strips: 1,
                blocks: batch.div_ceil(images),
            }
        }
    }
}

/// How a batch of output pixels is cut into blocks: either several whole images or a strip of rows
/// of one image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    images: usize,
    strips: usize,
    pub(super) blocks: usize,
}

/// Output rows `rows[0]..rows[1]` of the images `images[0]..images[1]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) images: [usize; 2],
    pub(super) rows: [usize; 2],
}

impl Cut {
    /// Block number `index`.
    pub(super) fn block(&self, windows: &Windows, batch: usize, index: usize) -> Block {
        if self.strips > 1 {
            let (image, strip) = (index / self.strips, index % self.strips);
            let rows = [strip, strip + 1].map(|s| s * windows.out_height / self.strips);
            return Block {
                images: [image, image + 1],
                rows,
            };
        }
        let images = [index * self.images, ((index + 1) * self.images).min(batch)];
        Block {
            images,
            rows: [0, windows.out_height],
        }
    }
}

impl Block {
    pub(super) fn image_count(&self) -> usize {
        self.images[1] - self.images[0]
    }

    /// Output pixels of all its images.
    pub(super) fn pixels(&self, windows: &Windows) -> usize {
        self.image_count() * self.row_count() * windows.out_width
    }

    pub(super) fn row_count(&self) -> usize {
        self.rows[1] - self.rows[0]
    }
}

/// Where things lie in a buffer of planes: `[channel][tx][image][row mod stride][row][column]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planes {
    rows_per_phase: usize,
    phase_len: usize,
    pub(super) image_len: usize,
    plane_len: usize,
    pub(super) channel_len: usize,
}

/// Values beyond a plane that are written or read as the rest of a vector.
const SLACK: usize = 16;

impl Planes {
    /// Length of a buffer for `channels` channels.
    pub(super) fn buffer_len(&self, channels: usize) -> usize {
        channels * self.channel_len + SLACK
    }

    /// Where a tap's values start in its channel.
    pub(super) fn tap(&self, windows: &Windows, ty: usize, tx: usize) -> usize {
        tx * self.plane_len
            + ty % windows.stride * self.phase_len
            + ty / windows.stride * windows.out_width
    }
}

/// Which lanes of a row survive a horizontal shift, for every tx: all ones or all zeros for each
/// column, repeated past the row's end so that a vector can be read at any column.
pub(super) struct EdgeMasks {
    masks: Vec<u32>,
    per_tap: usize,
}

impl EdgeMasks {
    pub(super) fn new(windows: &Windows) -> Self {
        let per_tap = windows.in_width + 16;
        let width = windows.in_width as isize;
        let mask = |tx: usize, i: usize| {
            let column = (i % windows.in_width) as isize + tx as isize - windows.left;
            if (0..width).contains(&column) {
                u32::MAX
            } else {
                0
            }
        };
        let masks = (0..windows.taps_x)
            .flat_map(|tx| (0..per_tap).map(move |i| (tx, i)))
            .map(|(tx, i)| mask(tx, i))
            .collect();
        Self { masks, per_tap }
    }

    fn of(&self, tx: usize) -> &[u32] {
        &self.masks[tx * self.per_tap..][..self.per_tap]
    }
}

/// Fills planes for some channels of a block. `input` is the whole batch `[batch, channels, height,
/// width]`; `to` has [`Planes::buffer_len`] values for `channels[0]..channels[1]`.
pub(super) struct Expand<'a> {
    pub(super) windows: &'a Windows,
    pub(super) planes: &'a Planes,
    pub(super) masks: &'a EdgeMasks,
    pub(super) input: &'a [f32],
    pub(super) all_channels: usize,
    pub(super) channels: [usize; 2],
    pub(super) block: Block,
    pub(super) to: &'a mut [f32],
}

impl Job for Expand<'_> {
    type Output = ();

    // Images in the outer loop: the input is read in the order of memory. Within a plane the images
    // come in ascending order, and one's last vector may spill into the next.
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let windows = self.windows;
        assert!(self.to.len() >= self.planes.buffer_len(self.channels[1] - self.channels[0]));
        // Same width in and out: rows are contiguous on both sides, an image shifts in one go.
        let flat = windows.stride == 1 && windows.in_width == windows.out_width;
        let parts = FlatParts::new::<V>(&self);
        for image in 0..self.block.image_count() {
            let plane = (self.block.images[0] + image) * self.all_channels + self.channels[0];
            let mut source = plane * windows.in_pixels();
            // SAFETY: the buffer has room for every image and a vector more (asserted), and the
            // caller vouches for the instructions.
            unsafe {
                let mut to = self.to.as_mut_ptr().add(image * self.planes.image_len);
                for _ in self.channels[0]..self.channels[1] {
                    for tx in 0..windows.taps_x {
                        let to = to.add(tx * self.planes.plane_len);
                        if flat {
                            self.shift::<V>(&parts, source, tx, to)
                        } else {
                            self.gather::<V>(source, tx, to)
                        }
                    }
                    source += windows.in_pixels();
                    to = to.wrapping_add(self.planes.channel_len);
                }
            }
        }
    }
}

/// An image's part of a plane where input and output are equally wide: zeros above the image,
/// values inside, zeros below.
struct FlatParts {
    above: usize,
    inside: usize,
    below: usize,
    /// From the start of the image to the first value inside.
    first: usize,
    /// How far a vector moves along the row, from its start.
    step: usize,
}

impl FlatParts {
    #[inline(always)]
    fn new<V: Vector>(work: &Expand) -> Self {
        let (height, width) = (work.windows.in_height as isize, work.windows.in_width);
        let first_row = work.block.rows[0] as isize - work.windows.top;
        let rows = work.planes.rows_per_phase as isize;
        let begin = (-first_row).clamp(0, rows);
        let end = (height - first_row).clamp(begin, rows);
        let values = |rows: isize| rows as usize * width;
        Self {
            above: values(begin),
            inside: values(end - begin),
            below: values(rows - end),
            first: values((first_row + begin).clamp(0, height)),
            step: V::LANES % width,
        }
    }
}

impl Expand<'_> {
    /// One image at stride 1 and equal widths: a copy moved by `tx − left`, masked at the row ends.
    #[inline(always)]
    unsafe fn shift<V: Vector>(&self, parts: &FlatParts, source: usize, tx: usize, to: *mut f32) {
        let width = self.windows.in_width;
        let mask = self.masks.of(tx);
        // The first value of the plane; may lie outside the image where it is masked.
        let from = (source + parts.first + tx) as isize - self.windows.left;
        let readable = from >= 0 && from as usize + parts.inside + V::LANES <= self.input.len();
        // SAFETY: writes stay inside the image's part and a vector more, where later images, padding
        // or slack follow; reads lie inside the input.
        unsafe {
            fill_zero::<V>(to, parts.above);
            let to = to.add(parts.above);
            if readable {
                let from = self.input.as_ptr().offset(from);
                let (mut at, mut column) = (0, 0);
                while at < parts.inside {
                    V::load(from.add(at))
                        .keep(mask.as_ptr().add(column))
                        .store(to.add(at));
                    at += V::LANES;
                    column += parts.step;
                    if column >= width {
                        column -= width;
                    }
                }
            } else {
                // The first or last image of the batch: not everything under a mask can be read.
                for at in 0..parts.inside {
                    let kept = mask[at % width] != 0;
                    *to.add(at) = if kept {
                        self.input[(from + at as isize) as usize]
                    } else {
                        0.0
                    };
                }
            }
            fill_zero::<V>(to.add(parts.inside), parts.below);
        }
    }

    /// One image at any stride and width: value by value.
    #[inline(always)]
    unsafe fn gather<V: Vector>(&self, source: usize, tx: usize, to: *mut f32) {
        let windows = self.windows;
        let Windows {
            stride,
            in_width,
            out_width,
            ..
        } = *windows;
        let shift = tx as isize - windows.left;
        let step = stride as isize;
        let [begin, end] = windows.inside(tx, windows.left, in_width, out_width);
        for phase in 0..stride.min(windows.taps_y) {
            for row in 0..self.planes.rows_per_phase {
                let y = ((self.block.rows[0] + row) * stride + phase) as isize - windows.top;
                let to = to.wrapping_add(phase * self.planes.phase_len + row * out_width);
                // SAFETY: the row lies inside the image's part of the buffer, a vector more may be
                // written, and what is read of the input lies in its row.
                unsafe {
                    if y < 0 || y >= windows.in_height as isize || begin == end {
                        fill_zero::<V>(to, out_width);
                        continue;
                    }
                    let row = source as isize + y * in_width as isize;
                    let from = self
                        .input
                        .as_ptr()
                        .offset(row + begin as isize * step + shift);
                    fill_zero::<V>(to, begin);
                    copy_strided(from, stride, to.add(begin), end - begin);
                    fill_zero::<V>(to.add(end), out_width - end);
                }
            }
        }
    }
}

/// `to[i] = from[i · stride]` for `count` values.
#[inline(always)]
unsafe fn copy_strided(from: *const f32, stride: usize, to: *mut f32, count: usize) {
    // SAFETY: the caller vouches for both ranges.
    unsafe {
        if stride == 2 {
            // Known to the compiler, two becomes a shuffle.
            for i in 0..count {
                *to.add(i) = *from.add(2 * i);
            }
        } else {
            for i in 0..count {
                *to.add(i) = *from.add(i * stride);
            }
        }
    }
}

/// Zeros from `to` on: `len` values, and the rest of the last vector.
#[inline(always)]
unsafe fn fill_zero<V: Vector>(to: *mut f32, len: usize) {
    let mut at = 0;
    while at < len {
        // SAFETY: the caller vouches for `len` values and a vector more.
        unsafe { V::zero().store(to.add(at)) };
        at += V::LANES;
    }
}

impl Expand<'_> {
    /// Runs on the path `simd`.
    pub(super) fn fill(self, simd: crate::Simd) {
        // SAFETY: entries check that the path is available; lengths are asserted by the job.
        unsafe { dispatch::run(simd, self) }
    }
}
