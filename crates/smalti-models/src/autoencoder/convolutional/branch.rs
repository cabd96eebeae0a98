//! One of the encoder's ends in a factorized tokenizer.
//!
//! Perhaps a [`FeatureAdapter`]; then normalisation, SiLU, a 3×3 convolution to `z_channels` and a 1×1
//! convolution to the branch's latents: `[batch, width, rows, columns]` to
//! `[batch, code_dim, rows, columns]`.

use burn::module::Module;
use burn::tensor::Tensor;
use smalti_nn::residual_block::NORM_EPSILON;
use smalti_nn::{Conv2d, Conv2dConfig, GroupNorm, Init};

use super::adapter::FeatureAdapter;
use super::{BranchesConfig, ConvolutionalConfig};

/// What becomes of the encoder's features on the way to one codebook.
#[derive(Module, Debug)]
pub(super) struct Branch {
    adapter: Option<FeatureAdapter>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    quant_conv: Conv2d,
}

impl Branch {
    /// Fresh weights of every branch, for latents of `channels` channels altogether.
    pub(super) fn all(
        config: &ConvolutionalConfig,
        branches: &BranchesConfig,
        channels: usize,
        init: &mut Init,
    ) -> Vec<Self> {
        let count = branches.names.len();
        let branch = |_| Self::new(config, branches, channels / count, init);
        (0..count).map(branch).collect()
    }

    fn new(
        config: &ConvolutionalConfig,
        branches: &BranchesConfig,
        channels: usize,
        init: &mut Init,
    ) -> Self {
        let widths = config.widths();
        let width = *widths.last().expect("a valid configuration has a level");
        let mut adapter = |shape| FeatureAdapter::new(shape, width, config.grid(), init);
        Self {
            adapter: branches.adapter.map(&mut adapter),
            norm_out: GroupNorm::new(config.norm_groups, width, NORM_EPSILON, init),
            conv_out: Conv2dConfig::same(width, config.z_channels, 3).init(init),
            quant_conv: Conv2dConfig::same(config.z_channels, channels, 1).init(init),
        }
    }

    /// The encoder's features to the branch's latents.
    pub(super) fn forward(&self, features: Tensor<4>) -> Tensor<4> {
        let features = match &self.adapter {
            Some(adapter) => adapter.forward(features),
            None => features,
        };
        let hidden = self.norm_out.forward_silu(features);
        self.quant_conv.forward(self.conv_out.forward(hidden))
    }
}
