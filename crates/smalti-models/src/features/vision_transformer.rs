//! The vision transformers of CLIP and DINOv2: the class token's vector, or maps of the patches' vectors.
//!
//! Patches through one linear map, a class token before them, learned positions added; blocks
//! `x ← x + λ₁·Attention(LN₁(x))`, `x ← x + λ₂·W₂·gelu(W₁·LN₂(x))`; the class token's vector.
//! `[batch, 3, side, side]` normalised as the network wants it to `[batch, width]`.
//!
//! | | CLIP (Radford et al. 2021, arXiv 2103.00020) | DINOv2 (Oquab et al. 2023, arXiv 2304.07193) |
//! |---|---|---|
//! | norm before the blocks | yes | no |
//! | norm after them | its vector is taken before it | yes |
//! | λ (LayerScale) | none | learned, for each channel |
//! | gelu | `x·σ(1.702·x)` | exact |
//! | ε of the norms | 1e-5 | 1e-6 |
//! | bias of the patches | no | yes |
//! | images of other sizes | refused | positions are interpolated |
//!
//! Maps may be taken after any block, `[batch, width, rows, columns]`; DINOv2's pass its norm whichever block that is,
//! as its own `get_intermediate_layers` has it.
//!
//! Both are read in the names that Hugging Face's files have, whatever else these hold, and are frozen. No
//! state. What is not there: DINOv2's giant (a gated perceptron) and its register tokens.

mod block;
mod names;

use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use smalti_nn::gelu::Gelu;
use smalti_nn::state::{Array, Weights, WeightsError};
use smalti_nn::{Init, LayerNorm, Padding, conv2d};

use super::FeatureError;
use crate::positions::bicubic_positions;
use crate::weights_file::read_weights;
use block::Block;
use names::Family;

/// Width of an attention head in the published networks.
const HEAD_WIDTH: usize = 64;

/// A frozen vision transformer.
#[derive(Module, Debug)]
pub struct VisionTransformer {
    class_token: Param<Tensor<1>>,
    /// `[width, 3, patch, patch]`
    patch: Param<Tensor<4>>,
    patch_bias: Option<Param<Tensor<1>>>,
    /// The class token's, then those of the patches row by row, `[1 + side², width]`.
    positions: Param<Tensor<2>>,
    norm_before: Option<LayerNorm>,
    blocks: Vec<Block>,
    norm_after: Option<LayerNorm>,
    /// Whether positions are interpolated for other grids.
    any_size: bool,
}

/// What the arrays' shapes say.
struct Sizes {
    width: usize,
    hidden: usize,
    patch: usize,
    positions: usize,
    layers: usize,
}

impl VisionTransformer {
    /// Reads CLIP's image tower. `heads` is needed where they are not 64 wide.
    ///
    /// # Errors
    /// When the file cannot be read or holds something else.
    pub fn read_clip(
        path: &Path,
        heads: Option<usize>,
        device: &Device,
    ) -> Result<Self, FeatureError> {
        Self::read(Family::Clip, path, heads, device)
    }

    /// Reads DINOv2. `heads` is needed where they are not 64 wide.
    ///
    /// # Errors
    /// When the file cannot be read or holds something else.
    pub fn read_dino(
        path: &Path,
        heads: Option<usize>,
        device: &Device,
    ) -> Result<Self, FeatureError> {
        Self::read(Family::Dino, path, heads, device)
    }

    fn read(
        family: Family,
        path: &Path,
        heads: Option<usize>,
        device: &Device,
    ) -> Result<Self, FeatureError> {
        let layout = |problems| FeatureError::Layout {
            path: path.into(),
            of: family.title().into(),
            problems,
        };
        let weights = read_weights(path, &["state_dict"], |name| family.field(name).is_some())?;
        let weights = weights.rename(|name| family.field(name))?;
        let weights = names::packed(weights).map_err(layout)?;
        let sizes = Sizes::of(&weights).map_err(layout)?;
        let heads = heads_of(&sizes, heads).map_err(layout)?;
        let blank = Self::blank(family, &sizes, heads, device);
        match weights.load_into(blank) {
            Ok(network) => Ok(network.no_grad()),
            Err(WeightsError::Mismatch(problems)) => Err(layout(problems)),
            Err(error) => Err(error.into()),
        }
    }

