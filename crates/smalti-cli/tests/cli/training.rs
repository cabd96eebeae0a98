//! `smalti train`: configurations, folders, what is left when it cannot go on.

use std::path::Path;

use crate::support::{GENERATOR, TOKENIZER, call, folder, models, names, picture, smalti};

fn config(folder: &Path) {
    std::fs::write(folder.join("config.toml"), TOKENIZER).unwrap();
}

#[test]
fn a_run_says_where_model_and_report_are() {
    let here = folder();
    config(here.path());
    let called = call(
        here.path(),
        "train config.toml --set training.steps=2 --set training.checkpoint_every=2",
    );
    insta::assert_snapshot!("train", called.seen(here.path()));
    let files = [
        "checkpoints/step-00000002.safetensors",
        "config.toml",
        "metrics.jsonl",
        "model/image_tokenizer.json",
        "model/model.safetensors",
        "report.html",
        "samples/step-00000002.png",
    ];
    assert_eq!(names(&here.path().join("runs/config")), files);
    let called = call(
        here.path(),
        "train config.toml --set training.steps=2 --set training.checkpoint_every=2 --quiet",
    )
    .succeeded();
    assert_eq!(called.stderr, "", "quiet means quiet");
}

#[test]
fn wrong_configurations_are_explained() {
    let here = folder();
    let cases = [
        ("unknown_field", "channels = 8", "channels = 8\nchanels = 8"),
        ("unknown_table", "[losses]", "[loses]\nx = 1.0\n[losses]"),
        ("misspelt_kind", "kind = \"residual\"", "kind = \"residul\""),
        ("misspelt_source", "kind = \"emoji\"", "kind = \"emojis\""),
        (
            "misspelt_enum",
            "learning_rate = 2e-3",
            "learning_rate = 2e-3\nkind = \"adamv\"",
        ),
        ("codebook_size", "codebook_size = 16", "codebook_size = 0"),
        ("missing_field", "batch_size = 8\n", ""),
        (
            "several",
            "steps = 40\nbatch_size = 8",
            "steps = 0\nbatch_size = 0",
        ),
        ("syntax", "[losses]", "[losses"),
        ("loss_without_weight", "commitment = 0.25\n", ""),
        (
            "weight_without_loss",
            "commitment = 0.25",
            "commitment = 0.25\nperceptual = 1.0",
        ),
        ("batch_too_large", "batch_size = 8", "batch_size = 65"),
        ("empty_split", "count = 64", "count = 0"),
        (
            "missing_images",
            "source = { kind = \"emoji\" }",
            "source = { kind = \"folder\", path = \"photos\" }",
        ),
        (
            "wrong_multiple",
            "eval = []",
            "eval = [{ kind = \"center_crop\", size = 30 }]",
        ),
    ];
    for (name, from, to) in cases {
        assert!(TOKENIZER.contains(from), "{from}");
        std::fs::write(
            here.path().join("config.toml"),
            TOKENIZER.replacen(from, to, 1),
        )
        .unwrap();
        let called = call(here.path(), "train config.toml -q --out run");
        insta::assert_snapshot!(format!("config_{name}"), called.seen(here.path()));
    }
    // A run that never began is no obstacle.
    config(here.path());
    call(
        here.path(),
        "train config.toml -q --out run --set training.steps=1",
    )
    .succeeded();
}

#[test]
fn settings_and_files_that_cannot_be_read_are_named() {
    let here = folder();
    config(here.path());
    for (name, line) in [
        ("no_file", "train nowhere.toml"),
        ("set_unknown", "train config.toml --set training.stepps=3"),
        ("set_no_value", "train config.toml --set training.steps"),
        (
            "set_wrong_type",
            "train config.toml --set training.steps=many",
        ),
        ("resume_nothing", "train --resume nowhere"),
    ] {
        insta::assert_snapshot!(
            format!("train_{name}"),
            call(here.path(), line).seen(here.path())
        );
    }
    std::fs::create_dir(here.path().join("photos")).unwrap();
    insta::assert_snapshot!(
        "train_resume_no_run",
        call(here.path(), "train --resume photos").seen(here.path())
    );
    assert_eq!(names(here.path()), ["config.toml"]);
}

#[test]
fn a_generator_needs_its_tokenizer_and_classes() {
    let here = folder();
    std::fs::write(
        here.path().join("generator.toml"),
        GENERATOR.replace("TOKENIZER", "nowhere"),
    )
    .unwrap();
    insta::assert_snapshot!(
        "generator_without_tokenizer",
        call(here.path(), "train generator.toml -q").seen(here.path())
    );

    for number in 0..8 {
        picture(&here.path().join(format!("photos/{number}.png")), 32, 32);
    }
    let line = "train generator.toml -q --out run --set tokenizer={tokenizer} --set data.source.kind=folder --set data.source.path=photos \
                --set data.train.count=8 --set data.eval.count=8";
    insta::assert_snapshot!(
        "generator_without_classes",
        call(here.path(), line).seen(here.path())
    );
    let line = format!(
        "{line} --set model.condition=unconditional --set training.steps=1 --set model.body.heads=3"
    );
    insta::assert_snapshot!(
        "generator_heads",
        call(here.path(), &line).seen(here.path())
    );
    call(here.path(), &line.replace("heads=3", "heads=4")).succeeded();
    let called = call(
        here.path(),
        "generate --model run --count 2 --class Flags -o grid.png",
    );
    insta::assert_snapshot!("class_of_a_generator_without", called.seen(here.path()));
    call(here.path(), "generate --model run --count 2 -o grid.png").succeeded();
}

