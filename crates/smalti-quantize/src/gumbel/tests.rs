use super::*;
use crate::testing::{
    Golden, assert_golden, assert_refuses, assert_refuses_codes, assert_scalar, assert_slopes,
    loss, map, normal, with_arrays,
};
use burn::tensor::{Device, TensorData};
use smalti_nn::state::Weights;

/// What the reference weighs the divergence with.
const WEIGHT: f64 = 5e-4;

fn built(config: &GumbelConfig, device: &Device) -> GumbelQuantizer {
    config.build(&mut Init::new(device, 5)).unwrap()
}

/// The quantizer of the golden's checkpoint.
fn published(temperature: f64, samples: Samples, device: &Device) -> GumbelQuantizer {
    let config = GumbelConfig {
        samples,
        temperature: Temperature::Constant { value: temperature },
        ..GumbelConfig::new(64, 16)
    };
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens");
    let path = format!("{root}/taming_gumbel/last.ckpt");
    let of_quantizer = |name: &str| name.starts_with("quantize.");
    let arrays = Weights::read_pytorch_where(path.as_ref(), &["state_dict"], of_quantizer);
    let name = |name: &str| name.strip_prefix("quantize.").map(str::to_owned);
    let arrays = arrays.unwrap().rename(name).unwrap();
    arrays.load_into(built(&config, device)).unwrap()
}

/// The recorded draws in row order.
fn recorded(golden: &Golden) -> Vec<f32> {
    host_values(to_rows(golden.tensor("gumbel", &Device::flex())))
}

fn seen(quantizer: &GumbelQuantizer, latents: Tensor<4>, draws: Vec<f32>) -> Quantized {
    quantizer.training_pass(latents, |_| draws).unwrap().0
}

/// Codes differ only where the recorded margin is below 1e-4.
fn assert_codes(codes: &Codes, golden: &Golden, name: &str, margin: &str) {
    let margins = golden.floats(margin);
    let pairs = codes.values().into_iter().zip(golden.ids(name));
    for ((got, expected), margin) in pairs.zip(margins) {
        assert!(got == expected || margin < 1e-4, "{name}: {got} {expected}");
    }
}

#[test]
fn published_logits_codes_and_values() {
    let golden = Golden::open("taming_gumbel");
    let device = Device::flex();
    let quantizer = published(1.0, Samples::StraightThrough, &device);
    let latents = golden.tensor::<4>("h", &device);
    let rows = relaxed::logits_of(&quantizer.proj, to_rows(latents.clone()));
    let logits = host_values(from_rows(rows, [2, 16, 16]));
    assert_golden(&logits, &golden.floats("logits"), "logits");

    let best = quantizer.encode(latents.clone()).unwrap();
    assert_codes(&best, &golden, "codes_argmax", "margin_argmax");
    let drawn = seen(&quantizer, latents.clone(), recorded(&golden));
    assert_codes(&drawn.codes, &golden, "codes_sampled", "margin_sampled");
    let value = host_values(drawn.quantized.clone());
    assert_golden(&value, &golden.floats("zq_eval"), "value");
    let expected = golden.number("kl_loss");
    let divergence = loss(&drawn, "divergence").mul_scalar(WEIGHT);
    assert_scalar(divergence, expected, "divergence");
    let exact = loss(&drawn, "divergence").mul_scalar(WEIGHT / f64::from(expected));
    assert_scalar(exact, 1.0, "divergence relative to itself");

    let soft = published(0.7, Samples::Soft, &device);
    let mixture = seen(&soft, latents, recorded(&golden));
    let mixture = host_values(mixture.quantized);
    let expected = golden.floats("zq_train_soft_tau0.7");
    assert_golden(&mixture, &expected, "mixture");
}

#[test]
fn published_gradients() {
    let golden = Golden::open("taming_gumbel");
    let device = Device::flex().autodiff();
    let quantizer = published(0.7, Samples::StraightThrough, &device);
    let latents = golden.tensor::<4>("h", &device).require_grad();
    let drawn = seen(&quantizer, latents.clone(), recorded(&golden));
    let divergence = loss(&drawn, "divergence").mul_scalar(WEIGHT);
    let probe = golden.tensor::<4>("grad_probe", &device);
    let gradients = ((drawn.quantized * probe).sum() + divergence).backward();
    let of_latents = host_values(latents.grad(&gradients).unwrap());
    assert_golden(&of_latents, &golden.floats("grad_h"), "grad_h");
    let of_codes = host_values(quantizer.table().grad(&gradients).unwrap());
    assert_golden(&of_codes, &golden.floats("grad_embed"), "grad_embed");
}

