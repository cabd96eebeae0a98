//! Adam and AdamW with named state and groups for weight decay.
//!
//! One step of every parameter that has a gradient, in PyTorch's formula and order of operations (see
//! [`smalti_kernels::adam`]). The state is kept by parameter name, so that it can be saved and resumed
//! exactly; parameters that get no gradient (a codebook that learns by moving averages) are left
//! alone.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Shape, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use smalti_kernels::adam::{Adam, AdamState, WeightDecay};
use smalti_nn::state::{ParameterPath, host_values, on_cpu};

use crate::gradients::Gradients;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// Weight decay is added to the gradient.
    Adam,
    /// Weight decay pulls the weights beside the gradient.
    AdamW,
}

/// Which parameters weight decay pulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecayScope {
    /// All.
    All,
    /// Matrices and convolution kernels: no biases, no norms, no embeddings.
    Matrices,
    /// These and embeddings: whatever has two axes or more (LlamaGen and FAR).
    MatricesAndEmbeddings,
}

/// An optimiser and how its gradients are clipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Which of the two.
    #[serde(default = "adamw")]
    pub kind: OptimizerKind,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// β₁ and β₂.
    #[serde(default = "usual_betas")]
    pub betas: [f64; 2],
    /// Added to the denominator.
    #[serde(default = "usual_epsilon")]
    pub epsilon: f64,
    /// How hard weights are pulled to zero.
    #[serde(default)]
    pub weight_decay: f64,
    /// Which parameters that pulls.
    #[serde(default = "matrices")]
    pub decay_scope: DecayScope,
    /// Gradients of a larger Euclidean norm are scaled down to this one.
    #[serde(default)]
    pub clip_norm: Option<f64>,
}

fn adamw() -> OptimizerKind {
    OptimizerKind::AdamW
}

fn matrices() -> DecayScope {
    DecayScope::Matrices
}

fn usual_betas() -> [f64; 2] {
    [0.9, 0.95]
}

fn usual_epsilon() -> f64 {
    1e-8
}

impl OptimizerConfig {
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, problem: String| {
            if !holds {
                problems.push(format!("optimizer: {problem}"));
            }
        };
        require(
            self.learning_rate > 0.0 && self.learning_rate.is_finite(),
            format!("learning_rate must be positive, got {}", self.learning_rate),
        );
        require(
            self.betas.iter().all(|b| (0.0..1.0).contains(b)),
            format!("betas must lie in [0, 1), got {:?}", self.betas),
        );
        require(
            self.epsilon > 0.0,
            format!("epsilon must be positive, got {}", self.epsilon),
        );
        require(
            self.weight_decay >= 0.0,
            format!(
                "weight_decay must not be negative, got {}",
                self.weight_decay
            ),
        );
        require(
            self.clip_norm.is_none_or(|norm| norm > 0.0),
            "clip_norm must be positive".into(),
        );
        problems
    }
}

/// First and second moment of one parameter's gradient, flat.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Running mean of the gradient.
    pub first: Tensor<1>,
    /// Running mean of its square.
    pub second: Tensor<1>,
}

/// The optimiser's state.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    /// Steps taken.
    pub(crate) steps: u64,
    pub(crate) moments: BTreeMap<String, Moments>,
}

