//! RQ-VAE checkpoints as published: `config.yaml` beside `model.pt`.
//!
//! Differences between the file and this project's layout: the table of a codebook has one more row, of
//! zeros, that is never searched (dropped), and a shared codebook is listed once for each depth
//! (checked to be equal, kept once). A discriminator or an optimiser in the file is ignored.

use std::path::Path;

use serde::Deserialize;
use smalti_nn::Init;
use smalti_nn::state::{Array, Weights, WeightsError};
use smalti_quantize::config::PerDepth;
use smalti_quantize::{Learning, QuantizerConfig, ResidualConfig, Revival};

use super::{PublishedError, read_text, read_weights};
use crate::autoencoder::{
    Autoencoder, AutoencoderConfig, ConvolutionalConfig, InvalidAutoencoder, NetworkConfig,
};

/// A published configuration: the model and how its training weighed it.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedRqVae {
    /// The model.
    pub model: AutoencoderConfig,
    /// Whether the reconstruction loss was mean|x − x̂| instead of mean(x − x̂)².
    pub absolute_error: bool,
    /// The weight of the commitment loss.
    pub commitment_weight: f64,
}

/// Reads the `config.yaml` of a published RQ-VAE. Fields that say nothing about the model are ignored.
///
/// # Errors
/// When the file cannot be read or is of something else.
pub fn read_config(path: &Path) -> Result<PublishedRqVae, PublishedError> {
    let text = read_text(path)?;
    let config_error = |reason: String| PublishedError::config(path, "an RQ-VAE", reason);
    let file: File = serde_norway::from_str(&text).map_err(|e| config_error(e.to_string()))?;
    if file.arch.kind != "rq-vae" {
        return Err(config_error(format!(
            "arch.type is {:?}, expected \"rq-vae\"",
            file.arch.kind
        )));
    }
    file.arch.convert().map_err(config_error)
}

/// Loads `model.pt` (or a safetensors file of the same names) into the model of `config`.
///
/// # Errors
/// When the weights cannot be read or do not fit; every difference is listed.
pub fn load(
    config: &AutoencoderConfig,
    weights: &Path,
    init: &mut Init,
) -> Result<Autoencoder, PublishedError> {
    let model = config.build(init)?;
    let weights = read_weights(weights, &["state_dict"], |_| true)?;
    let QuantizerConfig::Residual(quantizer) = &config.quantizer else {
        return Err(
            InvalidAutoencoder(vec!["a published RQ-VAE has a residual quantizer".into()]).into(),
        );
    };
    Ok(convert_weights(weights, quantizer.shared)?.load_into(model)?)
}

fn convert_weights(weights: Weights, shared: bool) -> Result<Weights, WeightsError> {
    let mut weights = weights.rename(|name| match name.strip_prefix("quantizer.codebooks.") {
        Some(rest) if shared => rest
            .split_once('.')
            .map(|(_, field)| format!("quantizer.codebooks.0.{field}")),
        _ => Some(name.to_owned()),
    })?;
    let mut counters = Vec::new();
    for (name, array) in &mut weights.0 {
        if !name.starts_with("quantizer.codebooks.") {
            continue;
        }
        if let Some(codebook) = name.strip_suffix(".weight") {
            drop_padding_row(array);
            counters.push(format!("{codebook}.updates"));
        }
    }
    // A published codebook has long been placed; one counted update says so.
    weights.0.extend(counters.into_iter().map(|name| {
        (
            name,
            Array {
                shape: vec![1],
                values: vec![1.0],
            },
        )
    }));
    Ok(weights)
}

fn drop_padding_row(array: &mut Array) {
    if let [rows, width] = array.shape[..]
        && rows > 1
    {
        array.values.truncate((rows - 1) * width);
        array.shape = vec![rows - 1, width];
    }
}

#[derive(Deserialize)]
struct File {
    arch: Arch,
}

#[derive(Deserialize)]
struct Arch {
    #[serde(rename = "type")]
    kind: String,
    hparams: Hparams,
    ddconfig: Ddconfig,
}

#[derive(Deserialize)]
#[serde(default)]
struct Hparams {
    loss_type: String,
    latent_loss_weight: f64,
    embed_dim: usize,
    n_embed: PerDepth<usize>,
    latent_shape: Vec<usize>,
    code_shape: Vec<usize>,
    shared_codebook: bool,
    decay: PerDepth<f32>,
    restart_unused_codes: bool,
}

impl Default for Hparams {
    /// The defaults of the published constructor.
    fn default() -> Self {
        Self {
            loss_type: "l1".into(),
            latent_loss_weight: 0.25,
            embed_dim: 64,
            n_embed: PerDepth::All(512),
            latent_shape: vec![8, 8, 256],
            code_shape: vec![8, 8, 4],
            shared_codebook: false,
            decay: PerDepth::All(0.99),
            restart_unused_codes: false,
        }
    }
}

#[derive(Deserialize)]
struct Ddconfig {
    z_channels: usize,
    resolution: usize,
    ch: usize,
    ch_mult: Vec<usize>,
    num_res_blocks: usize,
    attn_resolutions: Vec<usize>,
    #[serde(default)]
    dropout: f64,
    #[serde(default)]
    double_z: bool,
}

impl Arch {
    fn convert(self) -> Result<PublishedRqVae, String> {
        let Self {
            hparams, ddconfig, ..
        } = self;
        if ddconfig.double_z {
            return Err(
                "double_z is true: the encoder gives a mean and a variance, which no RQ-VAE uses"
                    .into(),
            );
        }
        let ([rows, _, channels], [code_rows, _, depth]) =
            (triple(&hparams.latent_shape)?, triple(&hparams.code_shape)?);
        if code_rows == 0 || !rows.is_multiple_of(code_rows) || channels != hparams.embed_dim {
            return Err("latent_shape, code_shape and embed_dim do not fit together".into());
        }
        let fold = rows / code_rows;
        let network = ConvolutionalConfig {
            resolution: ddconfig.resolution,
            channels: ddconfig.ch,
            multipliers: ddconfig.ch_mult,
            blocks: ddconfig.num_res_blocks,
            attention_resolutions: ddconfig.attn_resolutions,
            decoder_attention_resolutions: None,
            middle_attention: true,
            z_channels: ddconfig.z_channels,
            norm_groups: 32,
            dropout: ddconfig.dropout,
            branches: None,
        };
        let revival = if hparams.restart_unused_codes {
            Revival::BelowOne {}
        } else {
            Revival::Off {}
        };
        let quantizer = ResidualConfig {
            codebook_size: hparams.n_embed,
            code_dim: fold * fold * channels,
            depth,
            shared: hparams.shared_codebook,
            fold,
            // Published codebooks with one decay for each depth are read; further training uses the first.
            learning: Learning {
                decay: hparams.decay.at(0).unwrap_or(0.99),
                revival,
                ..Learning::published()
            },
        };
        Ok(PublishedRqVae {
            model: AutoencoderConfig {
                projections: true,
                clamp: false,
                network: NetworkConfig::Convolutional(network),
                quantizer: QuantizerConfig::Residual(quantizer),
                representation: Vec::new(),
            },
            absolute_error: hparams.loss_type == "l1",
            commitment_weight: hparams.latent_loss_weight,
        })
    }
}

fn triple(numbers: &[usize]) -> Result<[usize; 3], String> {
    numbers
        .try_into()
        .map_err(|_| format!("expected three numbers, got {numbers:?}"))
}
