//! Stage 1: training an autoencoder with discrete latents.
//!
//! One step: reconstruct a batch (the codebook learns in that pass), compare, weigh the named losses,
//! go backward (`objective`), sum gradients over the accumulated batches, clip, step. Where there is
//! an adversary its discriminator learns from the same reconstructions, after the tokenizer and
//! without touching it.

mod objective;

use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use smalti_data::{Batch, BatchConfig, Batches, Dataset, Image, ImageSource, Visits};
use smalti_models::autoencoder::Autoencoder;
use smalti_nn::state::Weights;
use smalti_nn::{Init, Noise};
use smalti_quantize::{Divergence, SoftChoices, UpdateReport};

use crate::adversary::{self, Adversary, Pair};
use crate::checkpoint;
use crate::config::TokenizerRun;
use crate::error::TrainError;
use crate::evaluation::{Evaluation, Measuring, evaluate, reconstructions};
use crate::journal::Measures;
use crate::judges::Judges;
use crate::learner::Learner;
use crate::observer::{Observer, Silent};
use crate::samples::save_grid;
use crate::trainer::{Stage, StepSums, on_pool};
use objective::{Learned, Lesson, Objective};

/// The kind that checkpoints of this stage carry.
pub const KIND: &str = "tokenizer";
/// The user is warned when a depth's perplexity over the evaluation images is below this share of the
/// codes that so many images could use.
const COLLAPSED: f64 = 0.1;
/// Pairs in a sample picture.
const SAMPLES: usize = 10;

/// A tokenizer in training.
#[derive(Debug)]
pub struct TokenizerStage {
    config: TokenizerRun,
    device: Device,
    learner: Learner<Autoencoder>,
    objective: Objective,
    adversary: Option<Adversary>,
    train: Dataset,
    batches: Option<Batches>,
    eval: Arc<[Image]>,
}

impl TokenizerStage {
    /// A fresh model on `device` with images to learn from and preprocessed ones to measure on.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn new(
        config: &TokenizerRun,
        train: Dataset,
        eval: impl Into<Arc<[Image]>>,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let eval = eval.into();
        if let Some(image) = eval.first() {
            require_whole_positions(
                (image.width(), image.height()),
                config.model.factor(),
                "eval",
            )?;
        }
        let device = device.clone().autodiff();
        let mut init = Init::new(&device, config.seed);
        let model = config.model.build(&mut init)?;
        let learner = Learner::new(model, config.optimizer.clone(), config.training.average);
        let adversary = match &config.adversarial {
            Some(adversarial) => Some(Adversary::new(adversarial, &config.optimizer, &mut init)?),
            None => None,
        };
        let objective = Objective::load(config, train.len(), &device)?;
        if let Some(image) = eval.first() {
            objective.require_size(image.width(), image.height())?;
        }
        Ok(Self {
            config: config.clone(),
            device,
            learner,
            objective,
            adversary,
            train,
            batches: None,
            eval,
        })
    }

    /// What is trained, and how.
    pub fn config(&self) -> &TokenizerRun {
        &self.config
    }

    /// The model to keep, untracked.
    pub fn finished(&self) -> Autoencoder {
        self.learner.finished()
    }

    /// The preprocessed images that are measured on.
    pub fn evaluation_images(&self) -> &[Image] {
        &self.eval
    }

    /// Measures the model to keep over all evaluation images.
    ///
    /// # Errors
    /// When the network gives NaN.
    pub fn measure(&self, observer: &mut dyn Observer) -> Result<Evaluation, TrainError> {
        let measuring = self.measuring();
        Ok(evaluate(&self.finished(), &self.eval, &measuring, observer)?.0)
    }

    /// How the run measures.
    pub(crate) fn measuring(&self) -> Measuring {
        Measuring {
            batch_size: self.config.training.batch_size,
            judges: Judges {
                perceptual: self.objective.perceptual.clone().map(|p| p.valid()),
                features: None,
            },
        }
    }

    /// The next batch of the run; `number` counts batches from its beginning.
    fn batch(&mut self, number: u64) -> Result<Batch, TrainError> {
        if self.batches.is_none() {
            let config = BatchConfig {
                batch_size: self.config.training.batch_size,
                visits: Visits::Shuffled {
                    seed: self.config.seed,
                },
                first_batch: number,
                ahead: 2,
            };
            let preprocess = self.config.data.preprocess.train.clone();
            self.batches = Some(Batches::start(self.train.clone(), preprocess, config)?);
        }
        let batches = self.batches.as_mut().expect("started above");
        Ok(batches.next().ok_or(TrainError::Stopped)??)
    }

    /// What a batch teaches the tokenizer; its share of the step's gradient.
    fn learn(
        &mut self,
        batch: Batch,
        step: u64,
        noise: &mut Noise,
    ) -> Result<(Learned, Pair), TrainError> {
        let [_, _, height, width] = batch.shape;
        require_whole_positions((width, height), self.config.model.factor(), "train")?;
        self.objective.require_size(width, height)?;
        let images = Tensor::from_data(TensorData::new(batch.images, batch.shape), &self.device);
        let lesson = Lesson {
            images: images.clone(),
            indices: &batch.indices,
            step,
            noise,
        };
        let (model, adversary) = (self.learner.model_mut(), self.adversary.as_ref());
        let learned = self.objective.learn(model, adversary, lesson)?;
        let pair = Pair {
            images: images.inner(),
            reconstructions: learned.reconstructions.clone(),
        };
        Ok((learned, pair))
    }
}

