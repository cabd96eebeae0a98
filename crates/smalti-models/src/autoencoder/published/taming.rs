//! VQGANs of taming-transformers (Esser et al., CVPR 2021, arXiv 2012.09841) as published: a yaml beside a Lightning
//! `.ckpt` file, with the quantizer of `VQModel` (nearest codes) or `GumbelVQ` (codes by logits). The files of a
//! generator (`Net2NetTransformer`) hold the one whose codes it writes as their first stage; it is read from there.
//!
//! | the file | here |
//! |---|---|
//! | `quantize.embedding.weight` | `quantizer.codebook.weight` |
//! | `quantize.{proj, embed}.*` | `quantizer.{proj, embed}.*` |
//!
//! Names in a generator's file follow `first_stage_model.`. Everything else has this project's names. What belongs to training (`loss.*`: discriminator and perceptual
//! network) is left out, and so are the schedule of a Gumbel model's temperature and the weight of its divergence:
//! whoever goes on training says them anew.
//!
//! Difference: the published `GumbelVQ` draws its codes when images are encoded for use; here the code with the
//! largest logit is taken.

use std::path::Path;

use serde::Deserialize;
use smalti_nn::Init;
use smalti_quantize::{GumbelConfig, QuantizerConfig, Rule, VectorConfig};

use super::llamagen::{by_gradient, with_codebooks};
use super::{PublishedError, read_text, read_weights, yaml};
use crate::autoencoder::{Autoencoder, AutoencoderConfig, ConvolutionalConfig, NetworkConfig};

const OF: &str = "a VQGAN of taming-transformers";
/// What belongs to the model in a file.
const PARTS: [&str; 5] = [
    "encoder.",
    "decoder.",
    "quant_conv.",
    "post_quant_conv.",
    "quantize.",
];

/// Reads the yaml of a published model, or of a generator over it. Fields that say nothing about the model are ignored.
///
/// # Errors
/// When the file cannot be read, is of something else, or asks for what no published model uses.
pub fn read_config(path: &Path) -> Result<AutoencoderConfig, PublishedError> {
    let text = read_text(path)?;
    let error = |reason: String| PublishedError::config(path, OF, reason);
    let node = yaml::read_node(&text, "model.params.first_stage_config")
        .or_else(|_| yaml::read_node(&text, "model"))
        .map_err(error)?;
    let model: Model = serde_norway::from_value(node).map_err(|e| error(e.to_string()))?;
    model.convert().map_err(error)
}

/// Loads a `.ckpt` (or a safetensors file of the same names) into the model of `config`.
///
/// # Errors
/// When the weights cannot be read or do not fit; every difference is listed.
pub fn load(
    config: &AutoencoderConfig,
    weights: &Path,
    init: &mut Init,
) -> Result<Autoencoder, PublishedError> {
    let model = config.build(init)?;
    let weights = read_weights(weights, &["state_dict"], of_model)?;
    let weights = weights.rename(|name| Some(renamed(name)))?;
    let weights = match config.quantizer {
        QuantizerConfig::Vector(_) => with_codebooks(weights, &model),
        _ => weights,
    };
    Ok(weights.load_into(model)?)
}

fn without_stage(name: &str) -> &str {
    name.strip_prefix("first_stage_model.").unwrap_or(name)
}

fn of_model(name: &str) -> bool {
    let name = without_stage(name);
    PARTS.iter().any(|part| name.starts_with(part))
}

fn renamed(name: &str) -> String {
    let name = without_stage(name);
    match name.strip_prefix("quantize.") {
        Some("embedding.weight") => "quantizer.codebook.weight".into(),
        Some(rest) => format!("quantizer.{rest}"),
        None => name.to_owned(),
    }
}

#[derive(Deserialize)]
struct Model {
    target: String,
    params: Params,
}

#[derive(Deserialize)]
struct Params {
    embed_dim: usize,
    n_embed: usize,
    remap: Option<String>,
    ddconfig: Ddconfig,
}

