//! Stage 2: training a generator on the codes of a tokenizer.
//!
//! The codes of all images are computed once ([`tokens`](crate::tokens)). One step: take the codes of a
//! batch, or draw them anew from the tokenizer's distribution around the kept latents, show them
//! to the generator, compare its logits with the codes or with those distributions (Lee et al., CVPR
//! 2022, section 3.2.4), go backward, clip, step.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use burn::tensor::{Device, Tensor, TensorData};
use smalti_data::{EpochOrder, Image, TokenCache, chosen_view};
use smalti_models::generators::{
    AnyGenerator, CodeLayout, CodeTargets, Conditions, GenerationRequest, GeneratorConfig,
    GeneratorInput, GeneratorLesson, TimeLoss,
};
use smalti_nn::state::Weights;
use smalti_nn::{Init, Noise};
use smalti_quantize::folding::unfold;
use smalti_quantize::{AnyQuantizer, Codes, Quantizer, ResidualQuantizer};

use crate::config::{ConditionKind, GeneratorRun, TargetConfig};
use crate::error::TrainError;
use crate::generator_shape::Given;
use crate::gradients::Gradients;
use crate::halves::{self, Learned};
use crate::journal::Measures;
use crate::learner::Learner;
use crate::model_dir::{TokenizerModel, code_embedding, code_tables};
use crate::observer::Observer;
use crate::samples::{save_grid, to_images};
use crate::trainer::{Stage, StepSums, on_pool, read_losses};

/// The kind that checkpoints of this stage carry.
pub const KIND: &str = "generator";
/// Samples of each class in a sample picture.
const SAMPLES: usize = 8;
/// Classes in a sample picture.
const SAMPLED_CLASSES: usize = 10;

/// Of what generators of whole maps hide when they are measured.
const EVALUATION_SEED: u64 = 0;

/// Codes of one codebook at most.
const LARGEST_VOCABULARY: usize = 1 << 20;

/// A generator in training.
#[derive(Debug)]
pub struct GeneratorStage {
    config: GeneratorRun,
    device: Device,
    learner: Learner<AnyGenerator>,
    tokenizer: TokenizerModel,
    train: TokenCache,
    eval: TokenCache,
    order: Option<(u64, EpochOrder)>,
}

/// The codes of a batch or a half of it, their conditions and what the generator should say.
struct Lesson {
    /// Which half.
    number: usize,
    input: GeneratorInput,
    targets: CodeTargets,
}

impl Lesson {
    /// Forward and backward: the gradient and the losses, means over the samples, and what the generator
    /// has to be told of its time steps.
    fn learn(
        self,
        model: &AnyGenerator,
        mut noise: Noise,
        step: u64,
    ) -> Result<(Learned, Vec<TimeLoss>), TrainError> {
        let GeneratorLesson {
            total,
            losses,
            times,
        } = model.learn(self.input, self.targets, &mut noise);
        let losses = read_losses(&losses, step)?;
        Ok(((Gradients::of(model, &total.backward()), losses), times))
    }
}

impl GeneratorStage {
    /// A fresh generator on `device` for the codes of `train`.
    ///
    /// # Errors
    /// When the configuration does not fit the codes, or the codes are of another tokenizer.
    pub fn new(
        config: &GeneratorRun,
        tokenizer: TokenizerModel,
        train: TokenCache,
        eval: TokenCache,
        device: &Device,
    ) -> Result<Self, TrainError> {
        train.require_tokenizer(&tokenizer.fingerprint)?;
        eval.require_tokenizer(&tokenizer.fingerprint)?;
        let images = train.len() / train.spec().views.count();
        if images < config.training.batch_size {
            let problem = format!(
                "training: batch_size ({}) is larger than the number of images ({images})",
                config.training.batch_size
            );
            return Err(TrainError::Config(vec![problem]));
        }
        require_one_layout(&train, &eval)?;
        let device = device.clone().autodiff();
        let shape = model_config(config, &tokenizer, &train)?;
        // Now the number of codes is known.
        TrainError::unless_empty(config.misplaced(shape.writing()))?;
        let codes = code_embedding(&shape, tokenizer.network.quantizer())?;
        let codes = codes.map(|embedding| burn::module::Module::to_device(embedding, &device));
        let model = shape.build(codes, &mut Init::new(&device, config.seed))?;
        let learner = Learner::new(model, config.optimizer.clone(), config.training.average);
        Ok(Self {
            config: config.clone(),
            device,
            learner,
            tokenizer,
            train,
            eval,
            order: None,
        })
    }

