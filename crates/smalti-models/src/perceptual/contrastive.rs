//! The probabilistic contrastive loss of Reg-VQ (Zhang et al., CVPR 2023, section 3.3): at each position the features
//! of a reconstruction should be more like those of the image there than those elsewhere, and the pull is weaker
//! where the decoder was shown a code that was drawn far from the best one.
//!
//! With features `y_i` of the image and `z_i` of the reconstruction at L positions of one layer, both scaled to length
//! one, `s_ij = y_i·z_j/τ`, and the weights `w_i` of [`Quantized::perturbation`](smalti_quantize::Quantized::perturbation),
//! `w'_i = w_i/Σ_j w_j` (equation 3, of which equation 2 is the case `w'_i = 1/L`):
//!
//! `l_i = −ln [ f_i·e^{s_ii} / (f_i·e^{s_ii} + Σ_{j≠i} e^{s_ij}) ] + ln f_i`, `f_i = L·w'_i + 10⁻⁸`
//!
//! The loss is the mean over positions and images, summed over layers with weights. The last term, a constant, is not
//! in the paper: without it the value has no bound where a weight is zero (with it, it may fall below zero). The slope over `s_ii` is `−(1 − σ_i)`, σ_i the
//! fraction: it is −1 where nothing was drawn, and smaller the further the draw.
//!
//! Shapes: images `[batch, 3, height, width]` in [−1, 1], weights `[batch, rows, columns]` of any grid; a layer's position takes
//! the weight of the nearest one of the grid. Gradients reach the reconstruction only. Without weights, or for an
//! image where all are zero, `f_i = 1`.
//!
//! The paper's code is not published. Temperature, the length that features are divided by (+10⁻⁷), the 256
//! positions that are drawn for a layer, the same in all images of a batch, and the weights of layers are those of
//! its relative MoNCE (Zhan et al., CVPR 2022); the mean over positions, where equation 3 has a sum, makes its
//! uniform case equation 2. What else can be chosen is in [`ContrastiveConfig`].
//!
//! No state beside the frozen network.

mod config;
mod weights;

pub use config::{Colours, ContrastiveConfig, LayerWeight, Unmasked, WeightLayers, Weighting};

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use rand::seq::SliceRandom;
use smalti_nn::Noise;
use smalti_nn::cross_entropy::{Targets, cross_entropy};
use smalti_nn::nearest::id_tensor;

use crate::features::FeatureMaps;
use weights::{Factors, Positions};

/// Added to the length that a feature vector is divided by.
const SHORTEST: f64 = 1e-7;
/// The squared length that a vector is taken to have at least: a square root has no slope at zero.
const SMALLEST_SQUARE: f64 = 1e-30;

/// A contrastive loss between images and their reconstructions.
#[derive(Module, Debug)]
pub struct Contrastive {
    net: FeatureMaps,
    /// One for each tap, in the order of the layers.
    #[module(skip)]
    layers: Vec<f64>,
    #[module(skip)]
    config: ContrastiveConfig,
}

impl Contrastive {
    pub(super) fn new(net: FeatureMaps, config: &ContrastiveConfig) -> Self {
        let layers = config.weights_of(&net.taps());
        Self {
            net,
            layers,
            config: config.clone(),
        }
    }

    /// The smallest side of an image whose every layer has positions to tell apart.
    pub fn smallest_side(&self) -> usize {
        self.net.smallest_side_for(2)
    }

    /// The loss, `[1]`. The positions that are compared are drawn from `noise`.
    ///
    /// # Panics
    /// When a side is smaller than [`smallest_side`](Self::smallest_side).
    pub fn loss(
        &self,
        images: Tensor<4>,
        reconstructions: Tensor<4>,
        perturbation: Option<Tensor<3>>,
        noise: &mut Noise,
    ) -> Tensor<1> {
        let [_, _, height, width] = images.dims();
        let least = self.smallest_side();
        assert!(
            height.min(width) >= least,
            "the layers of this loss need images of at least {least}x{least} pixels, got {width}x{height}"
        );
        let perturbation = perturbation.filter(|_| self.config.weighting != Weighting::Equal);
        let grid = perturbation.map(weights::Grid::new);
        let last = self.layers.len() - 1;
        let of_images = self.features(images.detach()).into_iter();
        let maps = of_images.zip(self.features(reconstructions));
        let terms = maps.zip(&self.layers).enumerate();
        let terms = terms.map(|(place, ((y, z), weight))| {
            let weighted = self.config.weight_layers == WeightLayers::All || place == last;
            let grid = grid.as_ref().filter(|_| weighted);
            self.of_layer([y, z], grid, noise).mul_scalar(*weight)
        });
        let sum = terms.reduce(|sum, term| sum + term);
        sum.expect("at least one layer is looked at")
    }

    fn features(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let raw = self.config.colours == Colours::Raw;
        self.net.forward(images, raw)
    }

    /// The mean loss of a layer's positions.
    fn of_layer(
        &self,
        [y, z]: [Tensor<4>; 2],
        grid: Option<&weights::Grid>,
        noise: &mut Noise,
    ) -> Tensor<1> {
        let [batch, _, height, width] = y.dims();
        let count = self.config.positions.min(height * width);
        let mut all: Vec<usize> = (0..height * width).collect();
        let (drawn, _) = all.partial_shuffle(noise.rng(), count);
        let positions = Positions {
            drawn: drawn.to_vec(),
            size: [height, width],
        };
        let factors = match grid {
            Some(grid) => grid.factors(&positions, self.config.unmasked),
            None => Factors::equal(batch * count),
        };
        let ids: Vec<u32> = positions.drawn.iter().map(|&id| id as u32).collect();
        let [y, z] = [y, z].map(|map| unit_columns(map, &ids));
        let similar = y.swap_dims(1, 2).matmul(z);
        let losses = losses_of(similar, &factors.logarithms, self.config.temperature);
        factors.mean(losses)
    }
}

/// The drawn positions of a map, scaled to length one: `[batch, channels, positions]`.
fn unit_columns(map: Tensor<4>, ids: &[u32]) -> Tensor<3> {
    let [batch, channels, height, width] = map.dims();
    let device = map.device();
    let ids: Tensor<1, Int> = id_tensor(ids, [ids.len()], &device);
    let columns: Tensor<3> = map.reshape([batch, channels, height * width]);
    let columns = columns.select(2, ids);
    let square = columns.clone().square().sum_dim(1);
    let length = square.clamp_min(SMALLEST_SQUARE).sqrt();
    columns / length.add_scalar(SHORTEST)
}

/// `l_i` of the products `y_i·z_j`, `[batch, L, L]`, and `ln f_i`, image after image: `[batch · L]`.
fn losses_of(similar: Tensor<3>, logarithms: &[f32], temperature: f64) -> Tensor<1> {
    let [batch, count, _] = similar.dims();
    let rows = batch * count;
    let device = similar.device();
    let bias: Tensor<1> = Tensor::from_data(TensorData::new(logarithms.to_vec(), [rows]), &device);
    let diagonal: Tensor<2> = Tensor::eye(count, &device);
    let on_diagonal = bias.clone().reshape([batch, count, 1]) * diagonal.unsqueeze::<3>();
    let logits = similar.mul_scalar(1.0 / temperature) + on_diagonal;
    let own: Vec<u32> = (0..rows).map(|row| (row % count) as u32).collect();
    let own = Targets::Ids(id_tensor(&own, [rows], &device));
    cross_entropy(logits.reshape([rows, count]), own, 0.0) + bias
}

#[cfg(test)]
mod tests;
