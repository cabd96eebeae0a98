//! The shape of an autoencoder: what a configuration file says.

use serde::{Deserialize, Serialize, Serializer};
use smalti_nn::Init;
use smalti_quantize::QuantizerConfig;

use super::fields::Fields;
use super::{Autoencoder, BranchesConfig, ConvolutionalConfig, PredictionHeadConfig, VitConfig};

/// Encoder and decoder. In files `kind` says which; without it the network is convolutional.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Fields")]
pub enum NetworkConfig {
    /// `kind = "convolutional"`
    Convolutional(ConvolutionalConfig),
    /// `kind = "vit"`
    Vit(VitConfig),
}

impl Serialize for NetworkConfig {
    /// A convolutional network is written without its kind, as it was before there was another: the
    /// fingerprint of a model is taken over what is written here.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        enum Named<'a> {
            Vit(&'a VitConfig),
        }
        match self {
            Self::Convolutional(config) => config.serialize(serializer),
            Self::Vit(config) => Named::Vit(config).serialize(serializer),
        }
    }
}

impl NetworkConfig {
    /// How many pixels, in each direction, share one latent.
    pub fn factor(&self) -> usize {
        match self {
            Self::Convolutional(config) => config.factor(),
            Self::Vit(config) => config.patch_size,
        }
    }

    /// Side of the training images in pixels.
    pub fn resolution(&self) -> usize {
        match self {
            Self::Convolutional(config) => config.resolution,
            Self::Vit(config) => config.resolution,
        }
    }

    /// Channels of the decoder's input.
    pub fn z_channels(&self) -> usize {
        match self {
            Self::Convolutional(config) => config.z_channels,
            Self::Vit(config) => config.z_channels,
        }
    }

    /// The encoder's ends, where there is more than one kind of latents.
    pub fn branches(&self) -> Option<&BranchesConfig> {
        match self {
            Self::Convolutional(config) => config.branches.as_ref(),
            Self::Vit(_) => None,
        }
    }

    fn problems(&self) -> Vec<String> {
        match self {
            Self::Convolutional(config) => config.problems(),
            Self::Vit(config) => config.problems(),
        }
    }
}

/// Everything that determines an [`Autoencoder`]'s parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderConfig {
    /// Whether 1×1 convolutions stand around the quantizer, as in the published RQ-VAE and latent
    /// diffusion. Without them the quantizer sees the encoder's output, whose `z_channels` then are
    /// the quantizer's.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub projections: bool,
    /// Whether reconstructions are clamped to [−1, 1], in training as well, as BSQ-ViT does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clamp: bool,
    /// Encoder and decoder.
    pub network: NetworkConfig,
    /// What stands between them.
    pub quantizer: QuantizerConfig,
    /// Heads that predict features of a frozen network from single branches, in training.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub representation: Vec<PredictionHeadConfig>,
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the autoencoder cannot be built:{}", .0.iter().map(|p| format!("\n  {p}")).collect::<String>())]
pub struct InvalidAutoencoder(pub Vec<String>);

impl AutoencoderConfig {
    /// Pixels, in each direction, that share one position of the code map.
    pub fn factor(&self) -> usize {
        self.network.factor() * self.quantizer.fold()
    }

    /// Channels of the encoder's output: `z_channels` for each of the numbers (one, or mean and
    /// logarithm of the variance) that the quantizer wants of a channel; of an encoder that ends in
    /// branches, the quantizer's own.
    pub(super) fn encoder_channels(&self) -> usize {
        if self.network.branches().is_some() {
            return self.quantizer.latent_channels();
        }
        let (latent, quantized) = (
            self.quantizer.latent_channels(),
            self.quantizer.quantized_channels(),
        );
        self.network.z_channels() * (latent / quantized.max(1))
    }

    /// Checks every number.
    ///
    /// # Errors
    /// Lists all problems.
    pub fn validate(&self) -> Result<(), InvalidAutoencoder> {
        let network = self.network.problems().into_iter();
        let mut problems: Vec<String> = network.map(|p| format!("network: {p}")).collect();
        match self.quantizer.validate() {
            Err(invalid) => {
                problems.extend(invalid.0.into_iter().map(|p| format!("quantizer: {p}")));
            }
            Ok(()) => {
                let (z, channels) = (
                    self.network.z_channels(),
                    self.quantizer.quantized_channels(),
                );
                if let Some(branches) = self.network.branches() {
                    problems.extend(self.problems_of_branches(branches));
                } else if !self.projections && z != channels {
                    problems.push(format!(
                        "network: z_channels ({z}) must be the {channels} channels of the quantizer's vectors where projections = false"
                    ));
                }
            }
        }
        problems.extend(self.problems_of_heads());
        if problems.is_empty() {
            Ok(())
        } else {
            Err(InvalidAutoencoder(problems))
        }
    }

