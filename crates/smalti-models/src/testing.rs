//! What tests of learning need: an optimiser.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{Gradients, Tensor};

/// Adam (Kingma, Ba 2015) without decay, β = (0.9, 0.99).
pub(crate) struct Adam {
    rate: f64,
    moments: HashMap<ParamId, (Tensor<1>, Tensor<1>)>,
    step: i32,
}

impl Adam {
    pub(crate) fn new(rate: f64) -> Self {
        Self {
            rate,
            moments: HashMap::new(),
            step: 0,
        }
    }

    /// `model` after a step down the slope of `loss`.
    pub(crate) fn step<M: Module>(&mut self, model: M, loss: Tensor<1>) -> M {
        self.step += 1;
        model.map(&mut Update {
            gradients: loss.backward(),
            adam: self,
        })
    }
}

struct Update<'a> {
    adam: &'a mut Adam,
    gradients: Gradients,
}

impl ModuleMapper for Update<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = param.grad(&self.gradients) else {
            return param;
        };
        let shape = gradient.dims();
        let size = shape.iter().product::<usize>();
        let gradient = gradient.reshape([size]);
        let zeros = || (gradient.zeros_like(), gradient.zeros_like());
        let (first, second) = self.adam.moments.remove(&param.id).unwrap_or_else(zeros);
        let first = first * 0.9 + gradient.clone() * 0.1;
        let second = second * 0.99 + gradient.clone().square() * 0.01;
        let step = self.adam.step;
        let mean = first.clone() / (1.0 - 0.9f64.powi(step));
        let deviation = (second.clone() / (1.0 - 0.99f64.powi(step))).sqrt() + 1e-8;
        self.adam.moments.insert(param.id, (first, second));
        let change = (mean / deviation * self.adam.rate).reshape(shape);
        param.map(|value| Tensor::from_inner(value.inner() - change).require_grad())
    }
}
