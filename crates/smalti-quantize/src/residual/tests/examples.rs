//! Examples worked by hand, and what the parts of the interface have to do with each other.

use super::*;
use crate::{Learn, Revival, Start, UpdateOrder};

const TABLE: [f32; 6] = [0.0, 0.0, 1.0, 0.0, 0.0, 2.0];

fn published_without_revival(depth: usize) -> ResidualConfig {
    let learning = Learning {
        revival: Revival::Off {},
        ..Learning::published()
    };
    ResidualConfig {
        learning,
        ..ResidualConfig::new(3, 2, depth)
    }
}

fn update_by_hand(depth: usize) -> (ResidualQuantizer, Quantized) {
    let config = published_without_revival(depth);
    let mut quantizer = with_state(&config, &Device::flex(), &[[&TABLE, &[0.0; 3], &TABLE]]);
    let latents = in_a_row(&[0.9, 0.1, 0.2, 1.7, 1.2, -0.2], 2, &Device::flex());
    let mut noise = Noise::from_seed(1);
    let (quantized, _) = quantizer.quantize_and_update(latents, &mut noise).unwrap();
    (quantizer, quantized)
}

#[test]
fn the_table_is_rewritten_between_depths() {
    let (one, _) = update_by_hand(1);
    assert_close(
        &state(&one, "codebooks.0.cluster_size_ema"),
        &[0.0, 0.02, 0.01],
        1e-5,
        1e-8,
        "N",
    );
    let sums = [0.0, 0.0, 1.011, -0.001, 0.002, 1.997];
    assert_close(
        &state(&one, "codebooks.0.embed_ema"),
        &sums,
        1e-5,
        1e-7,
        "M",
    );
    let table = [0.0, 0.0, 50.57526, -0.050025, 0.2, 199.7];
    assert_close(&host_values(one.table(0)), &table, 1e-5, 1e-4, "e");

    let (two, seen) = update_by_hand(2);
    // In the rewritten table only the first code is near, so it takes every residual of depth 2.
    assert_eq!(seen.codes.values(), [1, 2, 1, 0, 0, 0]);
    assert_close(
        &state(&two, "codebooks.0.cluster_size_ema"),
        &[0.03, 0.0198, 0.0099],
        1e-5,
        1e-8,
        "N",
    );
    assert_close(
        &state(&two, "codebooks.0.embed_ema")[..2],
        &[0.003, -0.004],
        1e-4,
        1e-7,
        "M",
    );
    assert_close(
        &host_values(two.table(0))[..2],
        &[0.100017, -0.133356],
        1e-4,
        1e-6,
        "e",
    );
    assert_close(
        &host_values(seen.losses[0].1.clone()),
        &[0.0383333],
        1e-5,
        0.0,
        "commitment",
    );
    let rows = host_values(seen.quantized.permute([0, 2, 3, 1]));
    assert_close(
        &rows,
        &[1.0, 0.0, 0.0, 2.0, 1.0, 0.0],
        0.0,
        1e-6,
        "quantized",
    );
}

#[test]
fn soft_targets_of_a_vector() {
    let quantizer = with_tables(
        &ResidualConfig::new(3, 2, 1),
        &Device::flex(),
        &[TABLE.to_vec()],
    );
    let latents = in_a_row(&[0.2, 1.7], 2, &Device::flex());
    let soft = quantizer.soft_codes(latents, 0.5, None).unwrap();
    assert_close(
        &host_values(soft.targets[0].clone()),
        &[0.003680, 0.001108, 0.995211],
        1e-3,
        1e-6,
        "Q",
    );
    assert_eq!(soft.codes.values(), [2]);
}

#[test]
fn drawn_codes_follow_their_targets_and_the_next_depth_follows_them() {
    let quantizer = with_tables(
        &ResidualConfig::new(3, 2, 2),
        &Device::flex(),
        &[TABLE.to_vec()],
    );
    let count = 4000;
    let latents = in_a_row(&[0.5, 0.6].repeat(count), 2, &Device::flex());
    let soft = quantizer
        .soft_codes(latents, 1.0, Some(&mut Noise::from_seed(3)))
        .unwrap();
    let first = &soft.codes.values()[..count];
    let expected = &host_values(soft.targets[0].clone())[..3];
    for (code, probability) in expected.iter().enumerate() {
        let share = first.iter().filter(|&&id| id == code as u32).count() as f32 / count as f32;
        assert!(
            (share - probability).abs() < 0.03,
            "code {code}: {share} instead of {probability}"
        );
    }
    // softmax(−‖r − e‖²) of the residual that the drawn code leaves.
    let second = host_values(soft.targets[1].clone());
    for (i, &id) in first.iter().enumerate().take(50) {
        let residual = [
            0.5 - TABLE[2 * id as usize],
            0.6 - TABLE[2 * id as usize + 1],
        ];
        let scores: Vec<f32> = TABLE
            .chunks_exact(2)
            .map(|e| (-(residual[0] - e[0]).powi(2) - (residual[1] - e[1]).powi(2)).exp())
            .collect();
        let total: f32 = scores.iter().sum();
        let expected: Vec<f32> = scores.iter().map(|score| score / total).collect();
        assert_close(
            &second[3 * i..3 * i + 3],
            &expected,
            1e-4,
            1e-6,
            "second depth",
        );
    }
}

