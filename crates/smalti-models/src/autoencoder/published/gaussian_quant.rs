//! Gaussian Quant checkpoints as published by its authors: a yaml beside a Lightning `.ckpt` file, of
//! the convolutional network ("SD3 UNet") or the transformer ("BSQ-ViT").
//!
//! The file's names are this project's. What belongs to training (`loss.*`, the projection onto a
//! vision model's features and that model, statistics of latents for a later diffusion model) is left
//! out. The codebook is not in the file: it is made from its size, the group's size and a seed.
//!
//! Of the two published classes the second (`GaussianQuantRegularizer2`) takes contiguous channels
//! for a group, may show codewords to the decoder in training, and averages its loss over groups
//! where the first sums: for further training the loss's weight has to be divided by their number.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_norway::Value;
use smalti_nn::Init;
use smalti_quantize::QuantizerConfig;
use smalti_quantize::config::PerDepth;
use smalti_quantize::constraint::{Constraint, TargetConfig};
use smalti_quantize::gaussian::{GaussianConfig, Layout, TrainingValue};

use super::transformer::{Transformer, clamps};
use super::{PublishedError, read_text, read_weights, with_fresh_quantizer, yaml};
use crate::autoencoder::{Autoencoder, AutoencoderConfig, ConvolutionalConfig, NetworkConfig};

const OF: &str = "a Gaussian Quant model";

/// Reads the yaml of a published model. Fields that say nothing about the model are ignored.
///
/// # Errors
/// When the file cannot be read, is of something else, or asks for what no published model uses.
pub fn read_config(path: &Path) -> Result<AutoencoderConfig, PublishedError> {
    let text = read_text(path)?;
    let error = |reason: String| PublishedError::config(path, OF, reason);
    let params = yaml::read_node(&text, "model.params").map_err(error)?;
    let params: Params = parse(params).map_err(error)?;
    params.convert().map_err(error)
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
    let of_network = |name: &str| name.starts_with("encoder.") || name.starts_with("decoder.");
    let weights = read_weights(weights, &["state_dict"], of_network)?;
    Ok(with_fresh_quantizer(weights, &model).load_into(model)?)
}

fn parse<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_norway::from_value(value).map_err(|e| e.to_string())
}

#[derive(Deserialize)]
struct Params {
    regularizer_config: Part,
    encoder_config: Part,
    decoder_config: Part,
    clamp_range: Option<[f64; 2]>,
}

#[derive(Deserialize)]
struct Part {
    target: String,
    params: Value,
}

impl Params {
    fn convert(self) -> Result<AutoencoderConfig, String> {
        let network = network(self.encoder_config, self.decoder_config)?;
        let quantizer = quantizer(self.regularizer_config, network.z_channels())?;
        Ok(AutoencoderConfig {
            projections: false,
            clamp: clamps(self.clamp_range)?,
            network,
            quantizer: QuantizerConfig::Gaussian(quantizer),
            representation: Vec::new(),
        })
    }
}

/// The class that a target names, its module left off.
fn class(target: &str) -> &str {
    target.rsplit('.').next().unwrap_or(target)
}

fn network(encoder: Part, decoder: Part) -> Result<NetworkConfig, String> {
    match (class(&encoder.target), class(&decoder.target)) {
        ("Encoder", "Decoder") => {
            let (encoder, decoder) = (parse::<UNet>(encoder.params)?, parse(decoder.params)?);
            Ok(NetworkConfig::Convolutional(encoder.convert(&decoder)?))
        }
        ("TransformerEncoder", "TransformerDecoder") => {
            let (encoder, decoder): (Vit, Vit) = (parse(encoder.params)?, parse(decoder.params)?);
            require_moments(encoder.double_z)?;
            if encoder.z_channels != decoder.z_channels {
                return Err("encoder and decoder have different z_channels".into());
            }
            let (transformer, z) = (encoder.transformer, encoder.z_channels);
            let config = transformer.convert(decoder.transformer, z)?;
            Ok(NetworkConfig::Vit(config))
        }
        _ => Err(format!(
            "the networks are {} and {}, expected ….Encoder and ….Decoder, or ….TransformerEncoder and ….TransformerDecoder",
            encoder.target, decoder.target
        )),
    }
}

fn require_moments(double_z: bool) -> Result<(), String> {
    if double_z {
        Ok(())
    } else {
        Err(
            "double_z is false: the encoder gives no variances, which a Gaussian quantizer needs"
                .into(),
        )
    }
}

#[derive(Deserialize)]
struct Vit {
    double_z: bool,
    z_channels: usize,
    #[serde(flatten)]
    transformer: Transformer,
}

