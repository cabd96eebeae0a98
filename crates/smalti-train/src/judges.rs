//! Networks that judge images where a tokenizer is measured: a perceptual distance of each image to its reconstruction,
//! and vectors for the Fréchet distance of all reconstructions to all images. Both are read from the user's files; neither
//! takes part in training here.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use smalti_data::Image;
use smalti_models::features::FeatureConfig;
use smalti_models::perceptual::{Lpips, PerceptualConfig};

use crate::error::TrainError;
use crate::feature_extractor::FeatureExtractor;

/// Networks that judge images, beside what is measured anyway, and their files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgesConfig {
    /// The network whose distance is taken of each pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perceptual: Option<PerceptualConfig>,
    /// The network by whose vectors the Fréchet distance of all reconstructions to all images is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<FeatureConfig>,
}

impl JudgesConfig {
    /// Whether nobody judges.
    pub fn is_empty(&self) -> bool {
        self.perceptual.is_none() && self.features.is_none()
    }

    /// Checks what can be checked without the files.
    pub(crate) fn problems(&self) -> Vec<String> {
        let perceptual = self.perceptual.as_ref().map(PerceptualConfig::validate);
        let features = self.features.as_ref().map(FeatureConfig::validate);
        let results = [perceptual, features].into_iter().flatten();
        results
            .filter_map(|result| Some(format!("evaluation: {}", result.err()?)))
            .collect()
    }

    /// Reads the files; `device` is not an autodiff one.
    ///
    /// # Errors
    /// When a file cannot be read or holds something else.
    pub fn load(&self, device: &Device) -> Result<Judges, TrainError> {
        let perceptual = self.perceptual.as_ref().map(|p| p.load(device));
        let features = self.features.as_ref();
        let features = features.map(|f| FeatureExtractor::load(f, device));
        Ok(Judges {
            perceptual: perceptual.transpose()?,
            features: features.transpose()?,
        })
    }
}

/// Networks that judge images, untracked.
#[derive(Clone, Debug, Default)]
pub struct Judges {
    /// Takes the distance of each pair.
    pub perceptual: Option<Lpips>,
    /// Makes vectors for the Fréchet distance.
    pub features: Option<FeatureExtractor>,
}

impl Judges {
    /// Refuses an image that one of them has no room for.
    ///
    /// # Errors
    /// Names it and says how large it must be.
    pub fn require_size(&self, name: &str, image: &Image) -> Result<(), TrainError> {
        let (width, height) = (image.width(), image.height());
        let least = self.perceptual.as_ref().map_or(1, Lpips::smallest_side);
        if width.min(height) < least {
            return Err(TrainError::Request(format!(
                "{name} has {width}x{height} pixels, and the perceptual network needs {least} on a side"
            )));
        }
        let features = self.features.as_ref();
        features.map_or(Ok(()), |features| features.require_size(name, image))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn judges_are_written_as_documented_and_checked() {
        let text = "[perceptual]\nkind = \"st_lpips\"\nfile = \"a.pth\"\n\n[features]\nkind = \"vgg19\"\nfile = \"b.pth\"\n";
        let config: JudgesConfig = toml::from_str(text).unwrap();
        assert_eq!(toml::to_string(&config).unwrap(), text);
        assert!(config.problems().is_empty());
        let nothing = PathBuf::new();
        let config = JudgesConfig {
            perceptual: Some(PerceptualConfig::StLpips {
                file: nothing.clone(),
            }),
            features: Some(FeatureConfig::Vgg16 { file: nothing }),
        };
        assert_eq!(config.problems().len(), 2);
        assert!(toml::from_str::<JudgesConfig>("fid = 1\n").is_err());
    }
}
