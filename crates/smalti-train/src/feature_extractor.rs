//! A published network that makes vectors of images, for sets of images to be compared by.
//!
//! Which vector: [`FeatureNetwork`]. Images pass in parts that fit into memory.

use burn::tensor::Device;
use smalti_data::Image;
use smalti_models::features::{FeatureConfig, FeatureNetwork};
use smalti_nn::state::host_values;

use crate::error::TrainError;
use crate::samples::to_tensor;

/// Pixels that pass a network together: 8 images of 256².
const PIXELS: usize = 8 * 256 * 256;
/// Images that pass together, at most.
const MOST_IMAGES: usize = 128;
/// Side that small images may be enlarged to by the network itself.
const LOOKED_AT: usize = 224;

/// A network and where it works.
#[derive(Clone, Debug)]
pub struct FeatureExtractor {
    title: &'static str,
    network: FeatureNetwork,
    device: Device,
}

impl FeatureExtractor {
    /// Reads the network's file; `device` is not an autodiff one.
    ///
    /// # Errors
    /// When the file cannot be read or holds something else.
    pub fn load(config: &FeatureConfig, device: &Device) -> Result<Self, TrainError> {
        Ok(Self {
            title: config.title(),
            network: config.load(device)?,
            device: device.clone(),
        })
    }

    /// Which network and which vector of it, in words.
    pub fn title(&self) -> &'static str {
        self.title
    }

    /// Numbers of a vector.
    pub fn width(&self) -> usize {
        self.network.width()
    }

    /// How many images of this size pass together.
    pub fn batch_size(&self, image: &Image) -> usize {
        let pixels = (image.width() * image.height()).max(match self.network {
            FeatureNetwork::Trunk(_) => 1,
            FeatureNetwork::Clip(_) | FeatureNetwork::Dino(_) => LOOKED_AT * LOOKED_AT,
        });
        (PIXELS / pixels).clamp(1, MOST_IMAGES)
    }

    /// Refuses an image that the network has no room for.
    ///
    /// # Errors
    /// Names it and says how large it must be.
    pub fn require_size(&self, name: &str, image: &Image) -> Result<(), TrainError> {
        let (width, height, least) = (image.width(), image.height(), self.network.smallest_side());
        if width.min(height) >= least {
            return Ok(());
        }
        Err(TrainError::Request(format!(
            "{name} has {width}x{height} pixels, and the network ({}) needs {least} on a side",
            self.title
        )))
    }

    /// The vectors of images of one size, one behind the other.
    ///
    /// # Panics
    /// When they differ in size or are too small.
    pub fn vectors(&self, images: &[Image]) -> Vec<f32> {
        let Some(first) = images.first() else {
            return Vec::new();
        };
        let parts = images.chunks(self.batch_size(first));
        parts
            .flat_map(|part| host_values(self.network.vectors(to_tensor(part, &self.device))))
            .collect()
    }
}