#[test]
fn soft_codes_refuse_what_has_no_distribution() {
    let quantizer = with_tables(
        &ResidualConfig::new(3, 2, 1),
        &Device::flex(),
        &[TABLE.to_vec()],
    );
    let soft = |values: &[f32], temperature| {
        quantizer
            .soft_codes(in_a_row(values, 2, &Device::flex()), temperature, None)
            .unwrap_err()
    };
    for wrong in [0.0, -1.0, f64::INFINITY] {
        assert_eq!(
            soft(&[0.0, 0.0], wrong),
            QuantizeError::Temperature { got: wrong }
        );
    }
    assert!(
        soft(&[0.0, 0.0], f64::NAN)
            .to_string()
            .contains("temperature must be positive")
    );
    assert_eq!(soft(&[0.0, f32::NAN], 0.5), QuantizeError::NonFinite);
    assert_eq!(soft(&[0.0, 1e30], 0.5), QuantizeError::TooLarge);
}

#[test]
fn partial_sums_are_the_sums_of_the_first_codes() {
    for shared in [true, false] {
        let config = ResidualConfig {
            shared,
            ..ResidualConfig::new(16, 5, 4)
        };
        let quantizer = config.build(&mut Init::new(&Device::flex(), 7)).unwrap();
        let latents = normal(8, [2, 5, 3, 2], &Device::flex());
        let codes = quantizer.encode(latents.clone()).unwrap();
        let sums = quantizer.partial_sums(latents.clone()).unwrap();
        assert_eq!(sums.len(), 4);
        let mut total = 0.0;
        for (d, sum) in sums.iter().enumerate() {
            let preview = quantizer.decode_depths(&codes, 0..d + 1).unwrap();
            assert_eq!(host_values(preview), host_values(sum.clone()));
            total += (latents.clone() - sum.clone())
                .square()
                .mean()
                .into_scalar::<f32>()
                / 4.0;
        }
        let layers = (0..4).map(|d| quantizer.decode_depths(&codes, d..d + 1).unwrap());
        let sum = host_values(layers.reduce(|a, b| a + b).unwrap());
        assert_close(
            &sum,
            &host_values(quantizer.decode(&codes).unwrap()),
            1e-6,
            1e-6,
            "layers",
        );
        let quantized = quantizer
            .quantize(latents, &mut Noise::from_seed(1))
            .unwrap();
        let commitment = quantized.losses[0].1.clone().into_scalar::<f32>();
        assert!((commitment - total).abs() < 1e-5, "{commitment} {total}");
    }
}

#[test]
fn decoding_refuses_depths_that_are_not_there() {
    let quantizer = ResidualConfig::new(4, 2, 2)
        .build(&mut Init::new(&Device::flex(), 7))
        .unwrap();
    let codes = Codes::from_values(&[0; 8], [1, 2, 2, 2], &Device::flex());
    for depths in [0..3, 1..1, 2..3] {
        let (start, end) = (depths.start, depths.end);
        let error = quantizer.decode_depths(&codes, depths).unwrap_err();
        assert_eq!(
            error,
            QuantizeError::Depths {
                start,
                end,
                depth: 2
            }
        );
    }
    let shallow = Codes::from_values(&[0; 4], [1, 1, 2, 2], &Device::flex());
    let error = quantizer.decode(&shallow).unwrap_err().to_string();
    assert_eq!(error, "codes need a depth of 2, got 1");
}

#[test]
fn decoding_what_was_encoded_gives_the_quantized_value() {
    for (shared, fold) in [(true, 1), (false, 1), (true, 2)] {
        let config = ResidualConfig {
            shared,
            fold,
            ..ResidualConfig::new(16, 8, 3)
        };
        let quantizer = config.build(&mut Init::new(&Device::flex(), 7)).unwrap();
        let latents = normal(9, [2, 8 / (fold * fold), 4, 6], &Device::flex());
        let codes = quantizer.encode(latents.clone()).unwrap();
        assert_eq!(codes.dims(), [2, 3, 4 / fold, 6 / fold]);
        let quantized = quantizer
            .quantize(latents, &mut Noise::from_seed(1))
            .unwrap();
        assert_eq!(quantized.codes.values(), codes.values());
        let decoded = host_values(quantizer.decode(&codes).unwrap());
        // x + (ẑ − x) rounds twice.
        assert_close(
            &host_values(quantized.quantized),
            &decoded,
            1e-6,
            1e-6,
            "value",
        );
    }
}

