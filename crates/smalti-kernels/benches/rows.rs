//! Times the kernels other than products and convolutions.
//!
//! `cargo bench -p smalti-kernels --bench rows` prints the median of many short rounds. With `serve`
//! as argument it waits for names of cases, one a line, runs each once and prints milliseconds, so
//! that a driver can alternate rounds with another program (`benches/compare_torch.py`).
#![allow(clippy::print_stdout, missing_docs)]

use smalti_kernels::attention::{DecodeShape, Gradients, Inputs, Mask, Results, decode};
use smalti_kernels::cross_entropy::{BackwardRows, Targets};
use smalti_kernels::{
    Activation, Adam, AdamState, Attention, CodebookIndex, CrossEntropy, GroupNorm, LayerNorm,
    Metric, WeightDecay, WeightedIndex,
};
use std::io::BufRead;
use std::time::Instant;

type Case = (&'static str, Box<dyn FnMut()>);

fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count)
        .map(|_| (next() + next() + next() + next()) * 1.732)
        .collect()
}

fn nearest(name: &'static str, size: usize, code_dim: usize, rows: usize) -> Case {
    let codes = noise(size * code_dim, 1);
    let queries = noise(rows * code_dim, 2);
    let index = CodebookIndex::new(&codes, code_dim, Metric::Euclidean).expect("finite codes");
    let mut out = vec![0; rows];
    (
        name,
        Box::new(move || index.search(&queries, &mut out).expect("finite queries")),
    )
}

/// Gaussians whose aggregate is the standard normal, of `16 / code_dim` bits a dimension.
fn weighted(name: &'static str, size: usize, code_dim: usize, rows: usize) -> Case {
    let variance = 4.0_f32.powf(-16.0 / code_dim as f32);
    let index = WeightedIndex::new(noise(size * code_dim, 1), code_dim, 1.0).expect("finite codes");
    let spread = (1.0 - variance).sqrt();
    let means: Vec<f32> = noise(rows * code_dim, 2)
        .iter()
        .map(|x| x * spread)
        .collect();
    let log_variances = vec![variance.ln(); means.len()];
    let mut out = vec![0; rows];
    let search = move || {
        index
            .search(&means, &log_variances, &mut out)
            .expect("finite Gaussians");
    };
    (name, Box::new(search))
}

fn nearest_build() -> Case {
    let codes = noise(65536 * 16, 1);
    let build = move || {
        let index = CodebookIndex::new(&codes, 16, Metric::Euclidean).expect("finite codes");
        std::hint::black_box(index);
    };
    ("nearest build 65536x16", Box::new(build))
}

