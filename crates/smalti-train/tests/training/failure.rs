//! Runs that cannot go on say which number went wrong, or which file, and what is left.

use std::path::PathBuf;

use smalti_train::{RunConfig, RunOutcome, TrainError};

use crate::support::{TOKENIZER, generator, run, tokenizer};

const DIVERGING: [&str; 3] = [
    "optimizer.learning_rate=1e30",
    "training.steps=6",
    "training.checkpoint_every=1",
];

fn assert_names_term_and_checkpoint(result: Result<RunOutcome, TrainError>) {
    let Err(error @ TrainError::NonFinite { .. }) = &result else {
        panic!("{result:?}")
    };
    let message = error.to_string();
    let TrainError::NonFinite {
        term,
        value,
        step,
        kept,
    } = error
    else {
        unreachable!()
    };
    assert!(!value.is_finite(), "{value}");
    assert!(
        !term.is_empty() && message.starts_with(term.as_str()),
        "{message}"
    );
    assert!(
        kept.contains(&format!("step-{step:08}.safetensors")),
        "{message}"
    );
    let path = PathBuf::from(kept.rsplit(' ').next().unwrap());
    assert!(path.is_file(), "{message}");
}

#[test]
fn a_diverging_tokenizer_names_the_term_and_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    assert_names_term_and_checkpoint(run(&tokenizer(&DIVERGING), folder.path()));
    assert!(!folder.path().join("model").exists());
}

#[test]
fn a_diverging_generator_names_the_term_and_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (stage_one, stage_two) = (
        folder.path().join("tokenizer"),
        folder.path().join("generator"),
    );
    run(&tokenizer(&[]), &stage_one).unwrap();
    assert_names_term_and_checkpoint(run(&generator(&stage_one, &DIVERGING), &stage_two));
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_it_still_serves() {
    let folder = tempfile::tempdir().unwrap();
    let short = tokenizer(&["training.steps=4", "training.checkpoint_every=2"]);
    let long = tokenizer(&["training.steps=6", "training.checkpoint_every=2"]);
    run(&short, folder.path()).unwrap();
    let newest = folder.path().join("checkpoints/step-00000004.safetensors");
    let whole = std::fs::read(&newest).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for damaged in [&whole[..whole.len() / 2], &whole[..0], &flipped] {
        std::fs::write(&newest, damaged).unwrap();
        let error = run(&long, folder.path()).unwrap_err();
        assert!(matches!(error, TrainError::Checkpoint { .. }), "{error:?}");
        assert!(
            error.to_string().contains("step-00000004.safetensors"),
            "{error}"
        );
    }
    std::fs::remove_file(&newest).unwrap();
    assert!(matches!(
        run(&long, folder.path()).unwrap(),
        RunOutcome::Finished(_)
    ));
}

#[test]
fn images_that_do_not_fit_the_network_are_refused_with_their_size() {
    let folder = tempfile::tempdir().unwrap();
    let mixed = [
        "data.source={kind = 'photographs'}",
        "data.train={kind = 'all'}",
        "data.eval={kind = 'all'}",
    ];
    let error = run(&tokenizer(&mixed), folder.path()).unwrap_err();
    assert!(matches!(error, TrainError::Config(_)), "{error:?}");
    assert!(error.to_string().contains("center_crop"), "{error}");

    let photos = folder.path().join("photos");
    std::fs::create_dir(&photos).unwrap();
    for number in 0..8u8 {
        let path = photos.join(format!("{number}.png"));
        smalti_data::Image::filled(30, 32, [number; 3])
            .unwrap()
            .save_png(&path)
            .unwrap();
    }
    let source = format!(
        "data.source={{kind = 'folder', path = '{}'}}",
        photos.display()
    );
    let error = run(&tokenizer(&[&source]), folder.path()).unwrap_err();
    assert!(
        error.to_string().contains("30x32") && error.to_string().contains("factor 4"),
        "{error}"
    );
}

#[test]
fn an_error_in_a_configuration_shows_its_line() {
    let text = TOKENIZER.replace("blocks = 1", "blokcs = 1");
    let error = RunConfig::parse(&text, &[], "config.toml".as_ref())
        .unwrap_err()
        .to_string();
    let line = text.lines().position(|line| line == "blokcs = 1").unwrap() + 1;
    assert!(
        error.contains(&format!("line {line}")) && error.contains("blokcs = 1"),
        "{error}"
    );
}
