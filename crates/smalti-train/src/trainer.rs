//! The one training loop: steps, journal, measurements, checkpoints, stopping.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Tensor;
use smalti_quantize::NamedLoss;

use crate::checkpoint::{self, Learner};
use crate::config::{RunConfig, TrainingConfig};
use crate::error::TrainError;
use crate::gradients::Gradients;
use crate::journal::{Journal, Measures};
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

    /// Writes a checkpoint and returns its path.
    ///
    /// # Errors
    /// When it cannot be written.
    fn save(&self, folder: &Path, progress: &Progress, keep: usize) -> Result<PathBuf, TrainError>;

    /// Takes over a checkpoint and returns how far the run had come.
    ///
    /// # Errors
    /// When it does not fit.
    fn restore(&mut self, path: &Path) -> Result<Progress, TrainError>;
}

/// Where a run keeps its files.
#[derive(Clone, Debug)]
pub struct RunFolder(pub PathBuf);

impl RunFolder {
    /// The configuration with everything filled in.
    pub fn config(&self) -> PathBuf {
        self.0.join("config.toml")
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
        self.0.join("report.html")
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
    let mut progress = resume(stage, folder, observer)?;
    let mut journal = Journal::open(&folder.journal(), progress.step)?;
    observer.begin(stage.phase(), "step", plan.steps);
    observer.advance(progress.step, "");
    while progress.step < plan.steps {
        if observer.stop_requested() {
            let checkpoint = stage.save(&folder.checkpoints(), &progress, plan.keep_checkpoints)?;
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
        stage.save(&folder.checkpoints(), progress, plan.keep_checkpoints)?;
    }
    Ok(())
}

fn resume(
    stage: &mut dyn Stage,
    folder: &RunFolder,
    observer: &mut dyn Observer,
) -> Result<Progress, TrainError> {
    match checkpoint::list(&folder.checkpoints())?.pop() {
        Some((_, path)) => {
            let progress = stage.restore(&path)?;
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

/// Sums of measures, for their mean: those since the last line of the journal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    sums: Measures,
    count: u64,
}

impl Window {
    fn add(&mut self, measures: Measures) {
        if self.sums.is_empty() {
            self.sums = measures;
        } else {
            for ((_, sum), (_, value)) in self.sums.iter_mut().zip(measures) {
                *sum += value;
            }
        }
        self.count += 1;
    }

    /// As text, every number with all its bits.
    pub(crate) fn to_text(&self) -> String {
        let sums: Vec<(&str, u64)> = self
            .sums
            .iter()
            .map(|(name, sum)| (name.as_str(), sum.to_bits()))
            .collect();
        serde_json::json!({"count": self.count, "sums": sums}).to_string()
    }

    /// What [`to_text`](Self::to_text) wrote.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Stored {
            count: u64,
            sums: Vec<(String, u64)>,
        }
        let Stored { count, sums } = serde_json::from_str(text).ok()?;
        let sums = sums
            .into_iter()
            .map(|(name, bits)| (name, f64::from_bits(bits)))
            .collect();
        Some(Self { sums, count })
    }

    fn take(&mut self) -> Measures {
        let count = std::mem::take(&mut self.count) as f64;
        std::mem::take(&mut self.sums)
            .into_iter()
            .map(|(name, sum)| (name, sum / count))
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

    /// Takes the step; the mean losses and the norm of the gradients.
    ///
    /// # Errors
    /// When the norm is NaN or infinite; the model has not changed then.
    pub(crate) fn apply<M: Module>(
        mut self,
        learner: &mut Learner<M>,
        step: u64,
        factor: f64,
    ) -> Result<Measures, TrainError> {
        let norm = self.gradients.norm();
        if !norm.is_finite() {
            return Err(TrainError::NonFinite {
                term: "the norm of the gradients".into(),
                value: norm as f32,
                step,
                kept: String::new(),
            });
        }
        learner.step(self.gradients, norm, factor);
        let mut measures = self.losses.take();
        measures.push(("gradient_norm".into(), norm));
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
        assert_eq!(Window::from_text("{\"count\": 1"), None);
    }
}
