//! The shape of a convolutional network.

use serde::{Deserialize, Serialize};

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
    /// Several ends of the encoder instead of one, where a quantizer has branches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branches: Option<BranchesConfig>,
}

/// The encoder's ends in a factorized tokenizer: each its own convolution and projection, and perhaps
/// its own transformer before them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BranchesConfig {
    /// What they are called, in the order of the quantizer's groups of channels: `vis` and `sem` in
    /// the published model of two.
    pub names: Vec<String>,
    /// What looks at the whole image before a branch ends; without it branches share all but their
    /// last layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterConfig>,
}

/// The shape of a feature adapter. Its width is that of the encoder's lowest resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterConfig {
    /// Transformer blocks; 6 as published.
    pub layers: usize,
    /// Attention heads of a block; 8 as published.
    pub heads: usize,
}

impl BranchesConfig {
    /// Branches with the published adapters.
    pub fn published(names: &[&str]) -> Self {
        Self {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            adapter: Some(AdapterConfig {
                layers: 6,
                heads: 8,
            }),
        }
    }

    /// The place of a branch.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    fn problems(&self, width: usize) -> Vec<String> {
        let mut problems = Vec::new();
        if self.names.is_empty() {
            problems.push("branches: names must list at least one".into());
        }
        for (i, name) in self.names.iter().enumerate() {
            if self.index(name) != Some(i) {
                problems.push(format!("branches: names lists {name:?} more than once"));
            }
        }
        if let Some(AdapterConfig { layers, heads }) = self.adapter {
            if layers == 0 {
                problems.push("branches: adapter.layers must be at least 1, got 0".into());
            }
            if heads == 0 || !width.is_multiple_of(heads) {
                problems.push(format!(
                    "branches: adapter.heads ({heads}) must divide the {width} channels of the lowest resolution"
                ));
            }
        }
        problems
    }
}

impl ConvolutionalConfig {
    /// How many pixels, in each direction, share one latent.
    pub fn factor(&self) -> usize {
        1 << self.multipliers.len().saturating_sub(1)
    }

    /// Latents in one row of a training image.
    pub(super) fn grid(&self) -> usize {
        self.resolution / self.factor()
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
        if let (Some(branches), Some(width)) = (&self.branches, self.widths().last()) {
            problems.extend(branches.problems(*width));
        }
        problems
    }
}
