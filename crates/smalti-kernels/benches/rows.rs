//! Times the kernels other than products and convolutions.
//!
//! `cargo bench -p smalti-kernels --bench rows` prints the median of many short rounds. With `serve`
//! as argument it waits for names of cases, one a line, runs each once and prints milliseconds, so
//! that a driver can alternate rounds with another program (`benches/compare_torch.py`).
#![allow(clippy::print_stdout, missing_docs)]

use smalti_kernels::{CodebookIndex, GroupNorm, Metric};
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

fn cases() -> Vec<Case> {
    let mut cases = vec![
        nearest("nearest 65536x16 for 4096", 65536, 16, 4096),
        nearest("nearest 16384x8 for 4096", 16384, 8, 4096),
        nearest("nearest 512x64 for 16384", 512, 64, 16384),
        nearest("nearest 1024x256 for 4096", 1024, 256, 4096),
        nearest("nearest 65536x16 for 1", 65536, 16, 1),
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
