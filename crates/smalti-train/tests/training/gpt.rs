//! Stage 2 with a GPT: one sequence of codes, random codes among those shown.

use std::ops::ControlFlow;

use burn::tensor::Device;
use smalti_models::generators::{AnyGenerator, Conditions, GenerationRequest};
use smalti_nn::state::Weights;
use smalti_train::{GeneratorModel, journal};

use crate::far::train_tokenizer;
use crate::support::{generator, run};

/// In place of the RQ-Transformer; the classes of emoji.
pub(crate) const MODEL: &str = "model={kind = 'gpt', embed_dim = 32, layers = 2, heads = 2, condition = 'class', keep = 0.9, attention_dropout = 0.1}";

#[test]
fn a_run_leaves_a_generator_that_writes_images() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    train_tokenizer(&first);
    run(&generator(&first, &[MODEL, "training.steps=60"]), &second).unwrap();
    let entries = journal::read(&second.join("metrics.jsonl")).unwrap();
    let losses: Vec<_> = entries.iter().filter(|e| e.phase == "train").collect();
    let at = |i: usize| losses[i].number("codes").unwrap();
    assert!((at(0) - 64f64.ln()).abs() < 0.1, "{}", at(0));
    assert!(at(losses.len() - 1) < 0.8 * at(0));

    let model = GeneratorModel::load(&second, &Device::flex()).unwrap();
    assert!(matches!(model.network, AnyGenerator::Gpt(_)));
    let request = GenerationRequest::new(Conditions::Classes(vec![2; 3]), 1);
    let mut go_on = |_| ControlFlow::Continue(());
    let codes = model.network.generate(&request, &mut go_on).unwrap();
    assert_eq!(codes.dims(), [3, 2, 8, 8]);
    let images = model.tokenizer.network.decode(&codes).unwrap();
    assert_eq!(images.dims(), [3, 3, 32, 32]);
}

/// minGPT's rule, which the default scope follows: the weights of linear maps alone.
#[test]
fn weight_decay_pulls_the_matrices_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    train_tokenizer(&first);
    let weights = |decay: &str| {
        // One step from the same start with the same gradients: only the decay differs.
        let settings = [
            MODEL,
            "training.steps=1",
            "optimizer.learning_rate=1e-3",
            "schedule.decay=constant",
            decay,
        ];
        let _ = std::fs::remove_dir_all(&second);
        run(&generator(&first, &settings), &second).unwrap();
        let model = GeneratorModel::load(&second, &Device::flex()).unwrap();
        Weights::of(&model.network)
    };
    let [without, with] = ["0", "100"].map(|d| weights(&format!("optimizer.weight_decay={d}")));
    for (name, array) in &without.0 {
        let linear = name.ends_with(".weight")
            && ["attn", "mlp", "head"]
                .iter()
                .any(|part| name.contains(part));
        assert_eq!(*array != with.0[name], linear, "{name}");
    }
}