    fn problems_of_branches(&self, branches: &BranchesConfig) -> Vec<String> {
        let (count, groups) = (branches.names.len(), self.quantizer.branches());
        let mut problems = Vec::new();
        if count != groups {
            problems.push(format!(
                "network: branches names {count}, but the quantizer has {groups}: its depth where it is factorized, its groups where they are contiguous, else 1"
            ));
        }
        if !self.projections {
            problems.push("network: branches need projections = true".into());
        }
        problems
    }

    fn problems_of_heads(&self) -> Vec<String> {
        let branches = self.network.branches();
        let known = branches.map_or(&[][..], |branches| &branches.names);
        let heads = self.representation.iter().enumerate();
        heads
            .flat_map(|(i, head)| {
                let problems = head.problems(known).into_iter();
                problems.map(move |problem| format!("representation {}: {problem}", i + 1))
            })
            .collect()
    }

    /// The model with fresh weights.
    ///
    /// # Errors
    /// When the configuration is invalid; all problems are listed.
    pub fn build(&self, init: &mut Init) -> Result<Autoencoder, InvalidAutoencoder> {
        self.validate()?;
        Ok(Autoencoder::new(self, init))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const QUANTIZER: &str = "[quantizer]\nkind = 'vector'\ncodebook_size = 8\ncode_dim = 4\n";
    const CONVOLUTIONAL: &str = "resolution = 8\nchannels = 4\nmultipliers = [1, 2]\nblocks = 1\nz_channels = 4\nnorm_groups = 2\n";
    const VIT: &str =
        "resolution = 8\npatch_size = 4\nwidth = 6\nlayers = 1\nheads = 2\nz_channels = 4\n";

    fn parse(before: &str, network: &str) -> Result<AutoencoderConfig, String> {
        let text = format!("{before}\n[network]\n{network}\n{QUANTIZER}");
        toml::from_str(&text).map_err(|error: toml::de::Error| error.to_string())
    }

    fn refused(network: &str, parts: &[&str]) {
        let message = parse("", network).expect_err(network);
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    }

    #[test]
    fn a_network_without_a_kind_is_convolutional() {
        let plain = parse("", CONVOLUTIONAL).unwrap();
        let named = parse("", &format!("kind = 'convolutional'\n{CONVOLUTIONAL}")).unwrap();
        assert_eq!(plain, named);
        assert!(plain.projections && !plain.clamp);
        assert!(matches!(plain.network, NetworkConfig::Convolutional(_)));
    }

    #[test]
    fn what_was_written_before_there_were_choices_is_written_still() {
        let json = serde_json::to_value(parse("", CONVOLUTIONAL).unwrap()).unwrap();
        let keys = |value: &Value| {
            value
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(keys(&json), ["network", "quantizer"]);
        let network = keys(&json["network"]);
        assert!(!network.contains(&"kind".to_owned()), "{network:?}");
        assert!(
            !network.contains(&"decoder_attention_resolutions".to_owned()),
            "{network:?}"
        );
    }

    #[test]
    fn every_choice_survives_being_written_and_read() {
        let others = "decoder_attention_resolutions = [4]\nmiddle_attention = false\ndropout = 0.5";
        for config in [
            parse("", CONVOLUTIONAL).unwrap(),
            parse("projections = false", &format!("{CONVOLUTIONAL}{others}")).unwrap(),
            parse(
                "clamp = true",
                &format!("kind = 'vit'\n{VIT}dropout = 0.25"),
            )
            .unwrap(),
        ] {
            let text = toml::to_string(&config).unwrap();
            assert_eq!(
                toml::from_str::<AutoencoderConfig>(&text).unwrap(),
                config,
                "{text}"
            );
            let json = serde_json::to_string(&config).unwrap();
            assert_eq!(
                serde_json::from_str::<AutoencoderConfig>(&json).unwrap(),
                config
            );
        }
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_is() {
        refused(
            &format!("{CONVOLUTIONAL}z_chanels = 4"),
            &[
                "unknown field `z_chanels`",
                "multipliers",
                "patch_size",
                "z_channels",
            ],
        );
        refused(
            &format!("{CONVOLUTIONAL}patch_size = 4"),
            &[
                "field `patch_size` belongs to kind = \"vit\"",
                "convolutional",
            ],
        );
        refused(
            &format!("kind = 'vit'\n{VIT}multipliers = [1]"),
            &["field `multipliers` belongs to kind = \"convolutional\""],
        );
        refused(
            &format!("kind = 'unet'\n{CONVOLUTIONAL}"),
            &["unknown variant `unet`", "convolutional", "vit"],
        );
        refused(
            "resolution = 8\nz_channels = 4",
            &["missing field `channels`"],
        );
        refused(
            "kind = 'vit'\nresolution = 8\nz_channels = 4",
            &["missing field `patch_size`"],
        );
    }

    const BRANCHES: &str =
        "branches = { names = ['a', 'b'], adapter = { layers = 1, heads = 2 } }\n";
    const FACTORIZED: &str =
        "[quantizer]\nkind = 'factorized'\ncodebook_size = 8\ncode_dim = 2\ndepth = 2\n";
    const HEAD: &str = "[[representation]]\nbranch = 'b'\nwidth = 6\nlayers = 1\nheads = 2\n";

    fn parse_factorized(network: &str, quantizer: &str, heads: &str) -> AutoencoderConfig {
        let text = format!("[network]\n{network}\n{quantizer}\n{heads}");
        toml::from_str(&text).unwrap()
    }

    #[test]
    fn branches_and_heads_survive_being_written_and_read() {
        let network = format!("{CONVOLUTIONAL}{BRANCHES}");
        let config = parse_factorized(&network, FACTORIZED, HEAD);
        config.validate().unwrap();
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<AutoencoderConfig>(&text).unwrap(), config);
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(
            serde_json::from_str::<AutoencoderConfig>(&json).unwrap(),
            config
        );
        refused(
            &format!("{CONVOLUTIONAL}branches = {{ count = 2 }}"),
            &["unknown field `count`", "names"],
        );
        refused(
            &format!("kind = 'vit'\n{VIT}{BRANCHES}"),
            &["field `branches` belongs to kind = \"convolutional\""],
        );
    }

    #[test]
    fn branches_must_be_those_of_the_quantizer_and_heads_must_know_theirs() {
        let message = |network: &str, quantizer: &str, heads: &str| {
            let config = parse_factorized(network, quantizer, heads);
            config.validate().unwrap_err().to_string()
        };
        let network = format!("{CONVOLUTIONAL}{BRANCHES}");
        for (message, parts) in [
            (
                message(&network, QUANTIZER, ""),
                vec!["branches names 2, but the quantizer has 1"],
            ),
            (
                message(
                    &format!(
                        "{CONVOLUTIONAL}branches = {{ names = ['a', 'a'], adapter = {{ layers = 0, heads = 3 }} }}"
                    ),
                    FACTORIZED,
                    "",
                ),
                vec![
                    "names lists \"a\" more than once",
                    "adapter.layers must be at least 1",
                    "adapter.heads (3) must divide the 8 channels",
                ],
            ),
            (
                message(CONVOLUTIONAL, QUANTIZER, HEAD),
                vec!["representation 1: branch \"b\" is none of the network's: []"],
            ),
            (
                message(
                    &network,
                    FACTORIZED,
                    "[[representation]]\nbranch = 'c'\nwidth = 5\nlayers = 0\nheads = 2\n",
                ),
                vec![
                    "representation 1: branch \"c\" is none of the network's: [\"a\", \"b\"]",
                    "layers must be at least 1",
                    "width (5) must be a positive multiple of heads (2)",
                ],
            ),
        ] {
            for part in parts {
                assert!(message.contains(part), "{part:?} is not in: {message}");
            }
        }
        let with_branches = parse_factorized(&network, FACTORIZED, "");
        let without = AutoencoderConfig {
            projections: false,
            ..with_branches
        };
        let message = without.validate().unwrap_err().to_string();
        assert!(message.contains("branches need projections"), "{message}");
    }

    #[test]
    fn errors_show_the_line_they_are_about() {
        for (line, before) in [
            ("blokcs = 3", CONVOLUTIONAL),
            (
                "norm_groups = 'two'",
                &CONVOLUTIONAL.replace("norm_groups = 2\n", ""),
            ),
            ("mlp_ratio = 'two'", VIT),
            ("kind = 'unet'", VIT),
        ] {
            refused(&format!("{before}{line}"), &[&format!("| {line}\n")]);
        }
    }

    #[test]
    fn validation_lists_every_problem() {
        let problems = |before: &str, network: &str| {
            parse(before, network)
                .unwrap()
                .validate()
                .unwrap_err()
                .to_string()
        };
        let vit = "kind = 'vit'\nresolution = 9\npatch_size = 4\nwidth = 7\nlayers = 0\nheads = 2\nz_channels = 0\nmlp_ratio = 0.1\ndropout = 1.0\noutput_width = 0";
        let message = problems("", vit);
        for part in [
            "resolution (9) must be a positive multiple of patch_size (4)",
            "width (7) must be a positive multiple of heads (2)",
            "layers must be at least 1",
            "z_channels must be at least 1",
            "output_width must be at least 1",
            "mlp_ratio (0.1) times width (7)",
            "dropout must lie in [0, 1)",
        ] {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
        let wide = VIT.replace("z_channels = 4", "z_channels = 8");
        let message = problems("projections = false", &format!("kind = 'vit'\n{wide}"));
        assert!(
            message.contains("z_channels (8) must be the 4 channels"),
            "{message}"
        );
        assert!(
            parse("", &format!("kind = 'vit'\n{wide}"))
                .unwrap()
                .validate()
                .is_ok()
        );
    }
}
