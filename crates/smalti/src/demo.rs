//! The whole path on bundled images: train a tokenizer, tokenize, train a generator, generate, report.

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::Device;
use smalti_data::{DatasetConfig, OpenOptions};
use smalti_train::evaluation::{Evaluation, Measuring, evaluate};
use smalti_train::report::Value;
use smalti_train::tokenizer::prepared;
use smalti_train::trainer::RunFolder;
use smalti_train::{
    GeneratorModel, Observer, RunConfig, RunOutcome, TrainError, require_same_run, run_report,
    train,
};

/// The recipe of the demo's tokenizer.
pub const TOKENIZER_RECIPE: &str = include_str!("../../../configs/emoji-tokenizer.toml");
/// The recipe of the demo's generator.
pub const GENERATOR_RECIPE: &str = include_str!("../../../configs/emoji-generator.toml");

/// What the demo leaves behind.
#[derive(Debug)]
pub struct Summary {
    /// The report.
    pub report: PathBuf,
    /// The tokenizer's folder.
    pub tokenizer: PathBuf,
    /// The generator's folder.
    pub generator: PathBuf,
    /// The tokenizer measured on images it was not trained on.
    pub evaluation: Evaluation,
    /// Seconds of stage 1 and of stage 2.
    pub seconds: [f64; 2],
}

/// Runs the demo in `folder`; `None` when it was stopped, to be gone on with by the same call.
/// `settings` are `key.path=value` pairs for both recipes.
///
/// # Errors
/// When the folder's runs are of other settings, or a file cannot be written.
pub fn run(
    folder: &Path,
    settings: &[String],
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<Option<Summary>, TrainError> {
    let folders = [folder.join("tokenizer"), folder.join("generator")];
    let names = ["the demo's tokenizer recipe", "the demo's generator recipe"].map(Path::new);
    let tokenizer = RunConfig::parse(TOKENIZER_RECIPE, settings, names[0])?;
    let mut generator = RunConfig::parse(GENERATOR_RECIPE, settings, names[1])?;
    if let RunConfig::Generator(run) = &mut generator {
        run.tokenizer = folders[0].clone();
    }
    let mut seconds = [0.0; 2];
    for (stage, config) in [&tokenizer, &generator].into_iter().enumerate() {
        require_same_run(config, names[stage], &folders[stage])?;
        let start = Instant::now();
        if let RunOutcome::Stopped { .. } = train(config, &folders[stage], device, observer)? {
            return Ok(None);
        }
        seconds[stage] = start.elapsed().as_secs_f64();
    }
    let model = GeneratorModel::load(&folders[1], device)?;
    let images = held_out(&tokenizer)?;
    let (evaluation, _) = evaluate(
        &model.tokenizer.network,
        &images,
        &Measuring::plain(64),
        observer,
    )?;
    let runs = [RunFolder(folders[0].clone()), RunFolder(folders[1].clone())];
    let facts = [
        ("time to train the tokenizer", Value::seconds(seconds[0])),
        (
            "time to tokenize and to train the generator",
            Value::seconds(seconds[1]),
        ),
    ];
    let html = run_report::whole_path(
        [&tokenizer, &generator],
        [&runs[0], &runs[1]],
        &model,
        &images,
        &facts,
    )?;
    let report = folder.join("report.html");
    smalti_data::atomic::write(&report, html.as_bytes())?;
    let [tokenizer, generator] = runs.map(|run| run.model());
    Ok(Some(Summary {
        report,
        tokenizer,
        generator,
        evaluation,
        seconds,
    }))
}

/// The bundled images that the tokenizer was not trained on.
fn held_out(config: &RunConfig) -> Result<Vec<smalti_data::Image>, TrainError> {
    let RunConfig::Tokenizer(run) = config else {
        unreachable!("the first recipe is a tokenizer's")
    };
    let (emoji, _) = DatasetConfig::Emoji {}.open(&OpenOptions::default())?;
    prepared(&run.data.eval.of(&emoji)?, &run.data.preprocess.eval)
}
