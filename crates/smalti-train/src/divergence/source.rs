//! What can be studied and converted: autoencoders whose encoder gives means and variances.
//!
//! - a tokenizer of this project (the folder of the model or of the run) with the quantizer `gaussian` or
//!   `token_bridge`;
//! - a published VAE: the folder of a diffusers `AutoencoderKL` (or of a pipeline with one in `vae/`), or a file with
//!   the names of latent diffusion. It has no quantizer; until one is chosen it counts as having codes of
//!   [`CODES`] for groups of at most [`GROUP`] channels;
//! - a published Gaussian Quant model: its yaml, with its weights beside it.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use smalti_data::PreprocessPair;
use smalti_models::autoencoder::Autoencoder;
use smalti_models::autoencoder::published::{autoencoder_kl, gaussian_quant};
use smalti_nn::Init;
use smalti_quantize::QuantizerConfig;

use super::scheme::Scheme;
use crate::error::TrainError;
use crate::model_dir::{GENERATOR_FILE, TOKENIZER_FILE, TokenizerModel, short};

/// Number of codes that a VAE without a quantizer counts as having: the published models'.
pub const CODES: usize = 1 << 16;
/// Channels that share one of them, at most.
pub const GROUP: usize = 16;

/// What is said of weights whose licence is not known.
const LICENSE: &str = "that of the published weights";

/// A network with a Gaussian posterior.
#[derive(Debug)]
pub struct Source {
    /// What it is, for people.
    pub name: String,
    /// The network, untracked.
    pub network: Autoencoder,
    /// What its quantizer does.
    pub scheme: Scheme,
    /// What training images went through, as far as that is known.
    pub preprocess: PreprocessPair,
    /// The licence of the weights, or what is known of it.
    pub license: String,
}

impl Source {
    /// Reads a model.
    ///
    /// # Errors
    /// When it is missing, damaged, or its latents are no distributions.
    pub fn open(path: &Path, device: &Device) -> Result<Self, TrainError> {
        match layout(path) {
            Layout::Tokenizer => Self::tokenizer(path, device),
            Layout::LatentDiffusion => Self::latent_diffusion(path, device),
            Layout::GaussianQuant => Self::gaussian_quant(path, device),
        }
    }

    fn tokenizer(path: &Path, device: &Device) -> Result<Self, TrainError> {
        let model = TokenizerModel::load(path, device)?;
        let quantizer = &model.description.model.quantizer;
        let Some(scheme) = Scheme::of(quantizer) else {
            let problem = format!(
                "the quantizer of this tokenizer is {:?}: its encoder gives no means and variances",
                kind(quantizer)
            );
            return Err(TrainError::layout(path, problem));
        };
        Ok(Self {
            name: format!("tokenizer {}", short(&model.fingerprint)),
            network: model.network,
            scheme,
            preprocess: model.description.preprocess,
            license: model.description.license,
        })
    }

    fn latent_diffusion(path: &Path, device: &Device) -> Result<Self, TrainError> {
        let vae = autoencoder_kl::read(path)?;
        let group = (1..=GROUP.min(vae.channels))
            .rfind(|group| vae.channels.is_multiple_of(*group))
            .unwrap_or(1);
        let quantizer = QuantizerConfig::Gaussian(vae.quantizer(CODES, group));
        let network = vae.into_model(quantizer, &mut Init::blank(device))?;
        Ok(Self::published(
            "autoencoder of latent diffusion",
            path,
            network,
        ))
    }

    fn gaussian_quant(path: &Path, device: &Device) -> Result<Self, TrainError> {
        let config = gaussian_quant::read_config(path)?;
        let weights = weights_beside(path)?;
        let network = gaussian_quant::load(&config, &weights, &mut Init::blank(device))?;
        Ok(Self::published("Gaussian Quant model", path, network))
    }

    fn published(kind: &str, path: &Path, network: Autoencoder) -> Self {
        let config = network.config();
        let name = path.file_name().unwrap_or(path.as_os_str());
        Self {
            name: format!("{kind} {}", name.display()),
            scheme: Scheme::of(&config.quantizer).expect("published VAEs are read as Gaussian"),
            preprocess: PreprocessPair::crops(config.network.resolution()),
            license: LICENSE.into(),
            network,
        }
    }

    /// The side of the square images that it is measured on unless asked otherwise.
    pub fn side(&self) -> usize {
        self.network.config().network.resolution()
    }
}

/// What a configuration file calls the quantizer.
fn kind(quantizer: &QuantizerConfig) -> String {
    let config = serde_json::to_value(quantizer).expect("a configuration serialises");
    config["kind"].as_str().unwrap_or("unknown").to_owned()
}

/// Whose files these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Tokenizer,
    LatentDiffusion,
    GaussianQuant,
}

/// Judged by names alone; whoever reads says what is wrong with the contents.
fn layout(path: &Path) -> Layout {
    if path.is_file() {
        return match path.extension() {
            Some(ending) if ending == "yaml" || ending == "yml" => Layout::GaussianQuant,
            _ => Layout::LatentDiffusion,
        };
    }
    let has = |name: &str| path.join(name).is_file();
    let ours = [TOKENIZER_FILE, GENERATOR_FILE, "config.toml"];
    match !ours.into_iter().any(has) && (has("config.json") || has("vae/config.json")) {
        true => Layout::LatentDiffusion,
        false => Layout::Tokenizer,
    }
}

/// The weights that belong to a yaml: of the same name, or the only ones in its folder.
fn weights_beside(yaml: &Path) -> Result<PathBuf, TrainError> {
    let endings = ["ckpt", "safetensors"];
    let same = endings.iter().map(|ending| yaml.with_extension(ending));
    if let Some(path) = same.into_iter().find(|path| path.is_file()) {
        return Ok(path);
    }
    let folder = match yaml.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let read = || -> std::io::Result<Vec<PathBuf>> {
        std::fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect()
    };
    let mut found = read().map_err(TrainError::io("list", folder))?;
    found.retain(|path| path.extension().is_some_and(|ending| ending == "ckpt"));
    match &found[..] {
        [path] => Ok(path.clone()),
        others => {
            let wanted = yaml.with_extension("ckpt");
            let problem = format!(
                "the weights are expected beside it, in {}; there are {} other files with that ending",
                wanted.display(),
                others.len()
            );
            Err(TrainError::layout(yaml, problem))
        }
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
