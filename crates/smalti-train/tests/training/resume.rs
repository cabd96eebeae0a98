//! A run that was interrupted and resumed leaves the same files, bit for bit, as one that was not.

use std::path::Path;

use burn::tensor::Device;
use smalti_train::{RunConfig, RunOutcome, TrainError, journal, train};

use crate::support::{StopAfter, files, generator, run, tokenizer};
use crate::{far, gpt, whole_map};

/// What could get lost between two halves of a run is on: summed gradients, averaged weights, dropout,
/// random preprocessing, journal lines and checkpoints that do not fall on the same steps.
const TOKENIZER: [&str; 10] = [
    "training.steps=9",
    "training.batch_size=3",
    "training.accumulate=2",
    "training.log_every=2",
    "training.evaluate_every=4",
    "training.checkpoint_every=3",
    "training.average={decay = 0.9}",
    "model.network.dropout=0.1",
    "model.quantizer.learning={revival = {kind = 'unused', patience = 2}}",
    "data.preprocess.train=[{kind = 'horizontal_flip', probability = 0.5}]",
];

/// Instead of a codebook that learns: latents that a constraint holds, whose weights move at every step.
const GAUSSIAN: [&str; 2] = [
    "model.quantizer={kind = 'gaussian', codebook_size = 256, code_dim = 4, channels = 8, training = 'codeword'}",
    "losses={reconstruction = 1.0, divergence = 1e-5}",
];

/// Codes that are drawn at a temperature that falls, held to a moving average of their use, and positions that are drawn
/// to be told apart.
const REGULARIZED: [&str; 3] = [
    "model.quantizer={kind = 'regularized', codebook_size = 64, code_dim = 8, posterior_decay = 0.9, temperature = {kind = 'cosine', from = 1.0, to = 0.1, batches = 20}}",
    "losses={reconstruction = 1.0, prior = 0.1, contrastive = 0.1}",
    concat!(
        "contrastive={network = {kind = 'vgg16', file = '",
        env!("CARGO_MANIFEST_DIR"),
        "/../../goldens/taming_vqgan/last.ckpt'}}"
    ),
];

const GENERATOR: [&str; 10] = [
    "training.steps=9",
    "training.batch_size=3",
    "training.accumulate=2",
    "training.log_every=2",
    "training.evaluate_every=4",
    "training.checkpoint_every=3",
    "training.average={decay = 0.9}",
    "mirror=true",
    "targets={kind = 'soft', temperature = 0.5, stochastic = true}",
    "model.body.residual_dropout=0.1",
];

/// Of a single transformer: hidden classes, dropout and the choice of a view are random besides.
const SINGLE: [&str; 6] = [
    "training.steps=9",
    "training.batch_size=3",
    "training.accumulate=2",
    "training.evaluate_every=4",
    "training.checkpoint_every=3",
    "views={kind = 'ten_crop', size = 32}",
];

/// Of these time steps, what is masked, hidden classes and dropout are random, and the losses seen at each
/// time step decide which are drawn next.
const WHOLE_MAP: [&str; 7] = [
    "training.steps=12",
    "training.batch_size=4",
    "training.accumulate=2",
    "training.evaluate_every=5",
    "training.checkpoint_every=3",
    "training.average={decay = 0.9}",
    "mirror=true",
];

/// Runs in pieces of `steps` steps.
fn run_in_pieces(config: &RunConfig, folder: &Path, steps: u64) {
    let mut pieces = 1;
    while let RunOutcome::Stopped { step, checkpoint } = train(
        config,
        folder,
        &Device::flex(),
        &mut StopAfter::steps(steps),
    )
    .unwrap()
    {
        assert_eq!(step, pieces * steps);
        assert!(checkpoint.is_file());
        pieces += 1;
    }
    assert_eq!(pieces, config.training().steps.div_ceil(steps));
}

fn assert_same_files(whole: &Path, pieces: &Path) {
    let (whole, pieces) = (files(whole), files(pieces));
    assert_eq!(
        whole.keys().collect::<Vec<_>>(),
        pieces.keys().collect::<Vec<_>>()
    );
    for (path, bytes) in &whole {
        assert!(*bytes == pieces[path], "{} differs", path.display());
    }
}