#[test]
fn a_run_of_another_configuration_is_not_gone_on_with() {
    let here = folder();
    config(here.path());
    let train = |settings: &str| call(here.path(), &format!("train config.toml -q {settings}"));
    train("--out run --set training.steps=1").succeeded();
    let called = train("--out run --set optimizer.learning_rate=1e-3 --set training.steps=2");
    insta::assert_snapshot!("train_other_run", called.seen(here.path()));
    let checkpoints = || names(&here.path().join("run/checkpoints"));
    assert_eq!(checkpoints(), ["step-00000001.safetensors"]);
    // How long it takes and when it looks may change, and whatever --resume is told to.
    train("--out run --set training.steps=2 --set training.log_every=2").succeeded();
    call(
        here.path(),
        "train --resume run -q --set training.steps=3 --set optimizer.learning_rate=1e-3",
    )
    .succeeded();
    let files = [1, 2, 3].map(|step| format!("step-0000000{step}.safetensors"));
    assert_eq!(checkpoints(), files[1..]);
    insta::assert_snapshot!(
        "train_fewer_steps",
        call(here.path(), "train --resume run -q --set training.steps=2").seen(here.path())
    );
    // What was refused left the run as it was.
    call(here.path(), "train --resume run -q").succeeded();
    std::fs::remove_file(here.path().join("run/config.toml")).unwrap();
    insta::assert_snapshot!(
        "train_run_without_configuration",
        train("--out run").seen(here.path())
    );
}

#[test]
fn a_generator_does_not_go_on_with_the_codes_of_another_tokenizer() {
    let here = folder();
    config(here.path());
    let learn = "train config.toml -q --out tokenizer --set training.steps=1";
    call(here.path(), learn).succeeded();
    let generator = GENERATOR.replace("TOKENIZER", "tokenizer");
    std::fs::write(here.path().join("generator.toml"), generator).unwrap();
    let train = "train generator.toml -q --out run --set training.steps=1";
    call(here.path(), train).succeeded();
    call(here.path(), &learn.replace("steps=1", "steps=2")).succeeded();
    let called = call(here.path(), train);
    insta::assert_snapshot!("train_other_tokenizer", called.seen(here.path()));
}

#[test]
fn broken_images_are_named_and_skipped_or_refused() {
    let here = folder();
    config(here.path());
    for number in 0..10 {
        picture(&here.path().join(format!("photos/{number}.png")), 32, 32);
    }
    std::fs::write(
        here.path().join("photos/broken.png"),
        &std::fs::read(here.path().join("photos/1.png")).unwrap()[..50],
    )
    .unwrap();
    let line = "train config.toml --out run --set training.steps=1 --set data.source.kind=folder --set data.source.path=photos \
                --set data.train.count=8 --set data.eval.count=2";
    insta::assert_snapshot!(
        "train_broken_image_strict",
        call(here.path(), &format!("{line} --strict")).seen(here.path())
    );
    insta::assert_snapshot!(
        "train_broken_image",
        call(here.path(), line).succeeded().seen(here.path())
    );
    picture(&here.path().join("photos/0.png"), 40, 32);
    let line = line
        .replace("run", "run2")
        .replace("{ kind = \"first\", count = 8 }", "all");
    insta::assert_snapshot!(
        "train_mixed_sizes",
        call(here.path(), &line).seen(here.path())
    );
}

#[test]
fn a_diverging_run_says_what_to_do() {
    let here = folder();
    config(here.path());
    let line = "train config.toml -q --out run --set optimizer.learning_rate=1e30 --set training.checkpoint_every=1";
    insta::assert_snapshot!("train_diverging", call(here.path(), line).seen(here.path()));
}

#[test]
fn a_damaged_checkpoint_is_named_with_what_to_do() {
    let here = folder();
    config(here.path());
    let line =
        "train config.toml -q --out run --set training.steps=2 --set training.checkpoint_every=1";
    call(here.path(), line).succeeded();
    let path = here
        .path()
        .join("run/checkpoints/step-00000002.safetensors");
    let whole = std::fs::read(&path).unwrap();
    for (name, bytes) in [
        ("truncated", &whole[..whole.len() / 2]),
        ("zero", &[]),
        ("text", b"this is no checkpoint"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let called = call(here.path(), "train --resume run -q --set training.steps=3");
        insta::assert_snapshot!(format!("checkpoint_{name}"), called.seen(here.path()));
    }
    let generator = models()
        .generator
        .join("checkpoints/step-00000004.safetensors");
    std::fs::copy(generator, &path).unwrap();
    let called = call(here.path(), "train --resume run -q --set training.steps=3");
    insta::assert_snapshot!("checkpoint_other_kind", called.seen(here.path()));
    std::fs::remove_file(&path).unwrap();
    call(here.path(), "train --resume run -q --set training.steps=3").succeeded();
    // Another network cannot go on with these weights.
    let called = call(
        here.path(),
        "train --resume run -q --set training.steps=4 --set model.network.channels=16",
    );
    assert_eq!(called.code, Some(1));
    assert!(
        called.stderr.contains("step-00000003.safetensors")
            && called.stderr.contains("do not fit the model"),
        "{}",
        called.stderr
    );
}

#[test]
fn a_demo_with_unknown_settings_is_refused() {
    let here = folder();
    let called = smalti(here.path(), ["demo", "--set", "training.stepps=1"]);
    insta::assert_snapshot!("demo_unknown_setting", called.seen(here.path()));
    assert_eq!(names(here.path()), [""; 0]);
}
