//! Gradients by the name of their parameter.
//!
//! Kept apart from burn's graph so that they can be summed over the parts of a large batch, measured,
//! clipped and handed to the optimiser.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Gradients as Graph, Tensor, TensorData};
use rayon::prelude::*;
use smalti_kernels::adam::sum_of_squares;
use smalti_nn::state::{ParameterPath, host_values, on_cpu};

/// Flat gradients, `[elements]` each, on the device of their parameters.
#[derive(Debug, Default)]
pub struct Gradients(BTreeMap<String, Tensor<1>>);

impl Gradients {
    /// The gradients of all parameters of `module` that the backward pass reached.
    pub fn of(module: &impl Module, graph: &Graph) -> Self {
        let mut collector = Collector {
            graph,
            path: ParameterPath::default(),
            found: BTreeMap::new(),
        };
        module.visit(&mut collector);
        Self(collector.found)
    }

    /// Adds the gradients of another part of the batch.
    pub fn add(&mut self, other: Self) {
        let pair = |(name, grad)| (self.0.remove(&name), name, grad);
        let pairs: Vec<_> = other.0.into_iter().map(pair).collect();
        let sums = pairs.into_par_iter().map(|(sum, name, grad)| match sum {
            Some(sum) => (name, sum + grad),
            None => (name, grad),
        });
        self.0.extend(sums.collect::<Vec<_>>());
    }

    /// The same, `factor` times as long.
    pub fn scaled(self, factor: f64) -> Self {
        if factor == 1.0 {
            return self;
        }
        let scaled = self.0.into_iter();
        Self(scaled.map(|(n, g)| (n, g.mul_scalar(factor))).collect())
    }

    /// The Euclidean norm of the gradient of one parameter, 0 where there is none.
    pub fn norm_of(&self, name: &str) -> f64 {
        let grad = self.0.get(name).cloned();
        grad.map_or(0.0, |grad| square_sum(grad).0).sqrt()
    }

    /// Of which parameters there is a gradient.
    #[cfg(test)]
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// The gradient of one parameter.
    pub fn remove(&mut self, name: &str) -> Option<Tensor<1>> {
        self.0.remove(name)
    }

    /// The Euclidean norm over all parameters, summed in `f64` in the order of names.
    pub fn norm(&mut self) -> f64 {
        // Taken out and put back: numbers that have another owner are copied to be read.
        let mut total = 0.0;
        for (name, grad) in std::mem::take(&mut self.0) {
            let (sum, grad) = square_sum(grad);
            total += sum;
            self.0.insert(name, grad);
        }
        total.sqrt()
    }
}

/// Σ g², and the gradient.
fn square_sum(grad: Tensor<1>) -> (f64, Tensor<1>) {
    if !on_cpu(&grad) {
        let sum = grad.clone().square().sum().into_scalar::<f32>();
        return (f64::from(sum), grad);
    }
    let (device, shape) = (grad.device(), grad.dims());
    let values = host_values(grad);
    let sum = sum_of_squares(&values);
    (
        sum,
        Tensor::from_data(TensorData::new(values, shape), &device),
    )
}

struct Collector<'a> {
    graph: &'a Graph,
    path: ParameterPath,
    found: BTreeMap<String, Tensor<1>>,
}

impl ModuleVisitor for Collector<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = param.val().grad(self.graph) {
            let elements = grad.dims().iter().product::<usize>();
            self.found
                .insert(self.path.name(), grad.reshape([elements]));
        }
    }

    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }
}
