//! The network: a transformer that sees all codes at once, some of them masked.
//!
//! ```text
//! tokens     the maps one behind the other, depth by depth; behind them the class, where there is one
//! input      F(E[token] + P[token's place])      F = Linear·drop·LN·gelu·Linear·drop·LN
//! blocks     x ← x + drop(Attention(LN(x))),  x ← x + drop(MLP(LN(x))),  attention in both directions
//! output     y = LN·gelu·Linear·drop·LN of the last block
//! logits     E_d·y + b of every depth over its codes, b one for every code of every place
//! ```
//!
//! MaskGIT (Chang, Zhang, Jiang, Liu, Freeman 2022, arXiv 2202.04200, section 3.1), in the form of
//! valeoai/Maskgit-pytorch's first model. The table `E` holds codes, mask, classes and "no class", in this order, and
//! is the matrix of the logits too. Several codes at a position (which the paper does not have) are
//! so many tokens more: each depth has rows, a mask, places and logits of its own; a code may be
//! written before those of the depths before it.
//!
//! Different from that code: no logit for the mask, which is never right; dropout acts on what blocks
//! add, not on attention weights.
//!
//! State: none.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use smalti_nn::mlp::{Mlp, mlp};
use smalti_nn::nearest::id_tensor;
use smalti_nn::{Dropout, Embedding, LayerNorm, Linear, Noise, SelfAttention, gelu, linear};

use super::config::MaskedConfig;
use crate::generators::layout::CodeLayout;
use crate::generators::passes::DepthLogits;

/// The model; see the [module's documentation](self).
#[derive(Module, Debug)]
pub struct Masked {
    /// Codes and masks of every depth, then classes and "no class", `[rows, width]`.
    pub tok_emb: Embedding,
    /// Where a token stands, `[tokens, width]`.
    pub pos_emb: Param<Tensor<2>>,
    /// Before the blocks.
    pub first_layer: FirstLayer,
    /// The transformer.
    pub blocks: Vec<MaskedBlock>,
    /// Behind the blocks.
    pub last_layer: LastLayer,
    /// Added to the logits, `[positions, codebook_size]` for each depth.
    pub bias: Vec<Param<Tensor<2>>>,
    #[module(skip)]
    pub(super) config: MaskedConfig,
}

/// What tokens pass before the blocks.
#[derive(Module, Debug)]
pub struct FirstLayer {
    /// First.
    pub norm1: LayerNorm,
    /// Then.
    pub linear1: Linear,
    /// After an activation.
    pub norm2: LayerNorm,
    /// Last.
    pub linear2: Linear,
}

/// One block.
#[derive(Module, Debug)]
pub struct MaskedBlock {
    /// Norm before the attention.
    pub ln1: LayerNorm,
    /// Each token looks at all others.
    pub attn: SelfAttention,
    /// Norm before the perceptron.
    pub ln2: LayerNorm,
    /// Each token alone.
    pub mlp: Mlp,
}

/// What tokens pass behind the blocks.
#[derive(Module, Debug)]
pub struct LastLayer {
    /// First.
    pub norm1: LayerNorm,
    /// Then, followed by an activation.
    pub linear: Linear,
    /// Last.
    pub norm2: LayerNorm,
}

impl Masked {
    /// The configuration the model was built from.
    pub fn config(&self) -> &MaskedConfig {
        &self.config
    }

    /// The device of the parameters.
    pub fn device(&self) -> Device {
        self.pos_emb.val().device()
    }

