//! The Gaussian autoencoders of latent diffusion (Rombach et al., CVPR 2022) as published: a
//! diffusers folder (`config.json` beside `diffusion_pytorch_model.safetensors`), or a single file
//! with the names of the original code, alone or inside a whole diffusion model.
//!
//! All of them (Stable Diffusion 1 to 3, SDXL, FLUX.1, the KL-16 of MAR and TokenBridge) are the
//! convolutional network of this project with an encoder output of twice `z_channels`, mean and
//! logarithm of the variance. The shape is read off the arrays' names and sizes, so that no file has
//! to tell it. What stands around the quantizer (1×1 convolutions, or nothing) is kept as it is.
//!
//! They were not trained for a prior of N(0, 1): diffusion models see `(z − shift)·scale`
//! ([`Normalization`]), which a diffusers folder names and a single file does not ([`Family`] does).
//! [`AutoencoderKl::quantizer`] makes a Gaussian quantizer that works on the normalised latents.

mod names;
mod shape;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use smalti_nn::Init;
use smalti_nn::state::Weights;
use smalti_quantize::QuantizerConfig;
use smalti_quantize::gaussian::{GaussianConfig, Normalization};

use super::{PublishedError, read_text, read_weights, with_fresh_quantizer};
use crate::autoencoder::{Autoencoder, AutoencoderConfig, NetworkConfig};
use shape::Shape;

const OF: &str = "an autoencoder of latent diffusion";
/// The scale of diffusers where a configuration names none: that of Stable Diffusion 1.
const USUAL_SCALE: f32 = 0.18215;

/// A published autoencoder before a quantizer was chosen for it.
#[derive(Clone, Debug)]
pub struct AutoencoderKl {
    /// Encoder and decoder.
    pub network: NetworkConfig,
    /// Whether 1×1 convolutions stand around the latents.
    pub projections: bool,
    /// Channels of the latents.
    pub channels: usize,
    /// What moves the latents to the prior, where it is known.
    pub normalization: Option<Normalization>,
    weights: Weights,
}

/// Models whose single files are in use, for the numbers that such files do not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Stable Diffusion 1 and 2: 4 channels, scale 0.18215.
    StableDiffusion,
    /// SDXL: 4 channels, scale 0.13025.
    StableDiffusionXl,
    /// Stable Diffusion 3 and 3.5: 16 channels, scale 1.5305, shift 0.0609.
    StableDiffusion3,
    /// FLUX.1: 16 channels, scale 0.3611, shift 0.1159.
    Flux,
    /// The KL-16 of MAR and TokenBridge: 16 channels, scale 0.2325.
    Kl16,
}

impl Family {
    /// What moves the latents to the prior.
    pub fn normalization(self) -> Normalization {
        let (channels, scale, shift) = match self {
            Self::StableDiffusion => (4, USUAL_SCALE, 0.0),
            Self::StableDiffusionXl => (4, 0.13025, 0.0),
            Self::StableDiffusion3 => (16, 1.5305, 0.0609),
            Self::Flux => (16, 0.3611, 0.1159),
            Self::Kl16 => (16, 0.2325, 0.0),
        };
        Normalization {
            shift: vec![shift; channels],
            scale: vec![scale; channels],
        }
    }
}

/// Reads a diffusers folder (of the autoencoder, or of a pipeline that has one in `vae/`), or a
/// single file.
///
/// # Errors
/// When a file cannot be read, or is of something else.
pub fn read(path: &Path) -> Result<AutoencoderKl, PublishedError> {
    if path.is_dir() {
        read_folder(path)
    } else {
        read_file(path, 32)
    }
}

fn read_folder(folder: &Path) -> Result<AutoencoderKl, PublishedError> {
    let folder = match folder.join("vae") {
        inner if inner.join("config.json").is_file() => inner,
        _ => folder.to_owned(),
    };
    let path = folder.join("config.json");
    let text = read_text(&path)?;
    let error = |reason: String| PublishedError::config(&path, OF, reason);
    let config: Diffusers = serde_json::from_str(&text).map_err(|e| error(e.to_string()))?;
    config.refuse_what_is_unknown().map_err(error)?;
    let mut model = read_file(&weights_file(&folder), config.norm_num_groups)?;
    if config.latent_channels != model.channels {
        return Err(error(format!(
            "latent_channels is {}, but the weights have {}",
            config.latent_channels, model.channels
        )));
    }
    model.normalization = Some(config.normalization().map_err(error)?);
    Ok(model)
}

