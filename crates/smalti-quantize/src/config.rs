//! The choice of a quantizer, as a configuration file states it.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use smalti_nn::{Init, Noise};

use crate::rows::single;
use crate::{
    BsqConfig, BsqQuantizer, CodeSpec, Codes, FactorizedConfig, FactorizedQuantizer, FsqConfig,
    FsqQuantizer, GaussianConfig, GaussianQuantizer, GroupedConfig, GroupedQuantizer, IbqConfig,
    IbqQuantizer, Learn, LfqConfig, LfqQuantizer, QuantizeError, Quantized, Quantizer,
    ResidualConfig, ResidualQuantizer, SimVqConfig, SimVqQuantizer, StackedConfig,
    StackedQuantizer, TokenBridgeConfig, TokenBridgeQuantizer, UpdateReport, VectorConfig,
    VectorQuantizer,
};

/// One value for all depths, or one for each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected one whole number, or a list of one for each depth"
)]
pub enum PerDepth<T> {
    /// The same everywhere.
    All(T),
    /// First depth first.
    Each(Vec<T>),
}

impl<T: Copy> PerDepth<T> {
    /// The value at a depth.
    pub fn at(&self, depth: usize) -> Option<T> {
        match self {
            Self::All(value) => Some(*value),
            Self::Each(values) => values.get(depth).copied(),
        }
    }
}

/// Everything that is wrong with a quantizer's configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the quantizer's configuration is invalid:{}", .0.iter().map(|p| format!("\n  {p}")).collect::<String>())]
pub struct InvalidQuantizer(pub Vec<String>);

impl InvalidQuantizer {
    pub(crate) fn unless_empty(problems: Vec<String>) -> Result<(), Self> {
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Self(problems))
        }
    }
}

/// What is wrong with a number of codes.
pub(crate) fn check_size(codebook_size: usize) -> Option<String> {
    // Ids are 32-bit integers on every device.
    let valid = 1..=i32::MAX as usize;
    (!valid.contains(&codebook_size))
        .then(|| format!("codebook_size must be at least 1 and below 2^31, got {codebook_size}"))
}

/// What keeps a quantizer from being part of another one.
pub(crate) fn check_part(name: &str, config: &QuantizerConfig) -> Vec<String> {
    if let Err(InvalidQuantizer(problems)) = config.validate() {
        let named = |problem| format!("{name}: {problem}");
        return problems.into_iter().map(named).collect();
    }
    let mut problems = Vec::new();
    if config.fold() != 1 {
        problems.push(format!(
            "{name}: only a quantizer with a fold of 1 can be part of another, got {}",
            config.fold()
        ));
    }
    if config.latent_channels() != config.quantized_channels() {
        problems.push(format!(
            "{name}: only a quantizer of plain latents can be part of another, not one of means and \
             variances"
        ));
    }
    problems
}

/// Which quantizer, with its own fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum QuantizerConfig {
    /// One code at each position.
    Vector(VectorConfig),
    /// Several codes at each position, each refining the ones before.
    Residual(ResidualConfig),
    /// Channels rounded to levels.
    Fsq(FsqConfig),
    /// Signs of channels.
    Lfq(LfqConfig),
    /// Signs of channels on the unit sphere.
    Bsq(BsqConfig),
    /// One code of a frozen table behind a learned map.
    SimVq(SimVqConfig),
    /// One code of a table whose every code has a gradient.
    Ibq(IbqConfig),
    /// One code in each of several codebooks of unit vectors, for branches that differ.
    Factorized(FactorizedConfig),
    /// Any of these for each group of channels.
    Grouped(GroupedConfig),
    /// Any of these several times over, each on what the ones before left over.
    Stacked(StackedConfig),
    /// Gaussian latents and a codebook made from a seed.
    Gaussian(GaussianConfig),
    /// Gaussian latents cut channel by channel.
    TokenBridge(TokenBridgeConfig),
}

impl QuantizerConfig {
    /// Checks every number.
    ///
    /// # Errors
    /// Lists all problems.
    pub fn validate(&self) -> Result<(), InvalidQuantizer> {
        match self {
            Self::Vector(config) => config.validate(),
            Self::Residual(config) => config.validate(),
            Self::Fsq(config) => config.validate(),
            Self::Lfq(config) => config.validate(),
            Self::Bsq(config) => config.validate(),
            Self::SimVq(config) => config.validate(),
            Self::Ibq(config) => config.validate(),
            Self::Factorized(config) => config.validate(),
            Self::Grouped(config) => config.validate(),
            Self::Stacked(config) => config.validate(),
            Self::Gaussian(config) => config.validate(),
            Self::TokenBridge(config) => config.validate(),
        }
    }

