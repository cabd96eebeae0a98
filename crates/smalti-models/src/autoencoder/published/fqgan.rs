//! The tokenizers of FQGAN (Bai et al. 2024, arXiv 2411.16681) as published: one `.pt` or safetensors file,
//! without a configuration. The shape is read off the arrays' names and sizes.
//!
//! Encoder, decoder and container are [LlamaGen's](super::llamagen). Beside them:
//!
//! | the file | here |
//! |---|---|
//! | `encoder.visual_head.0`, `encoder.semantic_head.0`, `…_mid.0`, `…_high.0` | `encoder.branches.b.adapter` |
//! | `encoder.{norm_out, conv_out}_NAME`, `quant_conv_NAME` | `encoder.branches.b.{norm_out, conv_out, quant_conv}` |
//! | `quantize_NAME.embedding.weight` | `quantizer.branches.parts.b.codebook.weight` |
//! | `feat_pred_head`, `mid_sem_feat_pred`, `high_sem_feat_pred` | `heads.h` |
//! | `transformer.N` of adapters and heads | `transformer.resblocks.N` |
//!
//! with b the place of NAME in `vis, sem` or `vis, sem_mid, sem_high`. Prediction heads may be missing.
//! Numbers of attention heads are not in the file; [`AttentionHeads`] has the published ones.

use std::path::Path;

use smalti_nn::state::Weights;
use smalti_quantize::{DistanceEntropies, FactorizedConfig, QuantizerConfig};

use super::PublishedError;
use super::llamagen::{PublishedTokenizer, by_gradient, original};
use super::network::{convolutional, size};
use crate::autoencoder::{
    AdapterConfig, AutoencoderConfig, BranchesConfig, NetworkConfig, PredictionHeadConfig,
};

const OF: &str = "an FQGAN tokenizer";
/// Groups of every normalisation.
const NORM_GROUPS: usize = 32;

/// A published arrangement of branches.
struct Arrangement {
    /// A branch's name here and in the file, and its adapter's there.
    branches: &'static [(&'static str, &'static str)],
    /// The prediction heads' names in the file, and the places of their branches.
    heads: &'static [(&'static str, usize)],
}

const DUAL: Arrangement = Arrangement {
    branches: &[("vis", "visual_head"), ("sem", "semantic_head")],
    heads: &[("feat_pred_head", 1)],
};

const TRIPLE: Arrangement = Arrangement {
    branches: &[
        ("vis", "visual_head"),
        ("sem_mid", "semantic_head_mid"),
        ("sem_high", "semantic_head_high"),
    ],
    heads: &[("mid_sem_feat_pred", 1), ("high_sem_feat_pred", 2)],
};

/// Attention heads of the transformers, which a file does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionHeads {
    /// Of the feature adapters.
    pub adapter: usize,
    /// Of the prediction heads.
    pub prediction: usize,
}

impl Default for AttentionHeads {
    /// The published ones.
    fn default() -> Self {
        Self {
            adapter: 8,
            prediction: 8,
        }
    }
}

/// Reads a tokenizer of FQGAN, with the prediction heads that the file has.
/// [`Autoencoder::without_prediction_heads`](crate::autoencoder::Autoencoder::without_prediction_heads)
/// drops them.
///
/// # Errors
/// When the file cannot be read, or is of something else.
pub fn read(path: &Path, heads: AttentionHeads) -> Result<PublishedTokenizer, PublishedError> {
    let error = |reason: String| PublishedError::config(path, OF, reason);
    let weights = original(path)?;
    let has = |name: &str| weights.0.contains_key(name);
    let arrangement = if has("quantize_sem_mid.embedding.weight") {
        TRIPLE
    } else if has("quantize_sem.embedding.weight") {
        DUAL
    } else {
        return Err(error(
            "it has neither quantize_sem.embedding.weight nor quantize_sem_mid.embedding.weight"
                .into(),
        ));
    };
    let there = arrangement.heads_of(&weights);
    let weights = weights.rename(|name| Some(arrangement.renamed(name, &there)))?;
    let config = arrangement.config(&weights, &there, heads).map_err(error)?;
    Ok(PublishedTokenizer::new(config, weights))
}

impl Arrangement {
    /// The prediction heads that a file has.
    fn heads_of(&self, weights: &Weights) -> Vec<(&'static str, usize)> {
        let heads = self.heads.iter().copied();
        heads
            .filter(|(name, _)| weights.0.contains_key(&format!("{name}.class_embedding")))
            .collect()
    }

