//! The shape of an autoencoder: what a configuration file says.

use serde::{Deserialize, Serialize};
use smalti_nn::Init;
use smalti_nn::residual_block::NORM_GROUPS;
use smalti_quantize::QuantizerConfig;

use super::Autoencoder;

/// The convolutional encoder and decoder of the VQGAN family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Side of the training images in pixels. Other sizes work; attention stands at the levels
    /// that this side puts it at.
    pub resolution: usize,
    /// Channels that the multipliers multiply.
    pub channels: usize,
    /// One level for each; between levels the sides are halved.
    pub multipliers: Vec<usize>,
    /// Residual blocks of a level in the encoder; the decoder has one more.
    pub blocks: usize,
    /// Sides of feature maps at which every block is followed by attention.
    #[serde(default)]
    pub attention_resolutions: Vec<usize>,
    /// Whether the middle has attention, as all published models have.
    #[serde(default = "yes")]
    pub middle_attention: bool,
    /// Channels of the encoder's output.
    pub z_channels: usize,
    /// Groups of the group normalisations.
    #[serde(default = "published_groups")]
    pub norm_groups: usize,
    /// Probability of dropping an element inside a residual block, in training.
    #[serde(default)]
    pub dropout: f64,
}

fn yes() -> bool {
    true
}

fn published_groups() -> usize {
    NORM_GROUPS
}

impl NetworkConfig {
    /// How many pixels, in each direction, share one latent.
    pub fn factor(&self) -> usize {
        1 << self.multipliers.len().saturating_sub(1)
    }

    /// Channels of each level, highest resolution first.
    pub(super) fn widths(&self) -> Vec<usize> {
        self.multipliers.iter().map(|m| m * self.channels).collect()
    }

    /// Whether blocks of a level are followed by attention.
    pub(super) fn attends(&self, level: usize) -> bool {
        self.attention_resolutions
            .contains(&(self.resolution >> level))
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        require(
            !self.multipliers.is_empty() && !self.multipliers.contains(&0),
            "multipliers must list at least one positive number".into(),
        );
        require(self.blocks > 0, "blocks must be at least 1, got 0".into());
        require(
            self.z_channels > 0,
            "z_channels must be at least 1, got 0".into(),
        );
        require(
            (0.0..1.0).contains(&self.dropout),
            format!("dropout must lie in [0, 1), got {}", self.dropout),
        );
        require(
            self.resolution > 0 && self.resolution.is_multiple_of(self.factor()),
            format!(
                "resolution ({}) must be a positive multiple of the downsampling factor ({})",
                self.resolution,
                self.factor()
            ),
        );
        let groups = self.norm_groups;
        require(
            self.channels > 0
                && groups > 0
                && self.widths().iter().all(|w| w.is_multiple_of(groups))
                && self.channels.is_multiple_of(groups),
            format!(
                "norm_groups ({groups}) must divide channels ({}) times every multiplier",
                self.channels
            ),
        );
        problems
    }
}

/// Everything that determines an [`Autoencoder`]'s parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderConfig {
    /// Encoder and decoder.
    pub network: NetworkConfig,
    /// What stands between them.
    pub quantizer: QuantizerConfig,
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

    /// Checks every number.
    ///
    /// # Errors
    /// Lists all problems.
    pub fn validate(&self) -> Result<(), InvalidAutoencoder> {
        let mut problems: Vec<String> = self
            .network
            .problems()
            .into_iter()
            .map(|p| format!("network: {p}"))
            .collect();
        if let Err(invalid) = self.quantizer.validate() {
            problems.extend(invalid.0.into_iter().map(|p| format!("quantizer: {p}")));
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(InvalidAutoencoder(problems))
        }
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