#[test]
fn an_interrupted_tokenizer_run_equals_an_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    let config = tokenizer(&TOKENIZER);
    let whole = folder.path().join("whole");
    run(&config, &whole).unwrap();
    assert!(
        whole
            .join("checkpoints/step-00000006.safetensors")
            .is_file()
    );
    for steps in [5, 1] {
        let pieces = folder.path().join(format!("pieces-{steps}"));
        run_in_pieces(&config, &pieces, steps);
        if steps == 1 {
            // Every step left a checkpoint; the newest two are those of the last steps.
            std::fs::remove_file(pieces.join("checkpoints/step-00000008.safetensors")).unwrap();
            let sixth = "checkpoints/step-00000006.safetensors";
            std::fs::copy(whole.join(sixth), pieces.join(sixth)).unwrap();
        }
        assert_same_files(&whole, &pieces);
    }
}

#[test]
fn an_interrupted_regularized_run_equals_an_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    let settings: Vec<&str> = TOKENIZER
        .into_iter()
        .filter(|setting| !setting.starts_with("model.quantizer"))
        .chain(REGULARIZED)
        .collect();
    let config = tokenizer(&settings);
    let (whole, pieces) = (folder.path().join("whole"), folder.path().join("pieces"));
    run(&config, &whole).unwrap();
    run_in_pieces(&config, &pieces, 5);
    assert_same_files(&whole, &pieces);
    let entries = journal::read(&whole.join("metrics.jsonl")).unwrap();
    let first = entries.iter().find(|entry| entry.phase == "train").unwrap();
    let losses = ["prior", "contrastive"].map(|name| first.number(name));
    assert!(losses.iter().all(|loss| loss.is_some_and(|l| l != 0.0)));
}

#[test]
fn an_interrupted_gaussian_run_equals_an_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    let settings: Vec<&str> = TOKENIZER
        .into_iter()
        .filter(|setting| !setting.starts_with("model.quantizer"))
        .chain(GAUSSIAN)
        .collect();
    let config = tokenizer(&settings);
    let (whole, pieces) = (folder.path().join("whole"), folder.path().join("pieces"));
    run(&config, &whole).unwrap();
    run_in_pieces(&config, &pieces, 5);
    assert_same_files(&whole, &pieces);

    // The weights did move, so that forgetting them would have been seen.
    let entries = journal::read(&whole.join("metrics.jsonl")).unwrap();
    let last = entries
        .iter()
        .rfind(|entry| entry.phase == "train")
        .unwrap();
    let number = |name: &str| last.number(&format!("divergence_{name}")).unwrap();
    assert!(number("bits_min") <= number("bits_mean") && number("bits_mean") <= number("bits_max"));
    assert!((number("weight") - 1.0).abs() > 0.01, "{last:?}");
    assert!(number("weight_below") <= 1.0 && number("weight_above") >= 1.0);
    assert!(
        number("weight_below") < 1.0 || number("weight_above") > 1.0,
        "{last:?}"
    );
    let report = std::fs::read_to_string(whole.join("report.html")).unwrap();
    assert!(report.contains("Divergence from the prior") && report.contains("largest of a batch"));
}

/// Everything that an adversary has: a discriminator with running statistics, averages of its logits,
/// a penalty on some of the steps, and steps in which it is idle, learns, joins and counts.
const ADVERSARY: [&str; 2] = [
    "adversarial={start_step = 3, warmup_steps = 1, ramp_steps = 3, discriminator = {kind = 'patch', channels = 4, layers = 1}, lecam = {weight = 0.1, decay = 0.9}, slope_penalty = {weight = 1.0, every = 4}}",
    "losses={reconstruction = 1.0, commitment = 0.25, adversarial = 0.5}",
];