    /// This project's name of an array; one that is not known stays, to be listed as unexpected.
    fn renamed(&self, name: &str, heads: &[(&str, usize)]) -> String {
        let branches = self.branches.iter().enumerate();
        for (place, (branch, adapter)) in branches {
            let ends = [
                (format!("encoder.{adapter}.0."), "adapter."),
                (format!("encoder.norm_out_{branch}."), "norm_out."),
                (format!("encoder.conv_out_{branch}."), "conv_out."),
                (format!("quant_conv_{branch}."), "quant_conv."),
            ];
            for (from, to) in ends {
                if let Some(rest) = name.strip_prefix(&from) {
                    return format!("encoder.branches.{place}.{to}{}", blocks(rest));
                }
            }
            if name == format!("quantize_{branch}.embedding.weight") {
                return format!("quantizer.branches.parts.{place}.codebook.weight");
            }
        }
        let mut heads = heads.iter().enumerate();
        let head = heads.find_map(|(place, (head, _))| {
            let rest = name.strip_prefix(head)?.strip_prefix('.')?;
            Some(format!("heads.{place}.{}", blocks(rest)))
        });
        head.unwrap_or_else(|| name.to_owned())
    }

    fn config(
        &self,
        weights: &Weights,
        heads: &[(&str, usize)],
        attention: AttentionHeads,
    ) -> Result<AutoencoderConfig, String> {
        let names: Vec<&str> = self.branches.iter().map(|(name, _)| *name).collect();
        let adapter = "encoder.branches.0.adapter";
        let cells = size(weights, &format!("{adapter}.positional_embedding"), 0)?;
        let side = cells.isqrt();
        if side * side != cells {
            return Err(format!("{cells} positions of an adapter are no square"));
        }
        let mut network = convolutional(weights, NORM_GROUPS, Some(side))?;
        network.branches = Some(BranchesConfig {
            adapter: Some(AdapterConfig {
                layers: layers(weights, adapter),
                heads: attention.adapter,
            }),
            ..BranchesConfig::published(&names)
        });
        let table = "quantizer.branches.parts.0.codebook.weight";
        let quantizer = FactorizedConfig {
            entropies: Some(DistanceEntropies::default()),
            learning: by_gradient(),
            ..FactorizedConfig::new(
                size(weights, table, 0)?,
                size(weights, table, 1)?,
                names.len(),
            )
        };
        let heads = heads.iter().enumerate().map(|(place, (_, branch))| {
            let head = format!("heads.{place}");
            Ok(PredictionHeadConfig {
                branch: names[*branch].to_owned(),
                width: size(weights, &format!("{head}.class_embedding"), 1)?,
                layers: layers(weights, &head),
                heads: attention.prediction,
            })
        });
        Ok(AutoencoderConfig {
            projections: true,
            clamp: false,
            representation: heads.collect::<Result<_, String>>()?,
            network: NetworkConfig::Convolutional(network),
            quantizer: QuantizerConfig::Factorized(quantizer),
        })
    }
}

/// Blocks of the transformer under a name.
fn layers(weights: &Weights, prefix: &str) -> usize {
    let block = |i: &usize| {
        let name = format!("{prefix}.transformer.resblocks.{i}.ln_1.weight");
        weights.0.contains_key(&name)
    };
    (0..).take_while(block).count()
}

/// The name of an array of an adapter or a head, whose blocks are a list within a list here.
fn blocks(rest: &str) -> String {
    match rest.strip_prefix("transformer.") {
        Some(block) => format!("transformer.resblocks.{block}"),
        None => rest.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_branches_and_heads_become_this_projects() {
        let heads = TRIPLE.heads;
        for (from, to) in [
            (
                "encoder.visual_head.0.positional_embedding",
                "encoder.branches.0.adapter.positional_embedding",
            ),
            (
                "encoder.semantic_head_mid.0.transformer.2.attn.in_proj_weight",
                "encoder.branches.1.adapter.transformer.resblocks.2.attn.in_proj_weight",
            ),
            (
                "encoder.norm_out_sem_high.bias",
                "encoder.branches.2.norm_out.bias",
            ),
            (
                "encoder.conv_out_vis.weight",
                "encoder.branches.0.conv_out.weight",
            ),
            (
                "quant_conv_sem_mid.bias",
                "encoder.branches.1.quant_conv.bias",
            ),
            (
                "quantize_sem_high.embedding.weight",
                "quantizer.branches.parts.2.codebook.weight",
            ),
            ("mid_sem_feat_pred.upscale.2.bias", "heads.0.upscale.2.bias"),
            (
                "high_sem_feat_pred.transformer.0.ln_1.bias",
                "heads.1.transformer.resblocks.0.ln_1.bias",
            ),
            ("decoder.norm_out.bias", "decoder.norm_out.bias"),
        ] {
            assert_eq!(TRIPLE.renamed(from, heads), to);
        }
        assert_eq!(
            DUAL.renamed("quant_conv_sem.weight", DUAL.heads),
            "encoder.branches.1.quant_conv.weight"
        );
        // A head that is said to be missing keeps its name and is refused as unexpected.
        assert_eq!(DUAL.renamed("feat_pred_head.x", &[]), "feat_pred_head.x");
    }
}
