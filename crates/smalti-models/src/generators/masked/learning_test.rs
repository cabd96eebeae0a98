//! A tiny model learns a handful of code maps by heart, and then writes them.

use std::ops::ControlFlow;

use burn::tensor::Device;
use smalti_nn::{Init, Noise};

use super::testing::tiny;
use crate::generators::class_condition::ClassCondition;
use crate::generators::conditions::Conditions;
use crate::generators::diffusion::testing::random_codes;
use crate::generators::output::GeneratorInput;
use crate::generators::request::GenerationRequest;
use crate::generators::sampling::SamplingConfig;
use crate::testing::Adam;

#[test]
fn a_tiny_model_learns_four_maps_by_heart() {
    let device = Device::flex().autodiff();
    let mut config = tiny(2);
    config.dropout = 0.0;
    config.condition = ClassCondition::Class {
        classes: 4,
        dropout: 0.0,
    };
    let mut model = config.build(&mut Init::new(&device, 1)).unwrap();
    let input = GeneratorInput {
        codes: random_codes(&config.layout(), 4, 2),
        conditions: Conditions::Classes(vec![0, 1, 2, 3]),
    };
    let mut adam = Adam::new(0.01);
    let measured = |model: &super::Masked| {
        let each = model.measure(&input, &mut Noise::from_seed(1)).mean();
        each.into_scalar::<f32>()
    };
    let before = measured(&model);
    for step in 0..300 {
        let lesson = model.learn(&input, &mut Noise::for_step(5, step));
        model = adam.step(model, lesson.total);
    }
    let after = measured(&model);
    assert!(before > 2.0 && after < 0.15, "{before} to {after}");
    let mut request = GenerationRequest::new(input.conditions, 1);
    request.sampling = SamplingConfig::greedy();
    let written = model
        .generate(&request, &mut |_| ControlFlow::Continue(()))
        .unwrap();
    assert_eq!(written.values(), input.codes.values());
}
