//! Activations, softmax, pooling, distances of features.

use divan::Bencher;
use smalti_kernels::Activation;
use smalti_kernels::gated::{silu_product, silu_product_backward};
use smalti_kernels::leaky_relu::{leaky_relu, leaky_relu_backward};
use smalti_kernels::max_pool::MaxPool;
use smalti_kernels::softmax::{softmax, softmax_backward};
use smalti_kernels::unit_distance::UnitDistance;

use crate::{bytes, noise};

/// The activations of a block of 4,096 tokens.
const COUNT: usize = 4096 * 1024;

const ACTIVATIONS: [Activation; 3] = [Activation::Silu, Activation::Gelu, Activation::QuickGelu];

#[divan::bench(args = ACTIVATIONS)]
fn activation(bencher: Bencher<'_, '_>, activation: Activation) {
    let (input, mut output) = (noise(COUNT, 1), vec![0.0; COUNT]);
    bencher
        .counter(bytes(2, COUNT))
        .bench_local(|| activation.forward(&input, &mut output));
}

#[divan::bench(args = ACTIVATIONS)]
fn activation_backward(bencher: Bencher<'_, '_>, activation: Activation) {
    let (input, mut grad) = (noise(COUNT, 1), noise(COUNT, 2));
    bencher
        .counter(bytes(3, COUNT))
        .bench_local(|| activation.backward(&input, &mut grad));
}

#[divan::bench]
fn silu_gate(bencher: Bencher<'_, '_>) {
    let (a, b, mut output) = (noise(COUNT, 1), noise(COUNT, 2), vec![0.0; COUNT]);
    bencher
        .counter(bytes(3, COUNT))
        .bench_local(|| silu_product(&a, &b, &mut output));
}

#[divan::bench]
fn silu_gate_backward(bencher: Bencher<'_, '_>) {
    let [a, b, mut grad, mut grad_a] = [1, 2, 3, 4].map(|seed| noise(COUNT, seed));
    bencher
        .counter(bytes(5, COUNT))
        .bench_local(|| silu_product_backward(&a, &b, &mut grad, &mut grad_a));
}

#[divan::bench]
fn leaky(bencher: Bencher<'_, '_>) {
    let (input, mut output) = (noise(COUNT, 1), vec![0.0; COUNT]);
    bencher
        .counter(bytes(2, COUNT))
        .bench_local(|| leaky_relu(0.2, &input, &mut output));
}

#[divan::bench]
fn leaky_backward(bencher: Bencher<'_, '_>) {
    let (input, mut grad) = (noise(COUNT, 1), noise(COUNT, 2));
    bencher
        .counter(bytes(3, COUNT))
        .bench_local(|| leaky_relu_backward(0.2, &input, &mut grad));
}

/// Rows of attention's weights.
#[divan::bench(args = [64, 256, 4096])]
fn softmax_rows(bencher: Bencher<'_, '_>, width: usize) {
    let (input, mut output) = (noise(COUNT, 1), vec![0.0; COUNT]);
    bencher
        .counter(bytes(2, COUNT))
        .bench_local(|| softmax(width, &input, &mut output));
}

#[divan::bench(args = [64, 256, 4096])]
fn softmax_rows_backward(bencher: Bencher<'_, '_>, width: usize) {
    let (input, mut output) = (noise(COUNT, 1), vec![0.0; COUNT]);
    softmax(width, &input, &mut output);
    let mut grad = noise(COUNT, 2);
    bencher
        .counter(bytes(3, COUNT))
        .bench_local(|| softmax_backward(width, &output, &mut grad));
}

const POOL: MaxPool = MaxPool {
    kernel: 2,
    stride: 2,
    height: 112,
    width: 112,
};

#[divan::bench]
fn max_pool(bencher: Bencher<'_, '_>) {
    let planes = 4 * 128;
    let input = noise(planes * 112 * 112, 1);
    let mut output = vec![0.0; planes * 56 * 56];
    bencher
        .counter(bytes(1, input.len()))
        .bench_local(|| POOL.forward(&input, &mut output));
}

#[divan::bench]
fn max_pool_backward(bencher: Bencher<'_, '_>) {
    let planes = 4 * 128;
    let (input, grad) = (noise(planes * 112 * 112, 1), noise(planes * 56 * 56, 2));
    let mut grad_input = vec![0.0; input.len()];
    bencher
        .counter(bytes(2, input.len()))
        .bench_local(|| POOL.backward(&input, &grad, &mut grad_input));
}

/// LPIPS's distance of two maps of 128 channels at 112×112, batch 4.
#[divan::bench]
fn unit_distance(bencher: Bencher<'_, '_>) {
    let (weights, count) = (noise(128, 3), 4 * 128 * 112 * 112);
    let (a, b) = (noise(count, 1), noise(count, 2));
    let distance = UnitDistance {
        positions: 112 * 112,
        weights: &weights,
    };
    bencher
        .counter(bytes(2, count))
        .bench_local(|| distance.forward(&a, &b));
}
