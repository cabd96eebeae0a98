use super::*;
use crate::testing::{assert_quantizer, loss, map, normal, with_arrays};
use crate::{GroupedConfig, QuantizerConfig};
use burn::tensor::Device;
use smalti_nn::state::Weights;

mod gradients;

fn built(config: &RegularizedConfig, device: &Device) -> RegularizedQuantizer {
    config.build(&mut Init::new(device, 5)).unwrap()
}

fn quantize(quantizer: &impl Quantizer, latents: Tensor<4>) -> Quantized {
    quantizer
        .quantize(latents, &mut Noise::from_seed(7))
        .unwrap()
}

#[test]
fn without_a_mask_it_does_what_every_quantizer_does() {
    for logits in [Logits::Head, Logits::Distances] {
        let config = RegularizedConfig {
            logits,
            mask_ratio: 0.0,
            ..RegularizedConfig::new(40, 3)
        };
        assert_quantizer(&mut built(&config, &Device::flex()), 3);
    }
}

/// Zero codes but one, 256 codes of 1024 and all of them: ln 1024, ln 4 and 0.
#[test]
fn the_prior_of_a_batch_has_the_published_values() {
    let config = RegularizedConfig {
        logits: Logits::Distances,
        mask_ratio: 0.0,
        ..RegularizedConfig::new(1024, 4)
    };
    let quantizer = built(&config, &Device::flex());
    for (images, distinct, expected) in [(1, 1, 6.931_472), (1, 256, 1.386_294), (4, 1024, 0.0)] {
        let rows = quantizer.table().narrow(0, 0, distinct);
        let rows = rows.repeat(&[images * 256 / distinct, 1]);
        let seen = quantize(&quantizer, from_rows(rows, [images, 16, 16]));
        let found = loss(&seen, "prior").into_scalar::<f32>();
        assert!((found - expected).abs() < 2e-5, "{distinct}: {found}");
    }
}

/// Where a drawn code stands, and how far it is from the best one.
#[test]
fn an_exact_share_of_positions_is_drawn_in_training_and_none_in_use() {
    let device = Device::flex();
    let quantizer = built(&RegularizedConfig::new(1024, 4), &device);
    // Latents that say little: a draw among 1024 codes is rarely the best one.
    let latents = normal(1, [3, 4, 16, 16], &device).mul_scalar(0.1);
    let best = quantizer.encode(latents.clone()).unwrap();
    let seen = quantize(&quantizer, latents.clone());
    let perturbation = host_values(seen.perturbation.clone().unwrap());
    let differ: Vec<bool> = (seen.codes.values().iter().zip(best.values()))
        .map(|(drawn, best)| *drawn != best)
        .collect();
    for (differ, perturbation) in differ.iter().zip(&perturbation) {
        assert_eq!(*differ, *perturbation > 0.0);
    }
    for image in differ.chunks(256) {
        let count = image.iter().filter(|differs| **differs).count();
        assert!((98..=103).contains(&count), "{count}");
    }
    let gap = seen.quantized.clone() - quantizer.decode(&best).unwrap();
    let expected = host_values(gap.square().sum_dim(1));
    for (found, expected) in perturbation.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-5 * expected, "{found}");
    }
    let other = quantizer
        .quantize(latents.clone(), &mut Noise::from_seed(8))
        .unwrap();
    assert_ne!(other.codes.values(), seen.codes.values());
    assert_eq!(quantizer.encode(latents).unwrap().values(), best.values());
}

#[test]
fn groups_add_up_how_far_they_are_from_their_best_codes() {
    let device = Device::flex();
    let part = RegularizedConfig {
        mask_ratio: 0.5,
        ..RegularizedConfig::new(30, 2)
    };
    for shared in [true, false] {
        let config = GroupedConfig {
            shared,
            ..GroupedConfig::new(3, QuantizerConfig::Regularized(part.clone()))
        };
        let quantizer = config.build(&mut Init::new(&device, 1)).unwrap();
        let latents = normal(2, [2, 6, 4, 4], &device);
        let best = quantizer.encode(latents.clone()).unwrap();
        let seen = quantize(&quantizer, latents);
        let gap = seen.quantized - quantizer.decode(&best).unwrap();
        let expected = host_values(gap.square().sum_dim(1).squeeze_dim::<3>(1));
        let found = seen.perturbation.unwrap();
        assert_eq!(found.dims(), [2, 4, 4]);
        for (found, expected) in host_values(found).into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }
}

