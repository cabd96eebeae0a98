//! The tokenizers of LlamaGen (Sun et al. 2024, arXiv 2406.06525) as published: one `.pt` or safetensors
//! file, without a configuration. The shape is read off the arrays' names and sizes.
//!
//! Differences between the file and this project's layout:
//!
//! | the file | here |
//! |---|---|
//! | `encoder.conv_blocks.i.{res, attn}.j` | `encoder.down.i.{block, attn}.j` |
//! | `decoder.conv_blocks.i`, counted from the lowest resolution | `decoder.up.(last − i)` |
//! | `mid.{0, 1, 2}` | `mid.{block_1, attn_1, block_2}` |
//! | `quantize.embedding.weight` | `quantizer.codebook.weight` |
//!
//! Averaged weights (`ema`) are preferred to `model`, that to `state_dict`. What wrappers put before
//! names is taken off. The discriminator, the optimisers and `codebook_used`, a log of codes, are
//! ignored. That latents and codes are scaled to length one is not in the file: all published
//! tokenizers do so, and the configuration that is read can be changed before it is built.

use std::path::Path;

use smalti_nn::Init;
use smalti_nn::state::{Array, Weights, WeightsError};
use smalti_quantize::{Learning, Metric, QuantizerConfig, Revival, Rule, Start, VectorConfig};

use super::network::{convolutional, size};
use super::{PublishedError, read_weights};
use crate::autoencoder::{Autoencoder, AutoencoderConfig, NetworkConfig};

const OF: &str = "a LlamaGen tokenizer";
/// Groups of every normalisation.
const NORM_GROUPS: usize = 32;
/// Where a file keeps the arrays, the best first.
const KEYS: [&str; 3] = ["ema", "model", "state_dict"];
/// What wrappers of PyTorch put before names.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];

/// A published tokenizer before it is built.
#[derive(Clone, Debug)]
pub struct PublishedTokenizer {
    /// What it is. Fields that say nothing about arrays may be changed.
    pub config: AutoencoderConfig,
    weights: Weights,
}

/// Reads a tokenizer of LlamaGen.
///
/// # Errors
/// When the file cannot be read, or is of something else.
pub fn read(path: &Path) -> Result<PublishedTokenizer, PublishedError> {
    let weights = original(path)?.rename(|name| Some(renamed(name)))?;
    let error = |reason: String| PublishedError::config(path, OF, reason);
    let network = convolutional(&weights, NORM_GROUPS, None).map_err(error)?;
    let table = |axis| size(&weights, "quantizer.codebook.weight", axis).map_err(error);
    let quantizer = VectorConfig {
        metric: Metric::Cosine,
        rule: Rule::Gradient,
        learning: by_gradient(),
        ..VectorConfig::new(table(0)?, table(1)?)
    };
    Ok(PublishedTokenizer {
        config: AutoencoderConfig {
            projections: true,
            clamp: false,
            network: NetworkConfig::Convolutional(network),
            quantizer: QuantizerConfig::Vector(quantizer),
            representation: Vec::new(),
        },
        weights,
    })
}

