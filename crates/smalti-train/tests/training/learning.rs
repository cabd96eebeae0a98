//! Both stages learn: tiny networks learn eight images by heart within seconds.

use std::path::Path;

use smalti_train::journal::{self, Entry};

/// First and last line of a phase in a run's journal.
fn ends(folder: &Path, phase: &str) -> (Entry, Entry) {
    let entries = journal::read(&folder.join("metrics.jsonl")).unwrap();
    let mut of_phase = entries.into_iter().filter(|entry| entry.phase == phase);
    let first = of_phase.next().unwrap();
    let last = of_phase.next_back().unwrap_or_else(|| first.clone());
    (first, last)
}

#[test]
fn a_tiny_autoencoder_overfits_eight_images() {
    let folder = tempfile::tempdir().unwrap();
    crate::support::run(
        &crate::support::tokenizer(&["training.steps=220", "optimizer.learning_rate=4e-3"]),
        folder.path(),
    )
    .unwrap();
    let (first, last) = ends(folder.path(), "train");
    let (start, end) = (
        first.number("reconstruction").unwrap(),
        last.number("reconstruction").unwrap(),
    );
    assert!(end < start / 10.0, "the loss went from {start} to {end}");
    let psnr = ends(folder.path(), "eval").1.number("psnr_db").unwrap();
    assert!(psnr > 20.0, "{psnr} dB");
}

#[test]
fn a_tiny_generator_overfits_eight_code_maps() {
    let folder = tempfile::tempdir().unwrap();
    let (tokenizer, generator) = (
        folder.path().join("tokenizer"),
        folder.path().join("generator"),
    );
    crate::support::run(
        &crate::support::tokenizer(&[
            "training.steps=30",
            "model.network.multipliers=[1, 1, 1, 1]",
        ]),
        &tokenizer,
    )
    .unwrap();
    crate::support::run(
        &crate::support::generator(&tokenizer, &["training.steps=200", "model.embed_dim=64"]),
        &generator,
    )
    .unwrap();
    let (first, last) = ends(&generator, "train");
    let (start, end) = (
        first.number("codes").unwrap(),
        last.number("codes").unwrap(),
    );
    // Eight equally likely images cannot be told apart at their first code.
    assert!(
        end < start / 10.0,
        "the loss went from {start} to {end} nats per code"
    );
    // Measured on the same images: what was learned is in the model that is kept.
    let measured = ends(&generator, "eval").1.number("codes").unwrap();
    assert!(
        (measured - end).abs() < 0.1 * start,
        "{measured} against {end}"
    );
}