    /// Builds the quantizer.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn build(&self, init: &mut Init) -> Result<AnyQuantizer, InvalidQuantizer> {
        Ok(match self {
            Self::Vector(config) => AnyQuantizer::Vector(config.build(init)?),
            Self::Residual(config) => AnyQuantizer::Residual(config.build(init)?),
            Self::Fsq(config) => AnyQuantizer::Fsq(config.build()?),
            Self::Lfq(config) => AnyQuantizer::Lfq(config.build()?),
            Self::Bsq(config) => AnyQuantizer::Bsq(config.build()?),
            Self::SimVq(config) => AnyQuantizer::SimVq(config.build(init)?),
            Self::Ibq(config) => AnyQuantizer::Ibq(config.build(init)?),
            Self::Factorized(config) => AnyQuantizer::Factorized(config.build(init)?),
            Self::Grouped(config) => AnyQuantizer::Grouped(config.build(init)?),
            Self::Stacked(config) => AnyQuantizer::Stacked(config.build(init)?),
            Self::Gaussian(config) => AnyQuantizer::Gaussian(config.build(init)?),
            Self::TokenBridge(config) => AnyQuantizer::TokenBridge(config.build(init)?),
        })
    }

    /// Latent positions, in each direction, that are quantized as one vector.
    pub fn fold(&self) -> usize {
        match self {
            Self::Residual(config) => config.fold,
            _ => 1,
        }
    }

    /// How many runs of neighbouring channels are quantized independently of each other: what
    /// branches of a network can end in.
    pub fn branches(&self) -> usize {
        match self {
            Self::Factorized(config) => config.depth,
            Self::Grouped(config) if config.layout == crate::grouped::Layout::Contiguous => {
                config.groups
            }
            _ => 1,
        }
    }

    /// Channels of what [`Quantizer::encode`] takes.
    pub fn latent_channels(&self) -> usize {
        match self {
            Self::Vector(config) => config.code_dim,
            Self::Residual(config) => config.code_dim / (config.fold * config.fold),
            Self::Fsq(config) => config.channels(),
            Self::Lfq(config) => config.channels(),
            Self::Bsq(config) => config.channels(),
            Self::SimVq(config) => config.code_dim,
            Self::Ibq(config) => config.code_dim,
            Self::Factorized(config) => config.channels(),
            Self::Grouped(config) => config.channels(),
            Self::Stacked(config) => config.stage.latent_channels(),
            Self::Gaussian(config) => 2 * config.channels,
            Self::TokenBridge(config) => 2 * config.channels,
        }
    }

    /// Channels of what [`Quantizer::decode`] gives: fewer than the latents' where those are the
    /// means and variances of a distribution.
    pub fn quantized_channels(&self) -> usize {
        match self {
            Self::Gaussian(config) => config.channels,
            Self::TokenBridge(config) => config.channels,
            _ => self.latent_channels(),
        }
    }
}

/// Any of the quantizers.
#[derive(Module, Debug)]
pub enum AnyQuantizer {
    /// One code at each position.
    Vector(VectorQuantizer),
    /// Several codes at each position.
    Residual(ResidualQuantizer),
    /// Channels rounded to levels.
    Fsq(FsqQuantizer),
    /// Signs of channels.
    Lfq(LfqQuantizer),
    /// Signs of channels on the unit sphere.
    Bsq(BsqQuantizer),
    /// One code of a frozen table behind a learned map.
    SimVq(SimVqQuantizer),
    /// One code of a table whose every code has a gradient.
    Ibq(IbqQuantizer),
    /// One code in each of several codebooks of unit vectors.
    Factorized(FactorizedQuantizer),
    /// Any of these for each group of channels.
    Grouped(GroupedQuantizer),
    /// Any of these several times over.
    Stacked(StackedQuantizer),
    /// Gaussian latents and a codebook made from a seed.
    Gaussian(GaussianQuantizer),
    /// Gaussian latents cut channel by channel.
    TokenBridge(TokenBridgeQuantizer),
}

