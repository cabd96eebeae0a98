//! One entry of a comparison: trained, measured, and its result kept beside its run.
//!
//! The run's folder gets `result.json` when the entry was measured, and `clock.json` with how long which
//! number of steps took: an interrupted run goes on with its time.

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::candidate::Candidate;
use super::result::{EntryResult, Measured, Outcome};
use crate::error::TrainError;
use crate::evaluation::{Measuring, evaluate};
use crate::judges::{Judges, JudgesConfig};
use crate::model_dir::TokenizerModel;
use crate::observer::Observer;
use crate::run::{RunOutcome, TokenizerImages, train_tokenizer};
use crate::tokenizer::TokenizerStage;

const RESULT_FILE: &str = "result.json";
const CLOCK_FILE: &str = "clock.json";

/// An entry and where its run is.
pub(super) struct Trial<'a> {
    pub(super) candidate: &'a Candidate,
    pub(super) folder: PathBuf,
    /// "2 of 8".
    pub(super) place: String,
    /// Who judges, and the networks of them.
    pub(super) judges: (&'a JudgesConfig, &'a Judges),
}

impl Trial<'_> {
    /// The kept result, or that of a run to its end; `None` when the observer asked to stop.
    ///
    /// # Errors
    /// When images or models cannot be read, or files not written. A run that diverges is a result.
    pub(super) fn result(
        &self,
        images: &TokenizerImages,
        device: &Device,
        observer: &mut dyn Observer,
    ) -> Result<Option<EntryResult>, TrainError> {
        let label = self.candidate.entry.label();
        let path = self.folder.join(RESULT_FILE);
        match read_json::<EntryResult>(&path)? {
            Some(result) if self.is_judged_alike(&result) => {
                let folder = self.folder.display();
                let place = &self.place;
                observer.note(&format!("{label} ({place}): already measured, {folder}"));
                return Ok(Some(result));
            }
            Some(EntryResult {
                outcome: Outcome::Measured(earlier),
                ..
            }) => {
                observer.note(&format!(
                    "{label} ({}): already trained, to be judged anew",
                    self.place
                ));
                let result = self.measure(earlier.training_seconds, images, device, observer)?;
                crate::json::write(&path, &result)?;
                return Ok(Some(result));
            }
            _ => {}
        }
        match self.train(images, device, observer) {
            Ok(Some(seconds)) => {
                let result = self.measure(seconds, images, device, observer)?;
                crate::json::write(&path, &result)?;
                Ok(Some(result))
            }
            Ok(None) => Ok(None),
            Err(error @ TrainError::NonFinite { .. }) => {
                observer.warn(&format!("{label} diverged: {error}"));
                let reason = error.to_string();
                Ok(Some(self.result_of(Outcome::Diverged { reason })))
            }
            Err(error) => Err(error),
        }
    }

    fn is_judged_alike(&self, result: &EntryResult) -> bool {
        let measured = result.measured();
        measured.is_some_and(|measured| measured.judges == *self.judges.0)
    }

    /// Trains to the end and says how long that took; `None` when stopped.
    fn train(
        &self,
        images: &TokenizerImages,
        device: &Device,
        observer: &mut dyn Observer,
    ) -> Result<Option<Option<f64>>, TrainError> {
        let run = self.candidate.run();
        let path = self.folder.join(CLOCK_FILE);
        let mut clock: Clock = read_json(&path)?.unwrap_or_default();
        let mut watch = Stopwatch {
            watched: observer,
            label: format!("{}, {}", self.candidate.entry.label(), self.place),
            first: 0,
            started: None,
            seconds: 0.0,
        };
        let (train, eval) = (images.train.clone(), images.eval.clone());
        let stage = TokenizerStage::new(run, train, eval, device)?;
        let outcome = train_tokenizer(&self.candidate.config, stage, &self.folder, &mut watch)?;
        let last = match outcome {
            RunOutcome::Finished(_) => run.training.steps,
            RunOutcome::Stopped { step, .. } => step,
        };
        clock.steps += last - watch.first;
        clock.seconds += watch.seconds;
        crate::json::write(&path, &clock)?;
        Ok(match outcome {
            RunOutcome::Finished(_) => Some(clock.of_steps(run.training.steps)),
            RunOutcome::Stopped { .. } => None,
        })
    }

    fn measure(
        &self,
        training_seconds: Option<f64>,
        images: &TokenizerImages,
        device: &Device,
        observer: &mut dyn Observer,
    ) -> Result<EntryResult, TrainError> {
        let model = TokenizerModel::load(&self.folder, device)?;
        let measuring = Measuring {
            batch_size: self.candidate.run().training.batch_size,
            judges: self.judges.1.clone(),
        };
        let (evaluation, _) = evaluate(&model.network, &images.eval, &measuring, observer)?;
        observer.note(&format!(
            "{} ({}): {:.2} dB",
            self.candidate.entry.label(),
            self.place,
            evaluation.psnr_db
        ));
        Ok(self.result_of(Outcome::Measured(Box::new(Measured {
            fingerprint: model.fingerprint,
            training_seconds,
            judges: self.judges.0.clone(),
            evaluation,
        }))))
    }

    fn result_of(&self, outcome: Outcome) -> EntryResult {
        let Candidate {
            entry,
            folder,
            parameters,
            ..
        } = self.candidate;
        EntryResult {
            name: entry.name.clone(),
            rate: entry.rate,
            folder: folder.into(),
            quantizer: entry.quantizer.clone(),
            parameters: *parameters,
            outcome,
        }
    }
}

