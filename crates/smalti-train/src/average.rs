//! An exponential moving average of the weights: `average ← decay·average + (1 − decay)·weight`.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use smalti_nn::state::ParameterPath;

/// How slowly the average follows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AverageConfig {
    /// In (0, 1). While few steps were taken the effective decay is lower,
    /// `min(decay, (1 + steps) / (10 + steps))`, so that the random start is forgotten.
    pub decay: f64,
}

/// The average of every trained parameter, flat.
#[derive(Debug, Default)]
pub struct WeightAverage {
    pub(crate) values: BTreeMap<String, Tensor<1>>,
}

impl WeightAverage {
    /// Moves the average toward the weights of `module` after `steps` steps.
    pub fn update(&mut self, module: &impl Module, config: AverageConfig, steps: u64) {
        let steps = steps as f64;
        let decay = config.decay.min((1.0 + steps) / (10.0 + steps));
        module.visit(&mut Follow {
            average: self,
            decay,
            path: ParameterPath::default(),
        });
    }

    /// `module` with the averages in the place of its trained parameters. Everything else,
    /// codebooks that learn outside the optimiser among it, stays.
    pub fn applied_to<M: Module>(&self, module: M) -> M {
        module.map(&mut Replace {
            average: self,
            path: ParameterPath::default(),
        })
    }
}

struct Follow<'a> {
    average: &'a mut WeightAverage,
    decay: f64,
    path: ParameterPath,
}

impl ModuleVisitor for Follow<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        if !value.is_require_grad() {
            return;
        }
        let name = self.path.name();
        let elements = value.dims().iter().product::<usize>();
        let value = value.inner().reshape([elements]);
        let average = match self.average.values.remove(&name) {
            Some(average) => average.mul_scalar(self.decay) + value.mul_scalar(1.0 - self.decay),
            None => value,
        };
        self.average.values.insert(name, average);
    }

    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }
}

struct Replace<'a> {
    average: &'a WeightAverage,
    path: ParameterPath,
}

impl ModuleMapper for Replace<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(average) = self.average.values.get(&self.path.name()) else {
            return param;
        };
        param.map(|old| {
            let value = average.clone().reshape(old.dims());
            if old.is_autodiff() {
                Tensor::from_inner(value).require_grad()
            } else {
                value
            }
        })
    }

    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use smalti_nn::state::Weights;
    use smalti_nn::{Conv2d, Conv2dConfig, Init};

    fn layer(seed: u64) -> Conv2d {
        Conv2dConfig::same(1, 1, 1).init(&mut Init::new(&Device::flex().autodiff(), seed))
    }

    #[test]
    fn follows_the_weights_by_the_formula() {
        let config = AverageConfig { decay: 0.75 };
        let mut average = WeightAverage::default();
        average.update(&layer(1), config, 1000);
        average.update(&layer(2), config, 1001);
        let (one, two) = (Weights::of(&layer(1)), Weights::of(&layer(2)));
        let result = Weights::of(&average.applied_to(layer(3)));
        for (name, array) in &result.0 {
            let expected = 0.75 * one.0[name].values[0] + 0.25 * two.0[name].values[0];
            assert!((array.values[0] - expected).abs() < 1e-6);
        }
    }
}
