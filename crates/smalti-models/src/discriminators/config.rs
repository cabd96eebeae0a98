//! The shape of a discriminator: what a configuration file says.

use serde::{Deserialize, Serialize};
use smalti_nn::Init;

use super::{Discriminator, PatchDiscriminator, StyleDiscriminator};

/// A discriminator of some kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DiscriminatorConfig {
    /// `kind = "patch"`
    Patch(PatchConfig),
    /// `kind = "style"`
    Style(StyleConfig),
}

/// PatchGAN's discriminator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchConfig {
    /// Width of the first layer; later ones double it, up to eight times.
    #[serde(default = "patch_channels")]
    pub channels: usize,
    /// Layers that normalise. All of them but the last halve the image, as the first one does, so that a
    /// logit sees patches of 16 (one layer), 34, 70 (three), 142 … pixels.
    #[serde(default = "patch_layers")]
    pub layers: usize,
    /// How they normalise.
    #[serde(default)]
    pub norm: PatchNorm,
}

/// How PatchGAN's layers normalise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PatchNorm {
    /// By the statistics of the batch.
    #[default]
    Batch,
    /// By a scale and a shift that begin as those of the first batch.
    Actnorm,
    /// Not at all.
    None,
}

/// The discriminator of StyleGAN2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StyleConfig {
    /// Side of the images: a power of two, at least 8.
    pub resolution: usize,
    /// Layers for maps of side `s` are `channel_base / s` wide ...
    #[serde(default = "style_channel_base")]
    pub channel_base: usize,
    /// ... but no wider than this.
    #[serde(default = "style_channel_limit")]
    pub channel_limit: usize,
    /// Images whose spread is measured together, at most; 0 leaves the measure out.
    #[serde(default = "style_group")]
    pub group: usize,
}

fn patch_channels() -> usize {
    64
}

fn patch_layers() -> usize {
    3
}

fn style_channel_base() -> usize {
    32_768
}

fn style_channel_limit() -> usize {
    512
}

fn style_group() -> usize {
    4
}

impl Default for PatchConfig {
    fn default() -> Self {
        Self {
            channels: patch_channels(),
            layers: patch_layers(),
            norm: PatchNorm::default(),
        }
    }
}

impl StyleConfig {
    /// The published widths for images of the given side.
    pub fn new(resolution: usize) -> Self {
        Self {
            resolution,
            channel_base: style_channel_base(),
            channel_limit: style_channel_limit(),
            group: style_group(),
        }
    }

    /// Width of the layers for maps of a side.
    pub(super) fn width(&self, side: usize) -> usize {
        (self.channel_base / side).min(self.channel_limit)
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the discriminator cannot be built:{}", .0.iter().map(|p| format!("\n  {p}")).collect::<String>())]
pub struct InvalidDiscriminator(pub Vec<String>);

impl DiscriminatorConfig {
    /// Checks every number.
    ///
    /// # Errors
    /// Lists all problems.
    pub fn validate(&self) -> Result<(), InvalidDiscriminator> {
        let problems = match self {
            Self::Patch(config) => config.problems(),
            Self::Style(config) => config.problems(),
        };
        if problems.is_empty() {
            Ok(())
        } else {
            Err(InvalidDiscriminator(problems))
        }
    }

    /// The smallest side of an image that can be judged.
    pub fn smallest_side(&self) -> usize {
        match self {
            Self::Patch(config) => config.smallest_side(),
            Self::Style(config) => config.resolution,
        }
    }

    /// Fresh weights.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn build(&self, init: &mut Init) -> Result<Discriminator, InvalidDiscriminator> {
        self.validate()?;
        Ok(match self {
            Self::Patch(config) => Discriminator::Patch(PatchDiscriminator::new(config, init)),
            Self::Style(config) => Discriminator::Style(StyleDiscriminator::new(config, init)),
        })
    }
}

impl PatchConfig {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.channels == 0 {
            problems.push("channels must be at least 1, got 0".into());
        }
        if !(1..=16).contains(&self.layers) {
            problems.push(format!("layers must lie in 1..=16, got {}", self.layers));
        }
        problems
    }

    fn smallest_side(&self) -> usize {
        // A kernel of 4 with one zero on each side: maps of stride 1 lose a row, others are halved.
        let before_last_two = 3;
        before_last_two << self.layers
    }
}

impl StyleConfig {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.resolution < 8 || !self.resolution.is_power_of_two() {
            problems.push(format!(
                "resolution must be a power of two of at least 8, got {}",
                self.resolution
            ));
        }
        if self.channel_limit == 0 || self.channel_base < self.resolution {
            problems.push(format!(
                "channel_base ({}) must be at least resolution ({}) and channel_limit ({}) at least 1",
                self.channel_base, self.resolution, self.channel_limit
            ));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tensor};

    #[test]
    fn files_name_what_differs_from_the_published_shapes() {
        let patch: DiscriminatorConfig = toml::from_str("kind = \"patch\"\nlayers = 2\n").unwrap();
        let expected = PatchConfig {
            layers: 2,
            ..PatchConfig::default()
        };
        assert_eq!(patch, DiscriminatorConfig::Patch(expected));
        let style: DiscriminatorConfig =
            toml::from_str("kind = \"style\"\nresolution = 64").unwrap();
        assert_eq!(style, DiscriminatorConfig::Style(StyleConfig::new(64)));
        let stray = toml::from_str::<DiscriminatorConfig>("kind = \"patch\"\nresolution = 64");
        assert!(stray.unwrap_err().to_string().contains("resolution"));
    }

    #[test]
    fn every_problem_is_listed() {
        let config = DiscriminatorConfig::Style(StyleConfig {
            resolution: 48,
            channel_base: 16,
            channel_limit: 0,
            group: 0,
        });
        let InvalidDiscriminator(problems) = config.validate().unwrap_err();
        assert_eq!(problems.len(), 2, "{problems:?}");
        let patch = PatchConfig {
            channels: 0,
            layers: 17,
            norm: PatchNorm::None,
        };
        let InvalidDiscriminator(problems) =
            DiscriminatorConfig::Patch(patch).validate().unwrap_err();
        assert_eq!(problems.len(), 2, "{problems:?}");
    }

    #[test]
    fn the_smallest_image_gives_one_logit() {
        let device = Device::flex();
        for layers in [1, 2, 3] {
            let config = DiscriminatorConfig::Patch(PatchConfig {
                channels: 2,
                layers,
                norm: PatchNorm::None,
            });
            let network = config.build(&mut Init::new(&device, 1)).unwrap();
            let side = config.smallest_side();
            let logits = network.forward(Tensor::zeros([1, 3, side, side], &device));
            assert_eq!(logits.dims(), [1, 1, 1, 1]);
        }
    }
}