/// Calls the same on whichever quantizer it is.
macro_rules! each {
    ($any:expr, $quantizer:ident => $call:expr) => {
        match $any {
            AnyQuantizer::Vector($quantizer) => $call,
            AnyQuantizer::Residual($quantizer) => $call,
            AnyQuantizer::Fsq($quantizer) => $call,
            AnyQuantizer::Lfq($quantizer) => $call,
            AnyQuantizer::Bsq($quantizer) => $call,
            AnyQuantizer::SimVq($quantizer) => $call,
            AnyQuantizer::Ibq($quantizer) => $call,
            AnyQuantizer::Factorized($quantizer) => $call,
            AnyQuantizer::Grouped($quantizer) => $call,
            AnyQuantizer::Stacked($quantizer) => $call,
            AnyQuantizer::Gaussian($quantizer) => $call,
            AnyQuantizer::TokenBridge($quantizer) => $call,
        }
    };
}

impl AnyQuantizer {
    /// The codes of one depth, `[codebook_size, code_dim]`, as [`Quantizer::decode`] uses them;
    /// `None` where no table is stored, because its size would be a product of the channels', and
    /// where the codes of several depths are of different channels.
    pub fn table(&self, depth: usize) -> Option<Tensor<2>> {
        match self {
            Self::Vector(quantizer) => Some(quantizer.table()),
            Self::Residual(quantizer) => Some(quantizer.table(depth)),
            Self::SimVq(quantizer) => Some(quantizer.table()),
            Self::Ibq(quantizer) => Some(quantizer.table()),
            Self::Stacked(quantizer) => quantizer.table(depth),
            Self::Gaussian(quantizer) => quantizer.table(),
            Self::Fsq(_)
            | Self::Lfq(_)
            | Self::Bsq(_)
            | Self::Factorized(_)
            | Self::Grouped(_)
            | Self::TokenBridge(_) => None,
        }
    }

    /// Whether one [`table`](Self::table) serves all depths.
    pub fn shares_table(&self) -> bool {
        match self {
            Self::Residual(quantizer) => quantizer.config().shared,
            _ => self.spec().depth() == 1,
        }
    }

    /// The factorized quantizer, where it is one.
    pub fn as_factorized(&self) -> Option<&FactorizedQuantizer> {
        match self {
            Self::Factorized(quantizer) => Some(quantizer),
            _ => None,
        }
    }

    /// The residual quantizer, where it is one.
    pub fn as_residual(&self) -> Option<&ResidualQuantizer> {
        match self {
            Self::Residual(quantizer) => Some(quantizer),
            _ => None,
        }
    }
}

impl Quantizer for AnyQuantizer {
    fn spec(&self) -> CodeSpec {
        each!(self, quantizer => quantizer.spec())
    }

    fn encode(&self, latents: Tensor<4>) -> Result<Codes, QuantizeError> {
        let latents = single(latents);
        each!(self, quantizer => quantizer.encode(latents))
    }

    fn decode(&self, codes: &Codes) -> Result<Tensor<4>, QuantizeError> {
        each!(self, quantizer => quantizer.decode(codes))
    }

    fn quantize(&self, latents: Tensor<4>, noise: &mut Noise) -> Result<Quantized, QuantizeError> {
        let latents = single(latents);
        each!(self, quantizer => quantizer.quantize(latents, noise))
    }
}

impl Learn for AnyQuantizer {
    fn quantize_and_update(
        &mut self,
        latents: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<(Quantized, UpdateReport), QuantizeError> {
        let latents = single(latents);
        each!(self, quantizer => quantizer.quantize_and_update(latents, noise))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Centres, Constraint, DistanceEntropies, FixedFactorConfig, Generator, Layout, Learning,
        Metric, Normalization, Range, Revival, Rule, Start, TargetConfig, TrainingValue,
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
            problem(vector(0, 4))
                .contains("codebook_size must be at least 1 and below 2^31, got 0")
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
                assert_eq!(
                    seen.codes.values(),
                    expected.values(),
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
            assert_eq!(quantized.codes.values(), codes.values());
            assert_eq!(value.dims()[1], config.quantized_channels());
            assert_eq!(latents.dims()[1], config.latent_channels());
            let gap = (value - quantized.quantized)
                .abs()
                .max()
                .into_scalar::<f32>();
            // That one is trained on samples.
            let sampled = matches!(config, QuantizerConfig::TokenBridge(_));
            assert!(gap < 1e-6 || sampled, "{gap}");
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
}
