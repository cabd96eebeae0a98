//! A tiny model learns a handful of code maps by heart, and then writes them.

use std::ops::ControlFlow;

use burn::tensor::Device;
use smalti_nn::Init;

use super::testing::{random_codes, tiny, tiny_deep};
use crate::generators::conditions::Conditions;
use crate::generators::loss::CodeTargets;
use crate::generators::output::GeneratorInput;
use crate::generators::request::GenerationRequest;
use crate::generators::sampling::SamplingConfig;
use crate::testing::Adam;

#[test]
fn a_tiny_model_learns_four_maps_by_heart() {
    let device = Device::flex().autodiff();
    for config in [tiny(), tiny_deep()] {
        let mut model = config.build(&mut Init::new(&device, 1)).unwrap();
        let codes = random_codes(&config, 4, 2);
        let conditions = Conditions::Classes(vec![0, 1, 2, 3]);
        let mut adam = Adam::new(0.01);
        let mut losses = Vec::new();
        for _ in 0..150 {
            let input = GeneratorInput {
                codes: codes.clone(),
                conditions: conditions.clone(),
            };
            let output = model.forward(input, None);
            let loss = output.losses(CodeTargets::Hard(codes.clone())).codes;
            losses.push(loss.clone().into_scalar::<f32>());
            model = adam.step(model, loss);
        }
        let last = losses[losses.len() - 1];
        assert!(losses[0] > 2.0 && last < 0.05, "{} to {last}", losses[0]);
        let mut request = GenerationRequest::new(conditions, 1);
        request.sampling = SamplingConfig::greedy();
        let written = model
            .generate(&request, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        assert_eq!(written.values(), codes.values());
    }
}
