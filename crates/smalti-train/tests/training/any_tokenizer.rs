//! Stage 2 learns the codes of every tokenizer, whatever it makes them of.

use std::path::Path;

use burn::tensor::Device;
use smalti_models::generators::{Conditions, GenerationRequest, Progress};
use smalti_quantize::Quantizer;
use smalti_train::{GeneratorModel, TrainError, journal};

use crate::support::{files, generator, run, tokenizer};

/// Quantizers with several codes at a position where they can have several, and their losses.
const QUANTIZERS: [(&str, &str, &str); 13] = [
    (
        "gaussian",
        "{kind = 'gaussian', codebook_size = 64, code_dim = 4, channels = 8}",
        "divergence = 1e-5, ",
    ),
    (
        "gaussian_of_two_sizes",
        "{kind = 'gaussian', codebook_size = [64, 16], code_dim = 4, channels = 8}",
        "divergence = 1e-5, ",
    ),
    (
        "token_bridge",
        "{kind = 'token_bridge', bits = 3, channels = 4}",
        "divergence = 1e-5, ",
    ),
    ("fsq", "{kind = 'fsq', levels = [8, 5], depth = 2}", ""),
    (
        "lfq",
        "{kind = 'lfq', bits = 4, depth = 2}",
        "commitment = 0.25, sample_entropy = 0.1, unused_entropy = 0.1, ",
    ),
    (
        "bsq",
        "{kind = 'bsq', bits = 4, depth = 2}",
        "commitment = 0.25, sample_entropy = 0.1, unused_entropy = 0.1, ",
    ),
    (
        "sim_vq",
        "{kind = 'sim_vq', codebook_size = 64, code_dim = 8}",
        "commitment = 0.25, codebook = 1.0, ",
    ),
    (
        "ibq",
        "{kind = 'ibq', codebook_size = 64, code_dim = 8}",
        "double_quantization = 1.0, commitment = 0.25, codebook = 1.0, sample_entropy = 0.0, unused_entropy = 0.0, ",
    ),
    (
        "regularized",
        "{kind = 'regularized', codebook_size = 64, code_dim = 8}",
        "prior = 0.1, ",
    ),
    (
        "gumbel",
        "{kind = 'gumbel', codebook_size = 64, code_dim = 8}",
        "divergence = 5e-4, ",
    ),
    (
        "vector",
        "{kind = 'vector', codebook_size = 64, code_dim = 8}",
        "commitment = 0.25, ",
    ),
    (
        "grouped",
        "{kind = 'grouped', groups = 2, part = {kind = 'vector', codebook_size = 64, code_dim = 4}}",
        "commitment = 0.25, ",
    ),
    (
        "residual",
        "{kind = 'residual', codebook_size = [64, 16], code_dim = 8, depth = 2, shared = false}",
        "commitment = 0.25, ",
    ),
];

/// The generator's own tables, one for each depth: codebooks may differ in size.
const OWN: [&str; 3] = [
    "model.embedding={kind = 'own', tables = 'per_depth'}",
    "model.classifier=per_depth",
    "training.steps=2",
];

/// A tokenizer with this quantizer after a step or two.
fn train_tokenizer(quantizer: &str, losses: &str, folder: &Path) {
    let (quantizer, losses) = (
        format!("model.quantizer={quantizer}"),
        format!("losses={{{losses}reconstruction = 1.0}}"),
    );
    let config = tokenizer(&[&quantizer, &losses, "training.steps=2"]);
    run(&config, folder).unwrap();
}

#[test]
fn every_tokenizers_codes_are_learned_and_sampled() {
    for (name, quantizer, losses) in QUANTIZERS {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        train_tokenizer(quantizer, losses, &first);
        let journal = std::fs::read_to_string(first.join("metrics.jsonl")).unwrap();
        let by_logits = matches!(name, "regularized" | "gumbel");
        assert_eq!(journal.contains("choice_certainty"), by_logits, "{name}");
        run(&generator(&first, &OWN), &second).unwrap_or_else(|e| panic!("{name}: {e}"));
        let model = GeneratorModel::load(&second, &Device::flex()).unwrap();
        let request = GenerationRequest::new(Conditions::Unconditional(3), 1);
        let mut go_on = |_: Progress| std::ops::ControlFlow::Continue(());
        let codes = model.network.generate(&request, &mut go_on).unwrap();
        let sizes = model.tokenizer.network.quantizer().spec().codebook_sizes;
        let [_, depth, height, width] = codes.dims();
        assert_eq!((depth, height, width), (sizes.len(), 8, 8), "{name}");
        for (i, code) in codes.values().into_iter().enumerate() {
            let depth = i / (height * width) % depth;
            assert!(
                (code as usize) < sizes[depth],
                "{name}: {code} at depth {depth}"
            );
        }
        let images = model.tokenizer.network.decode(&codes).unwrap();
        assert_eq!(images.dims(), [3, 3, 32, 32], "{name}");
    }
}

#[test]
fn a_generator_learns_the_codes_of_gaussian_quant() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let tokenizer = tokenizer(&[
        "model.quantizer={kind = 'gaussian', codebook_size = 64, code_dim = 4, channels = 8}",
        "model.network.multipliers=[1, 1, 1, 1]",
        "losses={reconstruction = 1.0, divergence = 1e-5}",
        "training.steps=30",
    ]);
    run(&tokenizer, &first).unwrap();
    let config = generator(
        &first,
        &[
            "model.embedding={kind = 'own', tables = 'shared'}",
            "training.steps=200",
            "model.embed_dim=64",
        ],
    );
    run(&config, &second).unwrap();
    let entries = journal::read(&second.join("metrics.jsonl")).unwrap();
    let loss = |entry: &journal::Entry| entry.number("codes").unwrap();
    let of_training: Vec<_> = entries.iter().filter(|e| e.phase == "train").collect();
    let (start, end) = (
        loss(of_training[0]),
        loss(of_training[of_training.len() - 1]),
    );
    assert!(
        end < start / 5.0,
        "the loss went from {start} to {end} nats per code"
    );
}

#[test]
fn what_a_tokenizer_cannot_give_is_refused_before_its_codes_are_made() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let (_, quantizer, losses) = QUANTIZERS[3];
    train_tokenizer(quantizer, losses, &first);
    let refused = |settings: &[&str]| {
        let error = run(&generator(&first, settings), &second).unwrap_err();
        assert!(matches!(error, TrainError::Config(_)), "{error:?}");
        error.to_string()
    };
    let message = refused(&["targets={kind = 'soft', temperature = 0.5, stochastic = false}"]);
    assert!(
        message.contains("soft targets need a residual quantizer"),
        "{message}"
    );
    let message = refused(&["model.embedding={kind = 'tokenizer'}"]);
    assert!(
        message.contains("have no table; use kind = \"own\""),
        "{message}"
    );

    // A code of 21 bits is no word of a vocabulary.
    train_tokenizer(
        "{kind = 'fsq', levels = [128, 128, 128]}",
        "",
        &first.join("large"),
    );
    let error = run(&generator(&first.join("large"), &OWN), &second).unwrap_err();
    assert!(error.to_string().contains("one of 2097152"), "{error}");
    let made: Vec<_> = files(&second).into_keys().collect();
    assert_eq!(made, [Path::new("config.toml")]);
}