/// How long which number of steps took, over all calls that ended in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Clock {
    steps: u64,
    seconds: f64,
}

impl Clock {
    /// The time of a whole run, scaled up where a killed call's time is missing.
    fn of_steps(self, steps: u64) -> Option<f64> {
        (self.steps > 0).then(|| self.seconds * steps as f64 / self.steps as f64)
    }
}

/// Reads a file that an earlier call left. One that is missing or of another version counts as not there: its
/// content is then made anew.
fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, TrainError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TrainError::io("read", path)(error)),
    }
}

/// Passes everything on, says which entry is at work, and times the training.
struct Stopwatch<'a> {
    watched: &'a mut dyn Observer,
    label: String,
    /// Steps that earlier calls took.
    first: u64,
    /// When training began, and whether the step it began at is known.
    started: Option<(Instant, bool)>,
    seconds: f64,
}

impl Observer for Stopwatch<'_> {
    fn begin(&mut self, phase: &str, unit: &'static str, steps: u64) {
        self.watched
            .begin(&format!("{phase}, {}", self.label), unit, steps);
        if unit == "step" {
            self.started = Some((Instant::now(), false));
        }
    }

    fn advance(&mut self, done: u64, note: &str) {
        // The loop says where it begins before its first step.
        if let Some((_, known @ false)) = &mut self.started {
            (self.first, *known) = (done, true);
        }
        self.watched.advance(done, note);
    }

    fn end(&mut self) {
        if let Some((start, _)) = self.started.take() {
            self.seconds += start.elapsed().as_secs_f64();
        }
        self.watched.end();
    }

    fn note(&mut self, text: &str) {
        self.watched.note(text);
    }

    fn warn(&mut self, text: &str) {
        self.watched.warn(&format!("{}: {text}", self.label));
    }

    fn stop_requested(&self) -> bool {
        self.watched.stop_requested()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::Silent;

    #[test]
    fn lost_time_is_made_up_for() {
        assert_eq!(Clock::default().of_steps(10), None);
        let whole = Clock {
            steps: 10,
            seconds: 5.0,
        };
        assert_eq!(whole.of_steps(10), Some(5.0));
        assert_eq!(whole.of_steps(40), Some(20.0));
    }

    #[test]
    fn only_steps_are_timed_from_where_they_begin() {
        let mut silent = Silent;
        let mut watch = Stopwatch {
            watched: &mut silent,
            label: "VQ".into(),
            first: 0,
            started: None,
            seconds: 0.0,
        };
        watch.begin("evaluating", "image", 5);
        watch.advance(5, "");
        watch.end();
        assert_eq!((watch.first, watch.seconds), (0, 0.0));
        watch.begin("training", "step", 20);
        watch.advance(7, "");
        watch.advance(20, "");
        watch.end();
        assert_eq!(watch.first, 7);
        assert!(watch.seconds > 0.0);
    }
}