impl PublishedTokenizer {
    pub(super) fn new(config: AutoencoderConfig, weights: Weights) -> Self {
        Self { config, weights }
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// When the configuration is invalid or the weights do not fit; every difference is listed.
    pub fn into_model(self, init: &mut Init) -> Result<Autoencoder, PublishedError> {
        let model = self.config.build(init)?;
        let weights = with_codebooks(self.weights, &model);
        Ok(weights.load_into(model)?)
    }
}

/// Codes that the optimiser moves and nothing else does, as published.
pub(in crate::autoencoder) fn by_gradient() -> Learning {
    Learning {
        revival: Revival::Off {},
        start: Start::Normal {},
        ..Learning::default()
    }
}

/// The arrays of a file of LlamaGen or FQGAN: encoder and decoder under this project's names, the
/// others under their own.
pub(super) fn original(path: &Path) -> Result<Weights, WeightsError> {
    let wanted = |name: &str| !name.ends_with(".codebook_used");
    let weights = read_weights(path, &KEYS, wanted)?;
    let weights = weights.rename(|name| Some(unwrapped(name).to_owned()))?;
    let blocks = "decoder.conv_blocks.";
    let levels = weights.0.keys().filter_map(|name| {
        let (number, _) = name.strip_prefix(blocks)?.split_once('.')?;
        number.parse::<usize>().ok()
    });
    let levels = levels.max().map_or(0, |last| last + 1);
    weights.rename(|name| Some(network_name(name, levels)))
}

fn unwrapped(mut name: &str) -> &str {
    while let Some(rest) = WRAPPERS.iter().find_map(|start| name.strip_prefix(start)) {
        name = rest;
    }
    name
}

/// This project's name of an array of an encoder, or of a decoder with `levels` levels. Any other
/// stays, to be listed as unexpected where nobody else knows it.
fn network_name(name: &str, levels: usize) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let (stem, rest) = match parts[..] {
        ["encoder", "conv_blocks", level, ref rest @ ..] => (format!("encoder.down.{level}"), rest),
        ["decoder", "conv_blocks", level, ref rest @ ..] => match level.parse::<usize>() {
            Ok(level) if level < levels => (format!("decoder.up.{}", levels - 1 - level), rest),
            _ => return name.to_owned(),
        },
        [part, "mid", "0", ref rest @ ..] => (format!("{part}.mid.block_1"), rest),
        [part, "mid", "1", ref rest @ ..] => (format!("{part}.mid.attn_1"), rest),
        [part, "mid", "2", ref rest @ ..] => (format!("{part}.mid.block_2"), rest),
        _ => return name.to_owned(),
    };
    let rest = rest
        .iter()
        .map(|&part| if part == "res" { "block" } else { part });
    let names: Vec<&str> = std::iter::once(stem.as_str()).chain(rest).collect();
    names.join(".")
}

fn renamed(name: &str) -> String {
    match name {
        "quantize.embedding.weight" => "quantizer.codebook.weight".to_owned(),
        _ => name.to_owned(),
    }
}

/// `weights` with the state of codebooks that no published file holds.
pub(super) fn with_codebooks(mut weights: Weights, model: &Autoencoder) -> Weights {
    for (name, array) in Weights::of(model.quantizer()).0 {
        let name = format!("quantizer.{name}");
        let published = |end: &str| {
            let table = format!("{}.weight", name.strip_suffix(end)?);
            weights.0.get(&table).cloned()
        };
        let array = if let Some(table) = published(".embed_ema") {
            table
        } else if published(".updates").is_some() {
            // Published codes have long been placed; one counted update says so.
            Array {
                shape: vec![1],
                values: vec![1.0],
            }
        } else {
            array
        };
        if !name.ends_with(".weight") {
            weights.0.entry(name).or_insert(array);
        }
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_network_become_this_projects() {
        for (from, to) in [
            ("encoder.conv_in.bias", "encoder.conv_in.bias"),
            (
                "encoder.conv_blocks.4.res.1.norm1.weight",
                "encoder.down.4.block.1.norm1.weight",
            ),
            (
                "encoder.conv_blocks.4.attn.0.proj_out.bias",
                "encoder.down.4.attn.0.proj_out.bias",
            ),
            (
                "encoder.conv_blocks.0.downsample.conv.weight",
                "encoder.down.0.downsample.conv.weight",
            ),
            ("encoder.mid.0.conv1.bias", "encoder.mid.block_1.conv1.bias"),
            ("decoder.mid.1.q.weight", "decoder.mid.attn_1.q.weight"),
            ("decoder.mid.2.norm2.bias", "decoder.mid.block_2.norm2.bias"),
            (
                "decoder.conv_blocks.0.res.2.nin_shortcut.bias",
                "decoder.up.4.block.2.nin_shortcut.bias",
            ),
            (
                "decoder.conv_blocks.3.upsample.conv.bias",
                "decoder.up.1.upsample.conv.bias",
            ),
            (
                "decoder.conv_blocks.9.res.0.x",
                "decoder.conv_blocks.9.res.0.x",
            ),
            ("post_quant_conv.weight", "post_quant_conv.weight"),
        ] {
            assert_eq!(network_name(from, 5), to);
        }
    }

    #[test]
    fn wrappers_are_taken_off_in_any_order() {
        for name in [
            "quant_conv.bias",
            "module.quant_conv.bias",
            "_orig_mod.module.quant_conv.bias",
        ] {
            assert_eq!(unwrapped(name), "quant_conv.bias");
        }
    }
}
