//! From the head's vectors to logits.
//!
//! `logits = LayerNorm(x)·Wᵀ + b`, with one `W` for all depths or one for each. Where codebooks differ
//! in size the logits are as wide as the largest, and −∞ beyond a depth's own codes.
//!
//! Different from the published code: its mask for codebooks of different sizes is applied along the
//! wrong axis of the training logits; here it is applied to the logits of each depth.

use burn::module::Module;
use burn::tensor::{Bool, Int, Tensor};
use smalti_nn::{BatchLinear, Init, LayerNorm, Linear};

use super::config::{RqTransformerConfig, Sharing};

/// One linear map for all depths, or one for each.
#[derive(Module, Debug)]
pub enum DepthLinear {
    /// `weight [vocab, width]`.
    Shared(Linear),
    /// `weight [depth, width, vocab]`.
    PerDepth(BatchLinear),
}

/// Norm and linear map from the head's vectors to the logits of the codes.
#[derive(Module, Debug)]
pub struct CodeClassifier {
    /// Norm of the head's output.
    pub layer_norm: LayerNorm,
    /// The logits.
    pub linear: DepthLinear,
    #[module(skip)]
    codebook_sizes: Vec<usize>,
}

impl CodeClassifier {
    /// The classifier of `config` with weights of the given deviation.
    pub(super) fn new(config: &RqTransformerConfig, deviation: f32, init: &mut Init) -> Self {
        let (width, vocab) = (config.embed_dim, config.vocab_size());
        let linear = match config.classifier {
            Sharing::Shared => DepthLinear::Shared(Linear::normal(width, vocab, deviation, init)),
            Sharing::PerDepth => DepthLinear::PerDepth(BatchLinear::normal(
                config.depth,
                width,
                vocab,
                deviation,
                init,
            )),
        };
        let layer_norm = LayerNorm::new(width, init);
        Self {
            layer_norm,
            linear,
            codebook_sizes: config.codebook_sizes(),
        }
    }

    /// Vectors of all depths `[rows, depth, width]` to logits `[rows, depth, vocab]`.
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let input = self.layer_norm.forward(input);
        let logits = match &self.linear {
            DepthLinear::Shared(linear) => linear.forward(input),
            DepthLinear::PerDepth(linear) => linear.forward(input),
        };
        let shape = logits.dims();
        match self.impossible(&logits) {
            Some(mask) => logits.mask_fill(mask.unsqueeze::<3>().expand(shape), f32::NEG_INFINITY),
            None => logits,
        }
    }

    /// Vectors of one depth `[rows, width]` to its logits `[rows, codebook_size of the depth]`.
    pub fn forward_at(&self, depth: usize, input: Tensor<2>) -> Tensor<2> {
        let input = self.layer_norm.forward(input);
        let logits = match &self.linear {
            DepthLinear::Shared(linear) => linear.forward(input),
            DepthLinear::PerDepth(linear) => linear.forward_at(depth, input),
        };
        logits.narrow(1, 0, self.codebook_sizes[depth])
    }

    /// `[depth, vocab]`, true where a depth has no such code; `None` where all codebooks are equal.
    fn impossible(&self, logits: &Tensor<3>) -> Option<Tensor<2, Bool>> {
        let [_, depth, vocab] = logits.dims();
        if self.codebook_sizes.iter().all(|&size| size == vocab) {
            return None;
        }
        let device = logits.device();
        let sizes: Vec<i32> = self
            .codebook_sizes
            .iter()
            .map(|&size| size as i32)
            .collect();
        let sizes = Tensor::<1, Int>::from_data(&sizes[..], &device).unsqueeze_dim::<2>(1);
        let ids = Tensor::<1, Int>::arange(0..vocab as i64, &device).unsqueeze::<2>();
        Some(
            ids.expand([depth, vocab])
                .greater_equal(sizes.expand([depth, vocab])),
        )
    }
}

/// Norm and linear map from the body's vectors to the logits of the next text token.
#[derive(Module, Debug)]
pub struct TextClassifier {
    /// Norm of the body's output.
    pub layer_norm: LayerNorm,
    /// The logits, `weight [vocab, width]`.
    pub linear: Linear,
}

impl TextClassifier {
    /// Weights of the given deviation.
    pub(super) fn new(width: usize, vocab: usize, deviation: f32, init: &mut Init) -> Self {
        let layer_norm = LayerNorm::new(width, init);
        Self {
            layer_norm,
            linear: Linear::normal(width, vocab, deviation, init),
        }
    }

    /// `[batch, length, width]` to `[batch, length, vocab]`.
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        self.linear.forward(self.layer_norm.forward(input))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::rq_transformer::testing::tiny_uneven;
    use burn::tensor::Device;

    #[test]
    fn codes_that_a_depth_lacks_are_impossible_and_one_depth_alone_agrees() {
        let device = Device::flex();
        let config = tiny_uneven();
        let mut init = Init::new(&device, 3);
        let classifier = CodeClassifier::new(&config, 0.5, &mut init);
        let input = init.normal([2, 3, 16], 1.0).val();
        let logits = classifier.forward(input.clone());
        assert_eq!(logits.dims(), [2, 3, 12]);
        for (depth, &size) in [12, 5, 7].iter().enumerate() {
            let rows = logits.clone().narrow(1, depth, 1).squeeze_dim::<2>(1);
            if size < 12 {
                let impossible = rows.clone().narrow(1, size, 12 - size);
                assert!(
                    impossible
                        .equal_elem(f32::NEG_INFINITY)
                        .all()
                        .into_scalar::<bool>()
                );
            }
            let at = input.clone().narrow(1, depth, 1).squeeze_dim::<2>(1);
            let alone = classifier.forward_at(depth, at);
            assert_eq!(alone.dims(), [2, size]);
            assert!(
                rows.narrow(1, 0, size)
                    .all_close(alone, Some(1e-5), Some(1e-6))
            );
        }
    }
}
