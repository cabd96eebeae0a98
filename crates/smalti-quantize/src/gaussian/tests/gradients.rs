//! Gradients of loss and value against finite differences.

use super::*;

const SHAPE: [usize; 4] = [2, 4, 2, 2];

fn config(constraint: Constraint) -> GaussianConfig {
    GaussianConfig {
        constraint,
        ..GaussianConfig::new(8, 2, 4)
    }
}

fn every_constraint() -> [Constraint; 3] {
    [
        Constraint::default(),
        Constraint::FixedFactor(FixedFactorConfig::default()),
        Constraint::Even {},
    ]
}

/// A quantizer whose weights have left 1 behind.
fn trained(constraint: Constraint, device: &Device) -> GaussianQuantizer {
    let mut quantizer = built(&config(constraint), device);
    for step in 0..40 {
        let latents = moments(100 + step, SHAPE, device);
        quantizer
            .quantize_and_update(latents, &mut Noise::from_seed(1))
            .unwrap();
    }
    quantizer
}

/// Gradient of `of` at some moments, and the differences along every number of them.
fn check(
    quantizer: &GaussianQuantizer,
    tolerance: f32,
    of: impl Fn(&GaussianQuantizer, Tensor<4>) -> Tensor<1>,
) {
    let plain = moments(2, SHAPE, &Device::flex());
    let latents = Tensor::from_inner(plain.clone()).require_grad();
    let gradients = of(quantizer, latents.clone()).backward();
    let gradient = host_values(latents.grad(&gradients).unwrap());
    let largest = gradient.iter().fold(0.0_f32, |most, g| most.max(g.abs()));
    assert!(largest > 0.1, "a gradient of zeros proves nothing");
    let values = host_values(plain);
    let step = 2e-3;
    for (i, expected) in gradient.iter().enumerate() {
        let at = |offset: f32| {
            let mut moved = values.clone();
            moved[i] += offset;
            let data = TensorData::new(moved, [2, 8, 2, 2]);
            let latents = Tensor::<4>::from_data(data, &Device::flex());
            of(quantizer, latents).into_scalar::<f32>()
        };
        let difference = (at(step) - at(-step)) / (2.0 * step);
        assert!(
            (difference - expected).abs() < tolerance * largest,
            "{i}: {difference} {expected}"
        );
    }
}

#[test]
fn of_the_divergence_under_every_constraint() {
    for constraint in every_constraint() {
        for layout in [
            Layout::Strided,
            Layout::Contiguous,
            Layout::Order(vec![2, 0, 3, 1]),
        ] {
            let config = GaussianConfig {
                layout,
                ..config(constraint.clone())
            };
            let state = Weights::of(&trained(constraint.clone(), &Device::flex()));
            let quantizer = state.load_into(built(&config, &Device::flex())).unwrap();
            let latents = moments(2, SHAPE, &Device::flex());
            let spread = quantizer.statistics(latents).unwrap();
            assert!(spread.min_excess < -0.5 && spread.max_excess > 0.5);
            check(&quantizer, 2e-2, |quantizer, latents| {
                divergence(&quantize(quantizer, latents))
            });
        }
    }
}

#[test]
fn of_the_divergence_of_normalised_latents() {
    let config = GaussianConfig {
        normalization: Some(Normalization {
            shift: vec![0.1, -0.2, 0.3, 0.0],
            scale: vec![0.5, 2.0, 1.5, 1.0],
        }),
        ..config(Constraint::Even {})
    };
    let quantizer = built(&config, &Device::flex());
    check(&quantizer, 1e-2, |quantizer, latents| {
        divergence(&quantize(quantizer, latents))
    });
}

#[test]
fn of_the_sample() {
    let quantizer = built(&config(Constraint::Even {}), &Device::flex());
    check(&quantizer, 1e-2, |quantizer, latents| {
        quantize(quantizer, latents).quantized.square().sum()
    });
}

#[test]
fn a_codeword_has_the_gradient_of_the_sample() {
    let weights = normal(9, SHAPE, &Device::flex().autodiff());
    let gradient = |training: TrainingValue| {
        let config = GaussianConfig {
            training,
            ..config(Constraint::Even {})
        };
        let device = Device::flex().autodiff();
        let quantizer = built(&config, &device);
        let latents = moments(2, SHAPE, &device).require_grad();
        let quantized = quantize(&quantizer, latents.clone()).quantized;
        let value = host_values(quantized.clone());
        let gradients = (quantized * weights.clone()).sum().backward();
        (value, host_values(latents.grad(&gradients).unwrap()))
    };
    let (sample, of_sample) = gradient(TrainingValue::Sample);
    let (codeword, of_codeword) = gradient(TrainingValue::Codeword);
    assert_eq!(of_sample, of_codeword);
    assert_ne!(sample, codeword);
    let quantizer = built(&config(Constraint::Even {}), &Device::flex());
    let latents = moments(2, SHAPE, &Device::flex());
    let decoded = quantizer
        .decode(&quantizer.encode(latents).unwrap())
        .unwrap();
    assert_near(&codeword, &host_values(decoded), [1e-6, 0.0], "codeword");
}

#[test]
fn tracked_and_untracked_sides_mix() {
    let (plain, tracked) = (Device::flex(), Device::flex().autodiff());
    for training in [TrainingValue::Sample, TrainingValue::Codeword] {
        let config = GaussianConfig {
            training,
            ..config(Constraint::default())
        };
        let frozen = built(&config, &plain);
        let latents = moments(2, SHAPE, &tracked).require_grad();
        let quantized = quantize(&frozen, latents.clone());
        let loss = quantized.quantized.clone().sum() + divergence(&quantized);
        assert!(latents.grad(&loss.backward()).is_some());
        let training = built(&config, &tracked);
        let quantized = quantize(&training, latents.inner());
        assert!(!quantized.quantized.device().is_autodiff());
    }
}
