//! One vector for an image, by a published network: what latents are taught to tell of, and what sets of
//! images are compared by.
//!
//! | kind | vector | images in [−1, 1] become |
//! |---|---|---|
//! | `clip` | class token of the last block, before the norm that follows | `side²` pixels, CLIP's colours |
//! | `dino` | class token after the last norm | 224² pixels, ImageNet's colours |
//! | `vgg16`, `vgg19`, `alexnet` | mean over positions of the last tap (`relu5_3`, `relu5_3`, `relu5`) | ImageNet's colours |
//! | `st_lpips` | the same of the trunk of a shift-tolerant LPIPS (`relu5` of AlexNet, `relu5_3` of VGG-16) | ImageNet's colours |
//!
//! Resizing takes the nearest pixel, as FQGAN's training does (its representation targets); "colours" is
//! `((x + 1)/2 − mean)/deviation`. `[batch, 3, height, width]` to `[batch, width]`. Frozen, no state.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::{Backbone, FeatureError, IMAGENET_DEVIATION, IMAGENET_MEAN, Trunk, VisionTransformer};

/// The mean colour of CLIP's images, in [0, 1].
pub(super) const CLIP_MEAN: [f32; 3] = [0.481_454_67, 0.457_827_5, 0.408_210_72];
/// The deviation of its colours.
pub(super) const CLIP_DEVIATION: [f32; 3] = [0.268_629_55, 0.261_302_6, 0.275_777_1];
/// Side of the images that DINOv2 is shown.
pub(super) const DINO_SIDE: usize = 224;

/// Which network, and where its file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum FeatureConfig {
    /// `kind = "clip"`
    Clip {
        /// The file of the whole model or of its image tower.
        file: PathBuf,
        /// Attention heads, where they are not 64 wide.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        heads: Option<usize>,
    },
    /// `kind = "dino"`
    Dino {
        /// The file of the model.
        file: PathBuf,
        /// Attention heads, where they are not 64 wide.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        heads: Option<usize>,
    },
    /// `kind = "vgg16"`
    Vgg16 {
        /// The file of the model.
        file: PathBuf,
    },
    /// `kind = "vgg19"`
    Vgg19 {
        /// The file of the model.
        file: PathBuf,
    },
    /// `kind = "alexnet"`
    Alexnet {
        /// The file of the model.
        file: PathBuf,
    },
    /// `kind = "st_lpips"`: the trunk of a shift-tolerant LPIPS; its file says which backbone it has.
    StLpips {
        /// The file of the whole distance.
        file: PathBuf,
    },
}

impl FeatureConfig {
    /// Checks what can be checked without the file.
    ///
    /// # Errors
    /// Lists all problems.
    pub fn validate(&self) -> Result<(), FeatureError> {
        let (file, heads) = match self {
            Self::Clip { file, heads } | Self::Dino { file, heads } => (file, *heads),
            Self::Vgg16 { file }
            | Self::Vgg19 { file }
            | Self::Alexnet { file }
            | Self::StLpips { file } => (file, None),
        };
        let mut problems = Vec::new();
        if file.as_os_str().is_empty() {
            problems.push("file must be the path of a file".into());
        }
        if heads == Some(0) {
            problems.push("heads must be at least 1, got 0".into());
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(FeatureError::Invalid(problems))
        }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// When the configuration is invalid, or the file cannot be read or holds something else.
    pub fn load(&self, device: &Device) -> Result<FeatureNetwork, FeatureError> {
        self.validate()?;
        let trunk = |backbone: Backbone, file: &Path| {
            let [.., last] = backbone.default_taps();
            Trunk::read(backbone, &[last], file, device)
        };
        Ok(match self {
            Self::Clip { file, heads } => {
                FeatureNetwork::Clip(VisionTransformer::read_clip(file, *heads, device)?)
            }
            Self::Dino { file, heads } => {
                FeatureNetwork::Dino(VisionTransformer::read_dino(file, *heads, device)?)
            }
            Self::Vgg16 { file } => FeatureNetwork::Trunk(trunk(Backbone::Vgg16, file)?),
            Self::Vgg19 { file } => FeatureNetwork::Trunk(trunk(Backbone::Vgg19, file)?),
            Self::Alexnet { file } => FeatureNetwork::Trunk(trunk(Backbone::Alexnet, file)?),
            Self::StLpips { file } => {
                FeatureNetwork::Trunk(Trunk::read_shift_tolerant(&[], file, device)?)
            }
        })
    }

    /// Which network and which vector of it, in words.
    pub fn title(&self) -> &'static str {
        match self {
            Self::Clip { .. } => "CLIP, class token of the last block",
            Self::Dino { .. } => "DINOv2, class token",
            Self::Vgg16 { .. } => "VGG-16, mean of relu5_3",
            Self::Vgg19 { .. } => "VGG-19, mean of relu5_3",
            Self::Alexnet { .. } => "AlexNet, mean of relu5",
            Self::StLpips { .. } => "ST-LPIPS, mean of its last rectifier",
        }
    }
}

