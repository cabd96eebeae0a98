//! Single-head attention over all positions of a feature map.
//!
//! `softmax(qᵀk / √c)` over keys weighs `v`; q, k, v and the output are 1×1 convolutions, the input
//! is normalised first and carried round.

mod attend;

use burn::module::Module;
use burn::tensor::Tensor;

use crate::residual_block::NORM_EPSILON;
use crate::{Conv2d, Conv2dConfig, GroupNorm, Init};
use attend::attend;

/// Attention of `[batch, channels, height, width]` over its `height·width` positions.
#[derive(Module, Debug)]
pub struct SpatialAttention {
    norm: GroupNorm,
    q: Conv2d,
    k: Conv2d,
    v: Conv2d,
    proj_out: Conv2d,
}

impl SpatialAttention {
    /// Keeps the number of channels.
    pub fn new(channels: usize, norm_groups: usize, init: &mut Init) -> Self {
        let mut pointwise = || Conv2dConfig::same(channels, channels, 1).init(init);
        let (q, k, v, proj_out) = (pointwise(), pointwise(), pointwise(), pointwise());
        Self {
            norm: GroupNorm::new(norm_groups, channels, NORM_EPSILON, init),
            q,
            k,
            v,
            proj_out,
        }
    }

    /// The shape stays.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let [batch, channels, height, width] = input.dims();
        let normal = self.norm.forward(input.clone());
        let flat = |map: Tensor<4>| map.reshape([batch, channels, height * width]);
        let query = flat(self.q.forward(normal.clone()));
        let key = flat(self.k.forward(normal.clone()));
        let value = flat(self.v.forward(normal));
        let mixed = attend(query, key, value).reshape([batch, channels, height, width]);
        input + self.proj_out.forward(mixed)
    }
}