    fn blank(family: Family, sizes: &Sizes, heads: usize, device: &Device) -> Self {
        let Sizes { width, patch, .. } = *sizes;
        let (init, clip) = (&mut Init::blank(device), family == Family::Clip);
        let epsilon = if clip { 1e-5 } else { 1e-6 };
        let norm = |init: &mut Init| LayerNorm::with_epsilon(width, epsilon, init);
        let gelu = if clip { Gelu::Logistic } else { Gelu::Exact };
        let config = block::Config {
            width,
            hidden: sizes.hidden,
            heads,
            gelu,
            epsilon,
            scaled: !clip,
        };
        Self {
            class_token: init.constant([width], 0.0),
            patch: init.constant([width, 3, patch, patch], 0.0),
            patch_bias: (!clip).then(|| init.constant([width], 0.0)),
            positions: init.constant([sizes.positions, width], 0.0),
            norm_before: clip.then(|| norm(init)),
            blocks: (0..sizes.layers)
                .map(|_| Block::blank(&config, init))
                .collect(),
            norm_after: (!clip).then(|| norm(init)),
            any_size: !clip,
        }
    }

    /// The class token's vector `[batch, width]` of normalised images.
    ///
    /// # Panics
    /// When the patches do not fill the images, or positions cannot be interpolated for them.
    pub fn class_vectors(&self, images: Tensor<4>) -> Tensor<2> {
        let hidden = self
            .blocks
            .iter()
            .fold(self.embed(images), |hidden, block| block.forward(hidden));
        let class = hidden.narrow(1, 0, 1);
        self.normed(class).squeeze_dim::<2>(1)
    }

    /// Maps of the patches, `[batch, width, rows, columns]`, after the blocks of these places.
    ///
    /// # Panics
    /// As [`class_vectors`](Self::class_vectors).
    pub fn maps(&self, images: Tensor<4>, after: &[usize]) -> Vec<Tensor<4>> {
        let [batch, _, height, width] = images.dims();
        let [channels, _, size, _] = self.patch.val().dims();
        let grid = [height / size, width / size];
        let mut hidden = self.embed(images);
        let mut maps = Vec::new();
        let needed = after.iter().max().map_or(0, |last| last + 1);
        for (place, block) in self.blocks.iter().take(needed).enumerate() {
            hidden = block.forward(hidden);
            if after.contains(&place) {
                let patches = hidden.clone().narrow(1, 1, grid[0] * grid[1]);
                let map = self.normed(patches).swap_dims(1, 2);
                maps.push(map.reshape([batch, channels, grid[0], grid[1]]));
            }
        }
        maps
    }

    /// Vectors as they are after the norm that follows the blocks, where there is one.
    fn normed(&self, vectors: Tensor<3>) -> Tensor<3> {
        match &self.norm_after {
            Some(norm) => norm.forward(vectors),
            None => vectors,
        }
    }

    /// What the blocks see: `[batch, 1 + patches, width]`.
    fn embed(&self, images: Tensor<4>) -> Tensor<3> {
        let [batch, _, height, width] = images.dims();
        let weight = self.patch.val();
        let [channels, _, size, _] = weight.dims();
        assert!(
            height.is_multiple_of(size) && width.is_multiple_of(size),
            "images of {width}x{height} pixels cannot be cut into patches of {size}x{size}"
        );
        let bias = match &self.patch_bias {
            Some(bias) => bias.val(),
            None => Tensor::zeros([channels], &images.device()),
        };
        let map = conv2d(images, weight, bias, size, Padding::same(0));
        let patches = map.flatten::<3>(2, 3).swap_dims(1, 2);
        let class = self.class_token.val().reshape([1, 1, channels]);
        let tokens = Tensor::cat(vec![class.expand([batch, 1, channels]), patches], 1);
        let places = self.places([height / size, width / size]);
        let hidden = tokens + places.unsqueeze::<3>();
        match &self.norm_before {
            Some(norm) => norm.forward(hidden),
            None => hidden,
        }
    }

