//! Small runs on bundled emoji, and watchers that interrupt them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use smalti_train::{Observer, RunConfig, RunOutcome, TrainError, train};

pub(crate) const TOKENIZER: &str = r#"
kind = "tokenizer"
seed = 7

[data]
source = { kind = "emoji" }
train = { kind = "first", count = 8 }
eval = { kind = "first", count = 8 }
preprocess = { train = [], eval = [] }

[model.network]
resolution = 32
channels = 16
multipliers = [1, 2, 2]
blocks = 1
z_channels = 16
norm_groups = 4

[model.quantizer]
kind = "residual"
codebook_size = 64
code_dim = 16
depth = 4

[losses]
reconstruction = 1.0
commitment = 0.25

[optimizer]
learning_rate = 2e-3
clip_norm = 1.0

[training]
steps = 4
batch_size = 8
evaluate_every = 1000
checkpoint_every = 1000
log_every = 1
"#;

const GENERATOR: &str = r#"
kind = "generator"
seed = 3
tokenizer = "TOKENIZER"

[data]
source = { kind = "emoji" }
train = { kind = "first", count = 8 }
eval = { kind = "first", count = 8 }
preprocess = { train = [], eval = [] }

[model]
embed_dim = 32
condition = "unconditional"
embedding = { kind = "tokenizer" }
body = { layers = 2, heads = 2, residual_dropout = 0.0 }
head = { layers = 1, heads = 2, residual_dropout = 0.0 }

[targets]
kind = "hard"

[optimizer]
learning_rate = 5e-3
clip_norm = 1.0

[training]
steps = 4
batch_size = 8
evaluate_every = 1000
checkpoint_every = 1000
log_every = 1
"#;

/// A tiny stage 1, with some settings changed.
pub(crate) fn tokenizer(settings: &[&str]) -> RunConfig {
    parse(TOKENIZER, settings)
}

/// A tiny stage 2 on the codes of the tokenizer in `folder`, with some settings changed.
pub(crate) fn generator(folder: &Path, settings: &[&str]) -> RunConfig {
    parse(
        &GENERATOR.replace(
            "TOKENIZER",
            folder.to_str().expect("temporary folders have plain names"),
        ),
        settings,
    )
}

fn parse(text: &str, settings: &[&str]) -> RunConfig {
    let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
    RunConfig::parse(text, &settings, Path::new("the test's configuration")).unwrap()
}

/// Runs to the end, unwatched.
pub(crate) fn run(config: &RunConfig, folder: &Path) -> Result<RunOutcome, TrainError> {
    train(config, folder, &Device::flex(), &mut smalti_train::Silent)
}

/// Asks to stop after so many steps of training.
#[derive(Default)]
pub(crate) struct StopAfter {
    steps: u64,
    asked: Cell<u64>,
    training: bool,
}

impl StopAfter {
    pub(crate) fn steps(steps: u64) -> Self {
        Self {
            steps,
            ..Self::default()
        }
    }
}

impl Observer for StopAfter {
    fn begin(&mut self, phase: &str, _unit: &'static str, _steps: u64) {
        self.training = phase.starts_with("training");
    }
    fn advance(&mut self, _done: u64, _note: &str) {}
    fn end(&mut self) {}
    fn note(&mut self, _text: &str) {}
    fn warn(&mut self, _text: &str) {}

    /// The loop asks once before every step.
    fn stop_requested(&self) -> bool {
        let asked = self.asked.get();
        self.asked.set(asked + u64::from(self.training));
        self.training && asked == self.steps
    }
}

/// Every file below a folder with its bytes, by its path.
pub(crate) fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), bytes);
            }
        }
    }
    found
}
