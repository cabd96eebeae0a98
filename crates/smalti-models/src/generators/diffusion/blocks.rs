//! The blocks of the denoising transformer.
//!
//! ```text
//! x ← x + Attention(AdaLN₁(x, t))
//! x ← x + Perceptron(norm₂(x))        norm₂: AdaLN of the class, without classes a plain norm
//! AdaLN(x, i) = LN(x)·(1 + scale_i) + shift_i,   [scale_i, shift_i] = W·silu(E_i) + b
//! ```
//!
//! VQ-Diffusion, arXiv 2111.14822, section 4.2, and its code for `LN` without weights, tables `E` of the
//! steps and of the classes, and attention in both directions. The perceptron is four times as wide inside and
//! has `x·σ(1.702·x)` between its layers, which are linear maps or 3×3 convolutions on the map. Names
//! are those of the published files. Sequences `[batch, tokens, width]`.

use burn::module::Module;
use burn::tensor::{Tensor, activation::silu};
use smalti_nn::linear::FEW_ROWS;
use smalti_nn::mlp::{Mlp, mlp, new_mlp};
use smalti_nn::nearest::id_tensor;
use smalti_nn::{
    Conv2d, Conv2dConfig, Embedding, FullSelfAttention, Gelu, Init, LayerNorm, Linear, layer_norm,
};

use super::config::{DiffusionConfig, PerceptronConfig};
use crate::generators::layout::CodeLayout;

/// ε of the norms, PyTorch's default.
const EPSILON: f64 = 1e-5;

/// A norm whose scale and shift come from a table.
#[derive(Module, Debug)]
pub struct AdaLayerNorm {
    /// A vector for each time step or class, `[rows, width]`.
    pub emb: Embedding,
    /// To scale and shift, `[2·width, width]`.
    pub linear: Linear,
}

impl AdaLayerNorm {
    fn normal(rows: usize, width: usize, deviation: f32, init: &mut Init) -> Self {
        Self {
            emb: Embedding::normal(rows, width, deviation, init),
            linear: Linear::normal(width, 2 * width, deviation, init),
        }
    }

    /// `[batch, tokens, width]` to the same shape; `ids` hold a row of the table for each sample, or one
    /// for all.
    pub fn forward(&self, input: Tensor<3>, ids: &[u32]) -> Tensor<3> {
        let [_, _, width] = input.dims();
        let device = input.device();
        // In pieces whose rows do not round differently when there are more of them.
        let pieces = ids.chunks(FEW_ROWS).map(|ids| {
            let ids = id_tensor(ids, [ids.len(), 1], &device);
            self.linear.forward(silu(self.emb.forward(ids)))
        });
        let change = Tensor::cat(pieces.collect(), 0);
        let ones = Tensor::ones([width], &device);
        let normal = layer_norm(input, ones.clone(), ones.zeros_like(), EPSILON);
        let scale = change.clone().narrow(2, 0, width).add_scalar(1.0);
        normal * scale + change.narrow(2, width, width)
    }
}

/// The norm before the perceptron.
#[derive(Module, Debug)]
pub enum SecondNorm {
    /// With a learned scale and shift.
    Plain(LayerNorm),
    /// Of the class.
    Class(AdaLayerNorm),
}

impl SecondNorm {
    fn forward(&self, input: Tensor<3>, classes: &[u32]) -> Tensor<3> {
        match self {
            Self::Plain(norm) => norm.forward(input),
            Self::Class(norm) => norm.forward(input, classes),
        }
    }
}

/// Two 3×3 convolutions with an activation between them.
#[derive(Module, Debug)]
pub struct ConvMlp {
    /// `width` to `4·width` channels.
    pub conv1: Conv2d,
    /// And back.
    pub conv2: Conv2d,
}

impl ConvMlp {
    /// Over the map of every depth apart.
    fn forward(&self, input: Tensor<3>, layout: &CodeLayout) -> Tensor<3> {
        let [batch, tokens, width] = input.dims();
        let maps = batch * layout.depth();
        let positions = layout.positions();
        let images = input
            .reshape([maps, positions, width])
            .swap_dims(1, 2)
            .reshape([maps, width, layout.height, layout.width]);
        let hidden = Gelu::Logistic.forward(self.conv1.forward(images));
        self.conv2
            .forward(hidden)
            .reshape([maps, width, positions])
            .swap_dims(1, 2)
            .reshape([batch, tokens, width])
    }
}

/// What stands behind the attention.
#[derive(Module, Debug)]
pub enum Perceptron {
    /// Each token alone.
    Linear(Mlp),
    /// Each with its neighbours.
    Convolution(ConvMlp),
}

