//! The one training loop: steps, journal, measurements, checkpoints, stopping.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Tensor;
use smalti_nn::state::Weights;
use smalti_quantize::NamedLoss;

use crate::checkpoint;
use crate::config::{RunConfig, TrainingConfig};
use crate::error::TrainError;
use crate::gradients::Gradients;
use crate::journal::{Journal, Measures};
use crate::learner::Learner;
use crate::observer::Observer;

/// What a stage of training can do.
pub trait Stage {
    /// What a unit of this stage's work is called in a progress line.
    fn phase(&self) -> &'static str;

    /// Takes step `step` (from 0) with the learning rate times `factor`.
    ///
    /// # Errors
    /// When a loss or a gradient is not finite, or data cannot be read.
    fn step(&mut self, step: u64, factor: f64) -> Result<Measures, TrainError>;

    /// Measures after `step` steps, and leaves sample pictures in `samples`.
    ///
    /// # Errors
    /// When data cannot be read or pictures not written.
    fn evaluate(
        &mut self,
        step: u64,
        samples: &Path,
        observer: &mut dyn Observer,
    ) -> Result<Measures, TrainError>;

    /// The kind of run that its checkpoints carry.
    fn kind(&self) -> &'static str;

    /// Everything that a checkpoint keeps.
    fn weights(&self) -> Weights;

    /// Takes over what [`weights`](Self::weights) gave after `steps` steps; `path` is the checkpoint
    /// they are from.
    ///
    /// # Errors
    /// When they do not fit.
    fn restore(&mut self, weights: Weights, steps: u64, path: &Path) -> Result<(), TrainError>;
}

/// Where a run keeps its files.
#[derive(Clone, Debug)]
pub struct RunFolder(pub PathBuf);

impl RunFolder {
    /// The configuration with everything filled in.
    pub fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// Writes the configuration.
    pub(crate) fn write_config(&self, config: &RunConfig) -> Result<(), TrainError> {
        let text = config.to_toml();
        Ok(smalti_data::atomic::write(&self.config(), text.as_bytes())?)
    }

    /// The journal.
    pub fn journal(&self) -> PathBuf {
        self.0.join("metrics.jsonl")
    }

    /// The checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    /// Sample pictures.
    pub fn samples(&self) -> PathBuf {
        self.0.join("samples")
    }

    /// The finished model.
    pub fn model(&self) -> PathBuf {
        self.0.join("model")
    }

    /// The report.
    pub fn report(&self) -> PathBuf {
        self.0.join(crate::report::REPORT_FILE)
    }

    /// The folder of a run as the user named it.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// How a loop ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// All steps are done.
    Complete,
    /// The observer asked to stop; a checkpoint was written.
    Stopped {
        /// Steps done.
        step: u64,
        /// The checkpoint.
        checkpoint: PathBuf,
    },
}

/// Drives a stage from its newest checkpoint, or from the beginning, to its last step.
///
/// # Errors
/// Whatever the stage reports. A non-finite loss names the last checkpoint.
pub fn drive(
    stage: &mut dyn Stage,
    config: &RunConfig,
    folder: &RunFolder,
    observer: &mut dyn Observer,
) -> Result<Finish, TrainError> {
    let (plan, schedule) = (config.training(), config.schedule());
    let mut progress = resume(stage, plan.steps, folder, observer)?;
    folder.write_config(config)?;
    let mut journal = Journal::open(&folder.journal(), progress.step)?;
    observer.begin(stage.phase(), "step", plan.steps);
    observer.advance(progress.step, "");
    while progress.step < plan.steps {
        if observer.stop_requested() {
            let checkpoint = save(stage, plan, folder, &progress)?;
            observer.end();
            return Ok(Finish::Stopped {
                step: progress.step,
                checkpoint,
            });
        }
        let factor = schedule.factor(progress.step, plan.steps);
        let measures = stage
            .step(progress.step, factor)
            .map_err(|error| name_checkpoint(error, folder))?;
        progress.step += 1;
        progress.window.add(measures);
        let step = progress.step;
        if step.is_multiple_of(plan.log_every) || step == plan.steps {
            let mut means = progress.window.take();
            means.push(("learning_rate_factor".into(), factor));
            journal.write(step, "train", &means)?;
            observer.advance(step, &summary(&means));
        }
        look(stage, plan, folder, &mut journal, &progress, observer)?;
    }
    observer.end();
    Ok(Finish::Complete)
}