/// What a resumed run needs is in the arrays: temperature and average.
#[test]
fn learning_goes_on_where_it_was() {
    let config = RegularizedConfig {
        posterior_decay: Some(0.5),
        temperature: Temperature::Cosine {
            from: 1.0,
            to: 0.1,
            batches: 3,
        },
        ..RegularizedConfig::new(9, 3)
    };
    let device = Device::flex();
    let batch = |seed| normal(seed, [2, 3, 4, 4], &device);
    let mut quantizer = built(&config, &device);
    let step = |quantizer: &mut RegularizedQuantizer, seed| {
        let mut noise = Noise::for_step(1, seed);
        let (seen, _) = quantizer
            .quantize_and_update(batch(seed), &mut noise)
            .unwrap();
        loss(&seen, "prior").into_scalar::<f32>()
    };
    step(&mut quantizer, 1);
    assert!((quantizer.temperature() - 0.775).abs() < 1e-9);
    let state = Weights::of(&quantizer);
    let mut again = state.load_into(built(&config, &device)).unwrap();
    for seed in 2..5 {
        assert_eq!(step(&mut quantizer, seed), step(&mut again, seed));
    }
    assert_eq!(Weights::of(&quantizer), Weights::of(&again));
    assert!((quantizer.temperature() - 0.1).abs() < 1e-9);

    let before = Weights::of(&quantizer);
    let broken = map(vec![f32::NAN; 12], [1, 3, 2, 2], &device);
    let mut noise = Noise::from_seed(1);
    assert!(quantizer.quantize_and_update(broken, &mut noise).is_err());
    assert_eq!(Weights::of(&quantizer), before);
}

#[test]
fn the_names_are_the_published_ones() {
    let names = |config: &RegularizedConfig| {
        let state = Weights::of(&built(config, &Device::flex()));
        state.0.into_keys().collect::<Vec<_>>()
    };
    let config = RegularizedConfig::new(9, 3);
    assert_eq!(names(&config), ["embed.weight", "proj.bias", "proj.weight"]);
    let distances = RegularizedConfig {
        logits: Logits::Distances,
        ..config
    };
    assert_eq!(names(&distances), ["embed.weight"]);
}

#[test]
fn nonsense_is_listed() {
    let config = RegularizedConfig {
        mask_ratio: 1.5,
        posterior_decay: Some(1.0),
        prior: Prior::Given {
            weights: vec![1.0; 3],
        },
        temperature: Temperature::Constant { value: 0.0 },
        ..RegularizedConfig::new(0, 0)
    };
    let problems = config.validate().unwrap_err().0;
    assert_eq!(problems.len(), 6, "{problems:?}");
}

/// A slope of the loss over the value moves the logits by the temperature's inverse, and codes not at all.
#[test]
fn the_temperature_shapes_gradients_only() {
    let device = Device::flex().autodiff();
    let run = |temperature: f64| {
        let config = RegularizedConfig {
            temperature: Temperature::Constant { value: temperature },
            ..RegularizedConfig::new(12, 3)
        };
        let latents = normal(3, [1, 3, 4, 4], &device).require_grad();
        let seen = quantize(&built(&config, &device), latents.clone());
        let slope = latents.grad(&seen.quantized.clone().sum().backward());
        (seen.codes.values(), host_values(slope.unwrap()))
    };
    let ((codes, slopes), (same, flatter)) = (run(1.0), run(1e4));
    assert_eq!(codes, same);
    let largest = |slopes: &[f32]| slopes.iter().fold(0.0f32, |m, s| m.max(s.abs()));
    assert!(largest(&flatter) < 1e-3 * largest(&slopes));
}

#[test]
fn a_fresh_head_chooses_the_nearest_code() {
    let device = Device::flex();
    let quantizer = built(&RegularizedConfig::new(512, 8), &device);
    let latents = normal(4, [4, 8, 8, 8], &device);
    let nearest = nearest_codes(to_rows(latents.clone()), quantizer.table()).unwrap();
    let codes = quantizer.encode(latents).unwrap();
    assert_eq!(codes.values(), id_values(nearest));
}

#[test]
fn a_step_tells_how_decided_its_choices_are() {
    let config = RegularizedConfig {
        mask_ratio: 0.25,
        ..RegularizedConfig::new(16, 3)
    };
    let device = Device::flex();
    let mut quantizer = built(&config, &device);
    let mut choices = |scale: f64| {
        let latents = normal(3, [2, 3, 4, 4], &device).mul_scalar(scale);
        let mut noise = Noise::from_seed(7);
        let (_, report) = quantizer.quantize_and_update(latents, &mut noise).unwrap();
        report.choices.unwrap()
    };
    let (vague, sharp) = (choices(0.01), choices(1e4));
    for choices in [vague, sharp] {
        assert_eq!((choices.positions, choices.drawn), (32, 8));
        assert_eq!(choices.temperature, 1.0);
    }
    assert!(vague.certainty < 0.3, "{vague:?}");
    assert!(sharp.certainty > 0.999, "{sharp:?}");
    assert!(vague.apart > 0 && sharp.apart == 0);
}