impl Optimizer {
    /// A fresh optimiser.
    pub fn new(config: OptimizerConfig) -> Self {
        Self {
            config,
            steps: 0,
            moments: BTreeMap::new(),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &OptimizerConfig {
        &self.config
    }

    /// One step of `module` along `gradients`, with the learning rate times `factor`. `norm` is the
    /// gradients' norm.
    pub fn step<M: Module>(
        &mut self,
        module: M,
        gradients: Gradients,
        norm: f64,
        factor: f64,
    ) -> M {
        self.steps += 1;
        let scale = match self.config.clip_norm {
            // PyTorch's clip_grad_norm_ divides by the norm plus 1e-6.
            Some(limit) => (limit / (norm + 1e-6)).min(1.0),
            None => 1.0,
        };
        let mut stepper = Stepper {
            optimizer: self,
            gradients,
            factor,
            scale,
            path: ParameterPath::default(),
        };
        module.map(&mut stepper)
    }

    /// The constants of this step for a parameter.
    fn rule(&self, name: &str, dimensions: usize, factor: f64, scale: f64) -> Adam {
        let decays = match self.config.decay_scope {
            DecayScope::All => true,
            DecayScope::Matrices => dimensions >= 2 && !name.contains("emb"),
            DecayScope::MatricesAndEmbeddings => dimensions >= 2,
        };
        let amount = if decays {
            self.config.weight_decay as f32
        } else {
            0.0
        };
        Adam {
            learning_rate: self.config.learning_rate * factor,
            beta1: self.config.betas[0],
            beta2: self.config.betas[1],
            eps: self.config.epsilon,
            weight_decay: match self.config.kind {
                OptimizerKind::Adam => WeightDecay::L2(amount),
                OptimizerKind::AdamW => WeightDecay::Decoupled(amount),
            },
            grad_scale: scale as f32,
        }
    }
}

struct Stepper<'a> {
    optimizer: &'a mut Optimizer,
    gradients: Gradients,
    factor: f64,
    scale: f64,
    path: ParameterPath,
}

impl ModuleMapper for Stepper<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.name();
        let Some(grad) = self.gradients.remove(&name) else {
            return param;
        };
        let rule = self.optimizer.rule(&name, D, self.factor, self.scale);
        let moments = self
            .optimizer
            .moments
            .remove(&name)
            .unwrap_or_else(|| Moments {
                first: grad.zeros_like(),
                second: grad.zeros_like(),
            });
        let steps = self.optimizer.steps;
        let mut kept = None;
        let param = param.map(|tensor| {
            let shape = tensor.dims();
            let values = tensor.inner();
            let (values, moments) = if on_cpu(&grad) {
                step_on_cpu(rule, steps, values, moments, grad)
            } else {
                step_on_device(rule, steps, values, moments, grad)
            };
            kept = Some(moments);
            Tensor::from_inner(values.reshape(shape)).require_grad()
        });
        self.optimizer
            .moments
            .insert(name, kept.expect("the parameter was just mapped"));
        param
    }

    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }
}

/// One fused pass over the four arrays.
fn step_on_cpu<const D: usize>(
    rule: Adam,
    steps: u64,
    values: Tensor<D>,
    moments: Moments,
    grad: Tensor<1>,
) -> (Tensor<D>, Moments) {
    let (shape, device) = (values.dims(), values.device());
    let (mut parameter, grad) = (host_values(values), host_values(grad));
    let (mut first, mut second) = (host_values(moments.first), host_values(moments.second));
    rule.step(
        steps,
        AdamState {
            parameter: &mut parameter,
            first: &mut first,
            second: &mut second,
        },
        &grad,
    );
    let flat = |values: Vec<f32>| {
        let length = values.len();
        Tensor::from_data(TensorData::new(values, [length]), &device)
    };
    let moments = Moments {
        first: flat(first),
        second: flat(second),
    };
    (
        Tensor::from_data(TensorData::new(parameter, Shape::from(shape)), &device),
        moments,
    )
}

