//! Small Gaussian autoencoders learn eight images by heart while the constraint holds their divergence
//! near the bits of a code, and then show the images from codes. A small factorized one learns them and
//! features of theirs.

use burn::tensor::{Device, Tensor, TensorData};
use smalti_nn::state::host_values;
use smalti_nn::{Init, Noise};
use smalti_quantize::constraint::{Constraint, TargetConfig};
use smalti_quantize::gaussian::GaussianConfig;
use smalti_quantize::{DistanceEntropies, FactorizedConfig, NamedLoss, QuantizerConfig};

use super::*;
use crate::testing::Adam;

const SIDE: usize = 16;
/// Bits of a code.
const BITS: f64 = 8.0;
/// The published weight of the divergence is 0.1 beside errors summed over an image's numbers.
const DIVERGENCE_WEIGHT: f64 = 0.1 / (3 * SIDE * SIDE) as f64;

/// Eight images of a coloured disc on a coloured ramp.
fn images(device: &Device) -> Tensor<4> {
    let mut values = Vec::new();
    for image in 0..8 {
        let (x0, y0) = (
            4.0 + (image % 3) as f32 * 4.0,
            4.0 + (image % 4) as f32 * 3.0,
        );
        for channel in 0..3 {
            let inside = if (image >> channel) & 1 == 0 {
                0.9
            } else {
                -0.9
            };
            for (y, x) in (0..SIDE).flat_map(|y| (0..SIDE).map(move |x| (y as f32, x as f32))) {
                let ramp = (x + y) / SIDE as f32 - 1.0;
                let disc = (x - x0).powi(2) + (y - y0).powi(2) < 10.0;
                values.push(if disc { inside } else { ramp * 0.7 });
            }
        }
    }
    Tensor::from_data(TensorData::new(values, [8, 3, SIDE, SIDE]), device)
}

fn config(network: NetworkConfig) -> AutoencoderConfig {
    // A few hundred steps instead of many thousands: the weights have to move faster than the
    // published 1 % a step.
    let target = TargetConfig {
        factor: 1.03,
        ..TargetConfig::default()
    };
    let quantizer = GaussianConfig {
        constraint: Constraint::Target(target),
        ..GaussianConfig::new(1 << BITS as usize, 4, 4)
    };
    AutoencoderConfig {
        projections: false,
        clamp: false,
        network,
        quantizer: QuantizerConfig::Gaussian(quantizer),
        representation: Vec::new(),
    }
}

fn learns_by_heart(network: NetworkConfig, rate: f64, steps: u64) {
    let device = Device::flex().autodiff();
    let config = config(network);
    let mut model = config.build(&mut Init::new(&device, 1)).unwrap();
    let images = images(&device);
    let mut adam = Adam::new(rate);
    let (mut error, mut bits) = (Vec::new(), Vec::new());
    for step in 0..steps {
        let (result, report) = model
            .reconstruct_and_update(images.clone(), &mut Noise::for_step(1, step))
            .unwrap();
        let difference = (result.images - images.clone()).square().mean();
        let (name, divergence) = result.losses[0].clone();
        assert_eq!(name, "divergence");
        error.push(host_values(difference.clone().inner())[0]);
        bits.push(report.divergence.unwrap().mean_bits);
        model = adam.step(model, difference + divergence * DIVERGENCE_WEIGHT);
    }
    let codes = model.encode(images.clone()).unwrap();
    let shown = model.decode(&codes).unwrap();
    let of_codes = host_values((shown.inner() - images.inner()).square().mean())[0];
    let last = |values: &[f64]| values[values.len() - 10..].iter().sum::<f64>() / 10.0;
    let told = format!(
        "errors {} to {}, of codes {of_codes}; bits {} to {}",
        error[0],
        error[error.len() - 1],
        bits[0],
        last(&bits)
    );
    assert!(error[0] > 0.15 && of_codes < 0.02, "{told}");
    assert!((last(&bits) - BITS).abs() < 1.0, "{told}");
}

