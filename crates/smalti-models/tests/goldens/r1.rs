//! StyleGAN2's discriminator and R1 against PyTorch's double backward pass: logits, slopes, the penalty and its
//! gradient for every parameter, and running statistics.
//!
//! Tolerances are the case's: gradients to 1e-4 of the largest of their tensor, slopes of slopes summed in
//! another order.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};
use smalti_models::discriminators::{
    Discriminator, DiscriminatorConfig, PatchConfig, PatchNorm, StyleConfig, r1_penalty,
};
use smalti_nn::Init;
use smalti_nn::state::{ParameterPath, Weights, host_values};

use crate::support::{Golden, close};

fn build(config: &DiscriminatorConfig, golden: &Golden, name: &str) -> Discriminator {
    let device = Device::flex().autodiff();
    let network = config.build(&mut Init::blank(&device)).unwrap();
    let bytes = std::fs::read(golden.folder.join("tensors.safetensors")).unwrap();
    let prefix = format!("{name}.weights.");
    let weights = Weights::from_safetensors(&bytes).unwrap();
    let weights = weights.rename(|name| name.strip_prefix(&prefix).map(str::to_owned));
    weights.unwrap().load_into(network).unwrap()
}

/// Holds the gradient of every parameter against the case's.
struct Compare<'a> {
    golden: &'a Golden,
    name: &'a str,
    gradients: &'a Gradients,
    path: ParameterPath,
    compared: usize,
}

impl ModuleVisitor for Compare<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.name();
        if path.contains("running_") {
            return;
        }
        let (_, want) = self.golden.floats(&format!("{}.grad.{path}", self.name));
        let got = param
            .grad(self.gradients)
            .map_or(vec![0.0; want.len()], host_values);
        let largest = want.iter().fold(0.0f32, |most, w| most.max(w.abs()));
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let error = (got - want).abs();
            assert!(
                error <= 1e-4 * largest,
                "{path}[{i}]: got {got}, expected {want}"
            );
        }
        self.compared += 1;
    }
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }
}

fn penalised_as_published(config: &DiscriminatorConfig, name: &str, parameters: usize) {
    let golden = Golden::open("discriminator_r1");
    let network = build(config, &golden, name);
    let images: Tensor<4> = golden.tensor::<4>(&format!("{name}.images")).autodiff();
    let leaf = images.clone().require_grad();
    let (logits, _) = network.forward_batch(leaf.clone());
    let gradients = logits.clone().sum().backward();
    let [batch, _, rows, columns] = logits.dims();
    let (_, want) = golden.floats(&format!("{name}.logits"));
    let want = Tensor::<1>::from_data(&want[..], &Device::flex());
    close(
        logits.inner(),
        want.reshape([batch, 1, rows, columns]),
        "logits",
    );
    let slope = leaf.grad(&gradients).unwrap();
    close(slope, golden.tensor(&format!("{name}.slope")), "slope");

    let penalty = r1_penalty(&network, images);
    let gradients = penalty.clone().backward();
    let (got, want): (f32, f32) = (
        penalty.into_scalar(),
        golden.number(&format!("{name}.penalty")),
    );
    assert!(
        (got - want).abs() <= 1e-5 * want,
        "penalty: got {got}, expected {want}"
    );
    let mut compare = Compare {
        golden: &golden,
        name,
        gradients: &gradients,
        path: ParameterPath::default(),
        compared: 0,
    };
    network.visit(&mut compare);
    assert_eq!(compare.compared, parameters);
}

#[test]
fn stylegans_discriminator() {
    let config = DiscriminatorConfig::Style(StyleConfig {
        resolution: 16,
        channel_base: 256,
        channel_limit: 16,
        group: 4,
    });
    penalised_as_published(&config, "style", 18);
}

#[test]
fn patchgans_discriminator() {
    let config = DiscriminatorConfig::Patch(PatchConfig {
        channels: 4,
        layers: 2,
        norm: PatchNorm::Batch,
    });
    penalised_as_published(&config, "patch", 10);

    let golden = Golden::open("discriminator_r1");
    let mut network = build(&config, &golden, "patch");
    let (_, statistics) = network.forward_batch(golden.tensor("patch.images"));
    network.absorb(&statistics);
    let running = Weights::of(&network).0.into_iter();
    let mut compared = 0;
    for (name, array) in running.filter(|(name, _)| name.contains("running_")) {
        let (_, want) = golden.floats(&format!("patch.after.{name}"));
        for (got, want) in array.values.iter().zip(&want) {
            let error = (got - want).abs();
            assert!(
                error < 1e-6 * want.abs().max(1.0),
                "{name}: got {got}, expected {want}"
            );
        }
        compared += 1;
    }
    assert_eq!(compared, 4);
}
