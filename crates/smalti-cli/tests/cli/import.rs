//! `smalti import`

use std::path::Path;

use crate::support::{Called, TOKENIZER, folder, picture, size, smalti};

/// A file of `goldens/`.
fn golden(path: &str) -> String {
    format!("{}/../../goldens/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// Calls the program with arguments in one string.
fn call(folder: &Path, line: &str) -> Called {
    smalti(folder, line.split(' '))
}

#[test]
fn a_published_tokenizer_becomes_a_model_that_works() {
    let here = folder();
    let weights = golden("llamagen_vq/model.pt");
    let called = call(
        here.path(),
        &format!("import --layout llamagen {weights} -o model"),
    )
    .succeeded();
    assert_eq!(called.text(), "");
    assert!(called.stderr.contains("licence of the weights: MIT"));
    picture(&here.path().join("cat.png"), 19, 9);
    call(here.path(), "encode --model model cat.png -o cat.tokens").succeeded();
    call(here.path(), "decode --model model cat.tokens -o again.png").succeeded();
    assert!(here.path().join("again.png").is_file());
    let called = call(here.path(), "inspect model").succeeded();
    assert!(called.text().contains("[128]") && called.text().contains("MIT"));
}

#[test]
fn branches_are_depths_of_the_codes() {
    let here = folder();
    let weights = golden("fqgan_triple/model.pt");
    let words = format!("import --layout fqgan {weights} -o model --license mine");
    call(here.path(), &words).succeeded();
    let called = call(here.path(), "inspect model").succeeded();
    assert!(called.text().contains("[80, 80, 80]") && called.text().contains("mine"));
}

#[test]
fn wrong_files_say_what_they_lack() {
    let here = folder();
    let llamagen = golden("llamagen_vq/model.pt");
    for (words, code, part) in [
        (format!("--layout fqgan {llamagen}"), 1, "quantize_sem"),
        (format!("--layout rq-vae {llamagen}"), 1, "config.yaml"),
        (format!("--layout taming {llamagen}"), 1, "config.yaml"),
        ("--layout llamagen nowhere.pt".to_owned(), 1, "nowhere.pt"),
        (
            format!("--layout llamagen {llamagen} --config a.yaml"),
            2,
            "--config",
        ),
        (format!("--layout vqgan {llamagen}"), 2, "llamagen"),
    ] {
        let called = call(here.path(), &format!("import {words} -o model"));
        assert_eq!(called.code, Some(code), "{words}: {}", called.stderr);
        assert!(called.stderr.contains(part), "{words}: {}", called.stderr);
        assert!(!here.path().join("model").exists());
    }
}

/// Trains a tokenizer of one step whose codes are out of so many.
fn tokenizer(here: &Path, quantizer: &str) {
    let (before, rest) = TOKENIZER.split_once("[model.quantizer]").unwrap();
    let (_, after) = rest.split_once("[losses]").unwrap();
    let config = format!("{before}[model.quantizer]\n{quantizer}\n[losses]{after}");
    std::fs::write(here.join("tokenizer.toml"), config).unwrap();
    let line = "train tokenizer.toml --out tokenizer -q --set training.steps=1";
    call(here, line).succeeded();
}

/// Imports a generator with that tokenizer and lets it write images of class 7.
fn writes(here: &Path, words: &str, side: u32, name: &str) {
    let line = format!("import {words} --tokenizer tokenizer -o model");
    let called = call(here, &line).succeeded();
    assert!(called.stderr.starts_with("generator "), "{}", called.stderr);
    let line = "generate --model model --class 7 --count 1 -o images";
    call(here, line).succeeded();
    assert_eq!(size(&here.join("images/00000.png")), (side, side));
    let called = call(here, "inspect model").succeeded();
    let text = called.text();
    assert!(
        text.starts_with(&format!("image generator ({name})")),
        "{text}"
    );
    assert!(text.contains(", by number"), "{text}");
}

#[test]
fn a_published_rq_transformer_writes_images() {
    let here = folder();
    let weights = golden("rqvae_stage1/model.pt");
    let words = format!("import --layout rq-vae {weights} -o tokenizer");
    call(here.path(), &words).succeeded();
    let weights = golden("rqtransformer_class/model.pt");
    let words = format!("--layout rq-transformer {weights}");
    writes(here.path(), &words, 32, "RQ-Transformer");
}

#[test]
fn a_published_llamagen_writes_images() {
    let here = folder();
    tokenizer(
        here.path(),
        "kind = \"vector\"\ncodebook_size = 96\ncode_dim = 8",
    );
    let weights = golden("llamagen_gpt_c2i/model.pt");
    let words = format!("--layout llamagen-gpt {weights} --heads 2 --image-size 16");
    writes(here.path(), &words, 16, "LlamaGen");
    let called = call(here.path(), "inspect model").succeeded();
    assert!(called.text().contains("guidance"), "{}", called.text());
}

#[test]
fn published_fars_write_images() {
    for (case, groups, codes, heads) in [("far_dual", 2, 80, 2), ("far_triple", 3, 64, 3)] {
        let here = folder();
        let part = format!("{{ kind = \"vector\", codebook_size = {codes}, code_dim = 4 }}");
        tokenizer(
            here.path(),
            &format!("kind = \"grouped\"\ngroups = {groups}\npart = {part}"),
        );
        let weights = golden(&format!("{case}/model.pt"));
        let words = format!("--layout far {weights} --heads {heads} --image-size 16");
        writes(here.path(), &words, 16, "FAR");
    }
}

#[test]
fn a_published_taming_transformer_writes_images() {
    let here = folder();
    tokenizer(
        here.path(),
        "kind = \"vector\"\ncodebook_size = 91\ncode_dim = 8",
    );
    let (weights, yaml) = (
        golden("taming_mingpt/last.ckpt"),
        golden("taming_mingpt/model.yaml"),
    );
    let words = format!("--layout taming-gpt {weights} --config {yaml}");
    writes(here.path(), &words, 32, "GPT");
}

#[test]
fn what_a_generator_lacks_is_said() {
    let here = folder();
    tokenizer(
        here.path(),
        "kind = \"vector\"\ncodebook_size = 16\ncode_dim = 8",
    );
    let weights = golden("llamagen_gpt_c2i/model.pt");
    let (far, taming) = (
        golden("far_triple/model.pt"),
        golden("taming_mingpt/last.ckpt"),
    );
    let with = "--tokenizer tokenizer";
    for (words, code, parts) in [
        (
            format!("--layout llamagen-gpt {weights}"),
            2,
            ["--tokenizer", "whose codes it writes"],
        ),
        (
            format!("--layout llamagen {weights} {with}"),
            2,
            ["--tokenizer", "asked of generators"],
        ),
        (
            format!("--layout taming-gpt {taming} {with} --heads 2"),
            2,
            ["--heads", "the configuration of this layout tells it"],
        ),
        (
            format!("--layout far {weights} {with} --config a.yaml"),
            2,
            ["--config", "no configuration"],
        ),
        (
            format!("--layout llamagen-gpt {weights} --heads 2 {with}"),
            1,
            ["does not go with the tokenizer tokenizer", "[96]"],
        ),
        (
            format!("--layout far {far} {with}"),
            1,
            ["far_triple/model.pt was not imported", "heads: expected"],
        ),
        (
            format!("--layout taming-gpt {taming} {with}"),
            1,
            ["taming_mingpt/config.yaml was not imported", "cannot read"],
        ),
        (
            format!("--layout far {taming} {with} --heads 2"),
            1,
            ["last.ckpt", "is missing"],
        ),
        (
            format!("--layout rq-transformer {weights} --tokenizer nowhere"),
            1,
            ["nowhere", "hint"],
        ),
    ] {
        let called = call(here.path(), &format!("import {words} -o model"));
        assert_eq!(called.code, Some(code), "{words}: {}", called.stderr);
        for part in parts {
            assert!(called.stderr.contains(part), "{words}: {}", called.stderr);
        }
        assert!(!here.path().join("model").exists());
    }
}
