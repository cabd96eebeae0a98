//! Stage 2 with a FAR generator: classes, guidance, views.

use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::Device;
use smalti_data::{TokenCache, Views};
use smalti_models::generators::sampling::Guidance;
use smalti_models::generators::{AnyGenerator, Conditions, GenerationRequest};
use smalti_train::{GeneratorModel, RunConfig, TrainError, journal};

use crate::support::{generator, run, tokenizer};

/// Two codes beside one another at 8×8 positions.
const TOKENIZER: [&str; 3] = [
    "model.quantizer={kind = 'grouped', groups = 2, part = {kind = 'vector', codebook_size = 64, code_dim = 4}}",
    "losses={commitment = 0.25, reconstruction = 1.0}",
    "training.steps=3",
];

/// In place of the RQ-Transformer; the classes of emoji.
pub(crate) const MODEL: &str = "model={kind = 'far', embed_dim = 32, layers = 2, heads = 2, hidden = 64, condition = 'class', head = {kind = 'autoregressive', layers = 1}}";

pub(crate) fn train_tokenizer(folder: &Path) {
    run(&tokenizer(&TOKENIZER), folder).unwrap();
}

#[test]
fn a_run_leaves_a_generator_that_can_be_guided() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    train_tokenizer(&first);
    let config = generator(
        &first,
        &[
            MODEL,
            "sampling.guidance={scale = 3.0}",
            "optimizer.decay_scope=matrices_and_embeddings",
            "training.steps=60",
        ],
    );
    run(&config, &second).unwrap();
    let entries = journal::read(&second.join("metrics.jsonl")).unwrap();
    let losses: Vec<_> = entries.iter().filter(|e| e.phase == "train").collect();
    let at = |i: usize| losses[i].number("codes").unwrap();
    // The logits start at zero; dropout and hidden classes keep the loss up.
    assert!((at(0) - 64f64.ln()).abs() < 1e-3, "{}", at(0));
    assert!(at(losses.len() - 1) < 0.8 * at(0));
    let text = std::fs::read_to_string(second.join("report.html")).unwrap();
    assert!(text.contains("Samples with guidance 3,") && text.contains("Samples without guidance"));

    let model = GeneratorModel::load(&second, &Device::flex()).unwrap();
    assert!(matches!(model.network, AnyGenerator::Far(_)));
    let own = model.description.sampling.guidance;
    assert_eq!(own, Some(Guidance::new(3.0)));
    let codes = |guidance| {
        let mut request = GenerationRequest::new(Conditions::Classes(vec![2; 3]), 1);
        request.sampling.guidance = guidance;
        let mut go_on = |_| ControlFlow::Continue(());
        model.network.generate(&request, &mut go_on).unwrap()
    };
    assert_ne!(codes(own).values(), codes(None).values());
    let images = model.tokenizer.network.decode(&codes(own)).unwrap();
    assert_eq!(images.dims(), [3, 3, 32, 32]);
}

#[test]
fn views_stand_in_one_cache_and_are_visited_one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    train_tokenizer(&first);
    let ten = "views={kind = 'ten_crop', size = 32}";
    run(&generator(&first, &[MODEL, ten]), &second).unwrap();
    let cache = TokenCache::open(&second.join("tokens-train.safetensors")).unwrap();
    assert_eq!((cache.len(), cache.spec().views.count()), (80, 10));
    let labels = cache.labels().unwrap();
    assert!(
        labels
            .chunks(10)
            .all(|of_image| of_image == [of_image[0]; 10])
    );
    let eval = TokenCache::open(&second.join("tokens-eval.safetensors")).unwrap();
    assert_eq!((eval.len(), eval.spec().views), (8, Views::One {}));
    // Other views are not taken for these.
    let other = "views={kind = 'ten_crop', size = 32, enlarge = 1.3}";
    std::fs::remove_dir_all(second.join("checkpoints")).unwrap();
    run(&generator(&first, &[MODEL, other]), &second).unwrap();
    let again = TokenCache::open(&second.join("tokens-train.safetensors")).unwrap();
    assert_ne!(again.codes(), cache.codes());
}

#[test]
fn what_contradicts_itself_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    train_tokenizer(&first);
    let refused = |settings: &[&str]| {
        let error = run(&generator(&first, settings), &second).unwrap_err();
        assert!(matches!(error, TrainError::Config(_)), "{error:?}");
        error.to_string()
    };
    let smaller = "views={kind = 'ten_crop', size = 16}";
    let message = refused(&[MODEL, smaller]);
    assert!(
        message.contains("[2, 4, 4], those to measure on [2, 8, 8]"),
        "{message}"
    );
    assert!(second.join("tokens-train.safetensors").is_file());
}

#[test]
fn a_configuration_that_contradicts_itself_is_refused() {
    let RunConfig::Generator(mut run) = generator(Path::new("nowhere"), &[]) else {
        panic!("a generator's run")
    };
    run.mirror = true;
    run.views = Views::TenCrop {
        size: 0,
        enlarge: 1.1,
    };
    run.sampling.guidance = Some(Guidance::new(-2.0));
    let message = RunConfig::Generator(run).validate().unwrap_err();
    let message = message.to_string();
    for part in [
        "mirror: the views",
        "views: size must be at least 1",
        "sampling.guidance: expected a scale of at least 0 (1 is none), got -2",
        "sampling.guidance: this generator never learns images without their class",
    ] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
}