/// The convolutional network with its published defaults.
#[derive(PartialEq, Deserialize)]
struct UNet {
    z_channels: usize,
    resolution: usize,
    in_channels: usize,
    out_ch: usize,
    ch: usize,
    #[serde(default = "published_multipliers")]
    ch_mult: Vec<usize>,
    num_res_blocks: usize,
    attn_resolutions: Vec<usize>,
    #[serde(default)]
    dropout: f64,
    #[serde(default = "yes")]
    double_z: bool,
    #[serde(default = "yes")]
    resamp_with_conv: bool,
    #[serde(default)]
    use_linear_attn: bool,
    #[serde(default)]
    tanh_out: bool,
    #[serde(default = "vanilla")]
    attn_type: String,
    #[serde(default = "zeros")]
    padding_mode: String,
}

fn published_multipliers() -> Vec<usize> {
    vec![1, 2, 4, 8]
}

fn yes() -> bool {
    true
}

fn vanilla() -> String {
    "vanilla".into()
}

fn zeros() -> String {
    "zeros".into()
}

impl UNet {
    fn convert(self, decoder: &Self) -> Result<ConvolutionalConfig, String> {
        if self != *decoder {
            return Err("encoder and decoder have different shapes, which is not supported".into());
        }
        require_moments(self.double_z)?;
        for (name, asked_for) in [
            ("in_channels other than 3", self.in_channels != 3),
            ("out_ch other than 3", self.out_ch != 3),
            ("resamp_with_conv: false", !self.resamp_with_conv),
            ("use_linear_attn: true", self.use_linear_attn),
            ("tanh_out: true", self.tanh_out),
            (
                "attn_type other than vanilla",
                !self.attn_type.starts_with("vanilla"),
            ),
            (
                "padding_mode other than zeros",
                self.padding_mode != "zeros",
            ),
        ] {
            if asked_for {
                return Err(format!(
                    "{name} is not supported: no published model has it"
                ));
            }
        }
        Ok(ConvolutionalConfig {
            resolution: self.resolution,
            channels: self.ch,
            multipliers: self.ch_mult,
            blocks: self.num_res_blocks,
            attention_resolutions: self.attn_resolutions,
            decoder_attention_resolutions: None,
            middle_attention: false,
            z_channels: self.z_channels,
            norm_groups: 32,
            dropout: self.dropout,
            branches: None,
        })
    }
}

/// What both published classes have in common, with their defaults.
#[derive(Deserialize)]
struct Common {
    #[serde(default = "published_seed")]
    seed: u64,
    #[serde(default = "published_beta")]
    beta: f64,
    #[serde(default = "published_tolerance")]
    tolerance: f64,
    #[serde(default = "published_factor")]
    lam_factor: f64,
    #[serde(default = "published_range")]
    logvar_range: [f64; 2],
}

fn published_seed() -> u64 {
    42
}

fn published_beta() -> f64 {
    1.0
}

fn published_tolerance() -> f64 {
    0.5
}

fn published_factor() -> f64 {
    1.01
}

fn published_range() -> [f64; 2] {
    [-30.0, 20.0]
}

#[derive(Deserialize)]
struct First {
    n_samples: usize,
    #[serde(default = "one")]
    group: usize,
    #[serde(flatten)]
    common: Common,
}

#[derive(Deserialize)]
struct Second {
    codebook_size: usize,
    dim: usize,
    #[serde(default = "yes")]
    use_ste: bool,
    #[serde(flatten)]
    common: Common,
}

fn one() -> usize {
    1
}

fn quantizer(part: Part, channels: usize) -> Result<GaussianConfig, String> {
    let (common, limit, config) = match class(&part.target) {
        "GaussianQuantRegularizer" => {
            let first: First = parse(part.params)?;
            let config = GaussianConfig::new(first.n_samples, first.group, channels);
            (first.common, 1e3, config)
        }
        "GaussianQuantRegularizer2" => {
            let second: Second = parse(part.params)?;
            let config = GaussianConfig {
                codebook_size: PerDepth::All(second.codebook_size),
                layout: Layout::Contiguous,
                training: if second.use_ste {
                    TrainingValue::Codeword
                } else {
                    TrainingValue::Sample
                },
                ..GaussianConfig::new(second.codebook_size, second.dim, channels)
            };
            (second.common, 1e7, config)
        }
        _ => {
            return Err(format!(
                "the quantizer is {}, expected ….GaussianQuantRegularizer or ….GaussianQuantRegularizer2",
                part.target
            ));
        }
    };
    if common.logvar_range != published_range() {
        return Err(format!(
            "logvar_range is {:?}: only {:?} is supported",
            common.logvar_range,
            published_range()
        ));
    }
    Ok(GaussianConfig {
        seed: common.seed,
        beta: common.beta,
        constraint: Constraint::Target(TargetConfig {
            tolerance: common.tolerance,
            factor: common.lam_factor,
            limit,
            ..TargetConfig::default()
        }),
        ..config
    })
}
