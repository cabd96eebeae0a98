use super::*;
use crate::testing::{
    Golden, assert_golden, assert_quantizer, assert_scalar, assert_slopes, loss, map, normal,
    pytorch, quantized, weighted, with_arrays,
};
use burn::tensor::Device;
use smalti_nn::state::{Weights, host_values};

const CASE: &str = "quant_simvq";

fn built(config: &SimVqConfig, device: &Device) -> SimVqQuantizer {
    config.build(&mut Init::new(device, 5)).unwrap()
}

/// The smallest recorded margin is 0.03: all codes must be equal. Recorded gradients are of
/// Σ value · probe + Σ weight · loss.
fn check_golden(quantizer: &SimVqQuantizer, variant: &str, weights: [f64; 2], weight: &str) {
    let golden = Golden::open(CASE);
    let named = |name: &str| format!("{variant}.{name}");
    let device = Device::flex().autodiff();
    let latents = golden.tensor::<4>("x", &device).require_grad();
    let seen = quantized(quantizer, latents.clone());
    let value = host_values(seen.quantized.clone());
    assert_golden(&value, &golden.floats(&named("quantized")), "quantized");
    assert_eq!(seen.codes.values(), golden.ids(&named("indices")));
    let [commitment, codebook] = weights;
    let losses = weighted(&seen, &[("commitment", commitment), ("codebook", codebook)]);
    assert_scalar(losses.clone(), golden.number(&named("commit_loss")), "loss");
    let total = (seen.quantized * golden.tensor("grad_probe", &device)).sum() + losses;
    let gradients = total.backward();
    let of_latents = host_values(latents.grad(&gradients).expect("tracked"));
    assert_golden(&of_latents, &golden.floats(&named("grad_x")), "grad_x");
    let map = &quantizer.embedding_proj;
    let of_map = host_values(map.weight.val().grad(&gradients).expect("tracked"));
    assert_golden(&of_map, &golden.floats(&named(weight)), weight);
    if let Some(bias) = &map.bias {
        let of_bias = host_values(bias.val().grad(&gradients).expect("tracked"));
        assert_golden(&of_bias, &golden.floats(&named("grad_proj_bias")), "bias");
    }
    assert!(quantizer.embedding.weight.val().grad(&gradients).is_none());
}

/// The published names load as they are.
#[test]
fn published_codes_and_gradients() {
    let rename = |name: &str| name.strip_prefix("quantize.").map(str::to_owned);
    let weights = pytorch(CASE, "official.pt").rename(rename).unwrap();
    let fresh = built(&SimVqConfig::new(64, 8), &Device::flex().autodiff());
    let quantizer = weights.load_into(fresh).expect("the published names");
    check_golden(
        &quantizer,
        "official_legacy",
        [1.0, 0.25],
        "grad_proj_weight",
    );
    check_golden(
        &quantizer,
        "official_nonlegacy",
        [0.25, 1.0],
        "grad_proj_weight",
    );
}

#[test]
fn published_codes_and_gradients_of_the_common_library_and_the_rotation_trick() {
    let rename = |name: &str| {
        Some(match name {
            "frozen_codebook" => "embedding.weight".to_owned(),
            "code_transform.weight" => "embedding_proj.weight".to_owned(),
            other => other.to_owned(),
        })
    };
    for (variant, estimator) in [
        ("lucid_ste", Estimator::StraightThrough),
        ("lucid_rot", Estimator::Rotation),
    ] {
        let config = SimVqConfig {
            bias: false,
            estimator,
            ..SimVqConfig::new(64, 8)
        };
        let weights = pytorch(CASE, "lucid.pt").rename(rename).unwrap();
        let fresh = built(&config, &Device::flex().autodiff());
        let quantizer = weights.load_into(fresh).expect("two arrays");
        check_golden(&quantizer, variant, [0.25, 1.0], "grad_code_transform");
    }
}

#[test]
fn it_does_what_every_quantizer_does() {
    for estimator in [Estimator::StraightThrough, Estimator::Rotation] {
        let config = SimVqConfig {
            estimator,
            ..SimVqConfig::new(40, 3)
        };
        assert_quantizer(&mut built(&config, &Device::flex()), 3);
    }
}

#[test]
fn every_loss_has_its_slope_on_both_sides() {
    let (shape, config) = ([1, 3, 3, 3], SimVqConfig::new(20, 3));
    let device = Device::flex().autodiff();
    let quantizer = built(&config, &device);
    let latents = normal(3, shape, &device).require_grad();
    let plain = host_values(latents.clone().inner());
    let seen = quantized(&quantizer, latents.clone());

    let gradients = loss(&seen, "commitment").backward();
    let of_latents = host_values(latents.grad(&gradients).expect("tracked"));
    assert!(
        quantizer
            .embedding_proj
            .weight
            .val()
            .grad(&gradients)
            .is_none()
    );
    assert_slopes(&plain, &of_latents, 0.9, |moved| {
        let seen = quantized(&quantizer, map(moved, shape, &Device::flex()));
        (
            loss(&seen, "commitment").into_scalar::<f32>(),
            seen.codes.values(),
        )
    });

    let gradients = loss(&seen, "codebook").backward();
    assert!(latents.grad(&gradients).is_none());
    let state = Weights::of(&quantizer);
    for name in ["embedding_proj.weight", "embedding_proj.bias"] {
        let values = &state.0[name].values;
        let map = &quantizer.embedding_proj;
        let gradient = match name {
            "embedding_proj.weight" => host_values(map.weight.val().grad(&gradients).unwrap()),
            _ => host_values(map.bias.as_ref().unwrap().val().grad(&gradients).unwrap()),
        };
        assert_slopes(values, &gradient, 0.8, |moved| {
            let moved = with_arrays(built(&config, &Device::flex()), &[(name, moved)]);
            let seen = quantized(&moved, normal(3, shape, &Device::flex()));
            (
                loss(&seen, "codebook").into_scalar::<f32>(),
                seen.codes.values(),
            )
        });
    }
}

/// What SimVQ is for: codes that nobody chooses move all the same.
#[test]
fn a_step_moves_codes_that_were_not_chosen() {
    let device = Device::flex().autodiff();
    let quantizer = built(&SimVqConfig::new(30, 3), &device);
    let latents = normal(3, [1, 3, 2, 2], &device);
    let seen = quantized(&quantizer, latents);
    let chosen = seen.codes.values();
    let weight = quantizer.embedding_proj.weight.val();
    let gradients = loss(&seen, "codebook").backward();
    let stepped = weight.clone().inner() - weight.grad(&gradients).unwrap().mul_scalar(0.5);
    let moved = with_arrays(
        built(&SimVqConfig::new(30, 3), &Device::flex()),
        &[("embedding_proj.weight", host_values(stepped))],
    );
    let gap = host_values((moved.table() - quantizer.table().inner()).abs().sum_dim(1));
    assert!(
        chosen.len() == 4 && gap.iter().all(|gap| *gap > 1e-4),
        "{gap:?}"
    );
    let frozen = |quantizer: &SimVqQuantizer| Weights::of(quantizer).0["embedding.weight"].clone();
    assert_eq!(frozen(&moved), frozen(&quantizer));
}

#[test]
fn validation_names_every_problem() {
    let message = SimVqConfig::new(0, 0).validate().unwrap_err().to_string();
    assert!(message.contains("codebook_size must be") && message.contains("code_dim must be"));
}