/// Group norm and SiLU with 32 groups: [batch, channels, spatial].
fn group_norm(names: [&'static str; 2], [batch, channels, spatial]: [usize; 3]) -> [Case; 2] {
    let count = batch * channels * spatial;
    let (input, grad) = (noise(count, 1), noise(count, 2));
    let (gamma, beta) = (noise(channels, 3), noise(channels, 4));
    let mut output = vec![0.0; count];
    let run = move |back: bool| {
        let norm = GroupNorm {
            groups: 32,
            spatial,
            eps: 1e-6,
            silu: true,
            gamma: &gamma,
            beta: &beta,
        };
        let moments = norm.forward(&input, &mut output);
        if back {
            norm.backward(&input, &moments, &grad, &mut output);
        }
    };
    let mut forward = run.clone();
    let mut both = run;
    [
        (names[0], Box::new(move || forward(false))),
        (names[1], Box::new(move || both(true))),
    ]
}

fn layer_norm() -> [Case; 2] {
    let (rows, width) = (4096, 256);
    let (input, grad) = (noise(rows * width, 1), noise(rows * width, 2));
    let (gamma, beta) = (noise(width, 3), noise(width, 4));
    let mut output = vec![0.0; rows * width];
    let run = move |back: bool| {
        let norm = LayerNorm {
            eps: 1e-5,
            gamma: &gamma,
            beta: &beta,
        };
        let moments = norm.forward(&input, &mut output);
        if back {
            norm.backward(&input, &moments, &grad, &mut output);
        }
    };
    let (mut forward, mut both) = (run.clone(), run);
    [
        (
            "layer norm forward 4096,256",
            Box::new(move || forward(false)),
        ),
        ("layer norm both 4096,256", Box::new(move || both(true))),
    ]
}

fn gelu() -> [Case; 2] {
    let input = noise(4096 * 1024, 1);
    let (mut output, mut grad) = (input.clone(), input.clone());
    let mut run = move |back: bool| {
        Activation::Gelu.forward(&input, &mut output);
        if back {
            Activation::Gelu.backward(&input, &mut grad);
        }
    };
    let mut forward = run.clone();
    [
        ("gelu forward 4096,1024", Box::new(move || forward(false))),
        ("gelu both 4096,1024", Box::new(move || run(true))),
    ]
}

/// Soft targets.
fn cross_entropy() -> [Case; 2] {
    let (rows, classes) = (1024, 4096);
    let loss = CrossEntropy {
        classes,
        partition_epsilon: 1e-7,
    };
    let logits = noise(rows * classes, 1);
    let targets: Vec<f32> = noise(rows * classes, 2)
        .iter()
        .map(|x| x.abs() / 4096.0)
        .collect();
    let (mut losses, mut grad) = (vec![0.0; rows], vec![0.0; rows * classes]);
    let mut run = move |back: bool| {
        let targets = Targets::Probabilities(&targets);
        let partitions = loss.forward(&logits, targets, &mut losses);
        if back {
            let rows = BackwardRows {
                partitions: &partitions,
                grad_losses: &losses,
            };
            loss.backward(&logits, targets, rows, &mut grad);
        }
    };
    let mut forward = run.clone();
    [
        (
            "cross entropy forward 1024,4096",
            Box::new(move || forward(false)),
        ),
        ("cross entropy both 1024,4096", Box::new(move || run(true))),
    ]
}

/// Causal attention: [heads, length, head_dim].
fn attention(names: [&'static str; 2], [heads, length, head_dim]: [usize; 3]) -> [Case; 2] {
    let scale = 1.0 / (head_dim as f32).sqrt();
    let mask = Mask::Causal { offset: 0 };
    let shape = Attention {
        heads,
        queries: length,
        keys: length,
        head_dim,
        scale,
        mask,
    };
    let count = heads * length * head_dim;
    let data = [1, 2, 3, 4].map(|seed| noise(count, seed));
    let [mut output, mut grad_q, mut grad_k, mut grad_v] = data.clone();
    let mut run = move |back: bool| {
        let [q, k, v, grad_output] = &data;
        let inputs = Inputs { q, k, v };
        let log_sums = shape.forward(inputs, &mut output);
        if back {
            let results = Results {
                output: &output,
                log_sums: &log_sums,
                grad_output,
            };
            let gradients = Gradients {
                q: &mut grad_q,
                k: &mut grad_k,
                v: &mut grad_v,
            };
            shape.backward(inputs, results, gradients);
        }
    };
    let mut forward = run.clone();
    [
        (names[0], Box::new(move || forward(false))),
        (names[1], Box::new(move || run(true))),
    ]
}

fn decoding() -> Case {
    let shape = DecodeShape {
        heads: 256,
        capacity: 256,
        length: 200,
        head_dim: 64,
        scale: 0.125,
    };
    let (query, cache) = (noise(256 * 64, 1), noise(256 * 256 * 64, 2));
    let mut output = query.clone();
    (
        "decode 256 heads, 200 of 256, 64",
        Box::new(move || decode(&shape, &query, &cache, &cache, &mut output)),
    )
}

fn adam() -> Case {
    let [mut parameter, mut first, mut second, grad] =
        [1, 2, 3, 4].map(|seed| noise(4 << 20, seed));
    second.iter_mut().for_each(|v| *v = v.abs());
    let (learning_rate, weight_decay) = (1e-4, WeightDecay::Decoupled(1e-4));
    let adam = Adam {
        learning_rate,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay,
        grad_scale: 1.0,
    };
    let step = move || {
        let state = AdamState {
            parameter: &mut parameter,
            first: &mut first,
            second: &mut second,
        };
        adam.step(7, state, &grad);
    };
    ("adamw 4194304", Box::new(step))
}

fn cases() -> Vec<Case> {
    let mut cases = vec![
        nearest("nearest 65536x16 for 4096", 65536, 16, 4096),
        nearest("nearest 16384x8 for 4096", 16384, 8, 4096),
        nearest("nearest 512x64 for 16384", 512, 64, 16384),
        nearest("nearest 1024x256 for 4096", 1024, 256, 4096),
        nearest("nearest 65536x16 for 1", 65536, 16, 1),
        weighted("weighted 65536x16 for 1024", 65536, 16, 1024),
        weighted("weighted 65536x4 for 4096", 65536, 4, 4096),
        weighted("weighted 65536x1 for 4096", 65536, 1, 4096),
        nearest_build(),
    ];
    let names = [
        "group norm forward 4,128,64,64",
        "group norm both 4,128,64,64",
    ];
    cases.extend(group_norm(names, [4, 128, 64 * 64]));
    let names = [
        "group norm forward 32,32,32,32",
        "group norm both 32,32,32,32",
    ];
    cases.extend(group_norm(names, [32, 32, 32 * 32]));
    let names = [
        "group norm forward 64,128,4,4",
        "group norm both 64,128,4,4",
    ];
    cases.extend(group_norm(names, [64, 128, 16]));
    cases.extend(layer_norm());
    cases.extend(gelu());
    cases.extend(cross_entropy());
    let names = ["attention forward 256,64,32", "attention both 256,64,32"];
    cases.extend(attention(names, [256, 64, 32]));
    let names = ["attention forward 64,256,64", "attention both 64,256,64"];
    cases.extend(attention(names, [64, 256, 64]));
    let names = ["attention forward 8192,4,32", "attention both 8192,4,32"];
    cases.extend(attention(names, [8192, 4, 32]));
    cases.extend([decoding(), adam()]);
    cases
}

fn time(work: &mut dyn FnMut()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e3
}

fn main() {
    let mut cases = cases();
    if std::env::args().any(|argument| argument == "serve") {
        for line in std::io::stdin().lock().lines() {
            let line = line.expect("readable input");
            match cases.iter_mut().find(|(name, _)| *name == line) {
                Some((_, work)) => println!("{}", time(work.as_mut())),
                None => println!("unknown"),
            }
        }
        return;
    }
    for (name, work) in &mut cases {
        work();
        let rounds = (600.0 / time(work.as_mut()).max(0.01)).clamp(5.0, 200.0) as usize;
        let mut times: Vec<f64> = (0..rounds).map(|_| time(work.as_mut())).collect();
        times.sort_by(f64::total_cmp);
        println!(
            "{name:44} median {:9.3} ms, least {:9.3} ms",
            times[rounds / 2],
            times[0]
        );
    }
}
