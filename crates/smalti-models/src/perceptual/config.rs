//! Which perceptual distance, and where its files are.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::Lpips;
use crate::features::{Backbone, FeatureError};

/// A perceptual distance and its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum PerceptualConfig {
    /// `kind = "lpips"`: LPIPS 0.1. The trunk is torchvision's file, or one that holds it under the names of
    /// LPIPS; one file may hold both parts.
    Lpips {
        /// `vgg16` or `alexnet`.
        backbone: Backbone,
        /// The file of the trunk.
        trunk: PathBuf,
        /// The file of the heads.
        heads: PathBuf,
    },
    /// `kind = "st_lpips"`: the shift-tolerant LPIPS; its file says which backbone it has.
    StLpips {
        /// The file of both parts.
        file: PathBuf,
    },
}

impl PerceptualConfig {
    /// Checks what can be checked without the files.
    ///
    /// # Errors
    /// Lists all problems.
    pub fn validate(&self) -> Result<(), FeatureError> {
        let mut problems = Vec::new();
        let mut named = |name: &str, path: &Path| {
            if path.as_os_str().is_empty() {
                problems.push(format!("perceptual: {name} must be the path of a file"));
            }
        };
        match self {
            Self::Lpips {
                backbone,
                trunk,
                heads,
            } => {
                named("trunk", trunk);
                named("heads", heads);
                if *backbone == Backbone::Vgg19 {
                    problems.push(
                        "perceptual: LPIPS has no heads for vgg19, only for vgg16 and alexnet"
                            .into(),
                    );
                }
            }
            Self::StLpips { file } => named("file", file),
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(FeatureError::Invalid(problems))
        }
    }

    /// Reads the files.
    ///
    /// # Errors
    /// When the configuration is invalid, or a file cannot be read or holds something else.
    pub fn load(&self, device: &Device) -> Result<Lpips, FeatureError> {
        self.validate()?;
        match self {
            Self::Lpips {
                backbone,
                trunk,
                heads,
            } => Lpips::read(*backbone, trunk, heads, device),
            Self::StLpips { file } => Lpips::read_shift_tolerant(file, device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_written_as_documented_and_strays_refused() {
        let text = "kind = \"lpips\"\nbackbone = \"vgg16\"\ntrunk = \"a.pth\"\nheads = \"b.pth\"\n";
        let config: PerceptualConfig = toml::from_str(text).unwrap();
        assert_eq!(toml::to_string(&config).unwrap(), text);
        config.validate().unwrap();
        let stray = "kind = \"st_lpips\"\nfile = \"a.pth\"\nheads = \"b.pth\"\n";
        let message = toml::from_str::<PerceptualConfig>(stray)
            .unwrap_err()
            .to_string();
        assert!(message.contains("heads"), "{message}");
    }

    #[test]
    fn problems_are_listed_together() {
        let config = PerceptualConfig::Lpips {
            backbone: Backbone::Vgg19,
            trunk: PathBuf::new(),
            heads: PathBuf::from("b.pth"),
        };
        let message = config.load(&Device::flex()).unwrap_err().to_string();
        assert!(
            message.contains("trunk must be") && message.contains("vgg19"),
            "{message}"
        );
    }
}
