//! Normalisations.

use divan::Bencher;
use smalti_kernels::batch_norm::{BatchNorm, channel_moments};
use smalti_kernels::{GroupNorm, LayerNorm, RmsNorm};

use crate::{bytes, noise};

/// `batch, channels, positions`.
const MAPS: [[usize; 3]; 3] = [[4, 128, 64 * 64], [32, 32, 32 * 32], [64, 128, 4 * 4]];

/// `rows, width`.
const ROWS: [[usize; 2]; 2] = [[4096, 256], [1024, 768]];

/// Group norm in 32 groups, then SiLU.
#[divan::bench(args = MAPS)]
fn group_norm_silu(bencher: Bencher<'_, '_>, [batch, channels, spatial]: [usize; 3]) {
    let count = batch * channels * spatial;
    let (input, mut output) = (noise(count, 1), vec![0.0; count]);
    let (gamma, beta) = (noise(channels, 3), noise(channels, 4));
    let norm = group(spatial, &gamma, &beta);
    bencher
        .counter(bytes(2, count))
        .bench_local(|| norm.forward(&input, &mut output));
}

#[divan::bench(args = MAPS)]
fn group_norm_silu_backward(bencher: Bencher<'_, '_>, [batch, channels, spatial]: [usize; 3]) {
    let count = batch * channels * spatial;
    let (input, grad) = (noise(count, 1), noise(count, 2));
    let (gamma, beta) = (noise(channels, 3), noise(channels, 4));
    let norm = group(spatial, &gamma, &beta);
    let mut output = vec![0.0; count];
    let moments = norm.forward(&input, &mut output);
    bencher
        .counter(bytes(3, count))
        .bench_local(|| norm.backward(&input, &moments, &grad, &mut output));
}

fn group<'a>(spatial: usize, gamma: &'a [f32], beta: &'a [f32]) -> GroupNorm<'a> {
    GroupNorm {
        groups: 32,
        spatial,
        eps: 1e-6,
        silu: true,
        gamma,
        beta,
    }
}

/// Moments of a batch and the normalisation by them.
#[divan::bench(args = MAPS)]
fn batch_norm(bencher: Bencher<'_, '_>, [batch, channels, spatial]: [usize; 3]) {
    let count = batch * channels * spatial;
    let (input, mut output) = (noise(count, 1), vec![0.0; count]);
    let (gamma, beta) = (noise(channels, 3), noise(channels, 4));
    let norm = BatchNorm {
        spatial,
        eps: 1e-5,
        gamma: &gamma,
        beta: &beta,
    };
    bencher.counter(bytes(2, count)).bench_local(|| {
        let moments = channel_moments(&input, channels, spatial);
        norm.forward(&moments, &input, &mut output);
    });
}

#[divan::bench(args = MAPS)]
fn batch_norm_backward(bencher: Bencher<'_, '_>, [batch, channels, spatial]: [usize; 3]) {
    let count = batch * channels * spatial;
    let (input, mut grad) = (noise(count, 1), noise(count, 2));
    let (gamma, beta) = (noise(channels, 3), noise(channels, 4));
    let norm = BatchNorm {
        spatial,
        eps: 1e-5,
        gamma: &gamma,
        beta: &beta,
    };
    let moments = channel_moments(&input, channels, spatial);
    bencher
        .counter(bytes(3, count))
        .bench_local(|| norm.backward(&moments, &input, &mut grad));
}

#[divan::bench(args = ROWS)]
fn layer_norm(bencher: Bencher<'_, '_>, [rows, width]: [usize; 2]) {
    let (input, mut output) = (noise(rows * width, 1), vec![0.0; rows * width]);
    let (gamma, beta) = (noise(width, 3), noise(width, 4));
    let norm = LayerNorm {
        eps: 1e-5,
        gamma: &gamma,
        beta: &beta,
    };
    bencher
        .counter(bytes(2, rows * width))
        .bench_local(|| norm.forward(&input, &mut output));
}

#[divan::bench(args = ROWS)]
fn layer_norm_backward(bencher: Bencher<'_, '_>, [rows, width]: [usize; 2]) {
    let (input, grad) = (noise(rows * width, 1), noise(rows * width, 2));
    let (gamma, beta) = (noise(width, 3), noise(width, 4));
    let norm = LayerNorm {
        eps: 1e-5,
        gamma: &gamma,
        beta: &beta,
    };
    let mut output = vec![0.0; rows * width];
    let moments = norm.forward(&input, &mut output);
    bencher
        .counter(bytes(3, rows * width))
        .bench_local(|| norm.backward(&input, &moments, &grad, &mut output));
}

#[divan::bench(args = ROWS)]
fn rms_norm(bencher: Bencher<'_, '_>, [rows, width]: [usize; 2]) {
    let (input, mut output) = (noise(rows * width, 1), vec![0.0; rows * width]);
    let gamma = noise(width, 3);
    let norm = RmsNorm {
        eps: 1e-5,
        gamma: &gamma,
    };
    bencher
        .counter(bytes(2, rows * width))
        .bench_local(|| norm.forward(&input, &mut output));
}

#[divan::bench(args = ROWS)]
fn rms_norm_backward(bencher: Bencher<'_, '_>, [rows, width]: [usize; 2]) {
    let (input, grad) = (noise(rows * width, 1), noise(rows * width, 2));
    let gamma = noise(width, 3);
    let norm = RmsNorm {
        eps: 1e-5,
        gamma: &gamma,
    };
    let mut output = vec![0.0; rows * width];
    let factors = norm.forward(&input, &mut output);
    bencher
        .counter(bytes(3, rows * width))
        .bench_local(|| norm.backward(&input, &factors, &grad, &mut output));
}
