//! Published networks whose features images are compared by: the convolutional trunks of VGG and AlexNet
//! with taps between their layers, the vision transformers of CLIP and DINOv2, and over all of them maps of
//! features or one vector for an image.
//!
//! They are read from the user's files, frozen, and never written.

mod maps;
mod network;
mod plan;
mod trunk;
mod vision_transformer;

use std::path::PathBuf;

use smalti_nn::state::WeightsError;

pub use maps::{FeatureMaps, TappedTransformer};
pub use network::{FeatureConfig, FeatureNetwork};
pub use plan::Backbone;
use plan::{Plan, Step};
pub use trunk::Trunk;
pub use vision_transformer::VisionTransformer;

/// The mean colour of ImageNet, of images in [0, 1].
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// The deviation of its colours.
pub const IMAGENET_DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// Why a published network could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    /// The file could not be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The file holds something else.
    #[error("{path} does not hold {of}:{}", .problems.iter().map(|p| format!("\n  {p}")).collect::<String>())]
    Layout {
        /// The file.
        path: PathBuf,
        /// What it was read as.
        of: String,
        /// Everything that is missing, unexpected or of another shape.
        problems: Vec<String>,
    },
    /// The configuration asks for what there is not.
    #[error("the network cannot be built:{}", .0.iter().map(|p| format!("\n  {p}")).collect::<String>())]
    Invalid(Vec<String>),
}
