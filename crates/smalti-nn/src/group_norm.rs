//! Group normalisation, alone or followed by SiLU.
//!
//! For every image and group of channels: `x̂ = (x − mean) / √(variance + ε)` over the group's
//! channels and all positions, then `y = γ·x̂ + β` per channel, then optionally `y·σ(y)`.
//! Variance is the biased one, as in PyTorch.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::silu;

use crate::Init;

/// Group normalisation of `[batch, channels, height, width]`.
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// γ, `[channels]`
    pub weight: Param<Tensor<1>>,
    /// β, `[channels]`
    pub bias: Param<Tensor<1>>,
    groups: usize,
    epsilon: f64,
}

impl GroupNorm {
    /// γ = 1 and β = 0. The number of groups must divide the number of channels.
    pub fn new(groups: usize, channels: usize, epsilon: f64, init: &mut Init) -> Self {
        assert!(channels.is_multiple_of(groups), "{groups} groups do not divide {channels} channels");
        Self {
            weight: init.constant([channels], 1.0),
            bias: init.constant([channels], 0.0),
            groups,
            epsilon,
        }
    }

    /// Normalises.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        group_norm(input, self.weight.val(), self.bias.val(), self.groups, self.epsilon)
    }

    /// Normalises and applies SiLU, in one pass where there is a kernel.
    pub fn forward_silu(&self, input: Tensor<4>) -> Tensor<4> {
        group_norm_silu(input, self.weight.val(), self.bias.val(), self.groups, self.epsilon)
    }
}

/// Group normalisation; see the [module's documentation](self).
pub fn group_norm(
    input: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    groups: usize,
    epsilon: f64,
) -> Tensor<4> {
    composed(input, gamma, beta, groups, epsilon)
}

/// Group normalisation followed by SiLU; see the [module's documentation](self).
pub fn group_norm_silu(
    input: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    groups: usize,
    epsilon: f64,
) -> Tensor<4> {
    silu(composed(input, gamma, beta, groups, epsilon))
}

/// Group normalisation made of burn's own operations.
fn composed(
    input: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    groups: usize,
    epsilon: f64,
) -> Tensor<4> {
    let [batch, channels, height, width] = input.dims();
    let grouped = input.reshape([batch, groups, channels / groups * height * width]);
    let centred = grouped.clone() - grouped.mean_dim(2);
    let variance = centred.clone().square().mean_dim(2);
    let normal = (centred / (variance + epsilon).sqrt()).reshape([batch, channels, height, width]);
    normal * gamma.reshape([1, channels, 1, 1]) + beta.reshape([1, channels, 1, 1])
}
