use super::*;
use crate::testing::{
    Golden, assert_golden, assert_quantizer, assert_scalar, assert_slopes, loss, map, normal,
    quantized, weighted, with_arrays,
};
use burn::tensor::Device;
use burn::tensor::activation::softmax;

fn built(config: &IbqConfig, device: &Device) -> IbqQuantizer {
    config.build(&mut Init::new(device, 5)).unwrap()
}

/// The smallest recorded margin is 0.029: all codes must be equal. The entropies are recorded at a
/// temperature of 0.05, with w₂ = 0.9.
#[test]
fn published_codes_losses_and_gradients() {
    let golden = Golden::open("quant_ibq_vq");
    let device = Device::flex().autodiff();
    let table = golden.floats("ibq.embed");
    let config = IbqConfig {
        inverse_temperature: 20.0,
        ..IbqConfig::new(48, 8)
    };
    let quantizer = with_arrays(built(&config, &device), &[("embedding.weight", table)]);
    let latents = golden.tensor::<4>("x", &device).require_grad();
    let seen = quantized(&quantizer, latents.clone());
    let value = host_values(seen.quantized.clone());
    assert_golden(&value, &golden.floats("ibq.quantized"), "quantized");
    assert_eq!(seen.codes.values(), golden.ids("ibq.indices"));

    let losses = [
        ("double_quantization", 1.0),
        ("commitment", 1.0),
        ("codebook", 0.25),
    ];
    let quant_loss = weighted(&seen, &losses);
    assert_scalar(
        quant_loss.clone(),
        golden.number("ibq.quant_loss"),
        "quant_loss",
    );
    let sample = golden.number("ibq.sample_entropy");
    assert_scalar(loss(&seen, "sample_entropy"), sample, "sample entropy");
    let unused = 48f32.ln() - golden.number("ibq.avg_entropy");
    assert_scalar(loss(&seen, "unused_entropy"), unused, "codebook entropy");
    let entropies = weighted(&seen, &[("sample_entropy", 1.0), ("unused_entropy", 0.9)]);
    let recorded = golden.number("ibq.entropy_loss") + 0.9 * 48f32.ln();
    assert_scalar(entropies.clone(), recorded, "entropy loss");

    let probe = golden.tensor::<4>("grad_probe", &device);
    let total = (seen.quantized * probe).sum() + quant_loss + entropies.mul_scalar(0.05);
    let gradients = total.backward();
    let of_latents = host_values(latents.grad(&gradients).expect("tracked"));
    assert_golden(&of_latents, &golden.floats("ibq.grad_x"), "grad_x");
    let of_table = host_values(quantizer.table().grad(&gradients).expect("tracked"));
    assert_golden(&of_table, &golden.floats("ibq.grad_embed"), "grad_embed");
}

#[test]
fn it_does_what_every_quantizer_does() {
    assert_quantizer(&mut built(&IbqConfig::new(40, 3), &Device::flex()), 3);
}

#[test]
fn the_largest_product_wins_not_the_smallest_distance() {
    let fresh = built(&IbqConfig::new(2, 2), &Device::flex());
    let quantizer = with_arrays(fresh, &[("embedding.weight", vec![1.0, 0.0, 5.0, 0.0])]);
    let latents = map(vec![1.0, 0.0], [1, 2, 1, 1], &Device::flex());
    assert_eq!(quantizer.encode(latents).unwrap().values(), [1]);
}

