//! What a file says of a network, before it is known to be of one kind.
//!
//! Every field of every kind stands here once, with its default, rather than in a tagged enum: a tag
//! that may stand anywhere, or be left out, would have to be looked for first, and by then errors no
//! longer know their line.

use serde::Deserialize;
use smalti_nn::residual_block::NORM_GROUPS;

use super::{BranchesConfig, ConvolutionalConfig, NetworkConfig, VitConfig};

/// The kinds, as files name them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// Also where nothing is said: there was no other once.
    #[default]
    Convolutional,
    Vit,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fields {
    #[serde(default)]
    kind: Kind,
    resolution: usize,
    z_channels: usize,
    #[serde(default)]
    dropout: f64,
    channels: Option<usize>,
    multipliers: Option<Vec<usize>>,
    blocks: Option<usize>,
    attention_resolutions: Option<Vec<usize>>,
    decoder_attention_resolutions: Option<Vec<usize>>,
    middle_attention: Option<bool>,
    norm_groups: Option<usize>,
    branches: Option<BranchesConfig>,
    patch_size: Option<usize>,
    width: Option<usize>,
    layers: Option<usize>,
    heads: Option<usize>,
    mlp_ratio: Option<f64>,
    output_width: Option<usize>,
}

impl TryFrom<Fields> for NetworkConfig {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        match fields.kind {
            Kind::Convolutional => fields.convolutional().map(Self::Convolutional),
            Kind::Vit => fields.vit().map(Self::Vit),
        }
    }
}

impl Fields {
    fn convolutional(self) -> Result<ConvolutionalConfig, String> {
        let foreign = [
            ("patch_size", self.patch_size.is_some()),
            ("width", self.width.is_some()),
            ("layers", self.layers.is_some()),
            ("heads", self.heads.is_some()),
            ("mlp_ratio", self.mlp_ratio.is_some()),
            ("output_width", self.output_width.is_some()),
        ];
        refuse(&foreign, "vit", "convolutional")?;
        Ok(ConvolutionalConfig {
            resolution: self.resolution,
            channels: require("channels", self.channels)?,
            multipliers: require("multipliers", self.multipliers)?,
            blocks: require("blocks", self.blocks)?,
            attention_resolutions: self.attention_resolutions.unwrap_or_default(),
            decoder_attention_resolutions: self.decoder_attention_resolutions,
            middle_attention: self.middle_attention.unwrap_or(true),
            z_channels: self.z_channels,
            norm_groups: self.norm_groups.unwrap_or(NORM_GROUPS),
            dropout: self.dropout,
            branches: self.branches,
        })
    }

    fn vit(self) -> Result<VitConfig, String> {
        let attention = self.decoder_attention_resolutions;
        let foreign = [
            ("channels", self.channels.is_some()),
            ("multipliers", self.multipliers.is_some()),
            ("blocks", self.blocks.is_some()),
            (
                "attention_resolutions",
                self.attention_resolutions.is_some(),
            ),
            ("decoder_attention_resolutions", attention.is_some()),
            ("middle_attention", self.middle_attention.is_some()),
            ("branches", self.branches.is_some()),
            ("norm_groups", self.norm_groups.is_some()),
        ];
        refuse(&foreign, "convolutional", "vit")?;
        Ok(VitConfig {
            resolution: self.resolution,
            patch_size: require("patch_size", self.patch_size)?,
            width: require("width", self.width)?,
            layers: require("layers", self.layers)?,
            heads: require("heads", self.heads)?,
            mlp_ratio: self.mlp_ratio.unwrap_or(VitConfig::PUBLISHED_MLP_RATIO),
            output_width: self
                .output_width
                .unwrap_or(VitConfig::PUBLISHED_OUTPUT_WIDTH),
            z_channels: self.z_channels,
            dropout: self.dropout,
        })
    }
}

fn require<T>(name: &str, value: Option<T>) -> Result<T, String> {
    value.ok_or_else(|| format!("missing field `{name}`"))
}

/// Refuses fields that are there and belong to another kind.
fn refuse(fields: &[(&str, bool)], theirs: &str, ours: &str) -> Result<(), String> {
    match fields.iter().find(|(_, there)| *there) {
        Some((name, _)) => Err(format!(
            "field `{name}` belongs to kind = \"{theirs}\", but this network is of kind \"{ours}\""
        )),
        None => Ok(()),
    }
}
