use super::*;
use crate::testing::{
    Golden, assert_golden, assert_quantizer, assert_scalar, map, normal, quantized, weighted,
    with_arrays,
};
use crate::{
    FsqConfig, IbqConfig, LfqConfig, QuantizerConfig, ResidualConfig, Revival, Rule, SimVqConfig,
    VectorConfig,
};
use burn::tensor::Device;
use smalti_nn::state::{Weights, host_values};

fn built(config: &GroupedConfig, device: &Device) -> GroupedQuantizer {
    config.build(&mut Init::new(device, 5)).unwrap()
}

fn vector(size: usize, width: usize) -> QuantizerConfig {
    QuantizerConfig::Vector(VectorConfig {
        rule: Rule::Gradient,
        ..VectorConfig::new(size, width)
    })
}

fn kinds() -> Vec<QuantizerConfig> {
    vec![
        vector(7, 2),
        QuantizerConfig::Residual(ResidualConfig::new(9, 2, 3)),
        QuantizerConfig::Fsq(FsqConfig::new(&[5, 4])),
        QuantizerConfig::Lfq(LfqConfig::new(1, 2)),
        QuantizerConfig::SimVq(SimVqConfig::new(9, 2)),
        QuantizerConfig::Ibq(IbqConfig::new(9, 2)),
    ]
}

/// Two codebooks of one table over channels seen as `[4, 2]`. Recorded: the loss with the weights
/// exchanged (`legacy`), and its gradients. No margins are recorded; all codes are equal.
#[test]
fn published_codes_of_several_strided_codebooks() {
    let golden = Golden::open("quant_ibq_vq");
    let device = Device::flex().autodiff();
    let config = GroupedConfig {
        layout: Layout::Strided,
        ..GroupedConfig::new(2, vector(48, 4))
    };
    let table = golden.floats("pitvq.embed");
    let fresh = built(&config, &device);
    let quantizer = with_arrays(fresh, &[("parts.0.codebook.weight", table)]);
    let latents = golden.tensor::<4>("x", &device).require_grad();
    let seen = quantized(&quantizer, latents.clone());
    let value = host_values(seen.quantized.clone());
    assert_golden(&value, &golden.floats("pitvq.quantized"), "quantized");
    assert_eq!(seen.codes.values(), golden.ids("pitvq.indices"));
    let decoded = host_values(quantizer.decode(&seen.codes).unwrap());
    assert_golden(&decoded, &golden.floats("pitvq.dequant"), "dequant");
    let total = weighted(&seen, &[("commitment", 1.0), ("codebook", 0.25)]);
    assert_scalar(total.clone(), golden.number("pitvq.codebook_loss"), "loss");
    let gradients = total.backward();
    let of_latents = host_values(latents.grad(&gradients).expect("tracked"));
    assert_golden(&of_latents, &golden.floats("pitvq.grad_x"), "grad_x");
    let AnyQuantizer::Vector(part) = &quantizer.parts[0] else {
        panic!("a vector quantizer");
    };
    let of_table = host_values(part.table().grad(&gradients).expect("tracked"));
    assert_golden(&of_table, &golden.floats("pitvq.grad_embed"), "grad_embed");
}

#[test]
fn it_does_what_every_quantizer_does() {
    for part in kinds() {
        for (layout, shared) in [
            (Layout::Contiguous, true),
            (Layout::Strided, true),
            (Layout::Contiguous, false),
            (Layout::Strided, false),
        ] {
            let config = GroupedConfig {
                layout,
                shared,
                ..GroupedConfig::new(3, part.clone())
            };
            assert_quantizer(&mut built(&config, &Device::flex()), 6);
        }
    }
}

#[test]
fn a_group_is_quantized_as_its_channels_alone_are() {
    let latents = normal(3, [2, 6, 2, 3], &Device::flex());
    let channels = |layout, group: usize| -> Vec<usize> {
        match layout {
            Layout::Contiguous => vec![2 * group, 2 * group + 1],
            Layout::Strided => vec![group, group + 3],
        }
    };
    for (layout, shared) in [(Layout::Contiguous, true), (Layout::Strided, false)] {
        let config = GroupedConfig {
            layout,
            shared,
            ..GroupedConfig::new(3, QuantizerConfig::Residual(ResidualConfig::new(9, 2, 2)))
        };
        let quantizer = built(&config, &Device::flex());
        let codes = quantizer.encode(latents.clone()).unwrap();
        assert_eq!(codes.dims(), [2, 6, 2, 3]);
        for group in 0..3 {
            let own: Vec<Tensor<4>> = channels(layout, group)
                .into_iter()
                .map(|channel| latents.clone().narrow(1, channel, 1))
                .collect();
            let part = &quantizer.parts[if shared { 0 } else { group }];
            let alone = part.encode(Tensor::cat(own, 1)).unwrap();
            let here = Codes::new(codes.tensor().narrow(1, 2 * group, 2));
            assert_eq!(here.values(), alone.values());
        }
    }
}

#[test]
fn losses_are_means_over_the_groups() {
    let latents = normal(3, [2, 6, 2, 3], &Device::flex());
    let config = GroupedConfig::new(3, vector(7, 2));
    let seen = quantized(&built(&config, &Device::flex()), latents.clone());
    let gap = (latents - seen.quantized.clone())
        .square()
        .mean()
        .into_scalar::<f32>();
    assert_scalar(weighted(&seen, &[("commitment", 1.0)]), gap, "shared");
    let separate = GroupedConfig {
        shared: false,
        ..config
    };
    let latents = normal(3, [2, 6, 2, 3], &Device::flex());
    let seen = quantized(&built(&separate, &Device::flex()), latents.clone());
    let gap = (latents - seen.quantized.clone())
        .square()
        .mean()
        .into_scalar::<f32>();
    assert_scalar(weighted(&seen, &[("codebook", 1.0)]), gap, "separate");
}

#[test]
fn a_refused_group_changes_no_other() {
    let mut part = VectorConfig::new(4, 2);
    part.learning.revival = Revival::Off {};
    let config = GroupedConfig {
        shared: false,
        ..GroupedConfig::new(2, QuantizerConfig::Vector(part))
    };
    let mut quantizer = built(&config, &Device::flex());
    let before = Weights::of(&quantizer);
    let latents = map(vec![0.5, 0.5, 0.5, 1e30], [1, 4, 1, 1], &Device::flex());
    let result = quantizer.quantize_and_update(latents, &mut Noise::from_seed(1));
    assert_eq!(result.err(), Some(QuantizeError::TooLarge));
    assert_eq!(Weights::of(&quantizer), before);
    let fine = map(vec![0.5; 4], [1, 4, 1, 1], &Device::flex());
    let (_, report) = quantizer
        .quantize_and_update(fine, &mut Noise::from_seed(1))
        .unwrap();
    assert_eq!((report.codes, report.chosen), (8, 2));
    assert_ne!(Weights::of(&quantizer), before);
}

#[test]
fn validation_names_the_part() {
    let problems = |config: GroupedConfig| config.validate().unwrap_err().to_string();
    let message = problems(GroupedConfig::new(0, vector(0, 2)));
    assert!(message.contains("groups must be at least 1"), "{message}");
    assert!(message.contains("part: codebook_size must be"), "{message}");
    let folded = ResidualConfig {
        fold: 2,
        ..ResidualConfig::new(8, 8, 2)
    };
    let message = problems(GroupedConfig::new(2, QuantizerConfig::Residual(folded)));
    assert!(
        message.contains("part: only a quantizer with a fold of 1"),
        "{message}"
    );
}
