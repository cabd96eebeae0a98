//! One block: attention over all tokens, then a perceptron, each after a norm and perhaps scaled.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use smalti_nn::gelu::{Activation, Gelu};
use smalti_nn::{Init, LayerNorm, Linear, SelfAttention};

/// The shape of a block.
pub(super) struct Config {
    pub(super) width: usize,
    pub(super) hidden: usize,
    pub(super) heads: usize,
    pub(super) gelu: Gelu,
    pub(super) epsilon: f64,
    /// Whether what is added is scaled channel by channel.
    pub(super) scaled: bool,
}

#[derive(Module, Debug)]
pub(super) struct Block {
    norm1: LayerNorm,
    attn: SelfAttention,
    scale1: Option<Param<Tensor<1>>>,
    norm2: LayerNorm,
    fc1: Linear,
    gelu: Activation,
    fc2: Linear,
    scale2: Option<Param<Tensor<1>>>,
}

impl Block {
    /// Parameters for weights to be loaded into.
    pub(super) fn blank(config: &Config, init: &mut Init) -> Self {
        let Config { width, hidden, .. } = *config;
        let norm = |init: &mut Init| LayerNorm::with_epsilon(width, config.epsilon, init);
        let scale = |init: &mut Init| config.scaled.then(|| init.constant([width], 0.0));
        Self {
            norm1: norm(init),
            attn: SelfAttention::normal(width, config.heads, 0.0, init),
            scale1: scale(init),
            norm2: norm(init),
            fc1: Linear::normal(width, hidden, 0.0, init),
            gelu: Activation::new(config.gelu),
            fc2: Linear::normal(hidden, width, 0.0, init),
            scale2: scale(init),
        }
    }

    /// `[batch, length, width]` to the same shape.
    pub(super) fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let attended = self.attn.forward(self.norm1.forward(input.clone()));
        let middle = input + scaled(attended, &self.scale1);
        let hidden = self
            .gelu
            .forward(self.fc1.forward(self.norm2.forward(middle.clone())));
        middle + scaled(self.fc2.forward(hidden), &self.scale2)
    }
}

/// `values` times a number for each channel, where there are such.
fn scaled(values: Tensor<3>, scale: &Option<Param<Tensor<1>>>) -> Tensor<3> {
    match scale {
        Some(scale) => values * scale.val().unsqueeze::<3>(),
        None => values,
    }
}
