//! Two-dimensional convolution with padding that may differ on each side.
//!
//! `y[n,o,i,j] = b[o] + Σ_{c,u,v} w[o,c,u,v] · x[n,c,i·s+u−top,j·s+v−left]`, `x` zero outside.
//! Shapes: input `[batch, in, height, width]`, weight `[out, in, k, k]`, bias `[out]`.

use burn::module::{Module, Param};
use burn::tensor::module::conv2d as burn_conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, ops::PadMode};
use smalti_kernels::conv::{
    ConvShape, Padding as KernelPadding, conv2d_backward_input, conv2d_backward_weight,
    conv2d_forward,
};

use crate::Init;
use crate::hook::{self, CpuOp, CpuTensor, cpu_tensor, dims, elements};

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
        Self {
            top: size,
            left: size,
            bottom: size,
            right: size,
        }
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
        Self {
            in_channels,
            out_channels,
            kernel,
            stride: 1,
            padding: Padding::same(kernel / 2),
        }
    }

    /// Weight and bias uniform within ±1/√(in·k²), PyTorch's default.
    pub fn init(self, init: &mut Init) -> Conv2d {
        let Self {
            in_channels,
            out_channels,
            kernel,
            stride,
            padding,
        } = self;
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
        let padding = Padding {
            top,
            left,
            bottom,
            right,
        };
        conv2d(
            input,
            self.weight.val(),
            self.bias.val(),
            self.stride,
            padding,
        )
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
    let op = Convolution { stride, padding };
    match hook::call(
        op,
        [
            input.into_dispatch(),
            weight.into_dispatch(),
            bias.into_dispatch(),
        ],
    ) {
        Ok(output) => output,
        Err([input, weight, bias]) => {
            let [input, weight] = [input, weight].map(Tensor::from_dispatch);
            composed(input, weight, Tensor::from_dispatch(bias), stride, padding)
        }
    }
}

/// The convolution of the CPU; inputs are the image, the weight and the bias.
#[derive(Clone, Copy, Debug)]
struct Convolution {
    stride: usize,
    padding: Padding,
}

impl Convolution {
    fn shape(&self, input: &CpuTensor, weight: &CpuTensor) -> ConvShape {
        let [batch, in_channels, height, width] = dims(input);
        let [out_channels, weight_channels, kernel, kernel_width] = dims(weight);
        assert_eq!(kernel, kernel_width, "conv2d: the kernel must be square");
        assert_eq!(
            in_channels, weight_channels,
            "conv2d: the input has {in_channels} channels, the weight is for {weight_channels}"
        );
        let Padding {
            top,
            left,
            bottom,
            right,
        } = self.padding;
        let padding = KernelPadding {
            top,
            left,
            bottom,
            right,
        };
        let stride = self.stride;
        ConvShape {
            batch,
            in_channels,
            out_channels,
            height,
            width,
            kernel,
            stride,
            padding,
        }
    }
}

impl CpuOp<3> for Convolution {
    type Saved = ();
    const CHEAP: bool = false;

    fn forward(&self, [input, weight, bias]: &[CpuTensor; 3]) -> (CpuTensor, ()) {
        let shape = self.shape(input, weight);
        if let Err(error) = shape.validate() {
            panic!("conv2d: {error}");
        }
        let mut output = hook::output(shape.output_len());
        let bias = Some(elements(bias));
        conv2d_forward(&shape, elements(input), elements(weight), bias, &mut output);
        let sizes = [
            shape.batch,
            shape.out_channels,
            shape.out_height(),
            shape.out_width(),
        ];
        (cpu_tensor(output, sizes), ())
    }

