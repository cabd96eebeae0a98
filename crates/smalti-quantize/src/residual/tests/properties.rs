//! What holds for any latents, and that refused latents change nothing.

use proptest::collection::vec;
use proptest::num::f32::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
use proptest::prelude::*;

use super::*;
use crate::Learn;

fn finite() -> impl Strategy<Value = f32> {
    POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO
}

fn non_finite() -> impl Strategy<Value = f32> {
    prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY)]
}

fn learnings() -> [Learning; 2] {
    [Learning::default(), Learning::published()]
}

fn built(learning: Learning, seed: u64) -> ResidualQuantizer {
    let config = ResidualConfig {
        learning,
        ..ResidualConfig::new(9, 3, 3)
    };
    config.build(&mut Init::new(&Device::flex(), seed)).unwrap()
}

/// Corners of squares, each a fifth as large as those of the depth before: every sum has its own
/// codes.
fn corners() -> ResidualQuantizer {
    let square = [1.0, 1.0, 1.0, -1.0, -1.0, 1.0, -1.0, -1.0];
    let tables: Vec<Vec<f32>> = (0..3)
        .map(|d| square.iter().map(|v| v * 0.2f32.powi(d)).collect())
        .collect();
    let config = ResidualConfig {
        shared: false,
        ..ResidualConfig::new(4, 2, 3)
    };
    with_tables(&config, &Device::flex(), &tables)
}

