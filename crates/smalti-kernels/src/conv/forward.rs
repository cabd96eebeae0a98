//! The forward pass: `output[n, o, y, x] = bias[o] + Σ weight[o, c, ky, kx] · input[n, c, y·s + ky − top,
//! x·s + kx − left]`.

use super::correlate::{self, Correlation, Places};
use super::shape::ConvShape;
use super::weights::Weights;
use super::windows::Windows;
use super::winograd;
use crate::Simd;
use crate::gemm::dispatch;
use crate::gemm::scratch::Shared;

/// Computes a convolution on the widest path of this processor. `output` is overwritten.
///
/// # Panics
/// When the shape is not valid or a slice has the wrong length.
pub fn conv2d_forward(
    shape: &ConvShape,
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    output: &mut [f32],
) {
    conv2d_forward_on(Simd::active(), shape, [input, weight], bias, output);
}

/// [`conv2d_forward`] of `[input, weight]` on a given path.
///
/// # Panics
/// As [`conv2d_forward`], or when the processor does not have the path.
pub fn conv2d_forward_on(
    simd: Simd,
    shape: &ConvShape,
    [input, weight]: [&[f32]; 2],
    bias: Option<&[f32]>,
    output: &mut [f32],
) {
    dispatch::assert_available(simd);
    shape.check(input.len(), weight.len(), output.len());
    if let Some(bias) = bias {
        assert_eq!(
            bias.len(),
            shape.out_channels,
            "the bias has {} values",
            bias.len()
        );
    }
    if winograd::applies(shape) {
        winograd::forward(simd, shape, [input, weight], bias, output);
        return;
    }
    let taps = shape.kernel * shape.kernel;
    let windows = windows(shape);
    let correlation = Correlation {
        windows,
        batch: shape.batch,
        in_channels: shape.in_channels,
        out_channels: shape.out_channels,
        input,
        weights: Weights {
            data: weight,
            out_stride: shape.in_channels * taps,
            in_stride: taps,
            taps: (0..taps).collect(),
        },
        bias,
        output: Shared::new(output),
        places: Places {
            first: 0,
            image: shape.out_channels * windows.out_pixels(),
            channel: windows.out_pixels(),
            row: windows.out_width,
            column: 1,
        },
    };
    correlate::run(simd, &[correlation]);
}

/// The windows of the forward pass.
pub(super) fn windows(shape: &ConvShape) -> Windows {
    Windows {
        in_height: shape.height,
        in_width: shape.width,
        out_height: shape.out_height(),
        out_width: shape.out_width(),
        taps_y: shape.kernel,
        taps_x: shape.kernel,
        stride: shape.stride,
        top: shape.padding.top as isize,
        left: shape.padding.left as isize,
    }
}
