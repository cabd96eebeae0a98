//! Checkpoints: everything a run needs to go on, in one file that is written atomically.
//!
//! `checkpoints/step-00000400.safetensors` holds the arrays of the stage (see [`Learner`]; those of an
//! adversary are under `adversary.`); its header holds the step, the kind of run, the sums that the
//! journal's next line will be the mean of, and a checksum (BLAKE3) of all arrays. Random state and
//! the position in the data are functions of the step and need no place.
//!
//! [`Learner`]: crate::learner::Learner

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use smalti_nn::state::Weights;

use crate::error::TrainError;
use crate::trainer::{Progress, Window};

const FORMAT: &str = "smalti checkpoint 1";

/// Writes the checkpoint of a step and removes all but the newest `keep`.
///
/// # Errors
/// When it cannot be written; older checkpoints are then still there.
pub fn write(
    folder: &Path,
    kind: &str,
    progress: &Progress,
    weights: &Weights,
    keep: usize,
) -> Result<PathBuf, TrainError> {
    std::fs::create_dir_all(folder).map_err(TrainError::io("create", folder))?;
    let step = progress.step;
    let metadata = BTreeMap::from([
        ("format".to_owned(), FORMAT.to_owned()),
        ("kind".to_owned(), kind.to_owned()),
        ("step".to_owned(), step.to_string()),
        ("window".to_owned(), progress.window.to_text()),
        ("checksum".to_owned(), checksum(weights)),
    ]);
    let path = folder.join(format!("step-{step:08}.safetensors"));
    smalti_data::atomic::write(&path, &weights.to_safetensors(&metadata))?;
    let mut all = list(folder)?;
    while all.len() > keep {
        let (_, oldest) = all.remove(0);
        std::fs::remove_file(&oldest).map_err(TrainError::io("remove", &oldest))?;
    }
    Ok(path)
}

/// Reads a checkpoint of a run of this kind: how far the run had come, and its arrays.
///
/// # Errors
/// When the file is damaged or of another kind of run.
pub fn read(path: &Path, kind: &str) -> Result<(Progress, Weights), TrainError> {
    let bytes = std::fs::read(path).map_err(TrainError::io("read", path))?;
    let damaged = |problem: String| TrainError::Checkpoint {
        path: path.into(),
        problem,
    };
    let header = Header::of(&bytes, kind).map_err(damaged)?;
    let weights = Weights::from_safetensors(&bytes).map_err(damaged)?;
    if checksum(&weights) != header.checksum {
        return Err(damaged(
            "its arrays do not have the checksum of its header".into(),
        ));
    }
    Ok((header.progress, weights))
}

/// Adds `part` to `whole`, its names behind `prefix` and a dot.
pub(crate) fn put(whole: &mut Weights, prefix: &str, part: Weights) {
    let named = part.0.into_iter();
    let named = named.map(|(name, array)| (format!("{prefix}.{name}"), array));
    whole.0.extend(named);
}

/// Takes out of `whole` what [`put`] added behind `prefix`; nothing where there is nothing.
pub(crate) fn take(whole: &mut Weights, prefix: &str) -> Weights {
    let inside = |name: &str| Some(name.strip_prefix(prefix)?.strip_prefix('.')?.to_owned());
    let (part, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut whole.0)
        .into_iter()
        .partition(|(name, _)| inside(name).is_some());
    whole.0 = rest.into_iter().collect();
    let part = part.into_iter();
    let part = part.filter_map(|(name, array)| Some((inside(&name)?, array)));
    Weights(part.collect())
}

/// Of names, shapes and values.
fn checksum(weights: &Weights) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = Vec::new();
    for (name, array) in &weights.0 {
        hasher.update(format!("{name}{:?}", array.shape).as_bytes());
        buffer.clear();
        buffer.extend(array.values.iter().flat_map(|value| value.to_le_bytes()));
        hasher.update(&buffer);
    }
    hasher.finalize().to_hex().to_string()
}

/// What the header of a checkpoint says.
struct Header {
    progress: Progress,
    checksum: String,
}

impl Header {
    fn of(bytes: &[u8], kind: &str) -> Result<Self, String> {
        let (_, header) =
            SafeTensors::read_metadata(bytes).map_err(|e| format!("not a checkpoint: {e}"))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        if metadata.get("format").map(String::as_str) != Some(FORMAT) {
            return Err(format!("not a checkpoint of this version ({FORMAT})"));
        }
        match metadata.get("kind") {
            Some(found) if found == kind => {}
            found => {
                return Err(format!(
                    "a checkpoint of a {kind} is needed, this is one of a {}",
                    found.map_or("?", |f| f)
                ));
            }
        }
        let entry = |name: &str| {
            metadata
                .get(name)
                .ok_or_else(|| format!("the entry {name:?} of its header is missing"))
        };
        let step = entry("step")?
            .parse()
            .map_err(|_| "the step in its header is no number".to_owned())?;
        let window = Window::from_text(entry("window")?)
            .ok_or("the entry \"window\" of its header is malformed")?;
        Ok(Self {
            progress: Progress { step, window },
            checksum: entry("checksum")?.clone(),
        })
    }
}

/// Kind of run and step of the checkpoint at `path`; `None` when the file is something else.
///
/// # Errors
/// When the file cannot be read.
pub fn describe(path: &Path) -> Result<Option<(String, u64)>, TrainError> {
    let bytes = std::fs::read(path).map_err(TrainError::io("read", path))?;
    let found = ["tokenizer", "generator"].into_iter().find_map(|kind| {
        Some((
            kind.to_owned(),
            Header::of(&bytes, kind).ok()?.progress.step,
        ))
    });
    Ok(found)
}

/// The checkpoints of a folder, oldest first.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>, TrainError> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(TrainError::io("read", folder))? {
        let path = entry.map_err(TrainError::io("read", folder))?.path();
        let step = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| {
                name.strip_prefix("step-")?
                    .strip_suffix(".safetensors")?
                    .parse::<u64>()
                    .ok()
            });
        found.extend(step.map(|step| (step, path)));
    }
    found.sort();
    Ok(found)
}
