use super::*;
use crate::{
    Centres, Constraint, DistanceEntropies, FixedFactorConfig, Generator, Layout, Learning, Metric,
    Normalization, Prior, Range, Revival, Rule, Start, TargetConfig, Temperature, TrainingValue,
    UpdateOrder,
};
use burn::tensor::{DType, Device};

fn parse(text: &str) -> Result<QuantizerConfig, String> {
    toml::from_str(text).map_err(|error: toml::de::Error| error.to_string())
}

/// Every one of `parts` stands in the message about `text`.
fn refused(text: &str, parts: &[&str]) {
    let message = parse(text).expect_err(text);
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

const RESIDUAL: &str = "kind = 'residual'\ncodebook_size = 8\ncode_dim = 4\ndepth = 2\n";

#[test]
fn a_short_configuration_means_the_defaults() {
    let residual = parse(RESIDUAL).unwrap();
    assert_eq!(
        residual,
        QuantizerConfig::Residual(ResidualConfig::new(8, 4, 2))
    );
    let vector = parse("kind = 'vector'\ncodebook_size = 8\ncode_dim = 4\n").unwrap();
    assert_eq!(vector, QuantizerConfig::Vector(VectorConfig::new(8, 4)));
    let gaussian =
        parse("kind = 'gaussian'\ncodebook_size = 65536\ncode_dim = 16\nchannels = 16\n");
    assert_eq!(
        gaussian.unwrap(),
        QuantizerConfig::Gaussian(GaussianConfig::new(65536, 16, 16))
    );
    let regularized = parse("kind = 'regularized'\ncodebook_size = 16\ncode_dim = 4\n");
    assert_eq!(
        regularized.unwrap(),
        QuantizerConfig::Regularized(RegularizedConfig::new(16, 4))
    );
    let bridge = parse("kind = 'token_bridge'\nbits = 6\nchannels = 16\n").unwrap();
    assert_eq!(
        bridge,
        QuantizerConfig::TokenBridge(TokenBridgeConfig::new(6, 16))
    );
}

#[test]
fn every_choice_survives_being_written_and_read() {
    let mut residual = ResidualConfig::new(8, 16, 2);
    residual.codebook_size = PerDepth::Each(vec![8, 4]);
    (residual.shared, residual.fold) = (false, 2);
    residual.learning = Learning::published();
    let mut vector = VectorConfig::new(8, 4);
    (vector.metric, vector.rule) = (Metric::Cosine, Rule::Gradient);
    vector.learning.revival = Revival::Off {};
    let mut start = VectorConfig::new(8, 4);
    start.learning.start = Start::KMeans { iterations: 3 };
    start.learning.order = UpdateOrder::PerDepth;
    let mut gaussian = GaussianConfig::new(16, 2, 4);
    gaussian.codebook_size = PerDepth::Each(vec![16, 64]);
    gaussian.layout = Layout::Order(vec![3, 0, 2, 1]);
    gaussian.generator = Generator::Iid;
    gaussian.training = TrainingValue::Codeword;
    gaussian.normalization = Some(Normalization {
        shift: vec![0.5; 4],
        scale: vec![2.0; 4],
    });
    gaussian.constraint = Constraint::Target(TargetConfig {
        target_bits: Some(3.5),
        ..TargetConfig::default()
    });
    let mut even = GaussianConfig::new(16, 2, 4);
    (even.constraint, even.layout) = (Constraint::Even {}, Layout::Contiguous);
    let mut bridge = TokenBridgeConfig::new(4, 3);
    (bridge.range, bridge.centres) = (Range::Plain, Centres::Midpoints);
    bridge.constraint = Constraint::FixedFactor(FixedFactorConfig::default());
    for config in [
        QuantizerConfig::Gaussian(GaussianConfig::new(65536, 16, 16)),
        QuantizerConfig::Gaussian(gaussian),
        QuantizerConfig::Gaussian(even),
        QuantizerConfig::TokenBridge(bridge),
        QuantizerConfig::Residual(residual),
        QuantizerConfig::Vector(vector),
        QuantizerConfig::Vector(start),
    ] {
        let text = toml::to_string(&config).unwrap();
        assert_eq!(parse(&text).unwrap(), config, "{text}");
    }
}

#[test]
fn unknown_fields_are_refused_at_every_level() {
    refused(
        &format!("{RESIDUAL}n_embed = 3"),
        &["n_embed", "expected", "codebook_size", "fold"],
    );
    refused(
        "kind = 'vector'\ncodebook_size = 8\ncode_dim = 4\ndepth = 2",
        &["unknown field `depth`", "codebook_size"],
    );
    let gaussian = "kind = 'gaussian'\ncodebook_size = 16\ncode_dim = 2\nchannels = 4\n";
    refused(&format!("{gaussian}group = 2"), &["group", "code_dim"]);
    refused(
        &format!("{gaussian}constraint = {{ kind = 'even', factor = 2.0 }}"),
        &["unknown field `factor`"],
    );
    refused(
        &format!("{gaussian}constraint = {{ kind = 'target', lam = 2.0 }}"),
        &["unknown field `lam`", "tolerance"],
    );
    refused(
        &format!("{gaussian}layout = 'interleaved'"),
        &["interleaved", "strided", "contiguous", "order"],
    );
    let regularized = "kind = 'regularized'\ncodebook_size = 16\ncode_dim = 2\n";
    refused(
        &format!("{regularized}masked = 0.4"),
        &["masked", "mask_ratio", "posterior"],
    );
    refused(
        &format!("{regularized}prior = {{ kind = 'uniform', weights = [1.0] }}"),
        &["unknown field `weights`"],
    );
    refused(
        &format!("{regularized}temperature = {{ kind = 'constant', value = 1.0, to = 0.1 }}"),
        &["unknown field `to`"],
    );
    refused(
        &format!("{regularized}logits = 'cosine'"),
        &["`cosine`", "head", "distances"],
    );
    refused(
        "kind = 'token_bridge'\nbits = 4\nchannels = 3\nlevels = 16",
        &["levels", "bits"],
    );
    refused(
        &format!("{RESIDUAL}[learning]\nmomentum = 0.9"),
        &["momentum", "decay", "revival"],
    );
    refused(
        &format!("{RESIDUAL}[learning.revival]\nkind = 'unused'\npatience = 3\nafter = 2"),
        &["unknown field `after`", "patience"],
    );
    refused(
        &format!("{RESIDUAL}[learning.revival]\nkind = 'off'\npatience = 3"),
        &["unknown field `patience`"],
    );
    refused(
        &format!("{RESIDUAL}[learning.start]\nkind = 'normal'\niterations = 3"),
        &["unknown field `iterations`"],
    );
}

#[test]
fn misspelt_kinds_list_the_known_ones() {
    refused(
        "kind = 'residul'\ncodebook_size = 8",
        &[
            "residul",
            "residual",
            "vector",
            "fsq",
            "lfq",
            "bsq",
            "sim_vq",
            "ibq",
            "regularized",
            "gumbel",
            "factorized",
            "grouped",
            "stacked",
            "gaussian",
            "token_bridge",
        ],
    );
    refused("codebook_size = 8", &["kind"]);
    refused(
        &format!("{RESIDUAL}[learning.revival]\nkind = 'dead'"),
        &["`dead`", "off", "unused", "below_one"],
    );
    refused(
        &format!("{RESIDUAL}[learning.start]\nkind = 'k-means'"),
        &["normal", "k_means"],
    );
    refused(
        &format!("{RESIDUAL}[learning]\norder = 'both'"),
        &["joint", "per_depth"],
    );
    refused(
        "kind = 'vector'\ncodebook_size = 8\ncode_dim = 4\nmetric = 'l2'",
        &["`l2`", "euclidean", "cosine"],
    );
    refused(
        "kind = 'vector'\ncodebook_size = 8\ncode_dim = 4\nrule = 'adam'",
        &["`adam`", "ema", "gradient"],
    );
}

#[test]
fn numbers_of_the_wrong_type_say_what_was_expected() {
    let size = "kind = 'residual'\ncode_dim = 4\ndepth = 2\ncodebook_size = ";
    for wrong in ["'many'", "-1", "1.5", "[8, -1]"] {
        refused(
            &format!("{size}{wrong}"),
            &["one whole number, or a list of one for each depth"],
        );
    }
    refused("kind = 'vector'\ncodebook_size = -1\ncode_dim = 4", &["-1"]);
    refused(
        "kind = 'vector'\ncode_dim = 4",
        &["missing field `codebook_size`"],
    );
}

#[test]
fn validation_lists_every_problem() {
    let text = "kind = 'residual'\ncodebook_size = 0\ncode_dim = 6\ndepth = 0\nfold = 2\n\
                [learning]\ndecay = 2.0";
    let problems = parse(text).unwrap().validate().unwrap_err();
    // With no depth there is no codebook whose size could be wrong.
    assert_eq!(problems.0.len(), 3, "{problems}");
    let message = problems.to_string();
    for part in [
        "depth must be at least 1",
        "fold² (4), got 6",
        "decay must lie between 0 and 1",
    ] {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn impossible_sizes_are_refused_before_anything_is_built() {
    let problem = |config: QuantizerConfig| {
        let mut init = Init::new(&Device::flex(), 1);
        config.build(&mut init).unwrap_err().to_string()
    };
    let vector = |size, width| QuantizerConfig::Vector(VectorConfig::new(size, width));
    assert!(
        problem(vector(0, 4)).contains("codebook_size must be at least 1 and below 2^31, got 0")
    );
    assert!(problem(vector(1 << 31, 4)).contains("got 2147483648"));
    assert!(problem(vector(4, 0)).contains("code_dim must be at least 1, got 0"));
    let residual = |sizes: &[usize], shared, fold| {
        let codebook_size = PerDepth::Each(sizes.to_vec());
        let config = ResidualConfig {
            codebook_size,
            shared,
            fold,
            ..ResidualConfig::new(1, 4, 2)
        };
        QuantizerConfig::Residual(config)
    };
    assert!(problem(residual(&[4], false, 1)).contains("lists 1 sizes for a depth of 2"));
    assert!(problem(residual(&[4, 4], true, 1)).contains("set shared = false"));
    assert!(problem(residual(&[4, 0], false, 1)).contains("got 0"));
    assert!(problem(residual(&[4, 4], false, 0)).contains("fold must be at least 1, got 0"));
    assert!(problem(residual(&[4, 4], false, 1 << 40)).contains("code_dim must be"));
}

/// A small one of every kind, all of latents of four channels.
fn every_kind() -> Vec<QuantizerConfig> {
    vec![
        QuantizerConfig::Residual(ResidualConfig::new(8, 4, 2)),
        QuantizerConfig::Vector(VectorConfig::new(8, 4)),
        QuantizerConfig::Fsq(FsqConfig::new(&[5, 4, 3, 3])),
        QuantizerConfig::Lfq(LfqConfig::new(2, 2)),
        QuantizerConfig::Bsq(BsqConfig::new(4, 1)),
        QuantizerConfig::SimVq(SimVqConfig::new(8, 4)),
        QuantizerConfig::Ibq(IbqConfig::new(8, 4)),
        QuantizerConfig::Regularized(RegularizedConfig {
            mask_ratio: 0.0,
            posterior_decay: Some(0.9),
            prior: Prior::Given {
                weights: (1..9).map(f64::from).collect(),
            },
            temperature: Temperature::Linear {
                from: 1.0,
                to: 0.5,
                batches: 10,
            },
            ..RegularizedConfig::new(8, 4)
        }),
        QuantizerConfig::Gumbel(GumbelConfig::new(8, 4)),
        QuantizerConfig::Factorized(FactorizedConfig {
            entropies: Some(DistanceEntropies::default()),
            ..FactorizedConfig::new(8, 2, 2)
        }),
        QuantizerConfig::Grouped(GroupedConfig::new(
            2,
            QuantizerConfig::Vector(VectorConfig::new(8, 2)),
        )),
        QuantizerConfig::Stacked(StackedConfig::new(
            2,
            QuantizerConfig::Vector(VectorConfig::new(8, 4)),
        )),
        QuantizerConfig::Gaussian(GaussianConfig {
            training: TrainingValue::Codeword,
            ..GaussianConfig::new(8, 2, 2)
        }),
        QuantizerConfig::TokenBridge(TokenBridgeConfig::new(3, 2)),
    ]
}

/// Whether training sees other codes than the best.
fn draws_codes(config: &QuantizerConfig) -> bool {
    matches!(config, QuantizerConfig::Gumbel(_))
}

#[test]
fn every_kind_survives_being_written_and_read_and_refuses_unknown_fields() {
    for config in every_kind() {
        let text = toml::to_string(&config).unwrap();
        assert_eq!(parse(&text).unwrap(), config, "{text}");
        refused(&format!("n_embed = 3\n{text}"), &["n_embed"]);
    }
}

/// Codes are chosen in `f32` whatever the precision of the latents: published libraries return
/// wrong ones in `bf16`.
#[test]
fn latents_of_any_precision_have_the_codes_of_their_numbers() {
    let device = Device::flex().autodiff();
    let latents = Noise::from_seed(6).standard_normal::<4>([2, 4, 3, 3], &Device::flex());
    for config in every_kind() {
        let quantizer = config.build(&mut Init::new(&device, 1)).unwrap();
        for dtype in [DType::F16, DType::BF16, DType::F64] {
            let given = latents.clone().cast(dtype);
            let expected = quantizer.encode(given.clone().cast(DType::F32)).unwrap();
            let codes = quantizer.encode(given.clone()).unwrap();
            assert_eq!(codes.values(), expected.values(), "{config:?} of {dtype:?}");

            let given = Tensor::from_inner(given).require_grad();
            let mut noise = Noise::from_seed(1);
            let seen = quantizer.quantize(given.clone(), &mut noise).unwrap();
            assert!(
                seen.codes.values() == expected.values() || draws_codes(&config),
                "{config:?} of {dtype:?}"
            );
            let graph = seen.quantized.sum().backward();
            let gradient = given.grad(&graph).expect("it passes the quantizer");
            let gradient = smalti_nn::state::host_values(gradient);
            assert!(
                gradient.iter().all(|g| g.is_finite()),
                "{config:?} of {dtype:?}"
            );
        }
    }
}

#[test]
fn any_quantizer_does_what_the_one_inside_does() {
    let latents = Noise::from_seed(5).standard_normal([2, 4, 3, 3], &Device::flex());
    for config in every_kind() {
        config.validate().unwrap();
        let mut quantizer = config.build(&mut Init::new(&Device::flex(), 1)).unwrap();
        let mut noise = Noise::from_seed(1);
        let (seen, report) = quantizer
            .quantize_and_update(latents.clone(), &mut noise)
            .unwrap();
        let spec = quantizer.spec();
        assert!((1..=report.codes).contains(&report.chosen));
        assert_eq!(seen.codes.dims()[1], spec.depth());
        let codes = quantizer.encode(latents.clone()).unwrap();
        let value = quantizer.decode(&codes).unwrap();
        let quantized = quantizer.quantize(latents.clone(), &mut noise).unwrap();
        let drawn = draws_codes(&config);
        assert!(quantized.codes.values() == codes.values() || drawn);
        assert_eq!(value.dims()[1], config.quantized_channels());
        assert_eq!(latents.dims()[1], config.latent_channels());
        let gap = (value - quantized.quantized)
            .abs()
            .max()
            .into_scalar::<f32>();
        // That one is trained on samples.
        let sampled = matches!(config, QuantizerConfig::TokenBridge(_));
        assert!(gap < 1e-6 || sampled || drawn, "{gap}");
        let tables = if quantizer.shares_table() {
            1
        } else {
            spec.depth()
        };
        for depth in 0..tables {
            if let Some(table) = quantizer.table(depth) {
                assert_eq!(table.dims(), [spec.codebook_sizes[depth], spec.code_dim]);
            }
        }
        let is_residual = matches!(config, QuantizerConfig::Residual(_));
        assert_eq!(quantizer.as_residual().is_some(), is_residual);
        let is_factorized = matches!(config, QuantizerConfig::Factorized(_));
        assert_eq!(quantizer.as_factorized().is_some(), is_factorized);
        let parts = matches!(config, QuantizerConfig::Grouped(_)) || is_factorized;
        assert_eq!(config.branches(), if parts { 2 } else { 1 });
    }
}