/// Measures and writes a checkpoint where this step asks for it.
fn look(
    stage: &mut dyn Stage,
    plan: &TrainingConfig,
    folder: &RunFolder,
    journal: &mut Journal,
    progress: &Progress,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    let step = progress.step;
    let last = step == plan.steps;
    if last || step.is_multiple_of(plan.evaluate_every) {
        let measures = stage.evaluate(step, &folder.samples(), observer)?;
        journal.write(step, "eval", &measures)?;
    }
    if last || step.is_multiple_of(plan.checkpoint_every) {
        save(stage, plan, folder, progress)?;
    }
    Ok(())
}

/// Writes a checkpoint.
fn save(
    stage: &dyn Stage,
    plan: &TrainingConfig,
    folder: &RunFolder,
    progress: &Progress,
) -> Result<PathBuf, TrainError> {
    checkpoint::write(
        &folder.checkpoints(),
        stage.kind(),
        progress,
        &stage.weights(),
        plan.keep_checkpoints,
    )
}

fn resume(
    stage: &mut dyn Stage,
    steps: u64,
    folder: &RunFolder,
    observer: &mut dyn Observer,
) -> Result<Progress, TrainError> {
    match checkpoint::list(&folder.checkpoints())?.pop() {
        Some((taken, path)) if taken > steps => Err(TrainError::Config(vec![format!(
            "training: a run of {steps} steps was asked for, but {} was written after {taken}; ask for as many steps at least, or for another folder",
            path.display()
        )])),
        Some((_, path)) => {
            let (progress, weights) = checkpoint::read(&path, stage.kind())?;
            stage.restore(weights, progress.step, &path)?;
            observer.note(&format!(
                "resuming after step {} from {}",
                progress.step,
                path.display()
            ));
            Ok(progress)
        }
        None => Ok(Progress::default()),
    }
}

/// How far a run has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Steps taken.
    pub step: u64,
    /// What the next line of the journal will be the mean of.
    pub window: Window,
}

/// Sums of measures, for their mean: those since the last line of the journal. A measure that not
/// every step has (a loss that joins later) is averaged over the steps that have it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    sums: Vec<Sum>,
}

/// Of one measure.
#[derive(Clone, Debug, PartialEq)]
struct Sum {
    name: String,
    sum: f64,
    count: u64,
}

impl Window {
    fn add(&mut self, measures: Measures) {
        for (name, value) in measures {
            match self.sums.iter_mut().find(|sum| sum.name == name) {
                Some(sum) => {
                    sum.sum += value;
                    sum.count += 1;
                }
                None => self.sums.push(Sum {
                    name,
                    sum: value,
                    count: 1,
                }),
            }
        }
    }

    /// As text, every number with all its bits.
    pub(crate) fn to_text(&self) -> String {
        let sums: Vec<(&str, u64, u64)> = self
            .sums
            .iter()
            .map(|sum| (sum.name.as_str(), sum.sum.to_bits(), sum.count))
            .collect();
        serde_json::json!({ "sums": sums }).to_string()
    }

    /// What [`to_text`](Self::to_text) wrote.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Stored {
            sums: Vec<(String, u64, u64)>,
        }
        let Stored { sums } = serde_json::from_str(text).ok()?;
        let sums = sums.into_iter().map(|(name, bits, count)| Sum {
            name,
            sum: f64::from_bits(bits),
            count,
        });
        Some(Self {
            sums: sums.collect(),
        })
    }

    fn take(&mut self) -> Measures {
        std::mem::take(&mut self.sums)
            .into_iter()
            .map(|sum| (sum.name, sum.sum / sum.count as f64))
            .collect()
    }
}

