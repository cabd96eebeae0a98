//! A run from its configuration to its model and report.
//!
//! The run's folder holds `config.toml`, `metrics.jsonl`, `checkpoints/`, `samples/` and, when it is
//! finished, `model/` and `report.html`. A generator's run also holds its token caches.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use smalti_data::{
    Dataset, DatasetConfig, Image, ImageSource, LoadReport, OpenOptions, TokenCache, Views,
};

use crate::checkpoint;
use crate::config::{DataConfig, GeneratorRun, RunConfig, TargetConfig};
use crate::error::TrainError;
use crate::generator::{GeneratorStage, require_learnable};
use crate::model_dir::{GeneratorModel, TokenizerModel, short};
use crate::observer::Observer;
use crate::run_report;
use crate::tokenizer::{TokenizerStage, prepared};
use crate::tokens::{TokenizeConfig, tokenize};
use crate::trainer::{Finish, RunFolder, drive};

/// The codes that a generator learns.
const TRAIN_CACHE: &str = "tokens-train.safetensors";

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunOutcome {
    /// Finished; the folder of the model.
    Finished(PathBuf),
    /// Stopped on request; the step and its checkpoint.
    Stopped {
        /// Steps done.
        step: u64,
        /// The checkpoint to go on from.
        checkpoint: PathBuf,
    },
}