#[test]
fn an_interrupted_run_against_an_adversary_equals_an_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    let settings: Vec<&str> = TOKENIZER.into_iter().chain(ADVERSARY).collect();
    let config = tokenizer(&settings);
    let whole = folder.path().join("whole");
    run(&config, &whole).unwrap();
    for steps in [2, 5] {
        let pieces = folder.path().join(format!("pieces-{steps}"));
        run_in_pieces(&config, &pieces, steps);
        assert_eq!(
            files(&whole)[Path::new("model/model.safetensors")],
            files(&pieces)[Path::new("model/model.safetensors")]
        );
        let journal = Path::new("metrics.jsonl");
        assert_eq!(files(&whole)[journal], files(&pieces)[journal]);
        let last = Path::new("checkpoints/step-00000009.safetensors");
        assert_eq!(files(&whole)[last], files(&pieces)[last]);
    }
    let report = std::fs::read_to_string(whole.join("report.html")).unwrap();
    assert!(report.contains("Both sides of the game"));
}

#[test]
fn an_interrupted_generator_run_equals_an_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    let stage_one = folder.path().join("tokenizer");
    run(&tokenizer(&[]), &stage_one).unwrap();
    let config = generator(&stage_one, &GENERATOR);
    let (whole, pieces) = (folder.path().join("whole"), folder.path().join("pieces"));
    run(&config, &whole).unwrap();
    run_in_pieces(&config, &pieces, 5);
    assert_same_files(&whole, &pieces);
}

#[test]
fn a_stop_while_tokenizing_leaves_no_half_cache() {
    /// Asks to stop whenever asked.
    struct Stop;
    impl smalti_train::Observer for Stop {
        fn begin(&mut self, _phase: &str, _unit: &'static str, _steps: u64) {}
        fn advance(&mut self, _done: u64, _note: &str) {}
        fn end(&mut self) {}
        fn note(&mut self, _text: &str) {}
        fn warn(&mut self, _text: &str) {}
        fn stop_requested(&self) -> bool {
            true
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (stage_one, stage_two) = (
        folder.path().join("tokenizer"),
        folder.path().join("generator"),
    );
    run(&tokenizer(&[]), &stage_one).unwrap();
    let config = generator(&stage_one, &[]);
    let result = train(&config, &stage_two, &Device::flex(), &mut Stop);
    assert!(matches!(result, Err(TrainError::Stopped)), "{result:?}");
    assert_eq!(
        files(&stage_two)
            .keys()
            .map(|path| path.to_str().unwrap())
            .collect::<Vec<_>>(),
        ["config.toml"]
    );
    assert!(matches!(
        run(&config, &stage_two).unwrap(),
        RunOutcome::Finished(_)
    ));
}

#[test]
fn an_interrupted_far_run_equals_an_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    let stage_one = folder.path().join("tokenizer");
    far::train_tokenizer(&stage_one);
    // Of a GPT, random codes among those shown.
    for model in [far::MODEL, gpt::MODEL] {
        let settings: Vec<&str> = std::iter::once(model).chain(SINGLE).collect();
        let config = generator(&stage_one, &settings);
        let folder = tempfile::tempdir().unwrap();
        let (whole, pieces) = (folder.path().join("whole"), folder.path().join("pieces"));
        run(&config, &whole).unwrap();
        run_in_pieces(&config, &pieces, 5);
        for run in [&whole, &pieces] {
            std::fs::remove_dir_all(run.join("checkpoints")).unwrap();
        }
        assert_same_files(&whole, &pieces);
    }
}

#[test]
fn interrupted_runs_of_generators_of_whole_maps_equal_uninterrupted_ones() {
    let folder = tempfile::tempdir().unwrap();
    let stage_one = folder.path().join("tokenizer");
    far::train_tokenizer(&stage_one);
    for (name, model) in [
        ("diffusion", whole_map::DIFFUSION),
        ("masked", whole_map::MASKED),
    ] {
        let settings: Vec<&str> = WHOLE_MAP.into_iter().chain([model]).collect();
        let config = generator(&stage_one, &settings);
        let whole = folder.path().join(format!("{name}-whole"));
        let pieces = folder.path().join(format!("{name}-pieces"));
        run(&config, &whole).unwrap();
        run_in_pieces(&config, &pieces, 5);
        let last = Path::new("checkpoints/step-00000012.safetensors");
        assert!(files(&whole)[last] == files(&pieces)[last], "{name}");
        for run in [&whole, &pieces] {
            std::fs::remove_dir_all(run.join("checkpoints")).unwrap();
        }
        assert_same_files(&whole, &pieces);
    }
}
