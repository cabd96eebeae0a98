use burn::tensor::Device;
use smalti_data::{Image, PreprocessPair};
use smalti_models::autoencoder::AutoencoderConfig;
use smalti_nn::Init;
use smalti_quantize::{Constraint, Generator, Normalization, Quantizer, TokenBridgeConfig};

use super::super::channels::tests::drawn;
use super::super::prior::MISFIT;
use super::*;
use crate::observer::Silent;
use crate::samples::to_tensor;

const NETWORK: &str = "
[network]
resolution = 16
channels = 4
multipliers = [1, 2]
blocks = 1
middle_attention = false
z_channels = 4
norm_groups = 2
";

fn source(quantizer: QuantizerConfig) -> Source {
    let text = format!("{NETWORK}[quantizer]\nkind = 'vector'\ncodebook_size = 2\ncode_dim = 4\n");
    let mut config: AutoencoderConfig = toml::from_str(&text).unwrap();
    config.quantizer = quantizer;
    Source {
        name: "a test".into(),
        scheme: Scheme::of(&config.quantizer).unwrap(),
        network: config.build(&mut Init::new(&Device::flex(), 3)).unwrap(),
        preprocess: PreprocessPair::crops(16),
        license: "unknown".into(),
    }
}

fn gaussian() -> GaussianConfig {
    GaussianConfig {
        constraint: Constraint::Even {},
        ..GaussianConfig::new(16, 2, 4)
    }
}

/// Six different images.
fn images() -> Vec<Image> {
    let image = |k: usize| {
        let pixel = |i: usize| ((i * (k + 3) * 7) % 251) as u8;
        Image::new(16, 16, (0..16 * 16 * 3).map(pixel).collect()).unwrap()
    };
    (0..6).map(image).collect()
}

fn converted(config: &ConversionConfig) -> Converted {
    convert(
        source(QuantizerConfig::Gaussian(gaussian())),
        &images(),
        config,
        &mut Silent,
    )
    .unwrap()
}

#[test]
fn a_vae_becomes_a_tokenizer_that_can_be_saved_and_read() {
    let config = ConversionConfig::new(256, 4);
    let converted = converted(&config);
    let conversion = &converted.conversion;
    assert_eq!(conversion.positions, 6 * 64);
    assert_eq!(conversion.groups.len(), 1);
    assert_eq!(conversion.groups[0].channels, [0, 1, 2, 3]);
    assert_eq!(conversion.groups[0].codebook_bits, 8.0);
    assert_eq!(conversion.alternatives.len(), 3);
    assert_eq!(conversion.quality.tokenizer.images, 6);
    assert_eq!(conversion.quality.tokenizer.bits_per_pixel, 8.0 / 4.0);
    assert_eq!(converted.exhibits.len(), 6);
    let folder = tempfile::tempdir().unwrap();
    super::super::conversion_report::write(&converted, folder.path()).unwrap();
    let read = TokenizerModel::load(folder.path(), &Device::flex()).unwrap();
    assert_eq!(read.fingerprint, converted.model.fingerprint);
    let batch = to_tensor(&images(), &Device::flex());
    let codes = |model: &TokenizerModel| model.network.encode(batch.clone()).unwrap().values();
    assert_eq!(codes(&read), codes(&converted.model));
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    for part in [
        "a test",
        "log2 K = 8",
        "0, 1, 2, 3",
        "PSNR of the VAE",
        "Other group sizes",
    ] {
        assert!(page.contains(part), "{part:?} is not in the page");
    }
}

#[test]
fn the_network_is_the_same_before_and_after() {
    let before = source(QuantizerConfig::Gaussian(gaussian())).network;
    let after = converted(&ConversionConfig::new(64, 2)).model.network;
    let batch = to_tensor(&images(), &Device::flex());
    let difference = before.latents(batch.clone(), None) - after.latents(batch, None);
    assert_eq!(difference.abs().max().into_scalar::<f32>(), 0.0);
}

#[test]
fn many_codes_come_near_the_mean() {
    // Without its quantization error the tokenizer is the VAE; more codes leave less of it.
    let error = |codes: usize| {
        let converted = converted(&ConversionConfig {
            beta: 0.0,
            ..ConversionConfig::new(codes, 1)
        });
        let groups = &converted.conversion.groups;
        groups.iter().map(|group| group.error).sum::<f64>() / groups.len() as f64
    };
    let (few, many) = (error(2), error(4096));
    assert!(many < 1e-4 && few > 100.0 * many, "{few} {many}");
}

#[test]
fn a_prior_that_does_not_fit_is_replaced_by_what_is_measured() {
    let misfitting = GaussianConfig {
        normalization: Some(Normalization {
            shift: vec![0.5; 4],
            scale: vec![3.0; 4],
        }),
        ..gaussian()
    };
    let with = |normalize: Normalize| {
        let config = ConversionConfig {
            normalize,
            ..ConversionConfig::new(16, 2)
        };
        let source = source(QuantizerConfig::Gaussian(misfitting.clone()));
        convert(source, &images(), &config, &mut Silent).unwrap()
    };
    let auto = with(Normalize::Auto).conversion;
    assert!(auto.misfit > MISFIT, "{}", auto.misfit);
    assert_eq!(auto.normalize, Normalize::Measured);
    for channel in &auto.channels {
        assert!(channel.bits < channel.kept_bits, "{channel:?}");
        assert_eq!(
            (channel.shift, channel.scale),
            (channel.raw.shift, channel.raw.scale)
        );
        assert!(
            (channel.bits - channel.raw.fitted_bits).abs() < 1e-3,
            "{channel:?}"
        );
    }
    let kept = with(Normalize::Keep);
    let QuantizerConfig::Gaussian(quantizer) = &kept.model.description.model.quantizer else {
        panic!("{:?}", kept.model.description.model.quantizer);
    };
    assert_eq!(quantizer.normalization, misfitting.normalization);
    assert!(
        (kept.conversion.channels[0].bits - kept.conversion.channels[0].kept_bits).abs() < 1e-12
    );
    let off = with(Normalize::Off).conversion;
    assert!(
        off.channels
            .iter()
            .all(|channel| (channel.shift, channel.scale) == (0.0, 1.0))
    );
    assert!((off.channels[0].bits - off.channels[0].raw.bits).abs() < 1e-12);
}