#[test]
fn a_convolutional_gaussian_autoencoder_learns_eight_images() {
    let network = ConvolutionalConfig {
        resolution: SIDE,
        channels: 16,
        multipliers: vec![1, 2, 2],
        blocks: 1,
        attention_resolutions: vec![],
        decoder_attention_resolutions: None,
        middle_attention: false,
        z_channels: 4,
        norm_groups: 4,
        dropout: 0.0,
        branches: None,
    };
    learns_by_heart(NetworkConfig::Convolutional(network), 4e-3, 250);
}

#[test]
fn a_gaussian_transformer_learns_eight_images() {
    let network = VitConfig {
        resolution: SIDE,
        patch_size: 4,
        width: 32,
        layers: 2,
        heads: 4,
        mlp_ratio: 4.0,
        output_width: 64,
        z_channels: 4,
        dropout: 0.0,
    };
    learns_by_heart(NetworkConfig::Vit(network), 4e-3, 400);
}

fn factorized() -> AutoencoderConfig {
    let branches = BranchesConfig {
        names: vec!["vis".into(), "sem".into()],
        adapter: Some(AdapterConfig {
            layers: 1,
            heads: 2,
        }),
    };
    let network = ConvolutionalConfig {
        resolution: SIDE,
        channels: 16,
        multipliers: vec![1, 2, 2],
        blocks: 1,
        attention_resolutions: vec![],
        decoder_attention_resolutions: None,
        middle_attention: false,
        z_channels: 16,
        norm_groups: 4,
        dropout: 0.0,
        branches: Some(branches),
    };
    let quantizer = FactorizedConfig {
        entropies: Some(DistanceEntropies::default()),
        ..FactorizedConfig::new(64, 4, 2)
    };
    let head = PredictionHeadConfig {
        branch: "sem".into(),
        width: 12,
        layers: 1,
        heads: 2,
    };
    AutoencoderConfig {
        projections: true,
        clamp: false,
        network: NetworkConfig::Convolutional(network),
        quantizer: QuantizerConfig::Factorized(quantizer),
        representation: vec![head],
    }
}

/// The published weights.
fn weighed(losses: &[NamedLoss]) -> Tensor<1> {
    let weight = |name: &str| match name {
        "codebook" => 1.0,
        "commitment" => 0.25,
        "sample_entropy" | "unused_entropy" => 0.03,
        "disentanglement" => 0.1,
        other => unreachable!("an unknown loss {other}"),
    };
    let terms = losses
        .iter()
        .map(|(name, loss)| loss.clone() * weight(name));
    terms.reduce(|a, b| a + b).expect("there are losses")
}

#[test]
fn a_factorized_autoencoder_learns_eight_images_and_their_features() {
    let device = Device::flex().autodiff();
    let mut model = factorized().build(&mut Init::new(&device, 1)).unwrap();
    let images = images(&device);
    let features: Tensor<2> = Noise::from_seed(9).standard_normal([8, 12], &Device::flex());
    let mut adam = Adam::new(4e-3);
    let (mut errors, mut representations) = (Vec::new(), Vec::new());
    for step in 0..200 {
        let (result, _) = model
            .reconstruct_and_update(images.clone(), &mut Noise::for_step(1, step))
            .unwrap();
        let error = (result.images - images.clone()).square().mean();
        let representation = info_nce(result.predictions[0].clone(), features.clone(), None);
        errors.push(host_values(error.clone().inner())[0]);
        representations.push(host_values(representation.clone().inner())[0]);
        let total = error + representation * 0.1 + weighed(&result.losses);
        model = adam.step(model, total);
    }
    let codes = model.encode(images.clone()).unwrap();
    let shown = model.decode(&codes).unwrap();
    let of_codes = host_values((shown.inner() - images.inner()).square().mean())[0];
    let ends = |values: &[f32]| (values[0], values[values.len() - 1]);
    let told = format!(
        "errors {:?}, of codes {of_codes}; representation {:?}",
        ends(&errors),
        ends(&representations)
    );
    // Chance is ln 8 = 2.08, orthogonal features would allow ln(1 + 7/e) = 1.27.
    assert!(errors[0] > 0.15 && of_codes < 0.05, "{told}");
    assert!(
        representations[0] > 1.9 && ends(&representations).1 < 1.6,
        "{told}"
    );
}
