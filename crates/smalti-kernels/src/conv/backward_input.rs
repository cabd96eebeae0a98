//! The gradient of the input: a correlation of the output's gradient with the turned kernel.
//!
//! Input row i feeds output row y through tap k where i + top = y·s + k. With i = s·j + r and u = r +
//! top, the taps that reach it are k = u mod s + s·t, from output row y = j + ⌊u/s⌋ − t. So the
//! input pixels of one remainder r (in each direction) are a correlation of stride 1 with every
//! s-th tap in reverse, T of them, and top padding T − 1 − ⌊u/s⌋. At stride 1 that is one
//! correlation with the kernel turned by 180 degrees; at stride 2 four small ones, together as
//! much work as the forward pass, with no zeros multiplied.

use super::correlate::{self, Correlation, Places};
use super::shape::ConvShape;
use super::weights::Weights;
use super::windows::Windows;
use super::winograd;
use crate::Simd;
use crate::gemm::dispatch;
use crate::gemm::scratch::Shared;

/// Computes the gradient of a convolution's input on the widest path of this processor.
/// `grad_input` is overwritten.
///
/// # Panics
/// When the shape is not valid or a slice has the wrong length.
pub fn conv2d_backward_input(
    shape: &ConvShape,
    weight: &[f32],
    grad_output: &[f32],
    grad_input: &mut [f32],
) {
    conv2d_backward_input_on(Simd::active(), shape, weight, grad_output, grad_input);
}

/// [`conv2d_backward_input`] on a given path.
///
/// # Panics
/// As [`conv2d_backward_input`], or when the processor does not have the path.
pub fn conv2d_backward_input_on(
    simd: Simd,
    shape: &ConvShape,
    weight: &[f32],
    grad_output: &[f32],
    grad_input: &mut [f32],
) {
    dispatch::assert_available(simd);
    shape.check(grad_input.len(), weight.len(), grad_output.len());
    if winograd::applies(shape) {
        winograd::backward_input(simd, shape, weight, grad_output, grad_input);
        return;
    }
    let taps = shape.kernel * shape.kernel;
    if shape.kernel < shape.stride {
        // Pixels between the windows: no correlation writes them.
        grad_input.fill(0.0);
    }
    let grad_input = Shared::new(grad_input);
    let mut correlations = Vec::new();
    for ry in 0..shape.stride.min(shape.height) {
        for rx in 0..shape.stride.min(shape.width) {
            let y = Remainder::new(shape, ry, shape.padding.top, shape.height);
            let x = Remainder::new(shape, rx, shape.padding.left, shape.width);
            if y.taps == 0 || x.taps == 0 {
                continue;
            }
            let tap = |ty: usize, tx: usize| y.tap(shape, ty) * shape.kernel + x.tap(shape, tx);
            let taps_of = |ty| (0..x.taps).map(move |tx| tap(ty, tx));
            let correlation = Correlation {
                windows: windows(shape, &y, &x),
                batch: shape.batch,
                in_channels: shape.out_channels,
                out_channels: shape.in_channels,
                input: grad_output,
                weights: Weights {
                    data: weight,
                    out_stride: taps,
                    in_stride: shape.in_channels * taps,
                    taps: (0..y.taps).flat_map(taps_of).collect(),
                },
                bias: None,
                output: grad_input,
                places: Places {
                    first: ry * shape.width + rx,
                    image: shape.in_channels * shape.height * shape.width,
                    channel: shape.height * shape.width,
                    row: shape.stride * shape.width,
                    column: shape.stride,
                },
            };
            correlations.push(correlation);
        }
    }
    correlate::run(simd, &correlations);
}

/// The input rows (or columns) of one remainder modulo the stride, and the taps that reach them.
struct Remainder {
    /// How many rows there are.
    count: usize,
    /// The smallest tap.
    first_tap: usize,
    taps: usize,
    /// Padding of the correlation before the first row.
    before: isize,
}

impl Remainder {
    fn new(shape: &ConvShape, remainder: usize, padding: usize, size: usize) -> Self {
        let reach = remainder + padding;
        let first_tap = reach % shape.stride;
        let taps = shape
            .kernel
            .saturating_sub(first_tap)
            .div_ceil(shape.stride);
        let before = taps as isize - 1 - (reach / shape.stride) as isize;
        Self {
            count: (size - remainder).div_ceil(shape.stride),
            first_tap,
            taps,
            before,
        }
    }

    /// The kernel's tap behind tap `t` of the correlation.
    fn tap(&self, shape: &ConvShape, t: usize) -> usize {
        self.first_tap + shape.stride * (self.taps - 1 - t)
    }
}

/// The windows over the output's gradient.
fn windows(shape: &ConvShape, y: &Remainder, x: &Remainder) -> Windows {
    Windows {
        in_height: shape.out_height(),
        in_width: shape.out_width(),
        out_height: y.count,
        out_width: x.count,
        taps_y: y.taps,
        taps_x: x.taps,
        stride: 1,
        top: y.before,
        left: x.before,
    }
}