/// Carries out a run in `folder`, going on from its newest checkpoint where there is one. That it is one
/// of this configuration, [`require_same_run`](crate::require_same_run) tells beforehand: a run may be
/// gone on with otherwise than it began.
///
/// # Errors
/// When the configuration is invalid or does not fit the folder's checkpoint, data or models cannot be
/// read, a loss is not finite, or a file cannot be written.
pub fn train(
    config: &RunConfig,
    folder: &Path,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<RunOutcome, TrainError> {
    config.validate()?;
    match config {
        RunConfig::Tokenizer(run) => {
            let images = TokenizerImages::open(&run.data, observer)?;
            let stage = TokenizerStage::new(run, images.train, images.eval, device)?;
            train_tokenizer(config, stage, folder, observer)
        }
        RunConfig::Generator(run) => train_generator(config, run, folder, device, observer),
    }
}

/// The images of stage 1.
#[derive(Clone, Debug)]
pub(crate) struct TokenizerImages {
    /// To learn from.
    pub(crate) train: Dataset,
    /// To measure on, preprocessed.
    pub(crate) eval: Arc<[Image]>,
}

impl TokenizerImages {
    /// Opens both parts of a data set.
    pub(crate) fn open(data: &DataConfig, observer: &mut dyn Observer) -> Result<Self, TrainError> {
        let (train, eval) = open(data, observer)?;
        let eval = prepared(&eval, &data.preprocess.eval)?.into();
        Ok(Self { train, eval })
    }
}

/// Carries out stage 1 in `folder`: the stage of `config` to its model and report.
pub(crate) fn train_tokenizer(
    config: &RunConfig,
    mut stage: TokenizerStage,
    folder: &Path,
    observer: &mut dyn Observer,
) -> Result<RunOutcome, TrainError> {
    let folder = begin(config, folder)?;
    let finish = drive(&mut stage, config, &folder, observer)?;
    if finish == Finish::Complete {
        let data = &stage.config().data;
        // Prediction heads are for training alone.
        let network = stage.finished().without_prediction_heads();
        let model = TokenizerModel::new(network, data.preprocess.clone(), license(data));
        model.save(&folder.model())?;
        let (images, measuring) = (stage.evaluation_images(), stage.measuring());
        let report = run_report::tokenizer(config, &model, (images, &measuring), &folder)?;
        smalti_data::atomic::write(&folder.report(), report.as_bytes())?;
    }
    Ok(outcome(finish, &folder))
}

/// Makes a run's folder and writes its configuration there; where there are checkpoints, only
/// [`drive`] does, once it is known to fit them.
fn begin(config: &RunConfig, folder: &Path) -> Result<RunFolder, TrainError> {
    let folder = RunFolder(folder.to_owned());
    std::fs::create_dir_all(folder.path()).map_err(TrainError::io("create", folder.path()))?;
    if checkpoint::list(&folder.checkpoints())?.is_empty() {
        folder.write_config(config)?;
    }
    Ok(folder)
}

fn outcome(finish: Finish, folder: &RunFolder) -> RunOutcome {
    match finish {
        Finish::Complete => RunOutcome::Finished(folder.model()),
        Finish::Stopped { step, checkpoint } => RunOutcome::Stopped { step, checkpoint },
    }
}

fn train_generator(
    config: &RunConfig,
    run: &GeneratorRun,
    folder: &Path,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<RunOutcome, TrainError> {
    let folder = begin(config, folder)?;
    let tokenizer = TokenizerModel::load(&run.tokenizer, device)?;
    require_learnable(run, tokenizer.network.quantizer())?;
    let (train, eval) = open(&run.data, observer)?;
    let latents = matches!(run.targets, TargetConfig::Soft { .. });
    let measured = TokenizeConfig {
        preprocess: run.data.preprocess.eval.clone(),
        mirror: false,
        views: Views::One {},
        latents: false,
        batch_size: 64,
    };
    let learned = TokenizeConfig {
        mirror: run.mirror,
        views: run.views,
        latents,
        batch_size: 64usize.div_ceil(run.views.count()),
        ..measured.clone()
    };
    require_same_tokenizer(&tokenizer, run, &folder)?;
    let mut cache = |dataset: &Dataset, config: &TokenizeConfig, name: &str| {
        let path = folder.path().join(name);
        token_cache(&tokenizer, dataset, config, &path, observer)
    };
    let train = cache(&train, &learned, TRAIN_CACHE)?;
    let eval = cache(&eval, &measured, "tokens-eval.safetensors")?;
    let mut stage = GeneratorStage::new(run, tokenizer, train, eval, device)?;
    let finish = drive(&mut stage, config, &folder, observer)?;
    if finish == Finish::Complete {
        let (network, tokenizer, classes) = stage.into_parts();
        let model = GeneratorModel::new(network, tokenizer, classes, run.sampling.clone());
        model.save(&folder.model())?;
        let report = run_report::generator(config, &model, run.seed, &folder)?;
        smalti_data::atomic::write(&folder.report(), report.as_bytes())?;
    }
    Ok(outcome(finish, &folder))
}

/// Refuses checkpoints that learned another tokenizer's codes: a tokenizer that was trained anew in its
/// folder gives its codes other meanings.
fn require_same_tokenizer(
    tokenizer: &TokenizerModel,
    run: &GeneratorRun,
    folder: &RunFolder,
) -> Result<(), TrainError> {
    let path = folder.path().join(TRAIN_CACHE);
    if checkpoint::list(&folder.checkpoints())?.is_empty() || !path.exists() {
        return Ok(());
    }
    let learned = TokenCache::open(&path)?.spec().tokenizer.clone();
    match learned == tokenizer.fingerprint {
        true => Ok(()),
        false => Err(TrainError::layout(
            folder.path(),
            format!(
                "its checkpoints learned the codes of tokenizer {}, and {} is {} now: a new generator needs another folder",
                short(&learned),
                run.tokenizer.display(),
                short(&tokenizer.fingerprint)
            ),
        )),
    }
}

/// Opens a token cache of this tokenizer, or makes it.
fn token_cache(
    tokenizer: &TokenizerModel,
    dataset: &Dataset,
    config: &TokenizeConfig,
    path: &Path,
    observer: &mut dyn Observer,
) -> Result<TokenCache, TrainError> {
    if path.exists() {
        let cache = TokenCache::open(path)?;
        let fits = cache.spec().tokenizer == tokenizer.fingerprint
            && cache.spec().views == config.views
            && cache.len() == config.views_per_image() * dataset.len()
            && cache.spec().code_dim.is_some() == config.latents;
        if fits {
            return Ok(cache);
        }
        observer.note(&format!(
            "{} is of other images or of another tokenizer, tokenizing anew",
            path.display()
        ));
    }
    tokenize(tokenizer, dataset, config, path, observer)?;
    Ok(TokenCache::open(path)?)
}

/// The images to learn from and to measure on; broken files are reported.
fn open(data: &DataConfig, observer: &mut dyn Observer) -> Result<(Dataset, Dataset), TrainError> {
    let options = OpenOptions {
        strict: data.strict,
        ..OpenOptions::default()
    };
    let (source, report) = data.source.open(&options)?;
    tell(&report, observer);
    let eval_source = match &data.eval_source {
        Some(elsewhere) => {
            let (dataset, report) = elsewhere.open(&options)?;
            tell(&report, observer);
            dataset
        }
        None => source.clone(),
    };
    let (train, eval) = (data.train.of(&source)?, data.eval.of(&eval_source)?);
    observer.note(&format!(
        "{} images to learn from, {} to measure on",
        train.len(),
        eval.len()
    ));
    Ok((train, eval))
}

/// Names broken files.
fn tell(report: &LoadReport, observer: &mut dyn Observer) {
    const NAMED: usize = 5;
    if report.broken.is_empty() {
        return;
    }
    let mut text = format!(
        "{} of {} images in {} are broken and skipped:",
        report.broken.len(),
        report.found,
        report.path.display()
    );
    for file in report.broken.iter().take(NAMED) {
        text.push_str(&format!("\n  {}: {}", file.name, file.reason));
    }
    if report.broken.len() > NAMED {
        text.push_str(&format!("\n  … and {} more", report.broken.len() - NAMED));
    }
    observer.warn(&text);
}

/// What is known of the licence of weights trained on these images.
fn license(data: &DataConfig) -> String {
    match data.source {
        DatasetConfig::Emoji {} => "trained on Noto Emoji (Apache-2.0)".into(),
        DatasetConfig::Photographs {} => "trained on public-domain photographs".into(),
        _ => "unknown: depends on the images it was trained on".into(),
    }
}
