//! Stage 2 with generators that write whole maps: discrete diffusion and masked generation.

use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::Device;
use smalti_models::generators::sampling::Guidance;
use smalti_models::generators::{AnyGenerator, Conditions, GenerationRequest};
use smalti_nn::state::Weights;
use smalti_train::config::TargetConfig;
use smalti_train::{GeneratorModel, RunConfig, TrainError, journal};

use crate::far::train_tokenizer;
use crate::support::{generator, run};

/// In place of the RQ-Transformer; the classes of emoji. So short a chain has seen each of its steps
/// often enough after a few steps of training.
pub(crate) const DIFFUSION: &str = "model={kind = 'diffusion', embed_dim = 32, layers = 2, heads = 2, condition = 'class', perceptron = {kind = 'convolution'}, process = {steps = 3}}";

pub(crate) const MASKED: &str = "model={kind = 'masked', embed_dim = 32, layers = 2, heads = 2, condition = 'class', lesson = {label_smoothing = 0.1}}";

/// Codes of a short run with this model, sampled with and without guidance.
fn learn(model: &str, settings: &[&str], folder: &Path) -> GeneratorModel {
    let (first, second) = (folder.join("first"), folder.join("second"));
    train_tokenizer(&first);
    let settings: Vec<&str> = [model, "training.steps=60", "training.evaluate_every=30"]
        .into_iter()
        .chain(settings.iter().copied())
        .collect();
    run(&generator(&first, &settings), &second).unwrap();
    let entries = journal::read(&second.join("metrics.jsonl")).unwrap();
    for phase in ["train", "eval"] {
        let of_phase = entries.iter().filter(|e| e.phase == phase);
        let losses: Vec<f64> = of_phase.map(|e| e.number("codes").unwrap()).collect();
        let (early, late) = losses.split_at(losses.len() / 2);
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        assert!(mean(late) < mean(early), "{phase}: {losses:?}");
    }
    let model = GeneratorModel::load(&second, &Device::flex()).unwrap();
    let codes = |guidance| {
        let mut request = GenerationRequest::new(Conditions::Classes(vec![2; 3]), 1);
        request.sampling = model.description.sampling.clone();
        request.sampling.guidance = guidance;
        let mut go_on = |_| ControlFlow::Continue(());
        model.network.generate(&request, &mut go_on).unwrap()
    };
    let plain = codes(None);
    assert_ne!(codes(Some(Guidance::new(9.0))).values(), plain.values());
    let images = model.tokenizer.network.decode(&plain).unwrap();
    assert_eq!(images.dims(), [3, 3, 32, 32]);
    model
}

#[test]
fn a_diffusion_model_learns_and_keeps_what_it_saw_of_its_steps() {
    let folder = tempfile::tempdir().unwrap();
    let model = learn(DIFFUSION, &["sampling.steps=2"], folder.path());
    assert!(matches!(model.network, AnyGenerator::Diffusion(_)));
    assert_eq!(model.description.sampling.steps, Some(2));
    let counts = &Weights::of(&model.network).0["importance.lt_count"];
    assert_eq!(counts.values.iter().sum::<f32>(), 60.0 * 8.0);
    let report = std::fs::read_to_string(folder.path().join("second/report.html")).unwrap();
    assert!(report.contains("bound on the likelihood"));
    let entries = journal::read(&folder.path().join("second/metrics.jsonl")).unwrap();
    let train = entries.iter().find(|e| e.phase == "train").unwrap();
    assert!(train.number("auxiliary").is_some());
}

#[test]
fn a_masked_generator_learns() {
    let folder = tempfile::tempdir().unwrap();
    let model = learn(MASKED, &["sampling.order=halton"], folder.path());
    assert!(matches!(model.network, AnyGenerator::Masked(_)));
    let report = std::fs::read_to_string(folder.path().join("second/report.html")).unwrap();
    assert!(report.contains("cross entropy of masked codes"));
}

#[test]
fn equal_runs_are_measured_alike_whatever_was_drawn_before() {
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("first");
    train_tokenizer(&first);
    let measured = |name: &str, seed: &str| {
        let second = folder.path().join(name);
        let still = ["optimizer.learning_rate=1e-30", "training.steps=2", seed];
        let settings: Vec<&str> = still.into_iter().chain([DIFFUSION]).collect();
        let mut config = generator(&first, &settings);
        let RunConfig::Generator(run_config) = &mut config else {
            panic!("a generator's run")
        };
        run_config.training.evaluate_every = 1;
        run(&config, &second).unwrap();
        let entries = journal::read(&second.join("metrics.jsonl")).unwrap();
        let eval = entries.iter().filter(|e| e.phase == "eval");
        eval.map(|e| e.number("codes").unwrap()).collect::<Vec<_>>()
    };
    let losses = measured("one", "seed=1");
    assert!((losses[0] - losses[1]).abs() < 1e-9, "{losses:?}");
    assert_eq!(measured("again", "seed=1"), losses);
}

#[test]
fn what_means_nothing_to_a_generator_is_refused() {
    let refused = |model: &str, settings: &[&str], change: &dyn Fn(&mut RunConfig)| {
        let settings: Vec<&str> = [model]
            .into_iter()
            .chain(settings.iter().copied())
            .collect();
        let mut config = generator(Path::new("nowhere"), &settings);
        change(&mut config);
        config.validate().unwrap_err().to_string()
    };
    let soft = |config: &mut RunConfig| {
        let RunConfig::Generator(run) = config else {
            panic!("a generator's run")
        };
        run.targets = TargetConfig::Soft {
            temperature: 0.5,
            stochastic: false,
        };
        run.sampling.steps = Some(4);
        run.sampling.choice_temperature = Some(1.0);
    };
    let message = refused(DIFFUSION, &[], &soft);
    for part in [
        "targets: this generator learns codes, not distributions",
        "sampling.steps: expected 1 to 3, got 4",
        "sampling.choice_temperature: this generator has no choice to make",
    ] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    let message = refused(crate::far::MODEL, &[], &soft);
    let part = "sampling.steps: this generator writes its codes one after the other";
    assert!(message.contains(part), "{message}");
}

#[test]
fn more_passes_than_codes_are_refused_before_training() {
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("first");
    train_tokenizer(&first);
    let config = generator(&first, &[MASKED, "sampling.steps=129"]);
    let error = run(&config, &folder.path().join("second")).unwrap_err();
    assert!(matches!(error, TrainError::Config(_)), "{error:?}");
    let message = error.to_string();
    assert!(
        message.contains("sampling.steps: expected 1 to 128, got 129"),
        "{message}"
    );
}