    /// The model to keep, untracked.
    pub fn finished(&self) -> AnyGenerator {
        self.learner.finished()
    }

    /// The model to keep, its tokenizer, and the names of the classes that it is conditioned on.
    pub fn into_parts(self) -> (AnyGenerator, TokenizerModel, Vec<String>) {
        let classes = match self.config.model.condition() {
            ConditionKind::Class => self.train.spec().classes.clone(),
            ConditionKind::Unconditional => Vec::new(),
        };
        (self.learner.finished(), self.tokenizer, classes)
    }

    /// What batch `number` of the run sees: for each image one of its views, by their places in the cache.
    fn batch(&mut self, number: u64) -> Vec<usize> {
        let (size, seed) = (self.config.training.batch_size, self.config.seed);
        let views = self.train.spec().views.count();
        let images = self.train.len() / views;
        let per_epoch = (images / size) as u64;
        let (epoch, place) = (number / per_epoch, (number % per_epoch) as usize * size);
        if self.order.as_ref().is_none_or(|(of, _)| *of != epoch) {
            self.order = Some((epoch, EpochOrder::new(images, seed, epoch)));
        }
        let (_, order) = self.order.as_ref().expect("made above");
        let visited = order.indices()[place..place + size].iter();
        visited
            .map(|&image| image * views + chosen_view(seed, epoch, image, views))
            .collect()
    }

    fn conditions(&self, cache: &TokenCache, images: &[usize]) -> Conditions {
        match (self.config.model.condition(), cache.labels()) {
            (ConditionKind::Class, Some(labels)) => {
                Conditions::Classes(images.iter().map(|&i| labels[i]).collect())
            }
            _ => Conditions::Unconditional(images.len()),
        }
    }

    /// The lessons of a batch: one for each half, on other devices than the CPU a single one.
    fn parts(
        &self,
        images: &[usize],
        noise: &mut Noise,
    ) -> Result<Vec<(usize, Lesson)>, TrainError> {
        let mut rest = images;
        let mut parts = Vec::new();
        for size in halves::sizes(images.len(), &self.device) {
            let (part, more) = rest.split_at(size);
            let number = parts.len();
            parts.push((size, self.lesson(number, part, noise)?));
            rest = more;
        }
        Ok(parts)
    }

    fn lesson(
        &self,
        number: usize,
        images: &[usize],
        noise: &mut Noise,
    ) -> Result<Lesson, TrainError> {
        let conditions = self.conditions(&self.train, images);
        let inner = self.device.clone().inner();
        let [_, depth, height, width] = self.train.spec().shape;
        let TargetConfig::Soft {
            temperature,
            stochastic,
        } = self.config.targets
        else {
            let codes = Codes::from_values(
                &self.train.codes_of(images),
                [images.len(), depth, height, width],
                &inner,
            );
            let targets = CodeTargets::Hard(codes.clone());
            return Ok(Lesson {
                number,
                input: GeneratorInput { codes, conditions },
                targets,
            });
        };
        let quantizer = self.tokenizer.network.quantizer();
        let residual = require_soft_codes(quantizer)?;
        let latents = self.train.latents_of(images)?;
        let channels = latents.len() / (images.len() * height * width);
        let latents = Tensor::from_data(
            TensorData::new(latents, [images.len(), channels, height, width]),
            &inner,
        );
        let latents = unfold(latents, quantizer.spec().fold);
        let soft = residual.soft_codes(latents, temperature, stochastic.then_some(noise))?;
        let targets = stack(soft.targets, images.len(), height * width);
        let targets = CodeTargets::Soft(Tensor::from_inner(targets));
        Ok(Lesson {
            number,
            input: GeneratorInput {
                codes: soft.codes,
                conditions,
            },
            targets,
        })
    }

