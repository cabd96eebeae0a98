//! Published checkpoints as this project's model folders: tokenizers here, generators in `generator`.

mod generator;

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use smalti_data::PreprocessPair;
use smalti_models::autoencoder::Autoencoder;
use smalti_models::autoencoder::published::fqgan::{self, AttentionHeads};
use smalti_models::autoencoder::published::{
    PublishedError, bsq_vit, gaussian_quant, llamagen, rq_vae, taming,
};
use smalti_nn::Init;
use smalti_train::TokenizerModel;

pub use generator::{ImportError, PublishedGenerator, PublishedGeneratorLayout};

/// Whose layout a published checkpoint has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishedLayout {
    /// RQ-VAE: `config.yaml` beside `model.pt`.
    RqVae,
    /// Gaussian Quant, of either network: a yaml beside a `.ckpt` file.
    GaussianQuant,
    /// BSQ-ViT: a yaml beside a `.pt` file.
    BsqVit,
    /// LlamaGen: one file.
    LlamaGen,
    /// FQGAN, of two or three branches: one file.
    Fqgan,
    /// A VQGAN of taming-transformers, with nearest codes or Gumbel's, alone or as a generator's first stage: a yaml
    /// beside a `.ckpt` file.
    Taming,
}

impl PublishedLayout {
    /// Whether a configuration stands beside the weights.
    pub fn has_configuration(self) -> bool {
        !matches!(self, Self::LlamaGen | Self::Fqgan)
    }

    /// The licence of the weights, where its authors gave one to all of them.
    fn license(self) -> &'static str {
        match self {
            Self::LlamaGen => "MIT",
            Self::Fqgan => "CC-BY-NC-4.0",
            Self::RqVae | Self::GaussianQuant | Self::BsqVit | Self::Taming => {
                "as its publisher says"
            }
        }
    }
}

/// What to import.
#[derive(Clone, Debug)]
pub struct Published {
    /// Whose layout the files have.
    pub layout: PublishedLayout,
    /// The weights.
    pub weights: PathBuf,
    /// The configuration, where there is one; `config.yaml` beside the weights unless it is named.
    pub config: Option<PathBuf>,
    /// The licence of the weights, where it is known to be another than the authors' for all.
    pub license: Option<String>,
}

impl Published {
    fn config(&self) -> PathBuf {
        let beside = || self.weights.with_file_name("config.yaml");
        self.config.clone().unwrap_or_else(beside)
    }

    /// Reads it as a tokenizer, without what only its training needs.
    ///
    /// # Errors
    /// When a file cannot be read, is of something else, or the weights do not fit.
    pub fn read(&self, device: &Device) -> Result<TokenizerModel, PublishedError> {
        let network = self.network(device)?;
        let side = network.config().network.resolution();
        let license = self.license.as_deref();
        let license = license.unwrap_or(self.layout.license()).to_owned();
        Ok(TokenizerModel::new(
            network,
            PreprocessPair::crops(side),
            license,
        ))
    }

    fn network(&self, device: &Device) -> Result<Autoencoder, PublishedError> {
        let (weights, init): (&Path, _) = (&self.weights, &mut Init::blank(device));
        match self.layout {
            PublishedLayout::RqVae => {
                rq_vae::load(&rq_vae::read_config(&self.config())?.model, weights, init)
            }
            PublishedLayout::GaussianQuant => {
                let config = gaussian_quant::read_config(&self.config())?;
                gaussian_quant::load(&config, weights, init)
            }
            PublishedLayout::BsqVit => {
                bsq_vit::load(&bsq_vit::read_config(&self.config())?, weights, init)
            }
            PublishedLayout::LlamaGen => llamagen::read(weights)?.into_model(init),
            PublishedLayout::Fqgan => {
                fqgan::read(weights, AttentionHeads::default())?.into_model(init)
            }
            PublishedLayout::Taming => {
                taming::load(&taming::read_config(&self.config())?, weights, init)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(layout: PublishedLayout, case: &str, file: &str) -> Published {
        let goldens = concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens");
        Published {
            layout,
            weights: Path::new(goldens).join(case).join(file),
            config: None,
            license: None,
        }
    }

    /// What is read is written as a model folder, and read from there as the same.
    #[test]
    fn every_layout_becomes_a_model_folder() {
        for (layout, case, file, codes) in [
            (PublishedLayout::RqVae, "rqvae_stage1", "model.pt", None),
            (
                PublishedLayout::GaussianQuant,
                "gq_unet",
                "model.ckpt",
                None,
            ),
            (
                PublishedLayout::GaussianQuant,
                "gq_bsqvit",
                "model.ckpt",
                None,
            ),
            (
                PublishedLayout::BsqVit,
                "bsqvit_official",
                "checkpoint.pt",
                None,
            ),
            (
                PublishedLayout::LlamaGen,
                "llamagen_vq",
                "model.pt",
                Some(vec![128]),
            ),
            (
                PublishedLayout::Fqgan,
                "fqgan_dual",
                "model.pt",
                Some(vec![96; 2]),
            ),
            (
                PublishedLayout::Fqgan,
                "fqgan_triple",
                "model.pt",
                Some(vec![80; 3]),
            ),
            (
                PublishedLayout::Taming,
                "taming_vqgan",
                "last.ckpt",
                Some(vec![96]),
            ),
            (
                PublishedLayout::Taming,
                "taming_gumbel",
                "last.ckpt",
                Some(vec![64]),
            ),
            // The first stage of a generator.
            (
                PublishedLayout::Taming,
                "taming_mingpt",
                "last.ckpt",
                Some(vec![91]),
            ),
        ] {
            let device = Device::flex();
            let mut published = published(layout, case, file);
            if layout == PublishedLayout::Taming {
                published.config = Some(published.weights.with_file_name("model.yaml"));
            }
            let model = published.read(&device).unwrap();
            let folder = tempfile::tempdir().unwrap();
            model.save(folder.path()).unwrap();
            let tokenizer = crate::Tokenizer::load(folder.path(), &device).unwrap();
            assert_eq!(tokenizer.model().fingerprint, model.fingerprint, "{case}");
            assert!(tokenizer.model().network.config().representation.is_empty());
            if let Some(codes) = codes {
                assert_eq!(tokenizer.spec().codebook_sizes, codes, "{case}");
            }
        }
    }

    #[test]
    fn licences_are_those_of_the_authors_unless_another_is_named() {
        let mut llamagen = published(PublishedLayout::LlamaGen, "llamagen_vq", "model.pt");
        let license = |published: &Published| {
            let model = published.read(&Device::flex()).unwrap();
            model.description.license
        };
        assert_eq!(license(&llamagen), "MIT");
        llamagen.license = Some("mine".into());
        assert_eq!(license(&llamagen), "mine");
    }

    #[test]
    fn a_missing_configuration_is_named() {
        let mut rq_vae = published(PublishedLayout::RqVae, "llamagen_vq", "model.pt");
        let message = rq_vae.read(&Device::flex()).unwrap_err().to_string();
        assert!(message.contains("config.yaml"), "{message}");
        rq_vae.config = Some("/nowhere/other.yaml".into());
        let message = rq_vae.read(&Device::flex()).unwrap_err().to_string();
        assert!(message.contains("other.yaml"), "{message}");
    }
}
