use super::*;
use crate::Logarithm;
use crate::testing::{
    Golden, assert_golden, assert_quantizer, assert_scalar, assert_slopes, loss, map, normal,
    quantized, weighted,
};
use burn::tensor::{DType, Device};
use smalti_nn::state::host_values;

fn built(config: &LfqConfig) -> LfqQuantizer {
    config.build().unwrap()
}

/// w₂ of two variants: what their `entropy_aux_loss` is recorded with.
const RECORDED_W2: f64 = 0.8;

/// The smallest recorded margin is 5e-5, and the sign of a stored `f32` is exact: all codes must be
/// equal.
struct Case {
    config: LfqConfig,
    latents: &'static str,
    variant: &'static str,
    /// Names of the recorded losses: commitment, sample entropy, codebook entropy.
    losses: [&'static str; 3],
    /// Weights of what the recorded gradient is of.
    weights: [f64; 3],
}

fn check_golden(case: &Case) {
    let golden = Golden::open("quant_lfq");
    let named = |name: &str| format!("{}.{name}", case.variant);
    let device = Device::flex().autodiff();
    let latents = golden.tensor::<4>(case.latents, &device).require_grad();
    let quantizer = built(&case.config);
    let seen = quantized(&quantizer, latents.clone());
    assert_golden(
        &host_values(seen.quantized.clone()),
        &golden.floats(&named("quantized")),
        &named("quantized"),
    );
    // Recorded with the sub-codebook as the fastest axis.
    let ids = seen.codes.tensor().permute([0, 2, 3, 1]);
    assert_eq!(
        smalti_nn::nearest::id_values(ids),
        golden.ids(&named("indices"))
    );
    assert_eq!(
        quantizer.encode(latents.clone()).unwrap().values(),
        seen.codes.values()
    );

    let [commitment, sample, codebook] = case.losses.map(|name| golden.number(&named(name)));
    let most = case.config.bits as f32 * std::f32::consts::LN_2;
    assert_scalar(loss(&seen, "commitment"), commitment, "commitment");
    assert_scalar(loss(&seen, "sample_entropy"), sample, "sample entropy");
    assert_scalar(
        loss(&seen, "unused_entropy"),
        most - codebook,
        "codebook entropy",
    );

    let [commitment, sample, unused] = case.weights;
    let weights = [
        ("commitment", commitment),
        ("sample_entropy", sample),
        ("unused_entropy", unused),
    ];
    let total = weighted(&seen, &weights);
    let gradient = latents.grad(&total.backward()).expect("tracked");
    assert_golden(
        &host_values(gradient),
        &golden.floats(&named("grad_x")),
        &named("grad_x"),
    );
}

#[test]
fn published_codes_and_losses_of_open_magvit2() {
    check_golden(&Case {
        config: LfqConfig {
            first_channel: Significance::Lowest,
            ..LfqConfig::new(8, 1)
        },
        latents: "x",
        variant: "magvit2",
        losses: ["commitment", "per_sample_entropy", "codebook_entropy"],
        weights: [0.0, 1.0, RECORDED_W2],
    });
}

#[test]
fn published_codes_and_losses_of_gaussian_quant_s_lfq() {
    check_golden(&Case {
        config: LfqConfig::new(8, 1),
        latents: "x",
        variant: "pit",
        losses: ["commit_loss", "per_sample_entropy", "codebook_entropy"],
        weights: [1.0, 1.0, RECORDED_W2],
    });
}

#[test]
fn published_codes_and_losses_of_the_common_library() {
    check_golden(&Case {
        config: LfqConfig {
            scale: 0.5,
            inverse_temperature: 30.0,
            pooled: false,
            logarithms: Logarithms::both(Logarithm::Clamped { epsilon: 1e-5 }),
            ..LfqConfig::new(6, 2)
        },
        latents: "x_lucid",
        variant: "lucid",
        losses: ["commitment", "per_sample_entropy", "codebook_entropy"],
        // entropy_loss_weight 0.1, diversity_gamma 0.9, commitment_loss_weight 0.25
        weights: [0.25, 0.1, 0.09],
    });
    // loss = w₁·H_sample − w₂·H_codebook + w₃·commitment, with ln K taken back.
    let golden = Golden::open("quant_lfq");
    let number = |name: &str| golden.number(&format!("lucid.{name}"));
    let total = 0.1 * number("per_sample_entropy") - 0.09 * number("codebook_entropy")
        + 0.25 * number("commitment");
    assert!((total - number("aux_loss")).abs() < 1e-6);
    let decoded = built(&LfqConfig {
        scale: 0.5,
        ..LfqConfig::new(6, 2)
    });
    let latents = golden.tensor::<4>("x_lucid", &Device::flex());
    let codes = decoded.encode(latents).unwrap();
    let values = host_values(decoded.decode(&codes).unwrap());
    assert_eq!(values, golden.floats("lucid.codes_from_indices"));
}

#[test]
fn the_recorded_entropy_loss_is_the_weighted_difference() {
    let golden = Golden::open("quant_lfq");
    for variant in ["magvit2", "pit"] {
        let number = |name: &str| f64::from(golden.number(&format!("{variant}.{name}")));
        let total = number("per_sample_entropy") - RECORDED_W2 * number("codebook_entropy");
        assert!((total - number("entropy_aux_loss")).abs() < 1e-5);
    }
}

#[test]
fn it_does_what_every_quantizer_does() {
    for (bits, depth) in [(4, 1), (3, 2), (1, 5)] {
        assert_quantizer(&mut built(&LfqConfig::new(bits, depth)), bits * depth);
    }
}

#[test]
fn zero_is_a_clear_bit() {
    let quantizer = built(&LfqConfig::new(4, 1));
    let latents = map(
        vec![0.0, -0.0, 1e-38, -1e-38],
        [1, 4, 1, 1],
        &Device::flex(),
    );
    assert_eq!(
        quantizer.encode(latents.clone()).unwrap().values(),
        [0b0010]
    );
    let value = quantized(&quantizer, latents).quantized;
    assert_eq!(host_values(value), [-1.0, -1.0, 1.0, -1.0]);
}

#[test]
fn every_loss_has_its_slope() {
    let shape = [1, 4, 2, 2];
    for pooled in [false, true] {
        let quantizer = built(&LfqConfig {
            inverse_temperature: 2.0,
            scale: 0.7,
            pooled,
            ..LfqConfig::new(2, 2)
        });
        for name in ["commitment", "sample_entropy", "unused_entropy"] {
            let device = Device::flex().autodiff();
            let latents = normal(3, shape, &device).require_grad();
            let seen = quantized(&quantizer, latents.clone());
            let gradient = latents
                .grad(&loss(&seen, name).backward())
                .expect("tracked");
            let values = host_values(latents.inner());
            assert_slopes(&values, &host_values(gradient), 0.9, |moved| {
                let seen = quantized(&quantizer, map(moved, shape, &Device::flex()));
                (loss(&seen, name).into_scalar::<f32>(), seen.codes.values())
            });
        }
    }
}

#[test]
fn the_value_passes_gradients_straight_through() {
    let device = Device::flex().autodiff();
    let latents = normal(3, [2, 4, 2, 2], &device).require_grad();
    let weights = normal(4, [2, 4, 2, 2], &device);
    let value = quantized(&built(&LfqConfig::new(4, 1)), latents.clone()).quantized;
    let gradient = latents
        .grad(&(value * weights.clone()).sum().backward())
        .expect("tracked");
    assert_eq!(host_values(gradient), host_values(weights));
}

/// What made the entropies of half-precision training NaN: numbers far out, at a high inverse
/// temperature.
#[test]
fn far_latents_and_half_precision_have_finite_losses() {
    let quantizer = built(&LfqConfig::new(8, 1));
    let latents = normal(5, [2, 8, 4, 4], &Device::flex().autodiff());
    for (dtype, scale) in [
        (DType::F16, 1000.0),
        (DType::BF16, 1e10),
        (DType::F32, 1e14),
    ] {
        let latents = latents.clone().mul_scalar(scale).cast(dtype).require_grad();
        let seen = quantized(&quantizer, latents.clone());
        let total = loss(&seen, "sample_entropy") + loss(&seen, "unused_entropy");
        let gradient = latents.grad(&total.backward()).expect("tracked");
        assert!(host_values(gradient).iter().all(|v| v.is_finite()));
        for (name, value) in seen.losses {
            assert!(value.into_scalar::<f32>().is_finite(), "{name}");
        }
    }
}

/// Training on the entropy loss alone makes all codes used.
#[test]
fn the_entropies_spread_the_codes() {
    let quantizer = built(&LfqConfig {
        inverse_temperature: 2.0,
        ..LfqConfig::new(3, 1)
    });
    let shape = [1, 3, 8, 8];
    // Everything starts at one code.
    let mut values: Vec<f32> = host_values(normal(6, shape, &Device::flex()))
        .iter()
        .map(|v| 0.6 + 0.1 * v)
        .collect();
    let used = |values: &[f32]| {
        let latents = map(values.to_vec(), shape, &Device::flex());
        let mut noise = Noise::from_seed(1);
        let (_, report) = built(&LfqConfig::new(3, 1))
            .quantize_and_update(latents, &mut noise)
            .unwrap();
        assert_eq!(report.codes, 8);
        report.chosen
    };
    assert_eq!(used(&values), 1);
    let device = Device::flex().autodiff();
    for _ in 0..200 {
        let latents = map(values.clone(), shape, &device).require_grad();
        let seen = quantized(&quantizer, latents.clone());
        let total = weighted(&seen, &[("sample_entropy", 0.3), ("unused_entropy", 1.0)]);
        let gradient = latents.grad(&total.backward()).expect("tracked");
        for (value, slope) in values.iter_mut().zip(host_values(gradient)) {
            *value -= 2.0 * slope;
        }
    }
    assert_eq!(used(&values), 8);
}

#[test]
fn validation_names_every_problem() {
    let config = LfqConfig {
        depth: 0,
        scale: -1.0,
        inverse_temperature: f32::NAN,
        ..LfqConfig::new(31, 1)
    };
    let message = config.validate().unwrap_err().to_string();
    for part in [
        "depth must be",
        "between 1 and 30, got 31",
        "scale must be positive",
        "inverse_temperature must be positive",
    ] {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
    let many = LfqConfig::new(19, 1).validate().unwrap_err().to_string();
    assert!(
        many.contains("at most 18, got 19") && many.contains("more depth"),
        "{many}"
    );
}
