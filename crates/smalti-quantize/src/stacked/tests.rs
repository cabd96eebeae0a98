use super::*;
use crate::testing::{
    Golden, assert_golden, assert_quantizer, assert_slopes, loss, map, normal, quantized,
};
use crate::{BsqConfig, LfqConfig, Revival, SimVqConfig, VectorConfig};
use burn::tensor::Device;
use smalti_nn::nearest::id_values;
use smalti_nn::state::{Weights, host_values};

mod learned;

fn built(config: &StackedConfig, device: &Device) -> StackedQuantizer {
    config.build(&mut Init::new(device, 5)).unwrap()
}

fn fsq(levels: &[usize], bound: Bound) -> QuantizerConfig {
    QuantizerConfig::Fsq(FsqConfig {
        bound,
        ..FsqConfig::new(levels)
    })
}

/// `[batch, positions, channels]` as a map.
fn latents(golden: &Golden, name: &str, device: &Device) -> Tensor<4> {
    let rows = golden.tensor::<3>(name, device);
    rows.swap_dims(1, 2).unsqueeze_dim(2)
}

/// A map as `[batch, positions, channels]`.
fn rows(map: Tensor<4>) -> Vec<f32> {
    host_values(map.permute([0, 2, 3, 1]))
}

/// Ids with the depth as the fastest axis.
fn depth_last(codes: &Codes) -> Vec<u32> {
    id_values(codes.tensor().permute([0, 2, 3, 1]))
}

/// The smallest margin of these two cases is 1.4e-3 of a level: all codes must be equal.
#[test]
fn published_codes_of_residual_fsq() {
    let golden = Golden::open("quant_fsq");
    let device = Device::flex();
    for (variant, bound) in [
        ("residual_hard", Bound::Clamped),
        ("residual_soft", Bound::Symmetric),
    ] {
        let quantizer = built(&StackedConfig::new(3, fsq(&[5, 5, 3], bound)), &device);
        let named = |name: &str| format!("{variant}.{name}");
        let latents = latents(&golden, &named("x"), &device);
        let seen = quantized(&quantizer, latents.clone());
        let expected = golden.floats(&named("quantized"));
        assert_golden(&rows(seen.quantized), &expected, &named("quantized"));
        assert_eq!(depth_last(&seen.codes), golden.ids(&named("indices")));
        let decoded = rows(quantizer.decode(&seen.codes).unwrap());
        let expected = golden.floats(&named("output_from_indices"));
        assert_golden(&decoded, &expected, "decoded");
        let scales = (1..3).flat_map(|d| host_values(quantizer.scale(d, &latents).unwrap()));
        let expected = &golden.floats(&named("scales"))[3..];
        assert_golden(&scales.collect::<Vec<_>>(), expected, "scales");
        // Every stage's own contribution.
        let all = golden.floats(&named("all_codes"));
        for (stage, expected) in all.chunks(all.len() / 3).enumerate() {
            let codes = &quantizer.by_stage(&seen.codes)[stage];
            let own = quantizer.stages[stage].decode(codes).unwrap();
            let own = rows(quantizer.unscaled(stage, own));
            assert_golden(&own, expected, &named("all_codes"));
        }
    }
}

#[test]
fn it_does_what_every_quantizer_does() {
    for stage in [
        fsq(&[5, 4, 3], Bound::Symmetric),
        fsq(&[5, 4, 3], Bound::Clamped),
        QuantizerConfig::Lfq(LfqConfig::new(3, 1)),
        QuantizerConfig::Bsq(BsqConfig::new(3, 1)),
        QuantizerConfig::Vector(VectorConfig::new(9, 3)),
        QuantizerConfig::SimVq(SimVqConfig::new(9, 3)),
    ] {
        let config = StackedConfig::new(3, stage);
        assert_quantizer(&mut built(&config, &Device::flex()), 3);
    }
    let two = QuantizerConfig::Lfq(LfqConfig::new(2, 2));
    assert_quantizer(&mut built(&StackedConfig::new(3, two), &Device::flex()), 4);
}

#[test]
fn every_stage_of_levels_comes_closer() {
    let latents = normal(3, [4, 3, 8, 8], &Device::flex()).clamp(-1.0, 1.0);
    for stage in [
        fsq(&[5, 4, 3], Bound::Clamped),
        QuantizerConfig::Lfq(LfqConfig::new(3, 1)),
    ] {
        let gap = |depth| {
            let config = StackedConfig::new(depth, stage.clone());
            let quantizer = built(&config, &Device::flex());
            let target = quantizer.bounded(latents.clone()).unwrap();
            let value = quantized(&quantizer, latents.clone()).quantized;
            (target - value).abs().max().into_scalar::<f32>()
        };
        // Half a step of the coarsest channel at first; at least halved by every stage.
        let gaps: Vec<f32> = (1..6).map(gap).collect();
        for pair in gaps.windows(2) {
            assert!(pair[1] <= 0.51 * pair[0] + 1e-6, "{gaps:?}");
        }
    }
}

