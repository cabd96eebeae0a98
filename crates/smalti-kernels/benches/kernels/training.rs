//! What a training step does besides its layers.

use divan::Bencher;
use smalti_kernels::adam::{average_weights, sum_of_squares};
use smalti_kernels::cross_entropy::{BackwardRows, Targets};
use smalti_kernels::{Adam, AdamState, CrossEntropy, WeightDecay};

use crate::{bytes, noise};

/// Parameters of a small network.
const PARAMETERS: usize = 4 << 20;
const ROWS: usize = 1024;
const LOSS: CrossEntropy = CrossEntropy {
    classes: 4096,
    partition_epsilon: 1e-7,
};

#[divan::bench]
fn adamw(bencher: Bencher<'_, '_>) {
    let [mut parameter, mut first, mut second, grad] =
        [1, 2, 3, 4].map(|seed| noise(PARAMETERS, seed));
    second.iter_mut().for_each(|v| *v = v.abs());
    let adam = Adam {
        learning_rate: 1e-4,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: WeightDecay::Decoupled(1e-4),
        grad_scale: 1.0,
    };
    bencher.counter(bytes(7, PARAMETERS)).bench_local(|| {
        let state = AdamState {
            parameter: &mut parameter,
            first: &mut first,
            second: &mut second,
        };
        adam.step(7, state, &grad);
    });
}

#[divan::bench]
fn weight_average(bencher: Bencher<'_, '_>) {
    let (mut average, values) = (noise(PARAMETERS, 1), noise(PARAMETERS, 2));
    bencher
        .counter(bytes(3, PARAMETERS))
        .bench_local(|| average_weights(&mut average, &values, 0.999));
}

#[divan::bench]
fn gradient_norm(bencher: Bencher<'_, '_>) {
    let grad = noise(PARAMETERS, 1);
    bencher
        .counter(bytes(1, PARAMETERS))
        .bench_local(|| sum_of_squares(&grad));
}

/// Logits and soft targets.
fn lesson() -> [Vec<f32>; 2] {
    let mut targets = noise(ROWS * LOSS.classes, 2);
    targets.iter_mut().for_each(|t| *t = t.abs() / 4096.0);
    [noise(ROWS * LOSS.classes, 1), targets]
}

#[divan::bench]
fn cross_entropy(bencher: Bencher<'_, '_>) {
    let ([logits, targets], mut losses) = (lesson(), vec![0.0; ROWS]);
    bencher
        .counter(bytes(2, logits.len()))
        .bench_local(|| LOSS.forward(&logits, Targets::Probabilities(&targets), &mut losses));
}

#[divan::bench]
fn cross_entropy_backward(bencher: Bencher<'_, '_>) {
    let ([logits, targets], mut losses) = (lesson(), vec![0.0; ROWS]);
    let targets = Targets::Probabilities(&targets);
    let partitions = LOSS.forward(&logits, targets, &mut losses);
    let mut grad = vec![0.0; logits.len()];
    bencher.counter(bytes(3, logits.len())).bench_local(|| {
        let rows = BackwardRows {
            partitions: &partitions,
            grad_losses: &losses,
        };
        LOSS.backward(&logits, targets, rows, &mut grad);
    });
}