    /// Positions of the class token and of a grid of patches.
    fn places(&self, grid: [usize; 2]) -> Tensor<2> {
        let table = self.positions.val();
        let side = self.grid();
        if grid == [side, side] {
            return table;
        }
        assert!(
            self.any_size,
            "this network has positions for {side}x{side} patches, not for {}x{}",
            grid[1], grid[0]
        );
        let [count, _] = table.dims();
        let class = table.clone().narrow(0, 0, 1);
        let patches = bicubic_positions(table.narrow(0, 1, count - 1), side, grid);
        Tensor::cat(vec![class, patches], 0)
    }

    /// Patches on a side of the images it was trained on.
    fn grid(&self) -> usize {
        let [count, _] = self.positions.val().dims();
        (count - 1).isqrt()
    }

    /// Side in pixels of the images its positions are for.
    pub fn side(&self) -> usize {
        let [_, _, patch, _] = self.patch.val().dims();
        self.grid() * patch
    }

    /// Number of blocks.
    pub fn layers(&self) -> usize {
        self.blocks.len()
    }

    /// Length of its vectors.
    pub fn width(&self) -> usize {
        self.class_token.val().dims()[0]
    }
}

impl Sizes {
    /// What the shapes of renamed arrays say.
    fn of(weights: &Weights) -> Result<Self, Vec<String>> {
        let shape = |name: &str| {
            weights
                .0
                .get(name)
                .map(|array: &Array| array.shape.as_slice())
        };
        let layers = (0..)
            .take_while(|i| shape(&format!("blocks.{i}.norm1.weight")).is_some())
            .count();
        let mut problems = Vec::new();
        let mut need = |holds: bool, problem: &str| {
            if !holds {
                problems.push(problem.to_owned());
            }
        };
        let patch = match shape("patch") {
            Some([width, 3, patch, again]) if patch == again => Some((*width, *patch)),
            _ => None,
        };
        let hidden = match shape("blocks.0.fc1.weight") {
            Some([hidden, _]) => Some(*hidden),
            _ => None,
        };
        let positions = match shape("positions") {
            Some([positions, _]) if *positions > 1 && square(positions - 1) => Some(*positions),
            _ => None,
        };
        need(
            patch.is_some(),
            "no embedding of square patches [width, 3, size, size]",
        );
        need(
            hidden.is_some(),
            "no first layer with a perceptron (mlp.fc1)",
        );
        need(
            positions.is_some(),
            "no table of positions for a class token and a square of patches",
        );
        match (patch, hidden, positions) {
            (Some((width, patch)), Some(hidden), Some(positions)) => Ok(Self {
                width,
                hidden,
                patch,
                positions,
                layers,
            }),
            _ => Err(problems),
        }
    }
}

fn square(number: usize) -> bool {
    number.isqrt().pow(2) == number
}

/// The heads asked for, or as many as are 64 wide.
fn heads_of(sizes: &Sizes, heads: Option<usize>) -> Result<usize, Vec<String>> {
    let heads = match heads {
        Some(heads) => heads,
        None if sizes.width.is_multiple_of(HEAD_WIDTH) => sizes.width / HEAD_WIDTH,
        None => {
            return Err(vec![format!(
                "its width {} is no multiple of {HEAD_WIDTH}: `heads` must be given",
                sizes.width
            )]);
        }
    };
    if heads > 0 && sizes.width.is_multiple_of(heads) {
        Ok(heads)
    } else {
        Err(vec![format!(
            "{heads} heads do not divide its width {}",
            sizes.width
        )])
    }
}
