//! Which features the contrastive loss compares, and how positions are weighed.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::Contrastive;
use crate::features::{FeatureConfig, FeatureError};

/// Weights of the default layers, shallow to deep.
const PUBLISHED: [f64; 5] = [1.0 / 32.0, 1.0 / 16.0, 1.0 / 8.0, 1.0 / 4.0, 1.0];

/// A layer, and what its loss is multiplied by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerWeight {
    /// `relu{group}_{layer}` in VGG, `relu1` to `relu5` in AlexNet, `block1` and so on in a transformer.
    pub name: String,
    /// The factor.
    pub weight: f64,
}

/// What the positions' weights are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// By how far the drawn code lies from the best one.
    #[default]
    Probabilistic,
    /// All the same: the plain contrastive loss.
    Equal,
}

/// Where positions are weighed; the other layers have equal weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightLayers {
    /// At every layer.
    #[default]
    All,
    /// At the deepest layer only, as MoNCE does.
    Deepest,
}

/// What becomes of positions whose best code was taken, in images where others were drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unmasked {
    /// Their weight is zero, their pull the strongest, as the equation says.
    #[default]
    Floor,
    /// They are left out of the mean; they stay among what others are told from.
    MaskedOnly,
    /// Their factor is 1, that of the plain loss.
    Neutral,
}

/// How images in [−1, 1] are coloured for the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Colours {
    /// As deviations from ImageNet's mean colour, or CLIP's own, as the networks were trained.
    #[default]
    Imagenet,
    /// As they are, which MoNCE's code does.
    Raw,
}

/// The contrastive loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContrastiveConfig {
    /// τ.
    #[serde(default = "published_temperature")]
    pub temperature: f64,
    /// Positions of a layer that are compared, at most.
    #[serde(default = "published_positions")]
    pub positions: usize,
    /// What the positions' weights are.
    #[serde(default)]
    pub weighting: Weighting,
    /// Where positions are weighed.
    #[serde(default)]
    pub weight_layers: WeightLayers,
    /// What becomes of positions whose best code was taken.
    #[serde(default)]
    pub unmasked: Unmasked,
    /// How images are coloured.
    #[serde(default)]
    pub colours: Colours,
    /// The network that images are looked at with, and its file; the published one is `kind = "vgg19"`.
    pub network: FeatureConfig,
    /// The layers; without them the last rectifier of each of the network's five stages, or five blocks at equal
    /// distances, weighed with 1/32, 1/16, 1/8, 1/4 and 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerWeight>,
}

fn published_temperature() -> f64 {
    0.07
}

fn published_positions() -> usize {
    256
}

impl ContrastiveConfig {
    /// The defaults with this network.
    pub fn new(network: FeatureConfig) -> Self {
        Self {
            temperature: published_temperature(),
            positions: published_positions(),
            weighting: Weighting::default(),
            weight_layers: WeightLayers::default(),
            unmasked: Unmasked::default(),
            colours: Colours::default(),
            network,
            layers: Vec::new(),
        }
    }