#[derive(Deserialize)]
struct Ddconfig {
    z_channels: usize,
    resolution: usize,
    in_channels: usize,
    out_ch: usize,
    ch: usize,
    ch_mult: Vec<usize>,
    num_res_blocks: usize,
    attn_resolutions: Vec<usize>,
    #[serde(default)]
    dropout: f64,
    #[serde(default = "yes")]
    double_z: bool,
    #[serde(default = "yes")]
    resamp_with_conv: bool,
}

/// The published constructor's default.
fn yes() -> bool {
    true
}

impl Model {
    fn convert(self) -> Result<AutoencoderConfig, String> {
        let Params {
            embed_dim,
            n_embed,
            remap,
            ddconfig,
        } = self.params;
        let quantizer = match self.target.rsplit('.').next() {
            Some("VQModel" | "VQNoDiscModel") => QuantizerConfig::Vector(VectorConfig {
                rule: Rule::Gradient,
                learning: by_gradient(),
                ..VectorConfig::new(n_embed, embed_dim)
            }),
            Some("GumbelVQ") => QuantizerConfig::Gumbel(GumbelConfig::new(n_embed, embed_dim)),
            _ => {
                return Err(format!(
                    "the model is {}, expected ….VQModel or ….GumbelVQ",
                    self.target
                ));
            }
        };
        if let Some(remap) = remap {
            return Err(format!(
                "remap is {remap}: codes of other numbers are not supported"
            ));
        }
        Ok(AutoencoderConfig {
            projections: true,
            clamp: false,
            network: NetworkConfig::Convolutional(ddconfig.convert()?),
            quantizer,
            representation: Vec::new(),
        })
    }
}

impl Ddconfig {
    fn convert(self) -> Result<ConvolutionalConfig, String> {
        for (name, asked_for) in [
            ("in_channels other than 3", self.in_channels != 3),
            ("out_ch other than 3", self.out_ch != 3),
            ("double_z: true", self.double_z),
            ("resamp_with_conv: false", !self.resamp_with_conv),
        ] {
            if asked_for {
                return Err(format!("{name} is not supported"));
            }
        }
        Ok(ConvolutionalConfig {
            resolution: self.resolution,
            channels: self.ch,
            multipliers: self.ch_mult,
            blocks: self.num_res_blocks,
            attention_resolutions: self.attn_resolutions,
            decoder_attention_resolutions: None,
            middle_attention: true,
            z_channels: self.z_channels,
            norm_groups: 32,
            dropout: self.dropout,
            branches: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_changed_where_they_differ() {
        for (from, to) in [
            ("quantize.embedding.weight", "quantizer.codebook.weight"),
            ("quantize.proj.bias", "quantizer.proj.bias"),
            ("quantize.embed.weight", "quantizer.embed.weight"),
            ("encoder.mid.attn_1.q.weight", "encoder.mid.attn_1.q.weight"),
            (
                "first_stage_model.quantize.embedding.weight",
                "quantizer.codebook.weight",
            ),
            (
                "first_stage_model.decoder.conv_in.bias",
                "decoder.conv_in.bias",
            ),
        ] {
            assert!(of_model(from));
            assert_eq!(renamed(from), to);
        }
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens");
        let text = std::fs::read_to_string(format!("{root}/taming_gumbel/model.yaml")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.yaml");
        for (from, to, part) in [
            ("GumbelVQ", "EMAVQ", "taming.models.vqgan.EMAVQ"),
            ("double_z: false", "double_z: true", "double_z"),
            ("in_channels: 3", "in_channels: 151", "in_channels"),
            (
                "n_embed: 64",
                "n_embed: 64\n    remap: used.npy",
                "used.npy",
            ),
            ("  params:", "  parameters:", "params"),
        ] {
            assert!(text.contains(from), "{from}");
            std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
            let message = read_config(&path).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
            assert!(message.contains("model.yaml"), "{message}");
        }
    }
}
