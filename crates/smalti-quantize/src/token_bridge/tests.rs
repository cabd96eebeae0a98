use super::*;
use crate::posterior::BITS_PER_NAT;
use crate::testing::{Golden, assert_near, normal};
use crate::{FixedFactorConfig, TargetConfig};
use burn::tensor::Device;
use proptest::prelude::*;
use smalti_nn::state::Weights;

fn built(config: &TokenBridgeConfig, device: &Device) -> TokenBridgeQuantizer {
    config.build(&mut Init::new(device, 1)).unwrap()
}

/// Moments around given means.
fn around(means: Tensor<4>, log_variance: f64) -> Tensor<4> {
    let logs = means.zeros_like() + log_variance;
    Tensor::cat(vec![means, logs], 1)
}

/// The published quantizer on latents that were scaled before. Codes must agree where the nearest
/// centre is nearer than the next by more than 1e-4.
#[test]
fn centres_codes_and_values_are_the_published_codes() {
    let golden = Golden::open("quant_tokenbridge");
    for bits in [4, 6] {
        let named = |what: &str| format!("b{bits}.{what}");
        let quantizer = built(&TokenBridgeConfig::new(bits, 6), &Device::flex());
        let centres = golden.floats(&named("reconstruction_values"));
        assert_near(quantizer.centres(), &centres, [1e-6, 1e-5], "centres");
        let x: Tensor<3> = golden.tensor(&named("x"), &Device::flex());
        let means = x.swap_dims(1, 2).unsqueeze_dim::<4>(3);
        let codes = quantizer.encode(around(means, 0.0)).unwrap();
        let got = codes.tensor().permute([0, 2, 3, 1]);
        let got = smalti_nn::nearest::id_values(got);
        let (margins, expected) = (
            golden.floats(&named("margin")),
            golden.ids(&named("indices")),
        );
        let mut safe = 0;
        for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
            if margins[i] > 1e-4 {
                assert_eq!(got, expected, "{bits} bits, code {i}");
                safe += 1;
            }
        }
        assert!(safe * 20 > expected.len() * 19);
        let recorded = TensorData::new(
            expected.iter().map(|id| *id as i32).collect::<Vec<_>>(),
            [2, 16, 1, 6],
        );
        let recorded = Tensor::<4, burn::tensor::Int>::from_data(recorded, &Device::flex());
        let value = quantizer
            .decode(&Codes::new(recorded.permute([0, 3, 1, 2])))
            .unwrap();
        let value = host_values(value.permute([0, 2, 3, 1]));
        let expected = golden.floats(&named("dequant"));
        assert_near(&value, &expected, [2e-5, 1e-4], "dequant");
    }
}

#[test]
fn a_scale_belongs_to_both_directions() {
    let plain = built(&TokenBridgeConfig::new(5, 3), &Device::flex());
    let scaled = TokenBridgeConfig {
        scale: 0.2325,
        ..TokenBridgeConfig::new(5, 3)
    };
    let scaled = built(&scaled, &Device::flex());
    let means = normal(2, [2, 3, 4, 4], &Device::flex());
    let codes = plain.encode(around(means.clone(), 0.0)).unwrap();
    let raw = around(means.div_scalar(0.2325), 0.0);
    assert_eq!(scaled.encode(raw).unwrap().values(), codes.values());
    let expected = host_values(plain.decode(&codes).unwrap().div_scalar(0.2325));
    let got = host_values(scaled.decode(&codes).unwrap());
    assert_near(&got, &expected, [0.0, 1e-6], "decoded");
}

#[test]
fn midpoints_are_those_of_the_comparison() {
    let config = TokenBridgeConfig {
        centres: Centres::Midpoints,
        range: Range::Plain,
        ..TokenBridgeConfig::new(2, 1)
    };
    let quantizer = built(&config, &Device::flex());
    let expected = [-3.0, -0.337_24, 0.337_24, 3.0];
    assert_near(quantizer.centres(), &expected, [1e-5, 0.0], "centres");
    // Nothing is mapped or clamped: 1.7 lies nearer to 3 than to 0.337.
    let x = [-9.0, -1.5, -0.1, 0.0, 0.4, 1.7, 1e30];
    let means = Tensor::<1>::from_floats(x, &Device::flex()).reshape([1, 1, 1, 7]);
    let codes = quantizer.encode(around(means, 0.0)).unwrap();
    assert_eq!(codes.values(), [0, 1, 1, 1, 2, 3, 3]);
    let value = host_values(quantizer.decode(&codes).unwrap());
    assert_eq!((value[0], value[6]), (-3.0, 3.0));
    let coarse = built(&TokenBridgeConfig { bits: 1, ..config }, &Device::flex());
    assert_eq!(coarse.centres(), [-3.0, 3.0]);
}

#[test]
fn centres_ascend_and_are_finite_for_every_number_of_bits() {
    for centres in [Centres::ConditionalMeans, Centres::Midpoints] {
        for bits in 1..=centres.most_bits() {
            let values = centres.values(bits);
            assert_eq!(values.len(), 1 << bits);
            assert!(values.iter().all(|v| v.abs() <= 3.0));
            assert!(values.is_sorted_by(|a, b| a < b), "{centres:?} {bits}");
        }
    }
}

