//! Searches for codes, and entropies of how they are used.

use divan::Bencher;
use divan::counter::ItemsCount;
use smalti_kernels::entropy::{Logarithm, Signs, choices};
use smalti_kernels::{CodebookIndex, Metric, WeightedIndex};

use crate::{bytes, noise};

/// `codebook_size, code_dim, latents`; an item is a latent.
const SEARCHES: [[usize; 3]; 5] = [
    [65_536, 16, 4096],
    [16_384, 8, 4096],
    [512, 64, 16_384],
    [1024, 256, 4096],
    [65_536, 16, 1],
];

#[divan::bench(args = SEARCHES)]
fn nearest(bencher: Bencher<'_, '_>, [size, code_dim, rows]: [usize; 3]) {
    search(bencher, [size, code_dim, rows], Metric::Euclidean);
}

#[divan::bench(args = SEARCHES)]
fn nearest_by_product(bencher: Bencher<'_, '_>, [size, code_dim, rows]: [usize; 3]) {
    search(bencher, [size, code_dim, rows], Metric::InnerProduct);
}

fn search(bencher: Bencher<'_, '_>, [size, code_dim, rows]: [usize; 3], metric: Metric) {
    let (codes, queries) = (noise(size * code_dim, 1), noise(rows * code_dim, 2));
    let index = CodebookIndex::new(codes, code_dim, metric).expect("finite codes");
    let mut out = vec![0; rows];
    bencher
        .counter(ItemsCount::new(rows))
        .bench_local(|| index.search(&queries, &mut out));
}

#[divan::bench]
fn nearest_build(bencher: Bencher<'_, '_>) {
    let codes = noise(65_536 * 16, 1);
    bencher
        .counter(bytes(1, codes.len()))
        .with_inputs(|| codes.clone())
        .bench_local_values(|codes| CodebookIndex::new(codes, 16, Metric::Euclidean));
}

/// Gaussians whose aggregate is the standard normal, of `16 / code_dim` bits a dimension.
#[divan::bench(args = [[65_536, 16, 1024], [65_536, 4, 4096], [65_536, 1, 4096]])]
fn weighted_nearest(bencher: Bencher<'_, '_>, [size, code_dim, rows]: [usize; 3]) {
    let variance = 4.0_f32.powf(-16.0 / code_dim as f32);
    let index = WeightedIndex::new(noise(size * code_dim, 1), code_dim, 1.0).expect("finite codes");
    let spread = (1.0 - variance).sqrt();
    let means = noise(rows * code_dim, 2);
    let means: Vec<f32> = means.iter().map(|x| x * spread).collect();
    let log_variances = vec![variance.ln(); means.len()];
    let mut out = vec![0; rows];
    bencher
        .counter(ItemsCount::new(rows))
        .bench_local(|| index.search(&means, &log_variances, &mut out));
}

/// `rows, bits, groups` of signs.
#[divan::bench(args = [[4096, 10, 1], [4096, 9, 2]])]
fn entropy_of_signs(bencher: Bencher<'_, '_>, [rows, bits, groups]: [usize; 3]) {
    let signs = Signs {
        bits,
        groups,
        sharpness: 1.0,
    };
    let values = noise(rows * bits * groups, 1);
    let mut slopes = vec![0.0; values.len()];
    bencher
        .counter(ItemsCount::new(rows))
        .bench_local(|| signs.choices(&values, Logarithm::Exact, &mut slopes));
}

/// `rows, codes` of logits.
#[divan::bench(args = [[1024, 1024], [256, 16_384]])]
fn entropy_of_logits(bencher: Bencher<'_, '_>, [rows, codes]: [usize; 2]) {
    let logits = noise(rows * codes, 1);
    bencher
        .counter(bytes(2, rows * codes))
        .with_inputs(|| logits.clone())
        .bench_local_refs(|logits| choices(codes, logits, Logarithm::Exact));
}
