//! Maps of features at chosen layers of a published network: what images are compared by, position by position.
//!
//! | network | layers | images in [−1, 1] become |
//! |---|---|---|
//! | VGG, AlexNet | `relu1_1` and so on, `relu1` to `relu5` | ImageNet's colours |
//! | CLIP | `block1` and so on: patches after that block | the side of its positions, CLIP's colours |
//! | DINOv2 | the same, after its last norm | 224² pixels, ImageNet's colours |
//!
//! Resizing takes the nearest pixel. Frozen, no state; gradients reach the images.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::network::{CLIP_DEVIATION, CLIP_MEAN, DINO_SIDE, coloured, resized};
use super::{
    Backbone, FeatureConfig, FeatureError, IMAGENET_DEVIATION, IMAGENET_MEAN, Trunk,
    VisionTransformer,
};

/// Layers of a transformer that are looked at where none are named.
const DEFAULT_LAYERS: usize = 5;

/// A network with the layers that are looked at.
#[derive(Module, Debug)]
pub enum FeatureMaps {
    /// CLIP's image tower.
    Clip(TappedTransformer),
    /// DINOv2.
    Dino(TappedTransformer),
    /// VGG or AlexNet.
    Trunk(Trunk),
}

/// A vision transformer with the blocks after which maps are taken.
#[derive(Module, Debug)]
pub struct TappedTransformer {
    network: VisionTransformer,
    /// Places of the blocks, rising.
    #[module(skip)]
    places: Vec<usize>,
}

impl TappedTransformer {
    /// With the blocks of these names (`block1` is the first); without names five at equal distances, the last one
    /// among them.
    ///
    /// # Errors
    /// When the network has no such block.
    pub fn new(network: VisionTransformer, taps: &[&str]) -> Result<Self, FeatureError> {
        let layers = network.layers();
        let count = DEFAULT_LAYERS.min(layers);
        let mut places: Vec<usize> = if taps.is_empty() {
            (1..=count)
                .map(|i| (i * layers).div_ceil(count) - 1)
                .collect()
        } else {
            let place = |tap: &&str| place_of(tap, layers);
            taps.iter().map(place).collect::<Result<_, _>>()?
        };
        places.sort_unstable();
        Ok(Self { network, places })
    }
}

fn place_of(tap: &str, layers: usize) -> Result<usize, FeatureError> {
    let number = tap.strip_prefix("block").and_then(|n| n.parse().ok());
    match number {
        Some(number) if (1..=layers).contains(&number) => Ok(number - 1),
        _ => Err(FeatureError::Invalid(vec![format!(
            "no layer is called {tap}: there are block1 to block{layers}"
        )])),
    }
}

impl FeatureConfig {
    /// Reads the file, to look at the named layers; without names at the last rectifier of each of the five stages of
    /// a trunk, or after five blocks of a transformer.
    ///
    /// # Errors
    /// When the configuration is invalid or names layers that the network has not, or the file cannot be read or
    /// holds something else.
    pub fn load_maps(&self, taps: &[&str], device: &Device) -> Result<FeatureMaps, FeatureError> {
        self.validate()?;
        let trunk = |backbone: Backbone, file| {
            let published = backbone.default_taps();
            let taps = if taps.is_empty() {
                &published[..]
            } else {
                taps
            };
            Trunk::read(backbone, taps, file, device).map(FeatureMaps::Trunk)
        };
        match self {
            Self::Clip { file, heads } => {
                let network = VisionTransformer::read_clip(file, *heads, device)?;
                TappedTransformer::new(network, taps).map(FeatureMaps::Clip)
            }
            Self::Dino { file, heads } => {
                let network = VisionTransformer::read_dino(file, *heads, device)?;
                TappedTransformer::new(network, taps).map(FeatureMaps::Dino)
            }
            Self::Vgg16 { file } => trunk(Backbone::Vgg16, file),
            Self::Vgg19 { file } => trunk(Backbone::Vgg19, file),
            Self::Alexnet { file } => trunk(Backbone::Alexnet, file),
            Self::StLpips { file } => {
                Trunk::read_shift_tolerant(taps, file, device).map(FeatureMaps::Trunk)
            }
        }
    }
}

impl FeatureMaps {
    /// The maps of images in [−1, 1], `[batch, channels, rows, columns]`, in the order of the layers. `raw` images keep
    /// their colours.
    ///
    /// # Panics
    /// When a side is smaller than [`smallest_side_for(1)`](Self::smallest_side_for).
    pub fn forward(&self, images: Tensor<4>, raw: bool) -> Vec<Tensor<4>> {
        let paint = |images, mean, deviation| match raw {
            true => images,
            false => coloured(images, mean, deviation),
        };
        match self {
            Self::Clip(TappedTransformer { network, places }) => {
                let images = resized(images, network.side());
                network.maps(paint(images, CLIP_MEAN, CLIP_DEVIATION), places)
            }
            Self::Dino(TappedTransformer { network, places }) => {
                let images = resized(images, DINO_SIDE);
                network.maps(paint(images, IMAGENET_MEAN, IMAGENET_DEVIATION), places)
            }
            Self::Trunk(trunk) => trunk.forward(paint(images, IMAGENET_MEAN, IMAGENET_DEVIATION)),
        }
    }

    /// The names of the layers, in their order.
    pub fn taps(&self) -> Vec<String> {
        match self {
            Self::Clip(tapped) | Self::Dino(tapped) => {
                let name = |place: &usize| format!("block{}", place + 1);
                tapped.places.iter().map(name).collect()
            }
            Self::Trunk(trunk) => trunk.taps().into_iter().map(str::to_owned).collect(),
        }
    }

    /// The smallest side of an image whose maps have at least `least` positions on a side. Transformers resize
    /// images, and take any.
    pub fn smallest_side_for(&self, least: usize) -> usize {
        match self {
            Self::Clip(_) | Self::Dino(_) => 1,
            Self::Trunk(trunk) => trunk.smallest_side_for(least),
        }
    }
}