    /// Logits of all codes, `[samples, positions, codebook_size]` for each depth; dropout where there is
    /// noise.
    ///
    /// `tokens` hold the maps of each sample one behind the other, the mask being the id behind a
    /// depth's last code; `classes` the number of each sample's class (the one behind the last is "no
    /// class"), or nothing without classes.
    pub fn logits(
        &self,
        tokens: &[u32],
        classes: &[u32],
        mut noise: Option<&mut Noise>,
    ) -> DepthLogits {
        let layout = self.config.layout();
        let input = self.input(tokens, classes, &layout);
        let dropout = Dropout {
            probability: self.config.dropout,
        };
        let FirstLayer {
            norm1,
            linear1,
            norm2,
            linear2,
        } = &self.first_layer;
        let x = dropout.forward(norm1.forward(input), noise.as_deref_mut());
        let x = norm2.forward(gelu(linear1.forward(x)));
        let mut x = linear2.forward(dropout.forward(x, noise.as_deref_mut()));
        for block in &self.blocks {
            let attended = block.attn.forward(block.ln1.forward(x.clone()));
            x = x + dropout.forward(attended, noise.as_deref_mut());
            let worked = mlp(&block.mlp, block.ln2.forward(x.clone()));
            x = x + dropout.forward(worked, noise.as_deref_mut());
        }
        let LastLayer {
            norm1,
            linear,
            norm2,
        } = &self.last_layer;
        let x = dropout.forward(norm1.forward(x), noise);
        self.outputs(norm2.forward(gelu(linear.forward(x))), &layout)
    }

    /// `[samples, tokens, width]`
    fn input(&self, tokens: &[u32], classes: &[u32], layout: &CodeLayout) -> Tensor<3> {
        let device = self.device();
        let samples = tokens.len() / layout.codes();
        let ids = layout.table_ids(tokens);
        let first_class = layout.table_rows() as u32;
        let ids: Vec<u32> = match classes.is_empty() {
            true => ids,
            false => {
                let maps = ids.chunks_exact(layout.codes()).zip(classes);
                maps.flat_map(|(map, class)| map.iter().copied().chain([first_class + class]))
                    .collect()
            }
        };
        let ids = id_tensor(&ids, [samples, self.config.tokens()], &device);
        self.tok_emb.forward(ids) + self.pos_emb.val().unsqueeze::<3>()
    }

    /// The logits of each depth from the output at all tokens.
    fn outputs(&self, output: Tensor<3>, layout: &CodeLayout) -> DepthLogits {
        let (table, positions) = (self.tok_emb.weight.val(), layout.positions());
        let mut row = 0;
        let of_depth = |(depth, bias): (usize, &Param<Tensor<2>>)| {
            let size = layout.codebook_sizes[depth];
            let matrix = table.clone().narrow(0, row, size);
            row += size + 1;
            let places = output.clone().narrow(1, depth * positions, positions);
            linear(places, matrix, None) + bias.val().unsqueeze::<3>()
        };
        self.bias.iter().enumerate().map(of_depth).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{all_kinds, random, tiny};
    use super::*;
    use burn::tensor::Device;
    use smalti_nn::state::host_values;

    #[test]
    fn the_count_of_parameters_is_the_models() {
        for config in all_kinds() {
            let model = random(&config, &Device::flex(), 1);
            assert_eq!(model.num_params(), config.parameter_count(), "{config:?}");
        }
    }

    #[test]
    fn every_code_sees_every_other_and_its_class() {
        let model = random(&tiny(2), &Device::flex(), 1);
        let tokens: Vec<u32> = vec![1, 2, 12, 12, 3, 12, 5, 12, 12, 0, 7, 12];
        let of = |tokens: &[u32], class| {
            let logits = model.logits(tokens, &[class], None);
            assert_eq!(logits.len(), 2);
            logits.into_iter().map(host_values).collect::<Vec<_>>()
        };
        let before = of(&tokens, 1);
        let mut changed = tokens.clone();
        changed[11] = 4;
        for (a, b) in before.iter().zip(&of(&changed, 1)) {
            assert!(a[..12].iter().zip(b).all(|(a, b)| (a - b).abs() > 1e-6));
        }
        assert_ne!(of(&tokens, 4), before);
    }

    #[test]
    fn dropout_acts_only_with_noise() {
        let model = random(&tiny(1), &Device::flex(), 1);
        let tokens = [12; 6];
        let of =
            |noise: Option<&mut Noise>| host_values(model.logits(&tokens, &[0], noise).remove(0));
        assert_eq!(of(None), of(None));
        assert_ne!(of(Some(&mut Noise::from_seed(1))), of(None));
    }
}
