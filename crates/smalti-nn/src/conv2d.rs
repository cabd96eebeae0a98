//! Two-dimensional convolution with padding that may differ on each side.
//!
//! `y[n,o,i,j] = b[o] + Σ_{c,u,v} w[o,c,u,v] · x[n,c,i·s+u−top,j·s+v−left]`, `x` zero outside.
//! Shapes: input `[batch, in, height, width]`, weight `[out, in, k, k]`, bias `[out]`.

use burn::module::{Module, Param};
use burn::tensor::module::conv2d as burn_conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, ops::PadMode};

use crate::Init;

/// Zeros added round the input before the kernel slides over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Columns on the left.
    pub left: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns on the right.
    pub right: usize,
}

impl Padding {
    /// The same on all four sides.
    pub const fn same(size: usize) -> Self {
        Self { top: size, left: size, bottom: size, right: size }
    }
}

/// The shape of a convolution layer.
#[derive(Clone, Copy, Debug)]
pub struct Conv2dConfig {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Side of the square kernel.
    pub kernel: usize,
    /// Step of the kernel in both directions.
    pub stride: usize,
    /// Zeros round the input.
    pub padding: Padding,
}

impl Conv2dConfig {
    /// Stride 1 and a padding that keeps the image's size (for odd kernels).
    pub const fn same(in_channels: usize, out_channels: usize, kernel: usize) -> Self {
        Self { in_channels, out_channels, kernel, stride: 1, padding: Padding::same(kernel / 2) }
    }

    /// Weight and bias uniform within ±1/√(in·k²), PyTorch's default.
    pub fn init(self, init: &mut Init) -> Conv2d {
        let Self { in_channels, out_channels, kernel, stride, padding } = self;
        let fan_in = in_channels * kernel * kernel;
        Conv2d {
            weight: init.fan_in([out_channels, in_channels, kernel, kernel], fan_in),
            bias: init.fan_in([out_channels], fan_in),
            stride,
            padding: [padding.top, padding.left, padding.bottom, padding.right],
        }
    }
}

/// A convolution layer with bias.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[out, in, k, k]`
    pub weight: Param<Tensor<4>>,
    /// `[out]`
    pub bias: Param<Tensor<1>>,
    stride: usize,
    padding: [usize; 4],
}

impl Conv2d {
    /// `[batch, in, height, width]` to `[batch, out, height', width']`.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let [top, left, bottom, right] = self.padding;
        let padding = Padding { top, left, bottom, right };
        conv2d(input, self.weight.val(), self.bias.val(), self.stride, padding)
    }
}

/// Convolution of `input` with `weight`; see the [module's documentation](self).
pub fn conv2d(
    input: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    stride: usize,
    padding: Padding,
) -> Tensor<4> {
    composed(input, weight, bias, stride, padding)
}

/// The same operation made of burn's own.
fn composed(
    input: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    stride: usize,
    padding: Padding,
) -> Tensor<4> {
    let Padding { top, left, bottom, right } = padding;
    let symmetric = top == bottom && left == right;
    let (input, rest) = if symmetric {
        (input, [top, left])
    } else {
        (input.pad((left, right, top, bottom), PadMode::Constant(0.0)), [0, 0])
    };
    burn_conv2d(input, weight, Some(bias), ConvOptions::new([stride, stride], rest, [1, 1], 1))
}
