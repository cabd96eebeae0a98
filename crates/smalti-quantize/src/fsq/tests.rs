use super::*;
use crate::testing::{
    Golden, assert_golden, assert_quantizer, assert_slopes, map, normal, quantized,
};
use burn::tensor::DType;
use proptest::prelude::*;

const LEVELS: [usize; 4] = [8, 5, 5, 4];

fn built(config: &FsqConfig) -> FsqQuantizer {
    config.build().unwrap()
}

fn with(levels: &[usize], bound: Bound) -> FsqConfig {
    FsqConfig {
        bound,
        ..FsqConfig::new(levels)
    }
}

/// Codes, values and gradients of one recorded variant. Its margins are all above 9e-4, far above
/// rounding: every code must be equal.
fn check_golden(config: &FsqConfig, [x, probe, variant]: [&str; 3]) {
    let golden = Golden::open("quant_fsq");
    let device = Device::flex().autodiff();
    let latents = golden.tensor::<4>(x, &device).require_grad();
    let quantizer = built(config);
    let seen = quantized(&quantizer, latents.clone());
    let named = |name: &str| format!("{variant}.{name}");
    assert_golden(
        &host_values(seen.quantized.clone()),
        &golden.floats(&named("zhat")),
        &named("zhat"),
    );
    assert_eq!(seen.codes.values(), golden.ids(&named("indices")));
    let loss = (seen.quantized * golden.tensor(probe, &device)).sum();
    let gradient = latents.grad(&loss.backward()).expect("tracked");
    assert_golden(
        &host_values(gradient),
        &golden.floats(&named("grad_x")),
        &named("grad_x"),
    );
    let decoded = quantizer.decode(&seen.codes).unwrap();
    let recorded = if variant == "pit" {
        "dequant"
    } else {
        "codes_from_indices"
    };
    if variant != "lucid_sym" {
        assert_golden(
            &host_values(decoded),
            &golden.floats(&named(recorded)),
            recorded,
        );
    }
}

#[test]
fn published_codes_with_the_first_channel_least_significant() {
    check_golden(&FsqConfig::new(&LEVELS), ["x", "grad_probe", "lucid"]);
}

#[test]
fn published_codes_with_the_first_channel_most_significant() {
    let config = FsqConfig {
        first_channel: Significance::Highest,
        ..FsqConfig::new(&LEVELS)
    };
    check_golden(&config, ["x", "grad_probe", "pit"]);
}

#[test]
fn published_codes_of_symmetric_levels() {
    let config = with(&[5, 4, 3], Bound::Symmetric);
    check_golden(&config, ["x_sym", "grad_probe_sym", "lucid_sym"]);
}

#[test]
fn the_gradient_is_that_of_the_recorded_bounded_value() {
    let golden = Golden::open("quant_fsq");
    let latents = golden.tensor::<4>("x", &Device::flex());
    // Recorded before the division by ⌊L/2⌋, channels last, and less the offset.
    let bounded = built(&FsqConfig::new(&LEVELS)).bounded(latents);
    let bounded = host_values(bounded.permute([0, 2, 3, 1]));
    let scaled: Vec<f32> = bounded
        .iter()
        .enumerate()
        .map(|(i, b)| {
            let levels = Levels::new(LEVELS[i % 4], Bound::Official);
            b * levels.middle() as f32 - levels.offset as f32
        })
        .collect();
    assert_golden(&scaled, &golden.floats("bounded"), "bounded");
}

#[test]
fn the_constants_are_those_of_the_paper() {
    for (levels, half, shift) in [
        (8, 3.5035, 0.143_695_351_6),
        (6, 2.5025, 0.202_524_437_5),
        (4, 1.5015, 0.346_199_011_7),
        (16, 7.5075, 0.066_698_799_2),
        (5, 2.002, 0.0),
        (7, 3.003, 0.0),
    ] {
        let of = Levels::new(levels, Bound::Official);
        assert!((of.half - half).abs() < 1e-9 && (of.shift - shift).abs() < 1e-9);
    }
    let values = |count, bound| -> Vec<f32> {
        let levels = Levels::new(count, bound);
        (0..count as u32).map(|k| levels.value(k)).collect()
    };
    let quarters = [-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75];
    assert_eq!(values(8, Bound::Official), quarters);
    assert_eq!(values(5, Bound::Official), [-1.0, -0.5, 0.0, 0.5, 1.0]);
    assert_eq!(values(2, Bound::Symmetric), [-1.0, 1.0]);
    assert_eq!(values(3, Bound::Clamped), [-1.0, 0.0, 1.0]);
}

#[test]
fn presets_are_near_their_number_of_bits() {
    for bits in [8u32, 10, 12, 14, 16] {
        let config = FsqConfig::preset(bits).unwrap();
        let size = built(&config).spec().codebook_sizes[0] as f64;
        assert!(
            (size.log2() - f64::from(bits)).abs() < 0.3,
            "{bits}: {size}"
        );
    }
    assert_eq!(
        built(&FsqConfig::preset(16).unwrap()).spec().codebook_sizes,
        [64_000]
    );
    assert!(FsqConfig::preset(9).is_none());
}

#[test]
fn it_does_what_every_quantizer_does() {
    for bound in [Bound::Official, Bound::Symmetric, Bound::Clamped] {
        for depth in [1, 2] {
            let config = FsqConfig {
                depth,
                ..with(&[5, 4, 3], bound)
            };
            assert_quantizer(&mut built(&config), 3 * depth);
        }
    }
}

