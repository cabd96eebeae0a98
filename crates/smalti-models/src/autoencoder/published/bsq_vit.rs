//! BSQ-ViT checkpoints as published by its authors: a yaml beside a `.pt` file.
//!
//! Differences between the file and this project's layout: names begin with `module.` (those of the
//! averaged weights, which are preferred, with `module.module.`); `quant_embed` and
//! `post_quant_embed` stand outside of encoder and decoder; the integer tables of the quantizer are
//! left out. The configuration leaves the clamping to `data.zero_mean`, as its training script does.

use std::path::Path;

use serde::Deserialize;
use serde_norway::Value;
use smalti_nn::Init;
use smalti_nn::state::Weights;
use smalti_quantize::{BsqConfig, QuantizerConfig};

use super::transformer::{Transformer, clamps};
use super::{PublishedError, read_text, read_weights, with_fresh_quantizer, yaml};
use crate::autoencoder::{Autoencoder, AutoencoderConfig, NetworkConfig};

const OF: &str = "a BSQ-ViT";
/// Bits of one code: ids are 32-bit integers on every device. Longer ones are cut into equal parts,
/// the most significant first.
const LONGEST_CODE: usize = 30;

/// Reads the yaml of a published BSQ-ViT. Fields that say nothing about the model are ignored.
///
/// # Errors
/// When the file cannot be read, is of something else, or asks for what no published model uses.
pub fn read_config(path: &Path) -> Result<AutoencoderConfig, PublishedError> {
    let text = read_text(path)?;
    let error = |reason: String| PublishedError::config(path, OF, reason);
    let model = yaml::read_node(&text, "model").map_err(error)?;
    let zero_mean = yaml::read_node(&text, "data.zero_mean").ok();
    let model: Model = serde_norway::from_value(model).map_err(|e| error(e.to_string()))?;
    model.convert(zero_mean).map_err(error)
}

/// Loads a `.pt` file into the model of `config`: the averaged weights where it has them.
///
/// # Errors
/// When the weights cannot be read or do not fit; every difference is listed.
pub fn load(
    config: &AutoencoderConfig,
    weights: &Path,
    init: &mut Init,
) -> Result<Autoencoder, PublishedError> {
    let model = config.build(init)?;
    let weights = read_weights(weights, &["ema_state_dict", "state_dict"], |_| true)?;
    let weights = with_fresh_quantizer(convert_names(weights)?, &model);
    Ok(weights.load_into(model)?)
}

fn convert_names(weights: Weights) -> Result<Weights, PublishedError> {
    let renamed = weights.rename(|name| {
        let name = name.strip_prefix("module.").unwrap_or(name);
        let name = name.strip_prefix("module.").unwrap_or(name);
        let (part, rest) = name.split_once('.')?;
        match part {
            "quant_embed" => Some(format!("encoder.quant_embed.{rest}")),
            "post_quant_embed" => Some(format!("decoder.post_quant_embed.{rest}")),
            "quantize" => None,
            _ => Some(name.to_owned()),
        }
    });
    Ok(renamed?)
}

#[derive(Deserialize)]
struct Model {
    target: String,
    params: Params,
}

#[derive(Deserialize)]
struct Params {
    embed_dim: usize,
    #[serde(default = "nine")]
    embed_group_size: usize,
    #[serde(default)]
    l2_norm: bool,
    #[serde(default)]
    post_q_l2_norm: bool,
    #[serde(default)]
    logit_laplace: bool,
    #[serde(default)]
    persample_entropy_compute: Entropy,
    #[serde(default = "one")]
    inv_temperature: f32,
    clamp_range: Option<[f64; 2]>,
    vitconfig: Transformer,
    dvitconfig: Option<Transformer>,
}

fn nine() -> usize {
    9
}

fn one() -> f32 {
    1.0
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entropy {
    #[default]
    Group,
    Analytical,
}

impl Model {
    fn convert(self, zero_mean: Option<Value>) -> Result<AutoencoderConfig, String> {
        let params = self.params;
        if !self.target.ends_with(".VITBSQModel") {
            return Err(format!(
                "model.target is {:?}, expected ….VITBSQModel",
                self.target
            ));
        }
        if params.logit_laplace {
            return Err("logit_laplace: true is not supported: no published model has it".into());
        }
        let range = match zero_mean {
            Some(Value::Bool(true)) => Some([-1.0, 1.0]),
            Some(Value::Bool(false)) => Some([0.0, 1.0]),
            _ => params.clamp_range,
        };
        // The constructor's own default is that of images in [0, 1].
        let clamp = clamps(range.or(Some([0.0, 1.0])))?;
        let quantizer = params.quantizer()?;
        let decoder = params.dvitconfig.unwrap_or(params.vitconfig.clone());
        let network = params.vitconfig.convert(decoder, params.embed_dim)?;
        Ok(AutoencoderConfig {
            projections: false,
            clamp,
            network: NetworkConfig::Vit(network),
            quantizer: QuantizerConfig::Bsq(quantizer),
            representation: Vec::new(),
        })
    }
}

impl Params {
    fn quantizer(&self) -> Result<BsqConfig, String> {
        if self.l2_norm != self.post_q_l2_norm {
            return Err(
                "l2_norm and post_q_l2_norm differ: latents and codes must both lie on the sphere, or neither"
                    .into(),
            );
        }
        let depth = (1..=self.embed_dim)
            .find(|&depth| {
                self.embed_dim.is_multiple_of(depth) && self.embed_dim / depth <= LONGEST_CODE
            })
            .ok_or("embed_dim must be at least 1, got 0")?;
        Ok(BsqConfig {
            normalize: self.l2_norm,
            entropy_group: match self.persample_entropy_compute {
                Entropy::Group => self.embed_group_size,
                Entropy::Analytical => 1,
            },
            inverse_temperature: self.inv_temperature,
            ..BsqConfig::new(self.embed_dim / depth, depth)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smalti_nn::state::Array;
    use std::collections::BTreeMap;

    #[test]
    fn names_of_plain_and_averaged_weights_become_this_projects() {
        let names = [
            ("quant_embed.weight", Some("encoder.quant_embed.weight")),
            (
                "post_quant_embed.bias",
                Some("decoder.post_quant_embed.bias"),
            ),
            ("encoder.ln_pre.weight", Some("encoder.ln_pre.weight")),
            ("quantize.basis", None),
        ];
        for prefix in ["", "module.", "module.module."] {
            let array = Array {
                shape: vec![1],
                values: vec![0.0],
            };
            let published = names.map(|(name, _)| (format!("{prefix}{name}"), array.clone()));
            let converted = convert_names(Weights(BTreeMap::from(published))).unwrap();
            let mut expected: Vec<&str> = names.iter().filter_map(|(_, name)| *name).collect();
            expected.sort_unstable();
            assert_eq!(converted.0.keys().collect::<Vec<_>>(), expected);
        }
    }
}