#[test]
fn folding_quantizes_blocks_as_wider_vectors() {
    let wide = ResidualConfig::new(16, 8, 2)
        .build(&mut Init::new(&Device::flex(), 7))
        .unwrap();
    let config = ResidualConfig {
        fold: 2,
        ..ResidualConfig::new(16, 8, 2)
    };
    let folding = config.build(&mut Init::new(&Device::flex(), 7)).unwrap();
    let latents = normal(3, [1, 2, 4, 4], &Device::flex());
    let folded = fold(latents.clone(), 2).unwrap();
    assert_eq!(
        folding.encode(latents.clone()).unwrap().values(),
        wide.encode(folded.clone()).unwrap().values()
    );
    let error = folding
        .encode(normal(3, [1, 2, 3, 4], &Device::flex()))
        .unwrap_err();
    assert_eq!(
        error,
        QuantizeError::Fold {
            height: 3,
            width: 4,
            fold: 2
        }
    );
    let error = folding.encode(folded).unwrap_err();
    assert_eq!(
        error,
        QuantizeError::Channels {
            expected: 2,
            got: 8
        }
    );
    // Blocks of zeros and the mean of squares do not notice the folding either.
    let loss = |q: &ResidualQuantizer, x| {
        q.quantize(x, &mut Noise::from_seed(1)).unwrap().losses[0]
            .1
            .clone()
            .into_scalar::<f32>()
    };
    let folded = fold(latents.clone(), 2).unwrap();
    assert!((loss(&folding, latents) - loss(&wide, folded)).abs() < 1e-6);
}

#[test]
fn one_table_serves_all_depths_of_a_joint_update() {
    let learning = Learning {
        start: Start::Normal {},
        ..Learning::default()
    };
    assert_eq!(learning.order, UpdateOrder::Joint);
    for shared in [true, false] {
        let config = ResidualConfig {
            shared,
            learning: learning.clone(),
            ..ResidualConfig::new(16, 4, 3)
        };
        let mut quantizer = config.build(&mut Init::new(&Device::flex(), 7)).unwrap();
        let latents = normal(9, [2, 4, 4, 4], &Device::flex());
        let before = quantizer.encode(latents.clone()).unwrap().values();
        let (seen, report) = quantizer
            .quantize_and_update(latents.clone(), &mut Noise::from_seed(1))
            .unwrap();
        assert_eq!(
            seen.codes.values(),
            before,
            "training sees what evaluation would have seen"
        );
        assert_eq!(report.codes, if shared { 16 } else { 48 });
        // N of all codes together: 0.99 · K + 0.01 · vectors of the depths that share a codebook.
        let vectors = if shared { 96.0 } else { 32.0 };
        let total: f32 = state(&quantizer, "codebooks.0.cluster_size_ema")
            .iter()
            .sum();
        assert!(
            (total - (0.99 * 16.0 + 0.01 * vectors)).abs() < 1e-3,
            "{total}"
        );
        assert_eq!(state(&quantizer, "codebooks.0.updates"), [1.0]);
    }
}

#[test]
fn the_first_latents_place_the_codes_once() {
    for shared in [true, false] {
        let config = ResidualConfig {
            shared,
            ..ResidualConfig::new(16, 4, 2)
        };
        let mut quantizer = config.build(&mut Init::new(&Device::flex(), 7)).unwrap();
        let latents = normal(9, [4, 4, 8, 8], &Device::flex()).mul_scalar(100.0);
        let mut noise = Noise::from_seed(1);
        let error = |q: &ResidualQuantizer| {
            let sums = q.partial_sums(latents.clone()).unwrap();
            (latents.clone() - sums[1].clone())
                .square()
                .mean()
                .into_scalar::<f32>()
        };
        let unplaced = error(&quantizer);
        quantizer
            .quantize_and_update(latents.clone(), &mut noise)
            .unwrap();
        let placed = error(&quantizer);
        assert!(
            placed < unplaced / 2.0 && unplaced > 9000.0,
            "{unplaced} {placed}"
        );
        let table = host_values(quantizer.table(0));
        quantizer
            .quantize_and_update(latents.clone(), &mut noise)
            .unwrap();
        let moved = host_values(quantizer.table(0));
        let largest = table
            .iter()
            .zip(&moved)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(
            largest < 50.0,
            "the second update moves codes a little, it does not place them: {largest}"
        );
    }
}

#[test]
fn published_codebooks_need_no_more_state_than_a_counter_of_updates() {
    let names = |learning| {
        let config = ResidualConfig {
            learning,
            ..ResidualConfig::new(4, 2, 2)
        };
        let quantizer = config.build(&mut Init::new(&Device::flex(), 1)).unwrap();
        let names: Vec<String> = Weights::of(&quantizer).0.into_keys().collect();
        names.join(" ").replace("codebooks.0.", "")
    };
    let published = "cluster_size_ema embed_ema updates weight";
    assert_eq!(names(Learning::published()), published);
    let off = Learning {
        revival: Revival::Off {},
        ..Learning::default()
    };
    assert_eq!(names(off), published);
    assert_eq!(
        names(Learning::default()),
        "cluster_size_ema embed_ema idle updates weight"
    );
}