    /// Checks what can be checked without the file.
    ///
    /// # Errors
    /// Lists all problems.
    pub fn validate(&self) -> Result<(), FeatureError> {
        let mut problems = match self.network.validate() {
            Err(FeatureError::Invalid(problems)) => problems,
            other => other.map(|()| Vec::new())?,
        };
        problems
            .iter_mut()
            .for_each(|problem| problem.insert_str(0, "contrastive: "));
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            problems.push(format!(
                "contrastive: temperature must be positive and finite, got {}",
                self.temperature
            ));
        }
        if self.positions < 2 {
            problems.push(format!(
                "contrastive: positions must be at least 2, got {}: one has no others to be told from",
                self.positions
            ));
        }
        for (place, LayerWeight { name, weight }) in self.layers.iter().enumerate() {
            if !(weight.is_finite() && *weight > 0.0) {
                problems.push(format!(
                    "contrastive: the weight of {name} must be positive and finite, got {weight}; leave out layers that do not count"
                ));
            }
            if self.layers[..place].iter().any(|layer| layer.name == *name) {
                problems.push(format!("contrastive: {name} is listed twice"));
            }
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(FeatureError::Invalid(problems))
        }
    }

    /// Reads the network.
    ///
    /// # Errors
    /// When the configuration is invalid or names layers that the network has not, or the file cannot be read or
    /// holds something else.
    pub fn load(&self, device: &Device) -> Result<Contrastive, FeatureError> {
        self.validate()?;
        let taps: Vec<&str> = self.layers.iter().map(|layer| &layer.name[..]).collect();
        let net = self.network.load_maps(&taps, device)?;
        Ok(Contrastive::new(net, self))
    }

    /// The weights of the layers `taps`, in their order.
    pub(super) fn weights_of(&self, taps: &[String]) -> Vec<f64> {
        if self.layers.is_empty() {
            // A transformer may have fewer blocks than that.
            return PUBLISHED[PUBLISHED.len() - taps.len()..].to_vec();
        }
        let weight = |tap: &String| {
            let layer = self.layers.iter().find(|layer| layer.name == *tap);
            layer.expect("the taps are these layers").weight
        };
        taps.iter().map(weight).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn a_short_configuration_means_the_published_numbers() {
        let text = "network = { kind = 'vgg19', file = 'vgg19.pth' }";
        let config: ContrastiveConfig = toml::from_str(text).unwrap();
        let file = PathBuf::from("vgg19.pth");
        assert_eq!(
            config,
            ContrastiveConfig::new(FeatureConfig::Vgg19 { file })
        );
        assert_eq!((config.temperature, config.positions), (0.07, 256));
        config.validate().unwrap();
        assert_eq!(
            config.weights_of(&["a"; 5].map(str::to_owned)),
            [0.03125, 0.0625, 0.125, 0.25, 1.0]
        );
        let written = toml::to_string(&config).unwrap();
        assert_eq!(
            toml::from_str::<ContrastiveConfig>(&written).unwrap(),
            config
        );
    }

    #[test]
    fn weights_stand_with_their_layers() {
        let text = "unmasked = 'masked_only'\nweight_layers = 'deepest'\nweighting = 'equal'\ncolours = 'raw'\n\
                    layers = [{ name = 'relu3', weight = 2.0 }, { name = 'relu1', weight = 0.5 }]\n\
                    network = { kind = 'st_lpips', file = 'a.pth' }\n";
        let config: ContrastiveConfig = toml::from_str(text).unwrap();
        let taps = ["relu1", "relu3"].map(str::to_owned);
        assert_eq!(config.weights_of(&taps), [0.5, 2.0]);
        let written = toml::to_string(&config).unwrap();
        assert_eq!(
            toml::from_str::<ContrastiveConfig>(&written).unwrap(),
            config
        );
        for (stray, part) in [
            ("tau = 0.1\n", "tau"),
            ("unmasked = 'none'\n", "masked_only"),
            ("weighting = 'distance'\n", "probabilistic"),
        ] {
            let text = format!("{stray}network = {{ kind = 'vgg16', file = 'a' }}");
            let message = toml::from_str::<ContrastiveConfig>(&text).unwrap_err();
            assert!(message.to_string().contains(part), "{message}");
        }
    }

    #[test]
    fn problems_are_listed_together() {
        let layer = |weight| LayerWeight {
            name: "relu1".into(),
            weight,
        };
        let file = PathBuf::new();
        let config = ContrastiveConfig {
            temperature: 0.0,
            positions: 1,
            layers: vec![layer(1.0), layer(-1.0)],
            ..ContrastiveConfig::new(FeatureConfig::Alexnet { file })
        };
        let message = config.load(&Device::flex()).unwrap_err().to_string();
        for part in [
            "file must be",
            "temperature",
            "positions",
            "weight of relu1",
            "twice",
        ] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
    }
}