#[test]
fn straight_through_stages_make_a_straight_through_stack() {
    let device = Device::flex().autodiff();
    let latents = normal(3, [2, 3, 2, 2], &device).require_grad();
    let weights = normal(4, [2, 3, 2, 2], &device);
    let stage = QuantizerConfig::Vector(VectorConfig::new(9, 3));
    let quantizer = built(&StackedConfig::new(4, stage), &device);
    let value = quantized(&quantizer, latents.clone()).quantized;
    let gradient = latents
        .grad(&(value * weights.clone()).sum().backward())
        .expect("tracked");
    assert_golden(&host_values(gradient), &host_values(weights), "gradient");
}

#[test]
fn the_losses_are_means_over_the_stages_and_have_their_slopes() {
    let shape = [1, 3, 2, 2];
    for stage in [
        QuantizerConfig::Lfq(LfqConfig {
            inverse_temperature: 1.0,
            ..LfqConfig::new(3, 1)
        }),
        QuantizerConfig::Vector(VectorConfig::new(9, 3)),
    ] {
        let config = StackedConfig::new(2, stage);
        let device = Device::flex().autodiff();
        let quantizer = built(&config, &device);
        let fresh = || normal(3, shape, &device).require_grad();
        let names = quantized(&quantizer, fresh())
            .losses
            .into_iter()
            .map(|(name, _)| name);
        for name in names {
            let latents = fresh();
            let seen = quantized(&quantizer, latents.clone());
            let gradient = latents
                .grad(&loss(&seen, name).backward())
                .expect("tracked");
            let plain = host_values(latents.clone().inner());
            assert_slopes(&plain, &host_values(gradient), 0.7, |moved| {
                let seen = quantized(&quantizer, map(moved, shape, &Device::flex()));
                (loss(&seen, name).into_scalar::<f32>(), seen.codes.values())
            });
        }
    }
}

#[test]
fn a_refused_stage_changes_no_other() {
    let mut part = VectorConfig::new(4, 1);
    part.learning.revival = Revival::Off {};
    let config = StackedConfig::new(2, QuantizerConfig::Vector(part));
    let mut quantizer = built(&config, &Device::flex());
    let before = Weights::of(&quantizer);
    // The first stage takes numbers up to 1e15; k-means puts a code between the two, from which
    // both are as far again.
    let huge = map(vec![f32::MAX, -f32::MAX], [1, 1, 1, 2], &Device::flex());
    let result = quantizer.quantize_and_update(huge, &mut Noise::from_seed(1));
    assert_eq!(result.err(), Some(QuantizeError::TooLarge));
    assert_eq!(Weights::of(&quantizer), before);
    let fine = map(vec![0.5, 0.25], [1, 1, 1, 2], &Device::flex());
    let (_, report) = quantizer
        .quantize_and_update(fine, &mut Noise::from_seed(1))
        .unwrap();
    assert_eq!(report.codes, 8);
    assert_ne!(Weights::of(&quantizer), before);
}

#[test]
fn residuals_that_overflow_are_not_blamed_on_the_latents() {
    let error = at_stage(QuantizeError::NonFinite, 1);
    assert_eq!(error, QuantizeError::TooLarge);
    assert_eq!(
        at_stage(QuantizeError::NonFinite, 0),
        QuantizeError::NonFinite
    );
}

#[test]
fn tables_are_those_of_the_stages() {
    let stage = QuantizerConfig::Vector(VectorConfig::new(9, 3));
    let quantizer = built(&StackedConfig::new(2, stage), &Device::flex());
    let tables = [0, 1].map(|depth| host_values(quantizer.table(depth).unwrap()));
    let state = Weights::of(&quantizer);
    for (depth, table) in tables.iter().enumerate() {
        assert_eq!(
            *table,
            state.0[&format!("stages.{depth}.codebook.weight")].values
        );
    }
    let levels = built(
        &StackedConfig::new(2, fsq(&[3, 3], Bound::Clamped)),
        &Device::flex(),
    );
    assert!(levels.table(0).is_none());
}

#[test]
fn validation_names_the_stage() {
    let problems = |config: StackedConfig| config.validate().unwrap_err().to_string();
    let message = problems(StackedConfig::new(0, fsq(&[8, 5], Bound::Official)));
    for part in ["depth must be at least 1", "needs bound = \"symmetric\""] {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
    let message = problems(StackedConfig::new(2, fsq(&[1], Bound::Clamped)));
    assert!(
        message.contains("stage: levels must each be at least 2"),
        "{message}"
    );
}