    /// The losses of the model to keep over all evaluation codes, in nats for each code. What generators
    /// of whole maps hide for it is a function of the batch's number: equal at every evaluation.
    fn validation(&self, model: &AnyGenerator) -> Result<(f64, Vec<f64>), TrainError> {
        let [count, depth, height, width] = self.eval.spec().shape;
        let indices: Vec<usize> = (0..count).collect();
        let mut sums = vec![0.0; depth];
        let batches = indices.chunks(self.config.training.batch_size).zip(0..);
        for (images, number) in batches {
            let codes = Codes::from_values(
                &self.eval.codes_of(images),
                [images.len(), depth, height, width],
                &model.device(),
            );
            let conditions = self.conditions(&self.eval, images);
            let mut noise = Noise::for_step(EVALUATION_SEED, number);
            let losses = model.measure(GeneratorInput { codes, conditions }, &mut noise);
            for (sum, loss) in sums.iter_mut().zip(smalti_nn::state::host_values(losses)) {
                *sum += f64::from(loss) * images.len() as f64;
            }
        }
        let per_depth: Vec<f64> = sums.into_iter().map(|sum| sum / count as f64).collect();
        Ok((per_depth.iter().sum::<f64>() / depth as f64, per_depth))
    }

    fn save_samples(&self, model: &AnyGenerator, path: &Path) -> Result<(), TrainError> {
        let rows = sample_rows(
            model,
            &self.tokenizer,
            self.train.spec().classes.len(),
            &self.config,
            self.config.seed,
        )?;
        save_grid(&rows, path)
    }
}

/// A few samples for each class (one row each), or one square of them without classes.
fn sample_rows(
    model: &AnyGenerator,
    tokenizer: &TokenizerModel,
    classes: usize,
    config: &GeneratorRun,
    seed: u64,
) -> Result<Vec<Vec<Image>>, TrainError> {
    let conditions = match config.model.condition() {
        ConditionKind::Unconditional => Conditions::Unconditional(SAMPLES * SAMPLES),
        ConditionKind::Class => {
            let shown = 0..classes.min(SAMPLED_CLASSES) as u32;
            Conditions::Classes(shown.flat_map(|class| [class; SAMPLES]).collect())
        }
    };
    let request = GenerationRequest {
        sampling: config.sampling.clone(),
        ..GenerationRequest::new(conditions, seed)
    };
    let codes = model.generate(&request, &mut |_| std::ops::ControlFlow::Continue(()))?;
    let images = to_images(tokenizer.network.decode(&codes)?)?;
    Ok(images.chunks(SAMPLES).map(<[Image]>::to_vec).collect())
}

impl GeneratorStage {
    /// Gradient and losses of a batch. A generator that chooses its time steps is told of them.
    fn learn_batch(
        &mut self,
        parts: Vec<(usize, Lesson)>,
        noise: &mut Noise,
        step: u64,
    ) -> Result<Learned, TrainError> {
        // By the number of the half: in one order, whichever is done first.
        let seen = Mutex::new(BTreeMap::new());
        let learn = |model: AnyGenerator, lesson: Lesson, noise: Noise| {
            let number = lesson.number;
            let (learned, times) = lesson.learn(&model, noise, step)?;
            let mut seen = seen.lock().expect("no half panics with the lock");
            seen.insert(number, times);
            Ok::<Learned, TrainError>(learned)
        };
        let learned = halves::learn(self.learner.model(), &self.device, noise, parts, learn)?;
        let seen = seen.into_inner().expect("no half panics with the lock");
        let times: Vec<TimeLoss> = seen.into_values().flatten().collect();
        self.learner.model_mut().note(&times);
        Ok(learned)
    }

    /// One step.
    fn learn(&mut self, step: u64, factor: f64) -> Result<Measures, TrainError> {
        let accumulate = self.config.training.accumulate as u64;
        let mut noise = Noise::for_step(self.config.seed, step);
        let mut sums = StepSums::default();
        for part in 0..accumulate {
            let images = self.batch(step * accumulate + part);
            let parts = self.parts(&images, &mut noise)?;
            let (gradients, losses) = self.learn_batch(parts, &mut noise, step)?;
            sums.add(gradients.scaled(1.0 / accumulate as f64), losses);
        }
        sums.apply(&mut self.learner, ("gradient_norm", step), factor)
    }
}

