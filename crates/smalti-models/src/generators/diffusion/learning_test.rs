//! A tiny model learns a handful of code maps by heart, and then writes them.

use std::ops::ControlFlow;

use burn::tensor::Device;
use smalti_nn::{Init, Noise};

use super::testing::{random_codes, tiny};
use crate::generators::conditions::Conditions;
use crate::generators::output::GeneratorInput;
use crate::generators::request::GenerationRequest;
use crate::generators::sampling::PerDepth;
use crate::testing::Adam;

#[test]
fn a_tiny_model_learns_four_maps_by_heart() {
    let device = Device::flex().autodiff();
    let config = tiny(2);
    let mut model = config.build(&mut Init::new(&device, 1)).unwrap();
    let input = GeneratorInput {
        codes: random_codes(&config.layout(), 4, 2),
        conditions: Conditions::Classes(vec![0, 1, 2, 3]),
    };
    let mut adam = Adam::new(0.01);
    let measured = |model: &super::Diffusion| {
        let each = model.measure(&input, &mut Noise::from_seed(1)).mean();
        each.into_scalar::<f32>()
    };
    let before = measured(&model);
    for step in 0..250 {
        let lesson = model.learn(&input, &mut Noise::for_step(5, step));
        model = adam.step(model, lesson.total);
        model.note(&lesson.times);
    }
    let after = measured(&model);
    assert!(before > 2.0 && after < 0.2, "{before} to {after}");
    let mut request = GenerationRequest::new(input.conditions, 1);
    request.sampling.top_k = Some(PerDepth::Same(1));
    let written = model
        .generate(&request, &mut |_| ControlFlow::Continue(()))
        .unwrap();
    let same = written.values().into_iter().zip(input.codes.values());
    let same = same.filter(|(a, b)| a == b).count();
    assert!(same >= 46, "{same} of 48");
}