/// Images to vectors.
#[derive(Module, Debug)]
pub enum FeatureNetwork {
    /// CLIP's image tower.
    Clip(VisionTransformer),
    /// DINOv2.
    Dino(VisionTransformer),
    /// VGG or AlexNet with one tap.
    Trunk(Trunk),
}

impl FeatureNetwork {
    /// Vectors `[batch, width]` of images in [−1, 1].
    ///
    /// # Panics
    /// When images are too small for a trunk.
    pub fn vectors(&self, images: Tensor<4>) -> Tensor<2> {
        match self {
            Self::Clip(network) => {
                let images = resized(images, network.side());
                network.class_vectors(coloured(images, CLIP_MEAN, CLIP_DEVIATION))
            }
            Self::Dino(network) => {
                let images = resized(images, DINO_SIDE);
                network.class_vectors(coloured(images, IMAGENET_MEAN, IMAGENET_DEVIATION))
            }
            Self::Trunk(trunk) => {
                let images = coloured(images, IMAGENET_MEAN, IMAGENET_DEVIATION);
                let map = trunk.forward(images).pop().expect("a trunk has a tap");
                map.flatten::<3>(2, 3).mean_dim(2).squeeze_dim::<2>(2)
            }
        }
    }

    /// Length of the vectors.
    pub fn width(&self) -> usize {
        match self {
            Self::Clip(network) | Self::Dino(network) => network.width(),
            Self::Trunk(trunk) => *trunk.widths().last().expect("a trunk has a tap"),
        }
    }

    /// The smallest side of an image that it can look at.
    pub fn smallest_side(&self) -> usize {
        match self {
            Self::Clip(_) | Self::Dino(_) => 1,
            Self::Trunk(trunk) => trunk.smallest_side(),
        }
    }
}

/// Images in [−1, 1] as deviations from a mean colour.
pub(crate) fn coloured(images: Tensor<4>, mean: [f32; 3], deviation: [f32; 3]) -> Tensor<4> {
    let device = images.device();
    let colours = |values: [f32; 3]| Tensor::<1>::from_data(values, &device).reshape([1, 3, 1, 1]);
    let images = images.mul_scalar(0.5).add_scalar(0.5);
    (images - colours(mean)) / colours(deviation)
}

/// Images of `side`² pixels, each the nearest one: pixel `⌊i·n/side⌋` of `n`, in f32 as PyTorch has it.
pub(super) fn resized(images: Tensor<4>, side: usize) -> Tensor<4> {
    let [_, _, height, width] = images.dims();
    let device = images.device();
    let nearest = |from: usize| {
        let scale = from as f32 / side as f32;
        let places = (0..side).map(|i| ((i as f32 * scale) as usize).min(from - 1) as i32);
        let places: Vec<i32> = places.collect();
        Tensor::<1, Int>::from_data(TensorData::new(places, [side]), &device)
    };
    let images = if height == side {
        images
    } else {
        images.select(2, nearest(height))
    };
    if width == side {
        images
    } else {
        images.select(3, nearest(width))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smalti_nn::state::host_values;

    #[test]
    fn the_nearest_pixel_is_taken() {
        let row = Tensor::<1>::from_data([0.0, 1.0, 2.0], &Device::flex()).reshape([1, 1, 1, 3]);
        let image = resized(row, 4);
        assert_eq!(image.dims(), [1, 1, 4, 4]);
        assert_eq!(host_values(image)[..4], [0.0, 0.0, 1.0, 2.0]);
    }

    #[test]
    fn kinds_are_written_as_documented() {
        let text = "kind = \"clip\"\nfile = \"a.safetensors\"\n";
        let config: FeatureConfig = toml::from_str(text).unwrap();
        assert_eq!(toml::to_string(&config).unwrap(), text);
        let stray = toml::from_str::<FeatureConfig>("kind = \"vgg16\"\nfile = \"a\"\nheads = 3\n");
        assert!(stray.unwrap_err().to_string().contains("heads"));
        let none = FeatureConfig::Dino {
            file: PathBuf::new(),
            heads: Some(0),
        };
        let message = none.load(&Device::flex()).unwrap_err().to_string();
        assert!(
            message.contains("file must") && message.contains("heads must"),
            "{message}"
        );
    }
}