/// One block.
#[derive(Module, Debug)]
pub struct DiffusionBlock {
    /// Norm before the attention, of the time step.
    pub ln1: AdaLayerNorm,
    /// Each token looks at all others.
    pub attn: FullSelfAttention,
    /// Norm before the perceptron.
    pub ln2: SecondNorm,
    /// The perceptron.
    pub mlp: Perceptron,
}

/// What a block is told beside its input.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// The time step of each sample, or one for all.
    pub times: &'a [u32],
    /// The class of each sample; empty without classes.
    pub classes: &'a [u32],
    /// The maps.
    pub layout: &'a CodeLayout,
}

impl DiffusionBlock {
    /// Linear maps and tables normal with the given deviation, biases zero, convolutions as PyTorch's.
    pub(super) fn normal(config: &DiffusionConfig, deviation: f32, init: &mut Init) -> Self {
        let width = config.embed_dim;
        let second = match config.condition.rows() {
            None => SecondNorm::Plain(LayerNorm::with_epsilon(width, EPSILON, init)),
            Some(rows) => SecondNorm::Class(AdaLayerNorm::normal(rows, width, deviation, init)),
        };
        let mlp = match config.perceptron {
            PerceptronConfig::Linear {} => {
                Perceptron::Linear(new_mlp(width, Gelu::Logistic, deviation, init))
            }
            PerceptronConfig::Convolution {} => Perceptron::Convolution(ConvMlp {
                conv1: Conv2dConfig::same(width, 4 * width, 3).init(init),
                conv2: Conv2dConfig::same(4 * width, width, 3).init(init),
            }),
        };
        Self {
            ln1: AdaLayerNorm::normal(config.process.steps, width, deviation, init),
            attn: FullSelfAttention::normal(width, config.heads, deviation, init),
            ln2: second,
            mlp,
        }
    }

    /// `[batch, tokens, width]` to the same shape.
    pub fn forward(&self, input: Tensor<3>, told: Told) -> Tensor<3> {
        let normal = self.ln1.forward(input.clone(), told.times);
        let middle = input + self.attn.forward(normal);
        let normal = self.ln2.forward(middle.clone(), told.classes);
        middle
            + match &self.mlp {
                Perceptron::Linear(layers) => mlp(layers, normal),
                Perceptron::Convolution(layers) => layers.forward(normal, told.layout),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use smalti_nn::Noise;

    #[test]
    fn the_norm_is_turned_by_its_row_of_the_table() {
        let device = Device::flex();
        let norm = AdaLayerNorm::normal(3, 4, 0.7, &mut Init::new(&device, 1));
        let input = Noise::from_seed(2).standard_normal([2, 5, 4], &device);
        let both = norm.forward(input.clone(), &[2, 0]);
        let row = |id: usize| {
            let row = norm.emb.weight.val().narrow(0, id, 1);
            norm.linear.forward(row.clone() / (row.neg().exp() + 1.0))
        };
        for (sample, id) in [(0, 2), (1, 0)] {
            let x = input.clone().narrow(0, sample, 1).squeeze_dim::<2>(0);
            let (variance, mean) = x.clone().var_mean_bias(1);
            let normal = (x - mean) / variance.add_scalar(EPSILON).sqrt();
            let expected = normal * (row(id).narrow(1, 0, 4) + 1.0) + row(id).narrow(1, 4, 4);
            let got = both.clone().narrow(0, sample, 1).squeeze_dim::<2>(0);
            assert!(got.all_close(expected, Some(1e-4), Some(1e-5)));
        }
        let one = norm.forward(input.clone(), &[2]);
        let same = norm.forward(input, &[2, 2]);
        assert!(one.all_close(same, None, Some(1e-6)));
    }

    #[test]
    fn convolutions_see_the_map_of_their_own_depth() {
        let device = Device::flex();
        let layout = CodeLayout {
            height: 2,
            width: 3,
            codebook_sizes: vec![5, 5],
        };
        let mut init = Init::new(&device, 1);
        let layers = ConvMlp {
            conv1: Conv2dConfig::same(4, 16, 3).init(&mut init),
            conv2: Conv2dConfig::same(16, 4, 3).init(&mut init),
        };
        let input = Noise::from_seed(2).standard_normal([1, 12, 4], &device);
        let both = layers.forward(input.clone(), &layout);
        let one = CodeLayout {
            codebook_sizes: vec![5],
            ..layout
        };
        let second = layers.forward(input.narrow(1, 6, 6), &one);
        assert!(
            both.narrow(1, 6, 6)
                .all_close(second, Some(1e-4), Some(1e-5))
        );
    }
}
