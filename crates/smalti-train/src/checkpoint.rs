//! Checkpoints: everything a run needs to go on, in one file that is written atomically.
//!
//! `checkpoints/step-00000400.safetensors` holds arrays under `model.`, `average.`, `first.` and
//! `second.` (the optimiser's moments); its header holds the step, the kind of run, the sums that the
//! journal's next line will be the mean of, and a checksum (BLAKE3) of all arrays. Random state and
//! the position in the data are functions of the step and need no place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::SafeTensors;
use smalti_nn::state::{Array, Weights, host_values};

use crate::average::{AverageConfig, WeightAverage};
use crate::error::TrainError;
use crate::gradients::Gradients;
use crate::optimizer::{Moments, Optimizer, OptimizerConfig};
use crate::trainer::{Progress, Window};

const FORMAT: &str = "smalti checkpoint 1";

/// A model with what trains it.
#[derive(Debug)]
pub struct Learner<M> {
    /// The model; taken out only within a step.
    model: Option<M>,
    optimizer: Optimizer,
    average: Option<(AverageConfig, WeightAverage)>,
}

impl<M: Module> Learner<M> {
    /// A learner before its first step.
    pub fn new(model: M, optimizer: OptimizerConfig, average: Option<AverageConfig>) -> Self {
        Self {
            model: Some(model),
            optimizer: Optimizer::new(optimizer),
            average: average.map(|config| (config, WeightAverage::default())),
        }
    }

    /// The model as it is.
    pub fn model(&self) -> &M {
        self.model
            .as_ref()
            .expect("the model is only taken within a step")
    }

    /// The model, for the codebook's own learning.
    pub fn model_mut(&mut self) -> &mut M {
        self.model
            .as_mut()
            .expect("the model is only taken within a step")
    }

    /// The model to measure and to keep: with averaged weights where there are any, untracked.
    pub fn finished(&self) -> M {
        let model = self.model().clone();
        match &self.average {
            Some((_, average)) => average.applied_to(model).valid(),
            None => model.valid(),
        }
    }

    /// One step along gradients of norm `norm`.
    pub fn step(&mut self, gradients: Gradients, norm: f64, factor: f64) {
        let model = self.model.take().expect("steps do not nest");
        let model = self.optimizer.step(model, gradients, norm, factor);
        if let Some((config, average)) = &mut self.average {
            average.update(&model, *config, self.optimizer.steps);
        }
        self.model = Some(model);
    }

    fn weights(&self) -> Weights {
        let mut all = BTreeMap::new();
        let mut put =
            |prefix: &str, name: &str, array: Array| all.insert(format!("{prefix}.{name}"), array);
        for (name, array) in Weights::of(self.model()).0 {
            put("model", &name, array);
        }
        for (name, moments) in &self.optimizer.moments {
            put("first", name, flat(&moments.first));
            put("second", name, flat(&moments.second));
        }
        for (name, value) in self.average.iter().flat_map(|(_, average)| &average.values) {
            put("average", name, flat(value));
        }
        Weights(all)
    }

    /// Writes the checkpoint of a step and removes all but the newest `keep`.
    ///
    /// # Errors
    /// When it cannot be written; older checkpoints are then still there.
    pub fn save(
        &self,
        folder: &Path,
        kind: &str,
        progress: &Progress,
        keep: usize,
    ) -> Result<PathBuf, TrainError> {
        std::fs::create_dir_all(folder).map_err(TrainError::io("create", folder))?;
        let (weights, step) = (self.weights(), progress.step);
        let metadata = BTreeMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("kind".to_owned(), kind.to_owned()),
            ("step".to_owned(), step.to_string()),
            ("window".to_owned(), progress.window.to_text()),
            ("checksum".to_owned(), checksum(&weights)),
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

    /// Takes over the checkpoint at `path` and returns how far its run had come.
    ///
    /// # Errors
    /// When the file is damaged, of another kind of run or of another model.
    pub fn restore(
        &mut self,
        path: &Path,
        kind: &str,
        device: &Device,
    ) -> Result<Progress, TrainError> {
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
        let mut parts: BTreeMap<String, BTreeMap<String, Array>> = BTreeMap::new();
        for (name, array) in weights.0 {
            let (part, name) = name.split_once('.').unwrap_or(("", &name));
            parts
                .entry(part.to_owned())
                .or_default()
                .insert(name.to_owned(), array);
        }
        let mut part = |name: &str| parts.remove(name).unwrap_or_default();
        let model = self
            .model
            .take()
            .expect("restoring is not done within a step");
        let loaded = Weights(part("model"))
            .load_into(model)
            .map_err(TrainError::weights(path))?;
        self.model = Some(loaded);
        let device = device.clone().inner();
        let mut second = part("second");
        self.optimizer.steps = header.progress.step;
        self.optimizer.moments.clear();
        for (name, first) in part("first") {
            let second = second
                .remove(&name)
                .ok_or_else(|| TrainError::layout(path, format!("second.{name} is missing")))?;
            let moments = Moments {
                first: tensor(first, &device),
                second: tensor(second, &device),
            };
            self.optimizer.moments.insert(name, moments);
        }
        if let Some((_, average)) = &mut self.average {
            average.values = part("average")
                .into_iter()
                .map(|(name, array)| (name, tensor(array, &device)))
                .collect();
        }
        Ok(header.progress)
    }
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

fn flat(tensor: &Tensor<1>) -> Array {
    let values = host_values(tensor.clone());
    Array {
        shape: vec![values.len()],
        values,
    }
}

fn tensor(array: Array, device: &Device) -> Tensor<1> {
    let length = array.values.len();
    Tensor::from_data(TensorData::new(array.values, [length]), device)
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
