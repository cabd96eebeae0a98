//! Prediction heads: what a branch must hold for a frozen network's feature of the image to be told from
//! it (representation learning of FQGAN; Bai et al. 2024, arXiv 2411.16681, section 3.3; sizes from the
//! code).
//!
//! The branch's quantized map, with the gradient straight through, becomes a sequence of vectors
//! `W₂·relu(W₁·q)`; a learned class vector is put before them; plus learned positions, a layer norm,
//! transformer blocks, a layer norm. The class vector's place is the prediction:
//! `[batch, code_dim, rows, columns]` to `[batch, width]`.
//!
//! Only training needs them. Field names are the published ones, but that the blocks are
//! `transformer.resblocks.N` instead of `transformer.N`; other grids than that of training see its
//! positions interpolated.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use serde::{Deserialize, Serialize};
use smalti_nn::{Init, LayerNorm, Linear};

use super::sequence::from_map;
use super::transformer::{Stack, StackConfig, Start};
use crate::positions::positions;

/// The shape of a prediction head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictionHeadConfig {
    /// The name of the branch that it looks at.
    pub branch: String,
    /// Width of the predicted feature, and of the blocks.
    pub width: usize,
    /// Transformer blocks; 3 as published.
    #[serde(default = "three")]
    pub layers: usize,
    /// Attention heads of a block; 8 as published.
    #[serde(default = "eight")]
    pub heads: usize,
}

fn three() -> usize {
    3
}

fn eight() -> usize {
    8
}

impl PredictionHeadConfig {
    /// A published head: 3 blocks of 8 heads.
    pub fn published(branch: &str, width: usize) -> Self {
        Self {
            branch: branch.to_owned(),
            width,
            layers: three(),
            heads: eight(),
        }
    }

    pub(super) fn problems(&self, branches: &[String]) -> Vec<String> {
        let mut problems = Vec::new();
        if !branches.contains(&self.branch) {
            problems.push(format!(
                "branch {:?} is none of the network's: {branches:?}",
                self.branch
            ));
        }
        if self.layers == 0 {
            problems.push("layers must be at least 1, got 0".into());
        }
        if self.width == 0 || self.heads == 0 || !self.width.is_multiple_of(self.heads) {
            problems.push(format!(
                "width ({}) must be a positive multiple of heads ({})",
                self.width, self.heads
            ));
        }
        problems
    }
}

/// Predicts a feature of an image from one branch of its quantized latents.
#[derive(Module, Debug)]
pub struct PredictionHead {
    class_embedding: Param<Tensor<2>>,
    positional_embedding: Param<Tensor<2>>,
    // The published places of the linear maps are 0 and 2.
    upscale: (Linear, Rectifier, Linear),
    ln_pre: LayerNorm,
    transformer: Stack,
    ln_post: LayerNorm,
    grid: usize,
}

/// The activation between two linear maps, without parameters.
#[derive(Module, Debug)]
struct Rectifier;

impl PredictionHead {
    /// Fresh weights for maps of `channels` channels, `grid` by `grid` in training.
    pub(super) fn new(
        config: &PredictionHeadConfig,
        channels: usize,
        grid: usize,
        init: &mut Init,
    ) -> Self {
        let width = config.width;
        let deviation = 1.0 / (width as f32).sqrt();
        let stack = StackConfig {
            layers: config.layers,
            width,
            heads: config.heads,
            hidden: 4 * width,
            dropout: 0.0,
            start: Start::FanIn,
        };
        Self {
            class_embedding: init.normal([1, width], deviation),
            positional_embedding: init.normal([grid * grid + 1, width], deviation),
            upscale: (
                Linear::fan_in(channels, width, init),
                Rectifier,
                Linear::fan_in(width, width, init),
            ),
            ln_pre: LayerNorm::new(width, init),
            transformer: Stack::new(stack, init),
            ln_post: LayerNorm::new(width, init),
            grid,
        }
    }

    /// A branch's quantized map to the predicted feature, `[batch, width]`.
    pub fn forward(&self, quantized: Tensor<4>) -> Tensor<2> {
        let [batch, _, rows, columns] = quantized.dims();
        let (narrow, Rectifier, wide) = &self.upscale;
        let vectors = wide.forward(relu(narrow.forward(from_map(quantized))));
        let [_, _, width] = vectors.dims();
        let class = self.class_embedding.val().unsqueeze::<3>();
        let sequence = Tensor::cat(vec![class.expand([batch, 1, width]), vectors], 1);
        let places = self.places([rows, columns]).unsqueeze::<3>();
        let hidden = self.ln_pre.forward(sequence + places);
        let hidden = self.transformer.forward(hidden, None);
        self.ln_post
            .forward(hidden.narrow(1, 0, 1))
            .reshape([batch, width])
    }

    /// The position of the class vector, then those of the grid.
    fn places(&self, grid: [usize; 2]) -> Tensor<2> {
        let table = self.positional_embedding.val();
        let (class, cells) = (
            table.clone().narrow(0, 0, 1),
            table.narrow(0, 1, self.grid * self.grid),
        );
        Tensor::cat(vec![class, positions(cells, self.grid, grid)], 0)
    }
}