    fn backward(
        &self,
        [input, weight, _]: &[CpuTensor; 3],
        _: (),
        grad: CpuTensor,
        [of_input, of_weight, of_bias]: [bool; 3],
    ) -> [Option<CpuTensor>; 3] {
        let shape = self.shape(input, weight);
        let grad = elements(&grad);
        let grad_input = of_input.then(|| {
            let mut values = hook::output(shape.input_len());
            conv2d_backward_input(&shape, elements(weight), grad, &mut values);
            cpu_tensor(values, dims::<4>(input))
        });
        if !(of_weight || of_bias) {
            return [grad_input, None, None];
        }
        let mut weights = hook::output(shape.weight_len());
        let mut biases = hook::output(shape.out_channels);
        conv2d_backward_weight(
            &shape,
            elements(input),
            grad,
            &mut weights,
            Some(&mut biases),
        );
        let grad_weight = of_weight.then(|| cpu_tensor(weights, dims::<4>(weight)));
        [
            grad_input,
            grad_weight,
            of_bias.then(|| cpu_tensor(biases, [shape.out_channels])),
        ]
    }
}

/// The same operation made of burn's own.
fn composed(
    input: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    stride: usize,
    padding: Padding,
) -> Tensor<4> {
    let Padding {
        top,
        left,
        bottom,
        right,
    } = padding;
    let symmetric = top == bottom && left == right;
    let (input, rest) = if symmetric {
        (input, [top, left])
    } else {
        (
            input.pad((left, right, top, bottom), PadMode::Constant(0.0)),
            [0, 0],
        )
    };
    burn_conv2d(
        input,
        weight,
        Some(bias),
        ConvOptions::new([stride, stride], rest, [1, 1], 1),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::agreement::{Inputs, assert_agree, assert_slopes};

    const SAME: Padding = Padding::same(1);
    const CORNER: Padding = Padding {
        top: 0,
        left: 0,
        bottom: 1,
        right: 1,
    };
    const UNEVEN: Padding = Padding {
        top: 2,
        left: 0,
        bottom: 0,
        right: 1,
    };

    /// Kernel, stride, padding; each with channels that do and do not fill a register.
    const CASES: [(usize, usize, Padding); 5] = [
        (3, 1, SAME),
        (3, 2, CORNER),
        (3, 2, UNEVEN),
        (1, 1, Padding::same(0)),
        (4, 2, SAME),
    ];

    type Compute = fn(Tensor<4>, Tensor<4>, Tensor<1>, usize, Padding) -> Tensor<4>;

    fn of(compute: Compute, stride: usize, padding: Padding) -> impl Fn(&Inputs) -> Tensor<4> {
        move |inputs| compute(inputs.get(0), inputs.get(1), inputs.get(2), stride, padding)
    }

    #[test]
    fn kernel_and_composition_agree() {
        for (kernel, stride, padding) in CASES {
            for channels in [3, 32] {
                let shapes: [&[usize]; 3] =
                    [&[2, channels, 7, 6], &[5, channels, kernel, kernel], &[5]];
                let own = of(conv2d, stride, padding);
                assert_agree(&shapes, 1e-5, own, of(composed, stride, padding));
            }
        }
    }

    #[test]
    fn gradients_are_slopes() {
        for (kernel, stride, padding) in CASES {
            let shapes: [&[usize]; 3] = [&[2, 3, 6, 6], &[4, 3, kernel, kernel], &[4]];
            assert_slopes(&shapes, of(conv2d, stride, padding));
        }
    }

    #[test]
    fn the_same_tensor_may_be_image_and_weight() {
        let shapes: [&[usize]; 2] = [&[3, 3, 3, 3], &[3]];
        let twice = |compute: Compute| {
            move |inputs: &Inputs| compute(inputs.get(0), inputs.get(0), inputs.get(1), 1, SAME)
        };
        assert_agree(&shapes, 1e-5, twice(conv2d), twice(composed));
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn a_kernel_larger_than_the_padded_image_is_refused() {
        let device = burn::tensor::Device::flex();
        let weight = Tensor::<4>::ones([1, 1, 4, 4], &device);
        conv2d(
            Tensor::ones([1, 1, 2, 2], &device),
            weight,
            Tensor::ones([1], &device),
            1,
            CORNER,
        );
    }
}
