//! Attention in training and in generation.

use divan::Bencher;
use divan::counter::ItemsCount;
use smalti_kernels::Attention;
use smalti_kernels::attention::{DecodeShape, Gradients, Inputs, Mask, Results, decode};

use crate::{bytes, noise};

/// `heads, length, head_dim`, causal.
const SHAPES: [[usize; 3]; 3] = [[256, 64, 32], [64, 256, 64], [8192, 4, 32]];

fn causal([heads, length, head_dim]: [usize; 3]) -> Attention {
    Attention {
        heads,
        queries: length,
        keys: length,
        head_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
        mask: Mask::Causal { offset: 0 },
    }
}

/// Of both products, half of which a causal mask leaves.
fn flops([heads, length, head_dim]: [usize; 3], products: usize) -> ItemsCount {
    ItemsCount::new(products * heads * length * (length + 1) * head_dim)
}

#[divan::bench(args = SHAPES)]
fn attention(bencher: Bencher<'_, '_>, shape: [usize; 3]) {
    let count = shape.iter().product();
    let [q, k, v, mut output] = [1, 2, 3, 4].map(|seed| noise(count, seed));
    let inputs = Inputs {
        q: &q,
        k: &k,
        v: &v,
    };
    bencher
        .counter(flops(shape, 2))
        .bench_local(|| causal(shape).forward(inputs, &mut output));
}

#[divan::bench(args = SHAPES)]
fn attention_backward(bencher: Bencher<'_, '_>, shape: [usize; 3]) {
    let count = shape.iter().product();
    let [q, k, v, grad_output] = [1, 2, 3, 4].map(|seed| noise(count, seed));
    let inputs = Inputs {
        q: &q,
        k: &k,
        v: &v,
    };
    let [mut output, mut grad_q, mut grad_k, mut grad_v] = [(); 4].map(|()| vec![0.0; count]);
    let log_sums = causal(shape).forward(inputs, &mut output);
    bencher.counter(flops(shape, 5)).bench_local(|| {
        let results = Results {
            output: &output,
            log_sums: &log_sums,
            grad_output: &grad_output,
        };
        let gradients = Gradients {
            q: &mut grad_q,
            k: &mut grad_k,
            v: &mut grad_v,
        };
        causal(shape).backward(inputs, results, gradients);
    });
}

/// One position against a cache that is filled so far.
#[divan::bench(args = [50, 200])]
fn decode_step(bencher: Bencher<'_, '_>, length: usize) {
    let shape = DecodeShape {
        heads: 256,
        capacity: 256,
        length,
        head_dim: 64,
        scale: 0.125,
    };
    let (query, cache) = (noise(256 * 64, 1), noise(256 * 256 * 64, 2));
    let mut output = query.clone();
    bencher
        .counter(bytes(2, 256 * length * 64))
        .bench_local(|| decode(&shape, &query, &cache, &cache, &mut output));
}