impl Stage for TokenizerStage {
    fn phase(&self) -> &'static str {
        "training the tokenizer"
    }

    fn step(&mut self, step: u64, factor: f64) -> Result<Measures, TrainError> {
        let accumulate = self.config.training.accumulate as u64;
        let share = 1.0 / accumulate as f64;
        let mut noise = Noise::for_step(self.config.seed, step);
        let (mut sums, mut judged) = (StepSums::default(), StepSums::default());
        let mut updates = UpdateReport::default();
        for part in 0..accumulate {
            let batch = self.batch(step * accumulate + part)?;
            let (learned, pair) = on_pool(|| self.learn(batch, step, &mut noise))?;
            sums.add(learned.gradients.scaled(share), learned.measures);
            updates.merge(&learned.report);
            if let Some(adversary) = self.adversary.as_mut().filter(|a| a.learns_at(step)) {
                let (gradients, losses) = on_pool(|| adversary.lesson(&pair, step))?;
                judged.add(gradients.scaled(share), losses);
            }
        }
        let norm = ("gradient_norm", step);
        let mut measures = on_pool(|| sums.apply(&mut self.learner, norm, factor))?;
        if let Some(adversary) = self.adversary.as_mut().filter(|a| a.learns_at(step)) {
            measures.extend(on_pool(|| adversary.step(judged, step, factor))?);
        }
        measures.push((
            "codes_chosen".into(),
            updates.chosen as f64 / updates.codes.max(1) as f64,
        ));
        measures.push(("codes_revived".into(), updates.revived as f64));
        if let Some(divergence) = &updates.divergence {
            measures.extend(divergence_measures(divergence));
        }
        if let Some(choices) = &updates.choices {
            measures.extend(choice_measures(choices));
        }
        Ok(measures)
    }

    fn evaluate(
        &mut self,
        step: u64,
        samples: &Path,
        observer: &mut dyn Observer,
    ) -> Result<Measures, TrainError> {
        let model = self.finished();
        let measuring = self.measuring();
        let (evaluation, _) = evaluate(&model, &self.eval, &measuring, &mut Silent)?;
        let shown = &self.eval[..self.eval.len().min(SAMPLES)];
        let path = samples.join(format!("step-{step:08}.png"));
        save_grid(&[shown.to_vec(), reconstructions(&model, shown)?], &path)?;
        warn_of_collapse(&evaluation, observer);
        let mut measures = vec![("psnr_db".to_owned(), evaluation.psnr_db)];
        measures.extend(evaluation.ssim.map(|ssim| ("ssim".to_owned(), ssim)));
        measures.extend(evaluation.perceptual.map(|p| ("perceptual".to_owned(), p)));
        measures.push(("usage".to_owned(), evaluation.usage));
        for (d, depth) in evaluation.depths.iter().enumerate() {
            measures.push((format!("usage_{}", d + 1), depth.usage));
            measures.push((format!("perplexity_{}", d + 1), depth.perplexity));
        }
        Ok(measures)
    }

    fn kind(&self) -> &'static str {
        KIND
    }

    fn weights(&self) -> Weights {
        let mut weights = self.learner.weights();
        if let Some(adversary) = &self.adversary {
            checkpoint::put(&mut weights, adversary::PART, adversary.weights());
        }
        weights
    }

    fn restore(&mut self, mut weights: Weights, steps: u64, path: &Path) -> Result<(), TrainError> {
        self.batches = None;
        let of_adversary = checkpoint::take(&mut weights, adversary::PART);
        let problem = match (&mut self.adversary, of_adversary.0.is_empty()) {
            (Some(adversary), false) => {
                adversary.restore(of_adversary, steps, path, &self.device)?;
                None
            }
            (None, true) => None,
            (Some(_), true) => Some("it holds no adversary, and this run has one"),
            (None, false) => Some("it holds an adversary, and this run has none"),
        };
        if let Some(problem) = problem {
            return Err(TrainError::Checkpoint {
                path: path.into(),
                problem: problem.into(),
            });
        }
        self.learner.restore(weights, steps, path, &self.device)
    }
}