/// The losses and the soft choice, as functions of latents and table, by finite differences.
#[test]
fn every_loss_has_its_slope_on_both_sides() {
    let (shape, size) = ([1, 3, 2, 2], 6);
    let config = IbqConfig {
        inverse_temperature: 2.0,
        ..IbqConfig::new(size, 3)
    };
    let device = Device::flex().autodiff();
    let quantizer = built(&config, &device);
    let plain = host_values(normal(3, shape, &Device::flex()));
    let table = host_values(quantizer.table().inner());
    let run = |name: &str, latents: Vec<f32>, table: Vec<f32>| {
        let fresh = built(&config, &Device::flex());
        let quantizer = with_arrays(fresh, &[("embedding.weight", table)]);
        let seen = quantized(&quantizer, map(latents, shape, &Device::flex()));
        (loss(&seen, name).into_scalar::<f32>(), seen.codes.values())
    };
    for (name, of_latents, of_table) in [
        ("commitment", true, false),
        ("codebook", false, true),
        ("sample_entropy", true, true),
        ("unused_entropy", true, true),
    ] {
        let latents = normal(3, shape, &device).require_grad();
        let seen = quantized(&quantizer, latents.clone());
        let gradients = loss(&seen, name).backward();
        let gradient = latents.grad(&gradients).map(host_values);
        assert_eq!(gradient.is_some(), of_latents, "{name}");
        if let Some(gradient) = gradient {
            assert_slopes(&plain, &gradient, 0.8, |moved| {
                run(name, moved, table.clone())
            });
        }
        let gradient = quantizer.table().grad(&gradients).map(host_values);
        assert_eq!(gradient.is_some(), of_table, "{name}");
        if let Some(gradient) = gradient {
            assert_slopes(&table, &gradient, 0.8, |moved| {
                run(name, plain.clone(), moved)
            });
        }
    }
}

/// `(onehot(k) − sg(P) + P)·E` straight from the definition, with the one-hot matrix.
#[test]
fn the_value_has_the_gradient_of_the_definition() {
    let device = Device::flex().autodiff();
    let quantizer = built(&IbqConfig::new(6, 3), &device);
    let gradients = |defined: bool| {
        let latents = normal(3, [1, 3, 2, 2], &device).require_grad();
        let weights = normal(4, [1, 3, 2, 2], &device);
        let seen = quantized(&quantizer, latents.clone());
        let (value, square) = if defined {
            let (rows, table) = (to_rows(latents.clone()), quantizer.table());
            let p = softmax(rows.clone().matmul(table.clone().transpose()), 1);
            let ids = Tensor::<1, Int>::from_inner(seen.codes.at_depth(0));
            let hard = ids.one_hot::<2>(6).float();
            let chosen = (hard - p.clone().detach() + p).matmul(table);
            let value = from_rows(chosen.clone(), [1, 2, 2]);
            (value, (chosen - rows).square().mean())
        } else {
            (seen.quantized.clone(), loss(&seen, "double_quantization"))
        };
        let gradients = ((value * weights).sum() + square).backward();
        [
            host_values(latents.grad(&gradients).expect("tracked")),
            host_values(quantizer.table().grad(&gradients).expect("tracked")),
        ]
    };
    let ([latents, table], [defined_latents, defined_table]) = (gradients(false), gradients(true));
    assert_golden(&latents, &defined_latents, "latents");
    assert_golden(&table, &defined_table, "table");
}

#[test]
fn every_code_has_a_gradient() {
    let device = Device::flex().autodiff();
    let quantizer = built(&IbqConfig::new(20, 3), &device);
    let seen = quantized(&quantizer, normal(3, [1, 3, 2, 2], &device).require_grad());
    let gradients = loss(&seen, "double_quantization").backward();
    let gradient = quantizer.table().grad(&gradients).expect("tracked");
    let moved = host_values(gradient.abs().sum_dim(1));
    assert!(moved.iter().all(|v| *v > 0.0), "{moved:?}");
}

#[test]
fn products_that_overflow_are_refused() {
    let quantizer = built(&IbqConfig::new(20, 3), &Device::flex());
    let latents = map(vec![1e30; 3], [1, 3, 1, 1], &Device::flex());
    let result = quantizer.quantize(latents, &mut Noise::from_seed(1));
    assert_eq!(result.err(), Some(QuantizeError::TooLarge));
}

#[test]
fn validation_names_every_problem() {
    let config = IbqConfig {
        inverse_temperature: -1.0,
        ..IbqConfig::new(0, 0)
    };
    let message = config.validate().unwrap_err().to_string();
    for part in [
        "codebook_size must be",
        "code_dim must be",
        "inverse_temperature",
    ] {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}
