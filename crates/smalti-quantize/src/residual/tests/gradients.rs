//! The gradient of the latents, and that nothing else has one.

use super::*;

const SHAPE: [usize; 4] = [2, 4, 3, 2];

fn quantizer(device: &Device) -> ResidualQuantizer {
    ResidualConfig::new(12, 4, 3)
        .build(&mut Init::new(device, 5))
        .unwrap()
}

fn commitment(latents: Tensor<4>) -> (f32, Vec<u32>) {
    let quantized = quantizer(&Device::flex())
        .quantize(latents, &mut Noise::from_seed(1))
        .unwrap();
    (
        quantized.losses[0].1.clone().into_scalar::<f32>(),
        quantized.codes.values(),
    )
}

#[test]
fn the_value_passes_gradients_straight_through() {
    let device = Device::flex().autodiff();
    let latents = normal(2, SHAPE, &device).require_grad();
    let weights = normal(3, SHAPE, &device);
    let quantized = quantizer(&device)
        .quantize(latents.clone(), &mut Noise::from_seed(1))
        .unwrap();
    let gradients = (quantized.quantized * weights.clone()).sum().backward();
    let gradient = latents.grad(&gradients).expect("latents are tracked");
    assert_eq!(host_values(gradient), host_values(weights));
}

#[test]
fn the_commitment_pulls_latents_to_every_partial_sum() {
    let device = Device::flex().autodiff();
    let latents = normal(2, SHAPE, &device).require_grad();
    let quantizer_ = quantizer(&device);
    let quantized = quantizer_
        .quantize(latents.clone(), &mut Noise::from_seed(1))
        .unwrap();
    let gradients = quantized.losses[0].1.clone().backward();
    let gradient = host_values(latents.grad(&gradients).expect("latents are tracked"));

    let plain = normal(2, SHAPE, &Device::flex());
    let count = SHAPE.iter().product::<usize>() as f64;
    let sums = quantizer_.partial_sums(plain.clone()).unwrap();
    let analytic = sums
        .into_iter()
        .map(|sum| (plain.clone() - sum).mul_scalar(2.0 / (3.0 * count)));
    assert_close(
        &gradient,
        &host_values(analytic.reduce(|a, b| a + b).unwrap()),
        1e-5,
        1e-7,
        "analytic",
    );

    // Between two choices of codes the loss is quadratic: central differences are exact but for
    // rounding.
    let values = host_values(plain);
    let (_, codes) = commitment(latents.inner());
    let (step, mut compared) = (0.02f32, 0);
    for (i, expected) in gradient.iter().enumerate() {
        let at = |offset: f32| {
            let mut moved = values.clone();
            moved[i] += offset;
            commitment(Tensor::from_data(
                TensorData::new(moved, SHAPE),
                &Device::flex(),
            ))
        };
        let ((up, up_codes), (down, down_codes)) = (at(step), at(-step));
        if up_codes == codes && down_codes == codes {
            let difference = (up - down) / (2.0 * step);
            assert!(
                (difference - expected).abs() < 1e-4,
                "{i}: {difference} {expected}"
            );
            compared += 1;
        }
    }
    assert!(compared > 30, "only {compared} of 48 steps keep the codes");
}

#[test]
fn both_gradients_add_up() {
    let device = Device::flex().autodiff();
    let gradient = |weights: [f64; 2]| {
        let latents = normal(2, SHAPE, &device).require_grad();
        let quantized = quantizer(&device)
            .quantize(latents.clone(), &mut Noise::from_seed(1))
            .unwrap();
        let value = quantized.quantized.square().sum().mul_scalar(weights[0]);
        let loss = value + quantized.losses[0].1.clone().mul_scalar(weights[1]);
        latents.grad(&loss.backward()).expect("latents are tracked")
    };
    let sum = host_values(gradient([1.0, 0.0]) + gradient([0.0, 1.0]));
    assert_close(&host_values(gradient([1.0, 1.0])), &sum, 1e-5, 1e-6, "sum");
}

#[test]
fn no_gradient_reaches_the_codes() {
    let device = Device::flex().autodiff();
    for fold in [1, 2] {
        let config = ResidualConfig {
            fold,
            ..ResidualConfig::new(12, 4, 3)
        };
        let mut quantizer = config.build(&mut Init::new(&device, 5)).unwrap();
        let latents = normal(2, [2, 4 / (fold * fold), 4, 2], &device).require_grad();
        let (quantized, _) = crate::Learn::quantize_and_update(
            &mut quantizer,
            latents.clone(),
            &mut Noise::from_seed(1),
        )
        .unwrap();
        let loss = quantized.quantized.square().sum() + quantized.losses[0].1.clone();
        let gradients = loss.backward();
        assert!(latents.grad(&gradients).is_some());
        let table = quantizer.table(0);
        assert!(!table.is_require_grad() && table.grad(&gradients).is_none());
    }
}

#[test]
fn tracked_and_untracked_sides_mix() {
    let (plain, tracked) = (Device::flex(), Device::flex().autodiff());
    let frozen = quantizer(&plain);
    let latents = normal(2, SHAPE, &tracked).require_grad();
    let quantized = frozen
        .quantize(latents.clone(), &mut Noise::from_seed(1))
        .unwrap();
    let gradients = (quantized.quantized.sum() + quantized.losses[0].1.clone()).backward();
    assert!(latents.grad(&gradients).is_some());

    let training = quantizer(&tracked);
    let quantized = training
        .quantize(latents.inner(), &mut Noise::from_seed(1))
        .unwrap();
    assert!(!quantized.quantized.device().is_autodiff());
    assert_eq!(
        quantized.codes.values(),
        frozen.encode(normal(2, SHAPE, &plain)).unwrap().values()
    );
}