/// Latents that `quantizer` refuses to learn from leave it as it was.
fn refuses(quantizer: &mut ResidualQuantizer, latents: Tensor<4>, expected: &QuantizeError) {
    let before = Weights::of(quantizer);
    let error = quantizer
        .quantize_and_update(latents, &mut Noise::from_seed(1))
        .unwrap_err();
    assert_eq!(error, *expected);
    assert_eq!(Weights::of(quantizer), before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn ids_are_in_range_for_any_finite_latents(values in vec(finite(), 12), seed: u64) {
        let latents = in_a_row(&values, 3, &Device::flex());
        match built(Learning::default(), seed).encode(latents) {
            Ok(codes) => prop_assert!(codes.values().iter().all(|&id| id < 9)),
            Err(error) => {
                prop_assert_eq!(error, QuantizeError::TooLarge);
                prop_assert!(values.iter().any(|v| v.abs() > 1e38));
            }
        }
    }

    #[test]
    fn learning_from_any_finite_latents_leaves_a_finite_table_or_nothing_changed(
        values in vec(finite(), 12), scale in prop_oneof![Just(1.0f32), Just(1e-30)], seed: u64,
    ) {
        for learning in learnings() {
            let mut quantizer = built(learning, seed);
            let before = Weights::of(&quantizer);
            let values: Vec<f32> = values.iter().map(|v| v * scale).collect();
            let latents = in_a_row(&values, 3, &Device::flex());
            match quantizer.quantize_and_update(latents, &mut Noise::from_seed(seed)) {
                Ok((seen, _)) => {
                    prop_assert!(seen.codes.values().iter().all(|&id| id < 9));
                    let finite = |v: &f32| v.is_finite();
                    prop_assert!(Weights::of(&quantizer).0.values().all(|a| a.values.iter().all(finite)));
                }
                Err(error) => {
                    prop_assert_eq!(error, QuantizeError::TooLarge);
                    prop_assert_eq!(Weights::of(&quantizer), before);
                }
            }
        }
    }

    #[test]
    fn latents_that_are_not_finite_are_refused_and_change_nothing(
        wrong in non_finite(), place in 0usize..12, trained: bool,
    ) {
        let mut values = [0.5; 12];
        values[place] = wrong;
        let latents = in_a_row(&values, 3, &Device::flex());
        for learning in learnings() {
            let mut quantizer = built(learning, 4);
            if trained {
                let fine = normal(6, [4, 3, 3, 3], &Device::flex());
                quantizer.quantize_and_update(fine, &mut Noise::from_seed(1)).unwrap();
            }
            prop_assert_eq!(quantizer.encode(latents.clone()).unwrap_err(), QuantizeError::NonFinite);
            let mut noise = Noise::from_seed(1);
            let error = quantizer.quantize(latents.clone(), &mut noise).unwrap_err();
            prop_assert_eq!(error, QuantizeError::NonFinite);
            refuses(&mut quantizer, latents.clone(), &QuantizeError::NonFinite);
        }
    }

    #[test]
    fn a_batch_is_quantized_as_its_parts_are(cut in 1usize..5, shared: bool, seed: u64) {
        let config = ResidualConfig { shared, ..ResidualConfig::new(20, 6, 3) };
        let quantizer = config.build(&mut Init::new(&Device::flex(), seed)).unwrap();
        let latents = normal(seed ^ 1, [5, 6, 2, 3], &Device::flex());
        let parts = [latents.clone().narrow(0, 0, cut), latents.clone().narrow(0, cut, 5 - cut)];
        let of_part = |part: Tensor<4>| quantizer.quantize(part, &mut Noise::from_seed(1)).unwrap();
        let [first, second] = parts.map(of_part);
        let whole = of_part(latents);
        prop_assert_eq!(whole.codes.values(), [first.codes.values(), second.codes.values()].concat());
        let values = [host_values(first.quantized), host_values(second.quantized)].concat();
        prop_assert_eq!(host_values(whole.quantized), values);
    }

    #[test]
    fn separated_codes_survive_decoding_and_encoding(ids in vec(0u32..4, 24)) {
        let quantizer = corners();
        let codes = Codes::from_values(&ids, [2, 3, 2, 2], &Device::flex());
        let latents = quantizer.decode(&codes).unwrap();
        prop_assert_eq!(quantizer.encode(latents).unwrap().values(), ids);
    }

    #[test]
    fn ids_outside_the_codebook_are_refused(
        place in 0usize..24, wrong in prop_oneof![4u32..8, Just(i32::MAX as u32)],
    ) {
        let mut ids = [3; 24];
        ids[place] = wrong;
        let codes = Codes::from_values(&ids, [2, 3, 2, 2], &Device::flex());
        let error = corners().decode(&codes).unwrap_err();
        let depth = place / 4 % 3;
        prop_assert_eq!(error, QuantizeError::OutOfRange { id: wrong, depth, codebook_size: 4 });
    }
}

#[test]
fn an_id_is_held_against_the_codebook_of_its_depth() {
    let codebook_size = PerDepth::Each(vec![4, 2]);
    let config = ResidualConfig {
        codebook_size,
        shared: false,
        ..ResidualConfig::new(1, 3, 2)
    };
    let quantizer = config.build(&mut Init::new(&Device::flex(), 1)).unwrap();
    let spec = quantizer.spec();
    assert_eq!(
        (spec.codebook_sizes.as_slice(), spec.depth()),
        ([4, 2].as_slice(), 2)
    );
    assert_eq!(spec.bits_per_position(), 3.0);
    let decode =
        |ids: &[u32]| quantizer.decode(&Codes::from_values(ids, [1, 2, 1, 1], &Device::flex()));
    assert!(decode(&[3, 1]).is_ok());
    let error = decode(&[1, 3]).unwrap_err().to_string();
    assert_eq!(error, "code 3 at depth 1 is outside the codebook of 2");
}

#[test]
fn latents_too_large_to_learn_from_change_nothing() {
    let latents = in_a_row(&[1e30; 12], 3, &Device::flex());
    for learning in learnings() {
        refuses(
            &mut built(learning, 4),
            latents.clone(),
            &QuantizeError::TooLarge,
        );
    }
}

#[test]
fn an_error_at_a_later_depth_takes_back_the_updates_before_it() {
    // The first table rewrites well; the second holds a code that is not finite.
    let config = ResidualConfig {
        shared: false,
        learning: Learning::published(),
        ..ResidualConfig::new(2, 1, 2)
    };
    let tables = [vec![0.0, 1.0], vec![f32::NAN, 0.0]];
    let mut quantizer = with_tables(&config, &Device::flex(), &tables);
    let first = |q: &ResidualQuantizer| {
        ["weight", "cluster_size_ema", "embed_ema", "updates"]
            .map(|field| state(q, &format!("codebooks.0.{field}")))
    };
    let before = first(&quantizer);
    let latents = in_a_row(&[0.3, 0.9, 0.8], 1, &Device::flex());
    let error = quantizer
        .quantize_and_update(latents, &mut Noise::from_seed(1))
        .unwrap_err();
    assert_eq!(error, QuantizeError::NonFiniteCodebook);
    assert_eq!(first(&quantizer), before);
}

#[test]
fn an_empty_batch_teaches_nothing() {
    let empty = Tensor::<4>::zeros([0, 3, 2, 2], &Device::flex());
    refuses(
        &mut built(Learning::default(), 4),
        empty,
        &QuantizeError::Empty,
    );
}

#[test]
fn equal_seeds_learn_equal_tables() {
    let learn = |seed| {
        let mut quantizer = built(Learning::published(), 4);
        for step in 0..3 {
            let latents = normal(step, [2, 3, 2, 2], &Device::flex());
            quantizer
                .quantize_and_update(latents, &mut Noise::for_step(seed, step))
                .unwrap();
        }
        Weights::of(&quantizer)
    };
    assert_eq!(learn(1), learn(1));
    assert_ne!(learn(1), learn(2));
}
