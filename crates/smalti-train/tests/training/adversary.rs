//! Training against a discriminator: when it joins, what it changes, what is refused.

use smalti_train::journal::{self, Entry};
use smalti_train::{RunConfig, TrainError};

use crate::support::{run, tokenizer};

const LOSSES: &str = "losses={reconstruction = 1.0, commitment = 0.25, adversarial = 0.5}";

fn adversarial(fields: &str) -> String {
    format!(
        "adversarial={{discriminator = {{kind = 'patch', channels = 4, layers = 1}}, {fields}}}"
    )
}

fn train_entries(config: &RunConfig) -> Vec<Entry> {
    let folder = tempfile::tempdir().unwrap();
    run(config, folder.path()).unwrap();
    let entries = journal::read(&folder.path().join("metrics.jsonl")).unwrap();
    entries.into_iter().filter(|e| e.phase == "train").collect()
}

#[test]
fn the_discriminator_learns_before_its_opinion_counts() {
    let fields = adversarial("start_step = 4, warmup_steps = 2, ramp_steps = 4");
    let config = tokenizer(&[&fields, LOSSES, "training.steps=9"]);
    let entries = train_entries(&config);
    let has = |name: &str| -> Vec<bool> {
        let entries = entries.iter();
        entries.map(|e| e.number(name).is_some()).collect()
    };
    let from = |first: usize| -> Vec<bool> { (0..9).map(|step| step >= first).collect() };
    assert_eq!(has("discriminator"), from(2));
    assert_eq!(has("discriminator_gradient_norm"), from(2));
    assert_eq!(has("adversarial"), from(4));
    assert_eq!(has("adversarial_weight"), from(4));

    let fixed =
        adversarial("start_step = 4, warmup_steps = 2, ramp_steps = 4, balance = {kind = 'fixed'}");
    let config = tokenizer(&[&fixed, LOSSES, "training.steps=9"]);
    let weights: Vec<f64> = train_entries(&config)
        .iter()
        .filter_map(|e| e.number("adversarial_weight"))
        .collect();
    assert_eq!(weights, [0.125, 0.25, 0.375, 0.5, 0.5]);
}

#[test]
fn before_it_counts_the_tokenizer_is_as_without_one() {
    let losses = |entries: Vec<Entry>| -> Vec<f64> {
        let number = |e: &Entry| e.number("reconstruction").unwrap();
        entries.iter().map(number).collect()
    };
    let fields = adversarial("start_step = 3, warmup_steps = 3");
    let against = losses(train_entries(&tokenizer(&[
        &fields,
        LOSSES,
        "training.steps=5",
    ])));
    let alone = losses(train_entries(&tokenizer(&["training.steps=5"])));
    // Step 3 still has the weights of step 2, and is measured before it is taken.
    assert_eq!(against[..4], alone[..4]);
    assert_ne!(against[4], alone[4]);
}

#[test]
fn every_kind_of_discriminator_and_loss_trains() {
    for (discriminator, loss) in [
        (
            "{kind = 'patch', channels = 4, layers = 2, norm = 'actnorm'}",
            "vanilla",
        ),
        (
            "{kind = 'patch', channels = 4, layers = 1, norm = 'none'}",
            "hinge",
        ),
        (
            "{kind = 'style', resolution = 32, channel_base = 128, channel_limit = 8}",
            "non_saturating",
        ),
    ] {
        let fields = format!(
            "adversarial={{discriminator = {discriminator}, loss = '{loss}', start_step = 1, warmup_steps = 1, slope_penalty = {{weight = 1.0, every = 2}}}}"
        );
        let entries = train_entries(&tokenizer(&[&fields, LOSSES, "training.steps=3"]));
        let last = entries.last().unwrap();
        assert!(last.number("adversarial").is_some(), "{discriminator}");
        assert!(
            entries[2].number("slope_penalty").is_some(),
            "{discriminator}"
        );
    }
}

fn problems(settings: &[&str]) -> String {
    let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
    let path = std::path::Path::new("run.toml");
    match RunConfig::parse(crate::support::TOKENIZER, &settings, path) {
        Err(error) => error.to_string(),
        Ok(config) => {
            let folder = tempfile::tempdir().unwrap();
            run(&config, folder.path()).unwrap_err().to_string()
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let missing = problems(&[&adversarial("start_step = 2")]);
    assert!(missing.contains("adversarial has no weight"), "{missing}");
    let idle = problems(&[LOSSES]);
    assert!(idle.contains("adversarial is not produced"), "{idle}");
    let small = problems(&[
        "adversarial={start_step = 0, discriminator = {kind = 'patch', layers = 5}}",
        LOSSES,
        "data.preprocess.train=[{kind = 'center_crop', size = 32}]",
    ]);
    assert!(small.contains("at least 96 pixels"), "{small}");
    let wrong = problems(&[
        &adversarial(
            "start_step = 0, balance = {kind = 'adaptive', limit = 0.0}, slope_penalty = {weight = -1.0, every = 0}",
        ),
        LOSSES,
    ]);
    for part in ["limit", "weight must be positive", "every"] {
        assert!(wrong.contains(part), "{part}: {wrong}");
    }
}

#[test]
fn a_checkpoint_with_an_adversary_is_not_gone_on_with_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let fields = adversarial("start_step = 1, warmup_steps = 1");
    run(
        &tokenizer(&[&fields, LOSSES, "training.steps=2"]),
        folder.path(),
    )
    .unwrap();
    let error = run(&tokenizer(&["training.steps=4"]), folder.path()).unwrap_err();
    assert!(matches!(error, TrainError::Checkpoint { .. }), "{error}");
    assert!(error.to_string().contains("this run has none"), "{error}");
}
