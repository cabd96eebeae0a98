//! The shape of a convolutional network.

use serde::Serialize;

/// The convolutional encoder and decoder of the VQGAN family.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConvolutionalConfig {
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
    pub attention_resolutions: Vec<usize>,
    /// The same of the decoder, where it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoder_attention_resolutions: Option<Vec<usize>>,
    /// Whether the middle has attention, as most published models have (not those of Gaussian Quant).
    pub middle_attention: bool,
    /// Channels of the decoder's input, and of the encoder's output for each number that the
    /// quantizer wants of them: twice as many for means and variances.
    pub z_channels: usize,
    /// Groups of the group normalisations.
    pub norm_groups: usize,
    /// Probability of dropping an element inside a residual block, in training.
    pub dropout: f64,
}

impl ConvolutionalConfig {
    /// How many pixels, in each direction, share one latent.
    pub fn factor(&self) -> usize {
        1 << self.multipliers.len().saturating_sub(1)
    }

    /// Channels of each level, highest resolution first.
    pub(super) fn widths(&self) -> Vec<usize> {
        self.multipliers.iter().map(|m| m * self.channels).collect()
    }

    /// Whether the encoder's blocks of a level are followed by attention.
    pub(super) fn encoder_attends(&self, level: usize) -> bool {
        self.attention_resolutions
            .contains(&(self.resolution >> level))
    }

    /// Whether the decoder's blocks of a level are followed by attention.
    pub(super) fn decoder_attends(&self, level: usize) -> bool {
        self.decoder_attention_resolutions
            .as_ref()
            .unwrap_or(&self.attention_resolutions)
            .contains(&(self.resolution >> level))
    }

    pub(in crate::autoencoder) fn problems(&self) -> Vec<String> {
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