/// How far Gaussian latents are from their prior, in bits for each code, and the weights that hold
/// them there.
fn divergence_measures(divergence: &Divergence) -> Measures {
    let named = [
        ("divergence_bits_mean", divergence.mean_bits),
        ("divergence_bits_min", divergence.min_bits),
        ("divergence_bits_max", divergence.max_bits),
        ("divergence_weight", divergence.weight),
        ("divergence_weight_below", divergence.weight_below),
        ("divergence_weight_above", divergence.weight_above),
    ];
    named.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

fn choice_measures(choices: &SoftChoices) -> Measures {
    let mut measures = vec![
        ("choice_certainty".to_owned(), choices.certainty),
        ("temperature".to_owned(), choices.temperature),
    ];
    let apart = choices.apart_share();
    measures.extend(apart.map(|share| ("draws_apart".to_owned(), share)));
    measures
}

/// Says so when hardly any code of a depth is used.
fn warn_of_collapse(evaluation: &Evaluation, observer: &mut dyn Observer) {
    for (d, depth) in evaluation.depths.iter().enumerate() {
        // A few images cannot use a large codebook.
        let reachable = depth.codebook_size.min(evaluation.images);
        if depth.perplexity < COLLAPSED * reachable as f64 {
            observer.warn(&format!(
                "the codebook of depth {} is collapsing: {:.1} % of {} codes used, perplexity {:.1}; try a smaller codebook, another revival or start",
                d + 1,
                100.0 * depth.usage,
                depth.codebook_size,
                depth.perplexity
            ));
        }
    }
}

/// Refuses images that the network would not give back at their own size.
pub(crate) fn require_whole_positions(
    (width, height): (usize, usize),
    factor: usize,
    part: &str,
) -> Result<(), TrainError> {
    if width.is_multiple_of(factor) && height.is_multiple_of(factor) {
        return Ok(());
    }
    Err(TrainError::Config(vec![format!(
        "data.preprocess.{part}: images of {width}x{height} pixels are no multiple of the network's factor {factor}; end with a crop to such a size"
    )]))
}

/// Every image of a data set after fixed preprocessing, decoded once.
///
/// # Errors
/// When an image cannot be read, or they differ in size.
pub fn prepared(
    dataset: &Dataset,
    preprocess: &smalti_data::Preprocess,
) -> Result<Vec<Image>, TrainError> {
    let all = (0..dataset.len()).map(|i| Ok(preprocess.apply_fixed(&dataset.image(i)?)?));
    let all: Vec<Image> = all.collect::<Result<_, TrainError>>()?;
    require_one_size(&all, |i| dataset.name(i).into_owned())?;
    Ok(all)
}

/// Refuses images that cannot stand in one batch.
pub(crate) fn require_one_size(
    images: &[Image],
    name: impl Fn(usize) -> String,
) -> Result<(), TrainError> {
    let size = |image: &Image| (image.width(), image.height());
    let Some(other) = images
        .iter()
        .position(|image| size(image) != size(&images[0]))
    else {
        return Ok(());
    };
    let ((w, h), (ow, oh)) = (size(&images[0]), size(&images[other]));
    Err(TrainError::Config(vec![format!(
        "data.preprocess.eval: {} becomes {ow}x{oh} pixels, {} {w}x{h}; end with a crop, for example {{ kind = \"center_crop\", size = 32 }}",
        name(other),
        name(0)
    )]))
}
