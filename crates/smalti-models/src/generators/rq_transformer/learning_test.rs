//! A tiny model learns a handful of code maps by heart, and then writes them.

use std::ops::ControlFlow;

use burn::tensor::Device;

use super::testing::{build, random_codes, tiny};
use crate::generators::conditions::Conditions;
use crate::generators::loss::CodeTargets;
use crate::generators::output::GeneratorInput;
use crate::generators::request::GenerationRequest;
use crate::generators::sampling::SamplingConfig;
use crate::testing::Adam;

#[test]
fn a_tiny_model_learns_four_maps_by_heart() {
    let device = Device::flex().autodiff();
    let config = tiny();
    let mut model = build(&config, &device, 1);
    let codes = random_codes(&config, 4, &device, 2);
    let conditions = Conditions::Classes(vec![0, 1, 2, 3]);
    let mut adam = Adam::new(0.01);
    let table = model.code_embedding.as_ref().unwrap().tables[0].val();
    let mut losses = Vec::new();
    for _ in 0..120 {
        let input = GeneratorInput {
            codes: codes.clone(),
            conditions: conditions.clone(),
        };
        let output = model.forward(input, None);
        let loss = output.losses(CodeTargets::Hard(codes.clone())).codes;
        losses.push(loss.clone().into_scalar::<f32>());
        model = adam.step(model, loss);
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
