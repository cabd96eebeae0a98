use super::*;
use crate::config::PerDepth;
use crate::testing::{Golden, assert_near, normal};
use crate::{Constraint, FixedFactorConfig, TargetConfig};
use smalti_nn::state::{Weights, host_values};

mod golden;
mod gradients;
mod properties;
mod training;
mod validation;

fn built(config: &GaussianConfig, device: &Device) -> GaussianQuantizer {
    config
        .build(&mut Init::new(device, 1))
        .expect("a valid configuration")
}

/// Moments with means of about one and variances from 0.02 to 1.
fn moments(seed: u64, [batch, channels, height, width]: [usize; 4], device: &Device) -> Tensor<4> {
    let means = normal(seed, [batch, channels, height, width], device);
    let logs = normal(seed + 1, [batch, channels, height, width], device);
    Tensor::cat(vec![means, logs - 2.0], 1)
}

fn quantize(quantizer: &GaussianQuantizer, latents: Tensor<4>) -> Quantized {
    quantizer
        .quantize(latents, &mut Noise::from_seed(1))
        .expect("finite latents")
}

fn divergence(quantized: &Quantized) -> Tensor<1> {
    let [(name, loss)] = &quantized.losses[..] else {
        panic!("one loss");
    };
    assert_eq!(*name, "divergence");
    loss.clone()
}
