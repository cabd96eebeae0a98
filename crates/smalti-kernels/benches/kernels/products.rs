//! Convolutions and matrix products.

use divan::Bencher;
use divan::counter::ItemsCount;
use smalti_kernels::conv::{
    ConvShape, Padding, conv2d_backward_input, conv2d_backward_weight, conv2d_forward,
};
use smalti_kernels::gemm::{Matrix, MatrixMut, Product, gemm};

use crate::noise;

/// `batch, channels in → out, side, kernel, stride`.
#[derive(Clone, Copy, Debug)]
struct Layer(usize, [usize; 2], usize, [usize; 2]);

const LAYERS: [Layer; 16] = [
    Layer(16, [3, 64], 64, [3, 1]),
    Layer(64, [32, 3], 32, [3, 1]),
    Layer(64, [32, 32], 32, [3, 1]),
    Layer(32, [64, 64], 32, [3, 1]),
    Layer(32, [128, 128], 16, [3, 1]),
    Layer(32, [128, 128], 8, [3, 1]),
    Layer(64, [128, 128], 4, [3, 1]),
    Layer(16, [128, 128], 64, [3, 1]),
    Layer(8, [512, 512], 16, [3, 1]),
    Layer(64, [32, 32], 32, [3, 2]),
    Layer(32, [128, 128], 16, [3, 2]),
    Layer(64, [32, 64], 32, [4, 2]),
    Layer(32, [64, 128], 16, [4, 2]),
    Layer(32, [128, 128], 32, [1, 1]),
    Layer(32, [128, 64], 8, [1, 1]),
    Layer(8, [512, 512], 16, [1, 1]),
];

impl Layer {
    fn shape(self) -> ConvShape {
        let Self(batch, [in_channels, out_channels], side, [kernel, stride]) = self;
        let padding = match (kernel, stride) {
            (3, 2) => Padding {
                bottom: 1,
                right: 1,
                ..Padding::default()
            },
            (1, _) => Padding::default(),
            _ => Padding::same(1),
        };
        ConvShape {
            batch,
            in_channels,
            out_channels,
            height: side,
            width: side,
            kernel,
            stride,
            padding,
        }
    }
}

fn flops(shape: &ConvShape) -> ItemsCount {
    ItemsCount::new(2 * shape.multiply_adds())
}

#[divan::bench(args = LAYERS)]
fn conv2d(bencher: Bencher<'_, '_>, layer: Layer) {
    let shape = layer.shape();
    let (input, weight) = (noise(shape.input_len(), 1), noise(shape.weight_len(), 2));
    let (bias, mut output) = (noise(shape.out_channels, 3), noise(shape.output_len(), 4));
    bencher
        .counter(flops(&shape))
        .bench_local(|| conv2d_forward(&shape, &input, &weight, Some(&bias), &mut output));
}

#[divan::bench(args = LAYERS)]
fn conv2d_input_gradient(bencher: Bencher<'_, '_>, layer: Layer) {
    let shape = layer.shape();
    let (weight, grad) = (noise(shape.weight_len(), 1), noise(shape.output_len(), 2));
    let mut grad_input = noise(shape.input_len(), 3);
    bencher
        .counter(flops(&shape))
        .bench_local(|| conv2d_backward_input(&shape, &weight, &grad, &mut grad_input));
}

#[divan::bench(args = LAYERS)]
fn conv2d_weight_gradient(bencher: Bencher<'_, '_>, layer: Layer) {
    let shape = layer.shape();
    let (input, grad) = (noise(shape.input_len(), 1), noise(shape.output_len(), 2));
    let (mut weight, mut bias) = (noise(shape.weight_len(), 3), noise(shape.out_channels, 4));
    bencher.counter(flops(&shape)).bench_local(|| {
        conv2d_backward_weight(&shape, &input, &grad, &mut weight, Some(&mut bias));
    });
}

/// `rows, inputs → outputs` of a linear layer.
#[derive(Clone, Copy, Debug)]
struct Linear(usize, [usize; 2]);

const LINEARS: [Linear; 8] = [
    Linear(1, [768, 3072]),
    Linear(16, [768, 3072]),
    Linear(16, [256, 1024]),
    Linear(512, [64, 256]),
    Linear(512, [256, 1024]),
    Linear(2048, [256, 256]),
    Linear(1024, [768, 3072]),
    Linear(1024, [1024, 1024]),
];

impl Linear {
    fn flops(self) -> ItemsCount {
        let Self(rows, [inputs, outputs]) = self;
        ItemsCount::new(2 * rows * inputs * outputs)
    }

    /// Input, weight and output.
    fn arrays(self) -> [Vec<f32>; 3] {
        let Self(rows, [inputs, outputs]) = self;
        [
            noise(rows * inputs, 1),
            noise(outputs * inputs, 2),
            noise(rows * outputs, 3),
        ]
    }
}

#[divan::bench(args = LINEARS)]
fn linear(bencher: Bencher<'_, '_>, layer: Linear) {
    let (Linear(rows, [inputs, outputs]), [x, w, mut y]) = (layer, layer.arrays());
    let bias = noise(outputs, 4);
    bencher.counter(layer.flops()).bench_local(|| {
        let w = Matrix::new(&w, outputs, inputs).transposed();
        let product = Product::new(Matrix::new(&x, rows, inputs), w).with_bias(Some(&bias));
        gemm(&product, MatrixMut::new(&mut y, rows, outputs));
    });
}

#[divan::bench(args = LINEARS)]
fn linear_input_gradient(bencher: Bencher<'_, '_>, layer: Linear) {
    let (Linear(rows, [inputs, outputs]), [mut x, w, y]) = (layer, layer.arrays());
    bencher.counter(layer.flops()).bench_local(|| {
        let (y, w) = (
            Matrix::new(&y, rows, outputs),
            Matrix::new(&w, outputs, inputs),
        );
        gemm(&Product::new(y, w), MatrixMut::new(&mut x, rows, inputs));
    });
}

#[divan::bench(args = LINEARS)]
fn linear_weight_gradient(bencher: Bencher<'_, '_>, layer: Linear) {
    let (Linear(rows, [inputs, outputs]), [x, mut w, y]) = (layer, layer.arrays());
    bencher.counter(layer.flops()).bench_local(|| {
        let (y, x) = (
            Matrix::new(&y, rows, outputs),
            Matrix::new(&x, rows, inputs),
        );
        let product = Product::new(y.transposed(), x);
        gemm(&product, MatrixMut::new(&mut w, outputs, inputs));
    });
}
