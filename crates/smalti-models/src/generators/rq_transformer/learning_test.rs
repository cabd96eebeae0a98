//! A tiny model learns a handful of code maps by heart, and then writes them.

use std::collections::HashMap;
use std::ops::ControlFlow;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{Device, Gradients, Tensor};

use super::testing::{build, random_codes, tiny};
use super::*;
use crate::generators::sampling::SamplingConfig;

/// Adam (Kingma, Ba 2015) without decay, enough for this test.
#[derive(Default)]
struct Adam {
    moments: HashMap<ParamId, (Tensor<1>, Tensor<1>)>,
    step: i32,
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
        let change = (mean / deviation * 0.01).reshape(shape);
        param.map(|value| Tensor::from_inner(value.inner() - change).require_grad())
    }
}

#[test]
fn a_tiny_model_learns_four_maps_by_heart() {
    let device = Device::flex().autodiff();
    let config = tiny();
    let mut model = build(&config, &device, 1);
    let codes = random_codes(&config, 4, &device, 2);
    let conditions = Conditions::Classes(vec![0, 1, 2, 3]);
    let mut adam = Adam::default();
    let table = model.code_embedding.as_ref().unwrap().tables[0].val();
    let mut losses = Vec::new();
    for step in 1..=120 {
        let input = GeneratorInput {
            codes: codes.clone(),
            conditions: conditions.clone(),
        };
        let output = model.forward(input, None);
        let loss = output.losses(CodeTargets::Hard(codes.clone())).codes;
        losses.push(loss.clone().into_scalar::<f32>());
        adam.step = step;
        model = model.map(&mut Update {
            gradients: loss.backward(),
            adam: &mut adam,
        });
    }
    assert!(
        losses[0] > 2.0 && losses[119] < 0.05,
        "{} to {}",
        losses[0],
        losses[119]
    );
    let after = model.code_embedding.as_ref().unwrap().tables[0].val();
    assert!(
        table.equal(after).all().into_scalar::<bool>(),
        "the codebook is frozen"
    );

    let mut request = GenerationRequest::new(conditions, 1);
    request.sampling = SamplingConfig::greedy();
    let written = model
        .generate(&request, &mut |_| ControlFlow::Continue(()))
        .unwrap();
    assert_eq!(written.values(), codes.values());
}
