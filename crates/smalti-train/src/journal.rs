//! The journal of a run: one JSON object a line in `metrics.jsonl`.
//!
//! `{"step": 20, "phase": "train", "reconstruction": 0.041, …}`. When a run is resumed, lines after the
//! checkpoint's step are dropped first, so the journal reads as if nothing had happened.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::TrainError;

/// Numbers with their names.
pub type Measures = Vec<(String, f64)>;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Steps taken.
    pub step: u64,
    /// `train` or `eval`.
    pub phase: String,
    /// The numbers.
    #[serde(flatten)]
    pub values: serde_json::Map<String, Value>,
}

impl Entry {
    /// A number of this line.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.values.get(name).and_then(Value::as_f64)
    }
}

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens the journal of a run that has taken `steps` steps, dropping what came after them.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(path: &Path, steps: u64) -> Result<Self, TrainError> {
        let mut text = String::new();
        if path.exists() && steps > 0 {
            // Lines are kept as they stand: parsing and writing a number again may change its last digit.
            for (line, _) in lines(path)?
                .into_iter()
                .filter(|(_, entry)| entry.step <= steps)
            {
                text.push_str(&line);
                text.push('\n');
            }
        }
        smalti_data::atomic::write(path, text.as_bytes())?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .map_err(TrainError::io("open", path))?;
        Ok(Self {
            path: path.into(),
            file,
        })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, step: u64, phase: &str, measures: &Measures) -> Result<(), TrainError> {
        let values = measures
            .iter()
            .map(|(name, value)| (name.clone(), serde_json::json!(value)))
            .collect();
        let entry = Entry {
            step,
            phase: phase.into(),
            values,
        };
        let mut line = serde_json::to_vec(&entry).expect("an entry serialises");
        line.push(b'\n');
        self.file
            .write_all(&line)
            .map_err(TrainError::io("write", &self.path))
    }
}

/// All lines of a journal; a last line that was cut off by a kill is left out.
///
/// # Errors
/// When the file cannot be read, or another line is malformed.
pub fn read(path: &Path) -> Result<Vec<Entry>, TrainError> {
    Ok(lines(path)?.into_iter().map(|(_, entry)| entry).collect())
}

/// [`read`] with the text of every line.
fn lines(path: &Path) -> Result<Vec<(String, Entry)>, TrainError> {
    let file = File::open(path).map_err(TrainError::io("read", path))?;
    let lines: Vec<String> = BufReader::new(file)
        .lines()
        .collect::<Result<_, _>>()
        .map_err(TrainError::io("read", path))?;
    let mut entries = Vec::with_capacity(lines.len());
    let count = lines.len();
    for (number, line) in lines.into_iter().enumerate() {
        match serde_json::from_str(&line) {
            Ok(entry) => entries.push((line, entry)),
            Err(_) if number + 1 == count => {}
            Err(error) => {
                return Err(TrainError::layout(
                    path,
                    format!("line {}: {error}", number + 1),
                ));
            }
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resuming_drops_later_lines_and_a_torn_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut journal = Journal::open(&path, 0).unwrap();
        for step in [10, 20, 30] {
            journal
                .write(step, "train", &vec![("loss".into(), step as f64)])
                .unwrap();
        }
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"step\": 4")
            .unwrap();
        Journal::open(&path, 20).unwrap();
        let entries = read(&path).unwrap();
        assert_eq!(entries.iter().map(|e| e.step).collect::<Vec<_>>(), [10, 20]);
        assert_eq!(entries[1].number("loss"), Some(20.0));
    }

    #[test]
    fn lines_that_stay_are_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        // More digits than a number has, and an order of names that this program would not choose.
        let line = "{\"phase\":\"train\",\"step\":10,\"loss\":0.1000000000000000055}\n";
        std::fs::write(&path, line).unwrap();
        Journal::open(&path, 10).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), line);
    }
}
