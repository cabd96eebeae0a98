//! Winograd's form of the 3×3 kernel at stride 1: tiles of 4×4 outputs with a quarter of the
//! multiplications (Winograd 1980; Lavin and Gray, "Fast Algorithms for Convolutional Neural
//! Networks", CVPR 2016, F(4×4, 3×3)).
//!
//! Tiles of 6×6 inputs, overlapping by two, are transformed (`V = Bᵀ d B`), multiplied point by point
//! with transformed kernels, which sums over input channels and so is 36 matrix products (`M = U V`),
//! and transformed back (`Y = Aᵀ M A`). A block of tiles goes all the way at once: its V stays in
//! the second cache while one tile of output channels after the other is multiplied and written.
//! Lanes are tiles, so every transform is plain arithmetic on vectors.
//!
//! The gradient of the kernel is the transpose of the same: `dU = Σ (A dY Aᵀ) Vᵀ` over tiles, `dg = Gᵀ
//! dU G`.
//!
//! # Accuracy
//! With the usual points 0, ±1, ±2 the largest error is 4.6 times that of summing directly (128
//! channels, normal inputs), with 0, ±1/√2, ±√2, which are used here, 1.2 times; the mean error is 3.4
//! and 2.0 times. A NaN in the input reaches all outputs of its tiles, not only those whose window
//! holds it.
//!
//! # When
//! [`applies`] looks at channels and at the size of one image, never at the batch: an image's bits do
//! not depend on its company.

mod correlation;
mod kernel_gradient;
mod kernels;
mod strips;
mod tiles;
mod transforms;

pub(super) use kernel_gradient::backward_weight;

use correlation::Correlation;
use kernels::Kernels;
use strips::Planes;
use tiles::SIDE;

use super::shape::ConvShape;
use crate::Simd;
use crate::gemm::scratch::Shared;

/// Places in a transformed tile.
const POINTS: usize = 36;
/// Fewest channels on either side for which the transforms pay.
const CHANNELS: usize = 16;
/// Fewest tiles of an image for which transforming the kernels pays, however many they are.
const TILES: usize = 16;
/// Fewest tiles, and most pairs of channels, for which it pays in training, where there are more
/// images, and costs less than a millisecond with one.
const FEW: [usize; 2] = [4, 128 * 128];

/// Fewest tiles of a batch, and fewest pairs of channels, for which the kernel's gradient is faster:
/// its sums of 36 values a pair are read and written for every block of tiles.
const GRADIENT: [usize; 2] = [256, 64 * 64];

/// Whether this form is the faster one for the gradient of the kernel.
pub(super) fn applies_to_weight(shape: &ConvShape) -> bool {
    let [tiles, pairs] = GRADIENT;
    applies(shape)
        && shape.batch * tiles_of_image(shape) >= tiles
        && shape.in_channels * shape.out_channels >= pairs
}

/// Whether this form is the faster one, forward and for the gradient of the input.
pub(super) fn applies(shape: &ConvShape) -> bool {
    let padding = shape.padding;
    let largest = padding
        .top
        .max(padding.left)
        .max(padding.bottom)
        .max(padding.right);
    let tiles = tiles_of_image(shape);
    let few = tiles >= FEW[0] && shape.in_channels * shape.out_channels <= FEW[1];
    shape.kernel == 3
        && shape.stride == 1
        && largest <= 2
        && shape.in_channels.min(shape.out_channels) >= CHANNELS
        && (tiles >= TILES || few)
}

fn tiles_of_image(shape: &ConvShape) -> usize {
    shape.out_height().div_ceil(SIDE) * shape.out_width().div_ceil(SIDE)
}

/// The forward pass of a shape that [`applies`].
pub(super) fn forward(
    simd: Simd,
    shape: &ConvShape,
    [input, weight]: [&[f32]; 2],
    bias: Option<&[f32]>,
    output: &mut [f32],
) {
    let correlation = Correlation {
        batch: shape.batch,
        input: input_planes(shape, input),
        output: [shape.out_channels, shape.out_height(), shape.out_width()],
        bias,
        to: Shared::new(output),
    };
    let kernels = Kernels {
        data: weight,
        out_stride: 9 * shape.in_channels,
        in_stride: 9,
        turned: false,
        in_channels: shape.in_channels,
        out_channels: shape.out_channels,
    };
    correlation::run(simd, &correlation, &kernels);
}

/// The gradient of the input of a shape that [`applies`]: a correlation of the output's gradient with
/// the turned kernels.
pub(super) fn backward_input(
    simd: Simd,
    shape: &ConvShape,
    weight: &[f32],
    grad_output: &[f32],
    grad_input: &mut [f32],
) {
    let correlation = Correlation {
        batch: shape.batch,
        input: Planes {
            data: grad_output,
            channels: shape.out_channels,
            height: shape.out_height(),
            width: shape.out_width(),
            top: 2 - shape.padding.top,
            left: 2 - shape.padding.left,
        },
        output: [shape.in_channels, shape.height, shape.width],
        bias: None,
        to: Shared::new(grad_input),
    };
    let kernels = Kernels {
        data: weight,
        out_stride: 9,
        in_stride: 9 * shape.in_channels,
        turned: true,
        in_channels: shape.out_channels,
        out_channels: shape.in_channels,
    };
    correlation::run(simd, &correlation, &kernels);
}

fn input_planes<'a>(shape: &ConvShape, data: &'a [f32]) -> Planes<'a> {
    Planes {
        data,
        channels: shape.in_channels,
        height: shape.height,
        width: shape.width,
        top: shape.padding.top,
        left: shape.padding.left,
    }
}