/// The same formula with the device's own operations.
fn step_on_device<const D: usize>(
    rule: Adam,
    steps: u64,
    values: Tensor<D>,
    moments: Moments,
    grad: Tensor<1>,
) -> (Tensor<D>, Moments) {
    let shape = values.dims();
    let elements = shape.iter().product::<usize>();
    let mut parameter = values.reshape([elements]);
    let mut grad = grad.mul_scalar(rule.grad_scale);
    match rule.weight_decay {
        WeightDecay::L2(amount) => grad = grad + parameter.clone().mul_scalar(amount),
        WeightDecay::Decoupled(amount) => {
            parameter = parameter.mul_scalar(1.0 - rule.learning_rate * f64::from(amount))
        }
    }
    let first = moments.first.clone() + (grad.clone() - moments.first).mul_scalar(1.0 - rule.beta1);
    let second = moments.second.mul_scalar(rule.beta2) + grad.square().mul_scalar(1.0 - rule.beta2);
    let (one, two) = (
        1.0 - rule.beta1.powf(steps as f64),
        1.0 - rule.beta2.powf(steps as f64),
    );
    let denominator = second
        .clone()
        .sqrt()
        .div_scalar(two.sqrt())
        .add_scalar(rule.eps);
    let parameter = parameter - (first.clone() / denominator).mul_scalar(rule.learning_rate / one);
    (parameter.reshape(shape), Moments { first, second })
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::ParamId;
    use burn::tensor::Device;

    #[derive(Module, Debug)]
    struct Point {
        weight: Param<Tensor<2>>,
        bias: Param<Tensor<1>>,
    }

    fn config(kind: OptimizerKind) -> OptimizerConfig {
        OptimizerConfig {
            kind,
            learning_rate: 0.1,
            betas: [0.9, 0.99],
            epsilon: 1e-8,
            weight_decay: 0.5,
            decay_scope: DecayScope::Matrices,
            clip_norm: None,
        }
    }

    fn point() -> Point {
        let device = Device::flex().autodiff();
        let param = |t: Tensor<2>| Param::initialized(ParamId::new(), t.require_grad());
        Point {
            weight: param(Tensor::from_data([[1.0, -2.0], [3.0, 0.5]], &device)),
            bias: Param::initialized(
                ParamId::new(),
                Tensor::<1>::from_data([4.0, -1.0], &device).require_grad(),
            ),
        }
    }

    fn gradients(point: &Point) -> Gradients {
        let loss = point.weight.val().square().sum() + point.bias.val().powi_scalar(4).sum();
        Gradients::of(point, &loss.backward())
    }

    /// The formula of Loshchilov and Hutter in f64, for one number with the gradient 2w or 4b³.
    fn expected(mut value: f64, grad: fn(f64) -> f64, decay: f64, coupled: bool) -> f64 {
        let (mut m, mut v) = (0.0, 0.0);
        for t in 1..=3 {
            let mut g = grad(value);
            if coupled {
                g += decay * value;
            } else {
                value *= 1.0 - 0.1 * decay;
            }
            m = 0.9 * m + 0.1 * g;
            v = 0.99 * v + 0.01 * g * g;
            let (m, v) = (m / (1.0 - 0.9f64.powi(t)), v / (1.0 - 0.99f64.powi(t)));
            value -= 0.1 * m / (v.sqrt() + 1e-8);
        }
        value
    }

    #[test]
    fn three_steps_follow_the_formula_and_decay_spares_biases() {
        for (kind, coupled) in [(OptimizerKind::Adam, true), (OptimizerKind::AdamW, false)] {
            let mut point = point();
            let mut optimizer = Optimizer::new(config(kind));
            for _ in 0..3 {
                let mut gradients = gradients(&point);
                let norm = gradients.norm();
                point = optimizer.step(point, gradients, norm, 1.0);
            }
            for (got, start) in host_values(point.weight.val())
                .into_iter()
                .zip([1.0, -2.0, 3.0, 0.5])
            {
                assert!((f64::from(got) - expected(start, |w| 2.0 * w, 0.5, coupled)).abs() < 1e-5);
            }
            for (got, start) in host_values(point.bias.val()).into_iter().zip([4.0, -1.0]) {
                assert!(
                    (f64::from(got) - expected(start, |b| 4.0 * b.powi(3), 0.0, coupled)).abs()
                        < 1e-5
                );
            }
        }
    }

    #[test]
    fn the_device_form_takes_the_same_step() {
        let device = Device::flex();
        let tensor = |values: [f32; 3]| Tensor::<1>::from_data(values, &device);
        let optimizer = Optimizer::new(config(OptimizerKind::AdamW));
        let rule = optimizer.rule("weight", 2, 0.7, 0.3);
        let moments = || Moments {
            first: tensor([0.1, -0.2, 0.0]),
            second: tensor([0.3, 0.01, 0.0]),
        };
        let (cpu, _) = step_on_cpu(
            rule,
            5,
            tensor([1.0, 2.0, -3.0]),
            moments(),
            tensor([0.5, -1.0, 2.0]),
        );
        let (other, _) = step_on_device(
            rule,
            5,
            tensor([1.0, 2.0, -3.0]),
            moments(),
            tensor([0.5, -1.0, 2.0]),
        );
        for (a, b) in host_values(cpu).into_iter().zip(host_values(other)) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    }

    #[test]
    fn each_scope_decays_what_it_names() {
        use DecayScope::{All, Matrices, MatricesAndEmbeddings};
        let amount = |decay_scope, name, dimensions| {
            let optimizer = Optimizer::new(OptimizerConfig {
                decay_scope,
                ..config(OptimizerKind::AdamW)
            });
            let WeightDecay::Decoupled(amount) =
                optimizer.rule(name, dimensions, 1.0, 1.0).weight_decay
            else {
                panic!("AdamW decays beside the gradient")
            };
            amount
        };
        let parameters = [
            ("layers.0.feed_forward.w1.weight", 2),
            ("tok_embeddings.0.weight", 2),
            ("norm.weight", 1),
        ];
        for (scope, expected) in [
            (All, [0.5, 0.5, 0.5]),
            (Matrices, [0.5, 0.0, 0.0]),
            (MatricesAndEmbeddings, [0.5, 0.5, 0.0]),
        ] {
            let amounts = parameters.map(|(name, axes)| amount(scope, name, axes));
            assert_eq!(amounts, expected, "{scope:?}");
        }
    }

    #[test]
    fn clipping_scales_the_gradient_to_its_limit() {
        let point = point();
        let norm = gradients(&point).norm();
        let squares = 4.0 * (1.0 + 4.0 + 9.0 + 0.25) + 16.0 * (4f64.powi(6) + 1.0);
        assert!((norm - squares.sqrt()).abs() < 1e-3 * norm);
    }
}