/// The straight-through gradient cannot be a slope of the value, whose steps are flat. It must be
/// the slope of what is rounded.
#[test]
fn the_gradient_is_the_slope_of_what_is_rounded() {
    let shape = [1, 4, 2, 2];
    for bound in [Bound::Official, Bound::Symmetric, Bound::Clamped] {
        let quantizer = built(&with(&LEVELS, bound));
        let device = Device::flex().autodiff();
        let latents = normal(3, shape, &device).require_grad();
        let weights = normal(4, shape, &device);
        let value = quantized(&quantizer, latents.clone()).quantized;
        let gradient = latents
            .grad(&(value * weights).sum().backward())
            .expect("tracked");
        let plain = host_values(latents.inner());
        assert_slopes(&plain, &host_values(gradient), 1.0, |moved| {
            let device = Device::flex();
            let bounded = quantizer.bounded(map(moved, shape, &device));
            let weighted = bounded * normal(4, shape, &device);
            (weighted.sum().into_scalar::<f32>(), Vec::new())
        });
    }
}

#[test]
fn halves_round_to_even_and_ends_stay_in_range() {
    // With three levels the bound is tanh(x)·1.001.
    let levels = Levels::new(3, Bound::Official);
    assert_eq!(
        [-9.0, -0.2, 0.2, 9.0].map(|x| levels.digit(x)),
        [0, 1, 1, 2]
    );
    // Beyond 1000 levels the bound reaches past the last level.
    for bound in [Bound::Official, Bound::Symmetric, Bound::Clamped] {
        let levels = Levels::new(5000, bound);
        assert_eq!(levels.digit(f32::MAX), 4999);
        assert_eq!(levels.digit(f32::MIN), 0);
    }
    let four = Levels::new(4, Bound::Clamped);
    assert_eq!(four.digit(0.0), 2, "a half goes up");
}

#[test]
fn half_precision_finds_the_codes_of_its_own_numbers() {
    let device = Device::flex();
    let quantizer = built(&FsqConfig::new(&[8, 8, 8, 5, 5, 5]));
    let latents = normal(7, [1, 6, 16, 16], &device);
    for dtype in [DType::F16, DType::BF16, DType::F64] {
        let other = latents.clone().cast(dtype);
        let same = other.clone().cast(DType::F32);
        let codes = quantizer.encode(other.clone()).unwrap().values();
        assert_eq!(codes, quantizer.encode(same.clone()).unwrap().values());
        let value = quantized(&quantizer, other).quantized;
        assert_eq!(
            host_values(value),
            host_values(quantized(&quantizer, same).quantized)
        );
    }
}

#[test]
fn validation_names_every_problem() {
    let problems = |config: FsqConfig| config.validate().unwrap_err().to_string();
    let config = FsqConfig {
        depth: 0,
        ..FsqConfig::new(&[8, 1, 1 << 31])
    };
    let message = problems(config);
    for part in ["depth must be", "at least 3 here, got 1", "fewer than 2^31"] {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
    let two = problems(FsqConfig::new(&[8, 2]));
    assert!(
        two.contains("two levels need bound = \"symmetric\""),
        "{two}"
    );
    assert!(with(&[8, 2], Bound::Symmetric).validate().is_ok());
    assert!(problems(FsqConfig::new(&[])).contains("at least one"));
    assert!(problems(FsqConfig::new(&[16; 8])).contains("2^31"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_id_decodes_to_values_that_encode_to_it_again(
        levels in proptest::collection::vec(3usize..10, 1..5), highest: bool, seed: u32,
    ) {
        let first_channel =
            if highest { Significance::Highest } else { Significance::Lowest };
        let config = FsqConfig { first_channel, depth: 2, ..FsqConfig::new(&levels) };
        let quantizer = built(&config);
        let size = quantizer.spec().codebook_sizes[0] as u32;
        let ids: Vec<u32> = (0..2 * 2 * 3).map(|i| seed.wrapping_mul(i + 3) % size).collect();
        let codes = Codes::from_values(&ids, [1, 2, 2, 3], &Device::flex());
        let values = quantizer.decode(&codes).unwrap();
        // The latents whose bounded value is the level itself.
        let positions = 6;
        let latents = host_values(values.clone()).into_iter().enumerate().map(|(i, value)| {
            let count = levels[i / positions % levels.len()];
            let of = Levels::new(count, Bound::Official);
            let inner = (f64::from(value) * of.middle() + of.offset) / of.half;
            (inner.clamp(-0.9995, 0.9995).atanh() - of.shift) as f32
        });
        let latents = map(latents.collect(), values.dims(), &Device::flex());
        prop_assert_eq!(quantizer.encode(latents).unwrap().values(), ids.clone());
        // Clamped levels are their own latents.
        let clamped = built(&FsqConfig { bound: Bound::Clamped, ..config });
        let values = clamped.decode(&codes).unwrap();
        prop_assert_eq!(clamped.encode(values).unwrap().values(), ids);
    }

    #[test]
    fn ids_are_in_range_for_any_finite_latents(
        values in proptest::collection::vec(-f32::MAX..f32::MAX, 12), shrink in 0i32..40,
    ) {
        let values: Vec<f32> = values.iter().map(|v| v / 10f32.powi(shrink)).collect();
        for bound in [Bound::Official, Bound::Symmetric, Bound::Clamped] {
            let quantizer = built(&with(&[8, 5, 4], bound));
            let latents = map(values.clone(), [1, 3, 2, 2], &Device::flex());
            let codes = quantizer.encode(latents).unwrap();
            prop_assert!(codes.values().iter().all(|&id| id < 160));
        }
    }
}