#[test]
fn validation_lists_every_problem() {
    let config = TokenBridgeConfig {
        scale: 0.0,
        constraint: Constraint::FixedFactor(FixedFactorConfig {
            factor: 0.5,
            ..FixedFactorConfig::default()
        }),
        ..TokenBridgeConfig::new(10, 0)
    };
    let message = config.validate().unwrap_err().to_string();
    for part in [
        "bits must lie between 1 and 9 with these centres, got 10",
        "channels must be at least 1",
        "scale must lie between 1e-6 and 1e6, got 0",
        "factor must be finite and above 1, got 0.5",
    ] {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
    let midpoints = TokenBridgeConfig {
        centres: Centres::Midpoints,
        ..TokenBridgeConfig::new(10, 1)
    };
    midpoints.validate().unwrap();
}

#[test]
fn every_channel_is_held_near_its_bits() {
    let device = Device::flex().autodiff();
    let config = TokenBridgeConfig {
        scale: 0.5,
        constraint: Constraint::Target(TargetConfig {
            factor: 2.0,
            ..TargetConfig::default()
        }),
        ..TokenBridgeConfig::new(4, 3)
    };
    let mut quantizer = built(&config, &device);
    assert_eq!(quantizer.constraint().targets(), [4.0; 3]);
    let latents = around(normal(2, [2, 3, 2, 2], &device), -1.0).require_grad();
    let (quantized, report) = quantizer
        .quantize_and_update(latents.clone(), &mut Noise::from_seed(4))
        .unwrap();
    let report_of = report.divergence.unwrap();
    assert_eq!((report_of.groups, report.codes), (24, 16));
    assert!((1..=16).contains(&report.chosen) && report_of.weight == 0.5);
    // ½(x²/4 + σ²/4 − 1 − ln σ² + ln 4) nats.
    let x = normal(2, [2, 3, 2, 2], &Device::flex());
    let variance = (-1.0f64).exp();
    let rest = variance / 4.0 - 1.0 + 1.0 + 4f64.ln();
    let nats = (x.clone().square() / 4.0 + rest) * 0.5;
    let expected = f64::from(nats.sum().into_scalar::<f32>()) * BITS_PER_NAT / 2.0;
    let loss = quantized.losses[0].1.clone();
    let got = f64::from(loss.clone().into_scalar::<f32>());
    assert!((got - expected).abs() < 1e-4 * expected, "{got} {expected}");
    // Its slope along a mean: 1.4426·x/4, over two images.
    let gradient = latents.grad(&loss.backward()).unwrap().narrow(1, 0, 3);
    let slope = host_values(x.clone().mul_scalar(BITS_PER_NAT / 8.0));
    assert_near(&host_values(gradient), &slope, [1e-6, 1e-4], "gradient");
    // The value is a sample, not the code's.
    let sample =
        x + Noise::from_seed(4).standard_normal([2, 3, 2, 2], &Device::flex()) * variance.sqrt();
    let got = host_values(quantized.quantized.inner());
    assert_near(&got, &host_values(sample), [1e-5, 1e-5], "sample");
    assert!(Weights::of(&quantizer).0.contains_key("constraint.weights"));
}

#[test]
fn wrong_input_is_refused() {
    let mut quantizer = built(&TokenBridgeConfig::new(4, 2), &Device::flex());
    let mut noise = Noise::from_seed(1);
    let mut latents = around(normal(2, [1, 2, 2, 2], &Device::flex()), 0.0);
    assert_eq!(
        quantizer
            .encode(latents.clone().narrow(1, 0, 3))
            .unwrap_err()
            .to_string(),
        "latents need 4 channels, got 3"
    );
    latents = latents.mul_scalar(f32::NAN);
    assert_eq!(
        quantizer.encode(latents.clone()).err(),
        Some(QuantizeError::NonFinite)
    );
    assert_eq!(
        quantizer.quantize_and_update(latents, &mut noise).err(),
        Some(QuantizeError::NonFinite)
    );
    let empty = Tensor::zeros([0, 4, 2, 2], &Device::flex());
    assert_eq!(
        quantizer.quantize_and_update(empty, &mut noise).err(),
        Some(QuantizeError::Empty)
    );
    let codes = Codes::from_values(&[3, 16], [1, 2, 1, 1], &Device::flex());
    assert!(matches!(
        quantizer.decode(&codes),
        Err(QuantizeError::OutOfRange { depth: 1, .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn the_code_is_the_nearest_centre_and_survives_a_round_trip(
        bits in 1u32..10, scale in 0.01f32..4.0, plain: bool, seed: u64, spread in 0.1f64..30.0,
    ) {
        let config = TokenBridgeConfig {
            scale,
            range: if plain { Range::Plain } else { Range::Official },
            ..TokenBridgeConfig::new(bits, 2)
        };
        let quantizer = built(&config, &Device::flex());
        let means = normal(seed, [3, 2, 2, 2], &Device::flex()) * spread;
        let codes = quantizer.encode(around(means.clone(), 0.0)).unwrap();
        for (mean, id) in host_values(means.clone()).into_iter().zip(codes.values()) {
            let y = match config.range {
                Range::Plain => mean * scale,
                Range::Official => (mean * scale).clamp(-5.0, 5.0) * 0.6,
            };
            let gap = |centre: &f32| (f64::from(*centre) - f64::from(y)).abs();
            let centres = quantizer.centres();
            let first = (0..centres.len()).min_by(|a, b| gap(&centres[*a]).total_cmp(&gap(&centres[*b])));
            prop_assert_eq!(first, Some(id as usize));
        }
        let value = quantizer.decode(&codes).unwrap();
        prop_assert_eq!(quantizer.encode(around(value, 0.0)).unwrap().values(), codes.values());
        let parts: Vec<u32> = (0..3)
            .flat_map(|i| {
                let part = means.clone().narrow(0, i, 1);
                quantizer.encode(around(part, 0.0)).unwrap().values()
            })
            .collect();
        prop_assert_eq!(codes.values(), parts);
    }
}
