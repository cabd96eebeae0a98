//! `smalti generate --guidance`, of a generator that was trained to be guided.

use std::path::Path;

use crate::support::{Called, GENERATOR, call, folder, models, smalti};

/// In place of the RQ-Transformer.
const MODEL: &str = "model={kind = 'far', embed_dim = 16, layers = 1, heads = 2, hidden = 32, condition = 'class', condition_dropout = 0.5, head = {kind = 'autoregressive', layers = 1}}";

fn train(here: &Path) {
    let tokenizer = models().tokenizer.display().to_string();
    let config = GENERATOR.replace("TOKENIZER", &tokenizer);
    std::fs::write(here.join("far.toml"), config).unwrap();
    let settings = [
        MODEL,
        "targets={kind = 'hard'}",
        "views={kind = 'flip'}",
        "training.steps=30",
        "optimizer.learning_rate=1e-2",
    ];
    let settings = settings.into_iter().flat_map(|setting| ["--set", setting]);
    let line = ["train", "far.toml", "--out", "far", "-q"];
    smalti(here, line.into_iter().chain(settings)).succeeded();
}

fn generate(here: &Path, model: &str, more: &str) -> Called {
    let line = format!("generate --model {model} --class Flags --count 6 -o grid.png -q");
    call(here, format!("{line} {more}").trim_end())
}

#[test]
fn guidance_changes_what_is_written_as_far_as_it_reaches() {
    let here = folder();
    train(here.path());
    let picture = |more: &str| {
        generate(here.path(), "far", more).succeeded();
        std::fs::read(here.path().join("grid.png")).unwrap()
    };
    let plain = picture("");
    assert!(plain == picture("--guidance 1"), "1 is no guidance");
    let guided = picture("--guidance 20");
    assert!(guided != plain);
    assert!(guided == picture("--guidance 20 --guidance-interval 0..64"));
    let partly = picture("--guidance 20 --guidance-interval 0..4");
    assert!(partly != plain && partly != guided);

    let called = call(here.path(), "inspect far/model").succeeded();
    let text = called.text();
    assert!(text.starts_with("image generator (FAR)"), "{text}");
    assert!(text.contains("guidance     possible"), "{text}");
    let called = call(here.path(), "inspect far/tokens-train.safetensors").succeeded();
    assert!(called.text().contains("views of each image"));
}

#[test]
fn what_cannot_be_guided_is_said_so() {
    let here = folder();
    for (more, part) in [
        ("--guidance 2", "was not trained without its condition"),
        ("--guidance=-1", "guidance: expected a scale"),
        ("--guidance 2 --guidance-interval 3..3", "not empty"),
        ("--guidance 2 --guidance-interval 3", "for example 0..128"),
        ("--guidance-interval 0..3", "--guidance <SCALE>"),
    ] {
        let called = generate(here.path(), "{generator}", more);
        assert_eq!(called.code, Some(2), "{more}");
        assert!(called.stderr.contains(part), "{}", called.stderr);
    }
}