/// The mixture and the divergence as functions of latents, head and codes.
#[test]
fn mixtures_and_the_divergence_have_their_slopes() {
    let (shape, size) = ([1, 3, 2, 2], 5);
    let config = GumbelConfig {
        samples: Samples::Soft,
        temperature: Temperature::Constant { value: 0.8 },
        ..GumbelConfig::new(size, 3)
    };
    let draws = relaxed::gumbel_values(&mut Noise::from_seed(2), 4 * size);
    let total = |quantizer: &GumbelQuantizer, latents: Tensor<4>| {
        let seen = seen(quantizer, latents.clone(), draws.clone());
        let probe = Tensor::from_inner(normal(4, shape, &Device::flex()));
        let probe = beside(probe, &latents);
        (seen.quantized.clone() * probe).sum() + loss(&seen, "divergence")
    };
    let device = Device::flex().autodiff();
    let quantizer = built(&config, &device);
    let plain = host_values(normal(3, shape, &Device::flex()));
    let latents = map(plain.clone(), shape, &device).require_grad();
    let gradients = total(&quantizer, latents.clone()).backward();

    let moved = |name: &str, values: Vec<f32>| {
        let arrays = with_arrays(built(&config, &Device::flex()), &[(name, values)]);
        let latents = map(plain.clone(), shape, &Device::flex());
        (total(&arrays, latents).into_scalar::<f32>(), Vec::new())
    };
    let of_latents = host_values(latents.grad(&gradients).unwrap());
    assert_slopes(&plain, &of_latents, 1.0, |values| {
        let latents = map(values, shape, &Device::flex());
        let value = total(&built(&config, &Device::flex()), latents);
        (value.into_scalar::<f32>(), Vec::new())
    });
    let state = Weights::of(&quantizer);
    let head = &quantizer.proj;
    for (name, gradient) in [
        (
            "proj.weight",
            host_values(head.weight.val().grad(&gradients).unwrap()),
        ),
        (
            "proj.bias",
            host_values(head.bias.val().grad(&gradients).unwrap()),
        ),
        (
            "embed.weight",
            host_values(quantizer.table().grad(&gradients).unwrap()),
        ),
    ] {
        let values = state.0[name].values.clone();
        assert_slopes(&values, &gradient, 1.0, |values| moved(name, values));
    }
}

#[test]
fn wrong_input_is_refused_and_changes_nothing() {
    let config = GumbelConfig {
        temperature: Temperature::Linear {
            from: 1.0,
            to: 0.5,
            batches: 2,
        },
        ..GumbelConfig::new(7, 3)
    };
    let mut quantizer = built(&config, &Device::flex());
    assert_refuses(&mut quantizer, 3);
    assert_refuses_codes(&quantizer);
    assert_eq!(quantizer.temperature(), 1.0);
    let latents = normal(1, [1, 3, 2, 2], &Device::flex());
    let mut noise = Noise::from_seed(1);
    let (drawn, report) = quantizer
        .quantize_and_update(latents.clone(), &mut noise)
        .unwrap();
    assert_eq!((report.codes, drawn.codes.dims()), (7, [1, 1, 2, 2]));
    assert_eq!(quantizer.temperature(), 0.75);
    let codes = quantizer.encode(latents.clone()).unwrap();
    assert_eq!(codes.values(), quantizer.encode(latents).unwrap().values());
}

/// Only encoding takes the best code; training draws.
#[test]
fn codes_are_drawn_in_training_only() {
    let fresh = built(&GumbelConfig::new(2, 1), &Device::flex());
    let even = [
        ("proj.weight", vec![0.0, 0.0]),
        ("proj.bias", vec![0.0, 1e-3]),
    ];
    let quantizer = with_arrays(fresh, &even);
    let data = TensorData::new(vec![0.0f32; 400], [1, 1, 20, 20]);
    let latents = Tensor::from_data(data, &Device::flex());
    let ones = |codes: Codes| codes.values().iter().filter(|id| **id == 1).count();
    assert_eq!(ones(quantizer.encode(latents.clone()).unwrap()), 400);
    let drawn = quantizer
        .quantize(latents, &mut Noise::from_seed(3))
        .unwrap();
    assert!((150..250).contains(&ones(drawn.codes)));
}

#[test]
fn every_position_is_told_to_be_drawn() {
    let device = Device::flex();
    let mut quantizer = built(&GumbelConfig::new(16, 3), &device);
    let latents = normal(3, [2, 3, 4, 4], &device).mul_scalar(0.01);
    let (_, report) = quantizer
        .quantize_and_update(latents, &mut Noise::from_seed(7))
        .unwrap();
    let choices = report.choices.unwrap();
    assert_eq!((choices.positions, choices.drawn), (32, 32));
    assert!(
        choices.certainty > 1.0 / 16.0 && choices.certainty < 0.7,
        "{choices:?}"
    );
    assert!(choices.apart > 16, "{choices:?}");
}
