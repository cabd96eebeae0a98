//! Feature adapters: what lets a branch of FQGAN see the whole image (Bai et al. 2024, arXiv 2411.16681,
//! section 3.2; sizes from the code).
//!
//! Every position of the map becomes a vector, row by row; plus learned positions, a layer norm, the
//! blocks, a layer norm, and back to a map. The map is not carried round it.
//! `[batch, width, rows, columns]` to the same shape.
//!
//! Field names are the published ones, but that the blocks are `transformer.resblocks.N`, as in the
//! other transformers here, instead of `transformer.N`. Difference: the published positions fit one
//! grid only; here other grids see them interpolated.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use smalti_nn::{Init, LayerNorm};

use super::AdapterConfig;
use crate::autoencoder::sequence::{from_map, to_map};
use crate::autoencoder::transformer::{Stack, StackConfig, Start};
use crate::positions::positions;

/// A transformer over the positions of a feature map.
#[derive(Module, Debug)]
pub(super) struct FeatureAdapter {
    positional_embedding: Param<Tensor<2>>,
    ln_pre: LayerNorm,
    transformer: Stack,
    ln_post: LayerNorm,
    grid: usize,
}

impl FeatureAdapter {
    /// Fresh weights for maps of `width` channels, `grid` by `grid` in training.
    pub(super) fn new(config: AdapterConfig, width: usize, grid: usize, init: &mut Init) -> Self {
        let stack = StackConfig {
            layers: config.layers,
            width,
            heads: config.heads,
            hidden: 4 * width,
            dropout: 0.0,
            start: Start::FanIn,
        };
        let deviation = 1.0 / (width as f32).sqrt();
        Self {
            positional_embedding: init.normal([grid * grid, width], deviation),
            ln_pre: LayerNorm::new(width, init),
            transformer: Stack::new(stack, init),
            ln_post: LayerNorm::new(width, init),
            grid,
        }
    }

    /// The shape stays.
    pub(super) fn forward(&self, map: Tensor<4>) -> Tensor<4> {
        let [_, _, rows, columns] = map.dims();
        let grid = [rows, columns];
        let places = positions(self.positional_embedding.val(), self.grid, grid);
        let hidden = self.ln_pre.forward(from_map(map) + places.unsqueeze::<3>());
        let hidden = self.transformer.forward(hidden, None);
        to_map(self.ln_post.forward(hidden), grid)
    }
}