fn summary(measures: &Measures) -> String {
    let shown = measures
        .iter()
        .take(2)
        .map(|(name, value)| format!("{name} {value:.4}"));
    shown.collect::<Vec<_>>().join("  ")
}

/// Reads losses from the device and refuses NaN and infinities.
///
/// # Errors
/// Names the first loss that is not finite.
pub(crate) fn read_losses(losses: &[NamedLoss], step: u64) -> Result<Measures, TrainError> {
    let values: Vec<Tensor<1>> = losses
        .iter()
        .map(|(_, loss)| loss.clone().inner().reshape([1]))
        .collect();
    let values = smalti_nn::state::host_values(Tensor::cat(values, 0));
    losses
        .iter()
        .zip(values)
        .map(|((name, _), value)| match value.is_finite() {
            true => Ok(((*name).to_owned(), f64::from(value))),
            false => Err(TrainError::NonFinite {
                term: format!("the loss {name}"),
                value,
                step,
                kept: String::new(),
            }),
        })
        .collect()
}

/// What the batches of one step leave: their gradients summed, their losses to be averaged.
#[derive(Debug, Default)]
pub(crate) struct StepSums {
    gradients: Gradients,
    losses: Window,
}

impl StepSums {
    /// Adds a batch.
    pub(crate) fn add(&mut self, gradients: Gradients, losses: Measures) {
        self.gradients.add(gradients);
        self.losses.add(losses);
    }

    /// Takes the step; the mean losses, and the norm of the gradients under its `name`.
    ///
    /// # Errors
    /// When the norm is NaN or infinite; the model has not changed then.
    pub(crate) fn apply<M: Module>(
        mut self,
        learner: &mut Learner<M>,
        (name, step): (&'static str, u64),
        factor: f64,
    ) -> Result<Measures, TrainError> {
        let norm = self.gradients.norm();
        if !norm.is_finite() {
            return Err(TrainError::NonFinite {
                term: format!("the {}", name.replace('_', " ")),
                value: norm as f32,
                step,
                kept: String::new(),
            });
        }
        learner.step(self.gradients, norm, factor);
        let mut measures = self.losses.take();
        measures.push((name.to_owned(), norm));
        Ok(measures)
    }
}

/// Runs `work` on a thread of the pool that the kernels share.
///
/// Their parallel loops then begin at once, where a thread from outside has to wake one and to be woken:
/// on two cores a fifth of the time of the demo's steps. `work` must not wait for a thread that needs
/// the pool, as the loader of images does.
pub(crate) fn on_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| work())
}

fn name_checkpoint(error: TrainError, folder: &RunFolder) -> TrainError {
    match error {
        TrainError::NonFinite {
            term, value, step, ..
        } => {
            let newest = checkpoint::list(&folder.checkpoints())
                .ok()
                .and_then(|mut all| all.pop());
            let kept = match newest {
                Some((_, path)) => format!("the newest checkpoint is {}", path.display()),
                None => "no checkpoint was written before".into(),
            };
            TrainError::NonFinite {
                term,
                value,
                step,
                kept,
            }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_survives_a_checkpoint_with_every_bit() {
        let mut window = Window::default();
        for value in [0.1, 1.0 / 3.0, 1e-300] {
            window.add(vec![("loss".into(), value), ("norm".into(), -value)]);
        }
        assert_eq!(Window::from_text(&window.to_text()), Some(window.clone()));
        assert_eq!(window.take()[0].1, (0.1 + 1.0 / 3.0 + 1e-300) / 3.0);
        assert_eq!(window, Window::default());
        assert_eq!(Window::from_text("{\"sums\": 1"), None);
    }

    #[test]
    fn a_measure_that_joins_later_is_averaged_over_its_own_steps() {
        let mut window = Window::default();
        window.add(vec![("loss".into(), 1.0)]);
        window.add(vec![("loss".into(), 3.0), ("adversarial".into(), 5.0)]);
        let means = window.take();
        assert_eq!(means, [("loss".into(), 2.0), ("adversarial".into(), 5.0)]);
    }
}