#[test]
fn what_is_measured_again_is_kept() {
    // Converted with what was measured, the prior fits.
    let measured = converted(&ConversionConfig {
        normalize: Normalize::Measured,
        ..ConversionConfig::new(16, 2)
    });
    let again = Source {
        name: "again".into(),
        scheme: Scheme::of(&measured.model.description.model.quantizer).unwrap(),
        network: measured.model.network,
        preprocess: measured.model.description.preprocess,
        license: measured.model.description.license,
    };
    let again = convert(again, &images(), &ConversionConfig::new(16, 4), &mut Silent).unwrap();
    assert_eq!(again.conversion.normalize, Normalize::Keep);
    assert!(
        again.conversion.misfit < 1e-4,
        "{}",
        again.conversion.misfit
    );
}

#[test]
fn token_bridge_can_be_converted_too() {
    let bridge = QuantizerConfig::TokenBridge(TokenBridgeConfig::new(4, 4));
    let converted = convert(
        source(bridge),
        &images(),
        &ConversionConfig::new(16, 4),
        &mut Silent,
    )
    .unwrap();
    assert_eq!(
        converted.model.network.quantizer().spec().codebook_sizes,
        [16]
    );
}

#[test]
fn what_does_not_fit_the_vae_is_said() {
    let refused = |config: ConversionConfig| {
        let source = source(QuantizerConfig::Gaussian(gaussian()));
        convert(source, &images(), &config, &mut Silent)
            .unwrap_err()
            .to_string()
    };
    let error = refused(ConversionConfig::new(16, 3));
    assert!(
        error.contains("4 channels") && error.contains("1, 2, 4"),
        "{error}"
    );
    assert!(refused(ConversionConfig::new(17, 2)).contains("power of two"));
    let order = ConversionConfig {
        grouping: Grouping::Custom(vec![0, 1, 2, 2]),
        ..ConversionConfig::new(16, 2)
    };
    assert!(refused(order).contains("each of 0 to 3 once"));
    let sizes = ConversionConfig {
        codebook_sizes: vec![16, 16, 16],
        ..ConversionConfig::new(16, 2)
    };
    assert!(refused(sizes).contains("3 sizes for a depth of 2"));
    let tolerance = ConversionConfig {
        tolerance: f64::NAN,
        ..ConversionConfig::new(16, 2)
    };
    assert!(refused(tolerance).contains("tolerance"));
}

#[test]
fn rich_groups_are_warned_of_with_a_size_that_fits() {
    let mut conversion = converted(&ConversionConfig::new(16, 2)).conversion;
    conversion.group_bits = Distribution::of([3.9, 4.0, 4.1]);
    conversion
        .groups
        .iter_mut()
        .for_each(|group| group.above = 0.05);
    assert_eq!(conversion.warnings(), Vec::<String>::new());
    conversion
        .groups
        .iter_mut()
        .for_each(|group| group.above = 0.5);
    conversion.alternatives[0].above = 0.03;
    conversion.alternatives[1].above = 0.5;
    conversion.alternatives[2].above = 0.9;
    let warnings = conversion.warnings();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].contains("50 % of the groups") && warnings[0].contains("groups of 1 would fit")
    );
    conversion.alternatives[0].above = 0.4;
    assert!(conversion.warnings()[0].contains("kind = \"gaussian\""));
    conversion
        .groups
        .iter_mut()
        .for_each(|group| group.above = 0.0);
    conversion.group_bits = Distribution::of([1.1, 1.2, 1.4]);
    assert!(
        conversion.warnings()[0].contains("2^2 would do"),
        "{:?}",
        conversion.warnings()
    );
}

#[test]
fn predictions_enclose_what_independent_codes_do() {
    let moments = drawn(2, 600, 8).normalized(&[-0.4, 2.2], &[2.4, 1.2]);
    let scheme = |bits: usize, seed: u64| {
        let config = GaussianConfig {
            generator: Generator::Iid,
            beta: 0.0,
            seed,
            layout: Layout::Contiguous,
            ..GaussianConfig::new(1 << bits, 2, 2)
        };
        Scheme::of(&QuantizerConfig::Gaussian(config)).unwrap()
    };
    for bits in [2, 4, 6] {
        let trials = 12;
        let groups: Vec<ConvertedGroup> = (0..trials)
            .map(|seed| {
                converted_groups(&moments, &scheme(bits, seed), 0.5)
                    .unwrap()
                    .remove(0)
            })
            .collect();
        let counted = average(groups.iter().map(|group| group.large_errors));
        let first = &groups[0];
        assert!(first.at_least <= first.at_most);
        assert!(
            first.at_least - 0.15 <= counted && counted <= first.at_most + 0.15,
            "{first:?} {counted}"
        );
        assert!(first.bits.min <= first.bits.mean && first.above >= 0.0);
    }
}