/// The weights of a diffusers folder: full precision first, the form that runs no code first.
fn weights_file(folder: &Path) -> PathBuf {
    let names = [
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.fp16.safetensors",
        "diffusion_pytorch_model.bin",
    ];
    let found = names.iter().map(|name| folder.join(name));
    found
        .into_iter()
        .find(|path| path.is_file())
        .unwrap_or(folder.join(names[0]))
}

fn read_file(path: &Path, norm_groups: usize) -> Result<AutoencoderKl, PublishedError> {
    let weights = read_weights(path, &["state_dict", "model"], names::is_wanted)?;
    let weights = names::original(weights)?;
    let shape = Shape::of(&weights, norm_groups)
        .map_err(|reason| PublishedError::config(path, OF, reason))?;
    Ok(AutoencoderKl {
        network: NetworkConfig::Convolutional(shape.network),
        projections: shape.projections,
        channels: shape.channels,
        normalization: None,
        weights,
    })
}

impl AutoencoderKl {
    /// A Gaussian quantizer for these latents: groups of `code_dim` channels, normalised where the
    /// numbers are known.
    pub fn quantizer(&self, codebook_size: usize, code_dim: usize) -> GaussianConfig {
        GaussianConfig {
            normalization: self.normalization.clone(),
            ..GaussianConfig::new(codebook_size, code_dim, self.channels)
        }
    }

    /// The configuration of this autoencoder around a quantizer.
    pub fn config(&self, quantizer: QuantizerConfig) -> AutoencoderConfig {
        AutoencoderConfig {
            projections: self.projections,
            clamp: false,
            network: self.network.clone(),
            quantizer,
            representation: Vec::new(),
        }
    }

    /// This autoencoder around a quantizer. Its [`latents`](Autoencoder::latents) are the published
    /// moments, its [`images`](Autoencoder::images) decode the published latents; neither is
    /// normalised.
    ///
    /// # Errors
    /// When the quantizer is invalid or does not work on means and variances of as many channels.
    pub fn into_model(
        self,
        quantizer: QuantizerConfig,
        init: &mut Init,
    ) -> Result<Autoencoder, PublishedError> {
        let config = self.config(quantizer);
        let model = config.build(init)?;
        let weights = with_fresh_quantizer(self.weights, &model);
        Ok(weights.load_into(model)?)
    }
}

/// A diffusers `config.json`.
///
/// The numbers of levels, blocks and channels are read off the weights.
#[derive(Deserialize)]
struct Diffusers {
    #[serde(rename = "_class_name")]
    class_name: String,
    #[serde(default = "silu")]
    act_fn: String,
    latent_channels: usize,
    #[serde(default = "published_groups")]
    norm_num_groups: usize,
    #[serde(default = "usual_scale")]
    scaling_factor: f32,
    shift_factor: Option<f32>,
    latents_mean: Option<Vec<f32>>,
    latents_std: Option<Vec<f32>>,
}

fn silu() -> String {
    "silu".into()
}

fn published_groups() -> usize {
    32
}

fn usual_scale() -> f32 {
    USUAL_SCALE
}

impl Diffusers {
    fn refuse_what_is_unknown(&self) -> Result<(), String> {
        if self.class_name != "AutoencoderKL" {
            return Err(format!(
                "_class_name is {:?}, expected \"AutoencoderKL\"",
                self.class_name
            ));
        }
        if self.act_fn != "silu" {
            return Err(format!("act_fn is {:?}, expected \"silu\"", self.act_fn));
        }
        Ok(())
    }

    /// `(z − shift)·scale`, or with statistics of each channel `(z − mean)·scale/deviation`.
    fn normalization(&self) -> Result<Normalization, String> {
        let channels = self.latent_channels;
        match (&self.latents_mean, &self.latents_std) {
            (None, None) => Ok(Normalization {
                shift: vec![self.shift_factor.unwrap_or(0.0); channels],
                scale: vec![self.scaling_factor; channels],
            }),
            (Some(mean), Some(deviation))
                if mean.len() == channels && deviation.len() == channels =>
            {
                Ok(Normalization {
                    shift: mean.clone(),
                    scale: deviation.iter().map(|d| self.scaling_factor / d).collect(),
                })
            }
            _ => Err(format!(
                "latents_mean and latents_std must both have {channels} numbers, or be left out"
            )),
        }
    }
}

#[cfg(test)]
mod tests;
