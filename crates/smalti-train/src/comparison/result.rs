//! What came out of a comparison: `results.json`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use smalti_quantize::QuantizerConfig;

use super::config::label;
use crate::error::TrainError;
use crate::evaluation::Evaluation;
use crate::judges::JudgesConfig;

/// The format that is written.
const FORMAT: &str = "smalti comparison 1";

/// All results of a comparison, in the order of its entries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// Of the file.
    pub format: String,
    /// Images measured on.
    pub images: usize,
    /// One for each entry.
    pub entries: Vec<EntryResult>,
}

/// What came out of one entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EntryResult {
    /// The method.
    pub name: String,
    /// The stated rate in bits per pixel.
    pub rate: f64,
    /// The folder of its run, within the comparison's.
    pub folder: PathBuf,
    /// The quantizer.
    pub quantizer: QuantizerConfig,
    /// Numbers that gradients train; tables that learn by moving averages are not among them.
    pub parameters: usize,
    /// How it went.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How an entry went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Trained and measured.
    Measured(Box<Measured>),
    /// A loss or a gradient became NaN or infinite.
    Diverged {
        /// Which, and where.
        reason: String,
    },
}

/// The numbers of a trained entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Of the model.
    pub fingerprint: String,
    /// Seconds that its steps took, measurements between them included. Where a part of the run was
    /// killed and its time lost, scaled up from the rest.
    pub training_seconds: Option<f64>,
    /// Who judged.
    #[serde(default, skip_serializing_if = "JudgesConfig::is_empty")]
    pub judges: JudgesConfig,
    /// Measures over all images.
    pub evaluation: Evaluation,
}

impl EntryResult {
    /// Name and rate.
    pub fn label(&self) -> String {
        label(&self.name, self.rate)
    }

    /// The numbers, where there are any.
    pub fn measured(&self) -> Option<&Measured> {
        match &self.outcome {
            Outcome::Measured(measured) => Some(measured),
            Outcome::Diverged { .. } => None,
        }
    }
}

impl Results {
    pub(super) fn new(images: usize) -> Self {
        Self {
            format: FORMAT.into(),
            images,
            entries: Vec::new(),
        }
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), TrainError> {
        crate::json::write(path, self)
    }

    /// Which of a measure's numbers there are: whether any entry has it.
    pub fn have<T>(&self, measure: impl Fn(&Evaluation) -> Option<T>) -> bool {
        let mut measured = self.entries.iter().filter_map(EntryResult::measured);
        measured.any(|m| measure(&m.evaluation).is_some())
    }

    /// The stated rates, lowest first.
    pub fn rates(&self) -> Vec<f64> {
        let mut rates: Vec<f64> = self.entries.iter().map(|entry| entry.rate).collect();
        rates.sort_by(f64::total_cmp);
        rates.dedup();
        rates
    }

    /// The entries at a stated rate.
    pub fn at(&self, rate: f64) -> impl Iterator<Item = &EntryResult> {
        self.entries.iter().filter(move |entry| entry.rate == rate)
    }

    /// The methods, in the order of their first entries.
    pub fn methods(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for entry in &self.entries {
            if !names.contains(&entry.name.as_str()) {
                names.push(&entry.name);
            }
        }
        names
    }
}
