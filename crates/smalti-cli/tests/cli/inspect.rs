//! `smalti inspect`

use crate::support::{call, folder, picture};

#[test]
fn everything_that_the_program_writes_is_described() {
    let here = folder();
    picture(&here.path().join("cat.png"), 18, 9);
    call(
        here.path(),
        "encode --model {tokenizer} cat.png -o cat.tokens",
    )
    .succeeded();
    for (name, path) in [
        ("tokenizer", "{tokenizer}/model"),
        ("generator", "{generator}/model"),
        ("tokens", "cat.tokens"),
        ("cache", "{generator}/tokens-train.safetensors"),
        (
            "checkpoint",
            "{tokenizer}/checkpoints/step-00000040.safetensors",
        ),
    ] {
        let called = call(here.path(), &format!("inspect {path}")).succeeded();
        insta::assert_snapshot!(format!("inspect_{name}"), called.seen(here.path()));
        let called = call(here.path(), &format!("inspect {path} --json")).succeeded();
        let object: serde_json::Value = serde_json::from_str(called.text()).unwrap();
        assert!(object["kind"].is_string(), "{object}");
    }
}

#[test]
fn a_run_is_described_with_its_last_measures() {
    let here = folder();
    let called = call(here.path(), "inspect {tokenizer}").succeeded();
    let names: Vec<&str> = called
        .text()
        .lines()
        .map(|line| line.split("  ").next().unwrap())
        .collect();
    let expected = [
        "run of a tokenizer",
        "steps",
        "newest checkpoint",
        "finished",
        "perplexity_1",
        "perplexity_2",
        "psnr_db",
        "ssim",
        "usage",
        "usage_1",
        "usage_2",
    ];
    assert_eq!(names, expected);
}

#[test]
fn what_the_program_did_not_write_is_said_so() {
    let here = folder();
    picture(&here.path().join("cat.png"), 18, 9);
    std::fs::create_dir(here.path().join("empty")).unwrap();
    for (name, path) in [
        ("picture", "cat.png"),
        ("folder", "empty"),
        ("missing", "nowhere"),
        ("weights", "{tokenizer}/model/model.safetensors"),
    ] {
        let called = call(here.path(), &format!("inspect {path}"));
        insta::assert_snapshot!(format!("inspect_{name}"), called.seen(here.path()));
    }
}
