//! The quantizer of LlamaGen against tensors of its code, with codes scaled to length one and not.
//!
//! The smallest recorded margins are 3.6e-3 and 3.8e-3: all codes must be equal.

use std::path::Path;

use super::*;
use crate::testing::{Golden, assert_golden, assert_near, assert_scalar, weighted};
use crate::{DistanceEntropies, Revival, Start};

fn as_published(case: &str, metric: Metric, entropy_weight: f64) {
    let golden = Golden::open(case);
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens");
    let path = format!("{root}/{case}/model.pt");
    let wanted = |name: &str| name == "quantize.embedding.weight";
    let table = Weights::read_pytorch_where(Path::new(&path), &["model"], wanted).unwrap();
    let table = &table.0["quantize.embedding.weight"];
    let (size, width) = (table.shape[0], table.shape[1]);
    let mut config = VectorConfig {
        metric,
        rule: Rule::Gradient,
        entropies: Some(DistanceEntropies::default()),
        ..VectorConfig::new(size, width)
    };
    (config.learning.revival, config.learning.start) = (Revival::Off {}, Start::Normal {});
    let device = Device::flex().autodiff();
    let quantizer = with_table(&config, &device, &table.values);
    let latents = golden.tensor::<4>("h", &device).require_grad();
    let seen = quantize(&quantizer, latents.clone());
    let values = host_values(seen.quantized.clone());
    assert_golden(&values, &golden.floats("quant"), "quantized");
    assert_eq!(seen.codes.values(), golden.ids("codes"));

    let commitment = weighted(&seen, &[("commitment", 0.25)]);
    assert_scalar(
        commitment.clone(),
        golden.number("commit_loss"),
        "commitment",
    );
    let codebook = loss(&seen, "codebook");
    assert_scalar(codebook.clone(), golden.number("vq_loss"), "codebook");
    let entropies = [
        ("sample_entropy", entropy_weight),
        ("unused_entropy", entropy_weight),
    ];
    let entropies = weighted(&seen, &entropies);
    // Published without the constant that keeps the loss from going below zero.
    let most = entropy_weight as f32 * (size as f32).ln();
    let recorded = golden.number("entropy_loss") + most;
    assert_scalar(entropies.clone(), recorded, "entropies");

    let gradients = (commitment + codebook + entropies).backward();
    let of_latents = host_values(latents.grad(&gradients).expect("tracked"));
    let of_codes = quantizer
        .codebook
        .table()
        .grad(&gradients)
        .expect("tracked");
    let near = |got: &[f32], name: &str| {
        assert_near(got, &golden.floats(name), [2e-6, 1e-3], name);
    };
    near(&of_latents, "grad_h");
    near(&host_values(of_codes), "grad_codebook");
}

#[test]
fn scaled_codes_as_published() {
    as_published("llamagen_vq", Metric::Cosine, 0.03);
}

#[test]
fn plain_codes_as_published() {
    as_published("llamagen_vq_nol2", Metric::Euclidean, 0.05);
}
