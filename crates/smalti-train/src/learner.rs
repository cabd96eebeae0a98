//! A model with what trains it: optimiser and moving average, stepped together and kept together.
//!
//! Its arrays in a checkpoint are named `model.…`, `average.…`, `first.…` and `second.…` (the
//! optimiser's moments).

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use smalti_nn::state::{Array, Weights, host_values};

use crate::average::{AverageConfig, WeightAverage};
use crate::checkpoint::{put, take};
use crate::error::TrainError;
use crate::gradients::Gradients;
use crate::optimizer::{Moments, Optimizer, OptimizerConfig};

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

    /// Everything that a checkpoint keeps of it.
    pub fn weights(&self) -> Weights {
        let flat_parts = |parts: Vec<(&String, &Tensor<1>)>| {
            let arrays = parts.into_iter();
            Weights(arrays.map(|(name, t)| (name.clone(), flat(t))).collect())
        };
        let moments = self.optimizer.moments.iter();
        let (first, second) = moments
            .map(|(name, moments)| ((name, &moments.first), (name, &moments.second)))
            .unzip();
        let average = self.average.iter().flat_map(|(_, average)| &average.values);
        let mut all = Weights::default();
        put(&mut all, "model", Weights::of(self.model()));
        put(&mut all, "first", flat_parts(first));
        put(&mut all, "second", flat_parts(second));
        put(&mut all, "average", flat_parts(average.collect()));
        all
    }

    /// Takes over what [`weights`](Self::weights) gave after `steps` steps; `path` is the file they are
    /// from.
    ///
    /// # Errors
    /// When they are of another model.
    pub fn restore(
        &mut self,
        mut weights: Weights,
        steps: u64,
        path: &Path,
        device: &Device,
    ) -> Result<(), TrainError> {
        let mut part = |name: &str| take(&mut weights, name);
        let model = self
            .model
            .take()
            .expect("restoring is not done within a step");
        let loaded = part("model")
            .load_into(model)
            .map_err(TrainError::weights(path))?;
        self.model = Some(loaded);
        let device = device.clone().inner();
        let mut second = part("second").0;
        self.optimizer.steps = steps;
        self.optimizer.moments.clear();
        for (name, first) in part("first").0 {
            let second = second
                .remove(&name)
                .ok_or_else(|| TrainError::layout(path, format!("second.{name} is missing")))?;
            let moments = Moments {
                first: tensor(first, &device),
                second: tensor(second, &device),
            };
            self.optimizer.moments.insert(name, moments);
        }
        let averages = part("average").0;
        if let Some((_, average)) = &mut self.average {
            average.values = averages
                .into_iter()
                .map(|(name, array)| (name, tensor(array, &device)))
                .collect();
        }
        match weights.0.pop_first() {
            None => Ok(()),
            Some((name, _)) => Err(TrainError::Checkpoint {
                path: path.into(),
                problem: format!("it holds {name}, for which this run has no place"),
            }),
        }
    }
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