impl Stage for GeneratorStage {
    fn phase(&self) -> &'static str {
        "training the generator"
    }

    fn step(&mut self, step: u64, factor: f64) -> Result<Measures, TrainError> {
        on_pool(|| self.learn(step, factor))
    }

    fn evaluate(
        &mut self,
        step: u64,
        samples: &Path,
        _observer: &mut dyn Observer,
    ) -> Result<Measures, TrainError> {
        let model = self.finished();
        let (codes, per_depth) = self.validation(&model)?;
        self.save_samples(&model, &samples.join(format!("step-{step:08}.png")))?;
        let mut measures = vec![("codes".to_owned(), codes)];
        measures.extend(
            per_depth
                .into_iter()
                .enumerate()
                .map(|(d, loss)| (format!("codes_depth_{}", d + 1), loss)),
        );
        Ok(measures)
    }

    fn kind(&self) -> &'static str {
        KIND
    }

    fn weights(&self) -> Weights {
        self.learner.weights()
    }

    fn restore(&mut self, weights: Weights, steps: u64, path: &Path) -> Result<(), TrainError> {
        self.order = None;
        self.learner.restore(weights, steps, path, &self.device)
    }
}

/// Refuses a tokenizer whose codes cannot be learned as the run asks, before they are made.
///
/// # Errors
/// Names what to choose instead.
pub(crate) fn require_learnable(
    run: &GeneratorRun,
    quantizer: &AnyQuantizer,
) -> Result<(), TrainError> {
    if matches!(run.targets, TargetConfig::Soft { .. }) {
        require_soft_codes(quantizer)?;
    }
    if run.model.needs_tables() {
        code_tables(quantizer)?;
    }
    let sizes = quantizer.spec().codebook_sizes;
    match sizes.into_iter().find(|size| *size > LARGEST_VOCABULARY) {
        None => Ok(()),
        Some(size) => Err(TrainError::Config(vec![format!(
            "tokenizer: each of its codes is one of {size}, and a generator has a row of weights for every one; at most {LARGEST_VOCABULARY} are possible, so train a tokenizer with more codes of fewer bits at a position"
        )])),
    }
}

/// The quantizer, where it says how likely each code is.
///
/// # Errors
/// Names the other choice of targets.
fn require_soft_codes(quantizer: &AnyQuantizer) -> Result<&ResidualQuantizer, TrainError> {
    quantizer.as_residual().ok_or_else(|| {
        TrainError::Config(vec![
            "targets: soft targets need a residual quantizer; use kind = \"hard\"".into(),
        ])
    })
}

/// Refuses code maps of different sizes to learn from and to measure on.
fn require_one_layout(train: &TokenCache, eval: &TokenCache) -> Result<(), TrainError> {
    let ([_, learned @ ..], [_, measured @ ..]) = (train.spec().shape, eval.spec().shape);
    match learned == measured {
        true => Ok(()),
        false => Err(TrainError::Config(vec![format!(
            "data: images to learn from become code maps [depth, height, width] {learned:?}, those to measure on {measured:?}; let both be of one size"
        )])),
    }
}

/// The generator's configuration: the shape from the run, sizes from the tokenizer, classes from the data.
fn model_config(
    run: &GeneratorRun,
    tokenizer: &TokenizerModel,
    cache: &TokenCache,
) -> Result<GeneratorConfig, TrainError> {
    let [_, _, height, width] = cache.spec().shape;
    let spec = tokenizer.network.quantizer().spec();
    let classes = cache.spec().classes.len();
    if run.model.condition() == ConditionKind::Class && classes == 0 {
        let problem = "model: condition is \"class\", but the images have no classes; use sub-folders or labels, or condition = \"unconditional\"";
        return Err(TrainError::Config(vec![problem.into()]));
    }
    let layout = CodeLayout {
        height,
        width,
        codebook_sizes: spec.codebook_sizes,
    };
    Ok(run.model.config(&Given {
        layout,
        code_dim: spec.code_dim,
        classes,
    }))
}

/// Distributions of every depth as `[batch, positions, depth, vocab]`; smaller codebooks are padded with
/// zeros to the largest.
fn stack(targets: Vec<Tensor<2>>, batch: usize, positions: usize) -> Tensor<4> {
    let vocab = targets.iter().map(|t| t.dims()[1]).max().unwrap_or(0);
    let widened = targets.into_iter().map(|target| {
        let [rows, size] = target.dims();
        let target = match vocab - size {
            0 => target,
            missing => {
                let zeros = Tensor::zeros([rows, missing], &target.device());
                Tensor::cat(vec![target, zeros], 1)
            }
        };
        target.reshape([batch, positions, 1, vocab])
    });
    Tensor::cat(widened.collect(), 2)
}
