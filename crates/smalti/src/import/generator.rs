//! Published generators as this project's model folders, each with the tokenizer whose codes it writes.
//!
//! What a file does not tell is taken from the tokenizer (the size of the code map, the tables through
//! which an RQ-Transformer sees codes) or from the caller. Nothing in these files names the tokenizer:
//! that its codes mean what the generator learned, only who imports both can know; their numbers are
//! compared.

use std::error::Error;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use smalti_models::generators::far::published::Untold;
use smalti_models::generators::sampling::{Guidance, PerDepth, SamplingConfig};
use smalti_models::generators::{AnyGenerator, GeneratorConfig, far, gpt, rq_transformer};
use smalti_quantize::Quantizer;
use smalti_train::model_dir::code_embedding;
use smalti_train::{GeneratorModel, TokenizerModel, TrainError};

/// Whose layout a published generator has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishedGeneratorLayout {
    /// LlamaGen: one file.
    LlamaGen,
    /// FAR, of several codes at a position: one file.
    Far,
    /// RQ-Transformer: `config.yaml` beside `model.pt`.
    RqTransformer,
    /// Taming's `Net2NetTransformer`: a yaml beside a `.ckpt` file.
    Taming,
}

impl PublishedGeneratorLayout {
    /// Whether a configuration stands beside the weights; else sizes may have to be told.
    pub fn has_configuration(self) -> bool {
        matches!(self, Self::RqTransformer | Self::Taming)
    }

    /// The licence of the weights, where its authors gave one to all of them.
    fn license(self) -> &'static str {
        match self {
            Self::LlamaGen => "MIT",
            Self::Far => "CC-BY-NC-4.0",
            Self::RqTransformer | Self::Taming => "as its publisher says",
        }
    }
}

/// What to import.
#[derive(Clone, Debug)]
pub struct PublishedGenerator {
    /// Whose layout the files have.
    pub layout: PublishedGeneratorLayout,
    /// The weights.
    pub weights: PathBuf,
    /// The configuration, where there is one; `config.yaml` beside the weights unless it is named.
    pub config: Option<PathBuf>,
    /// The folder of the tokenizer whose codes it writes.
    pub tokenizer: PathBuf,
    /// Side of its images in pixels, where no configuration tells; else the tokenizer's own.
    pub image_size: Option<usize>,
    /// Attention heads, where no configuration tells; else of 64 elements each.
    pub heads: Option<usize>,
    /// The licence of the weights, where it is known to be another than the authors' for all.
    pub license: Option<String>,
}

/// Why a published generator was not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The tokenizer could not be read.
    #[error(transparent)]
    Tokenizer(#[from] TrainError),
    /// The generator could not be read.
    #[error("{path} was not imported")]
    Generator {
        /// The weights or their configuration.
        path: PathBuf,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Both could be read, but the generator writes other codes.
    #[error("{generator} does not go with the tokenizer {tokenizer}: {problem}")]
    Misfit {
        /// The generator's weights.
        generator: PathBuf,
        /// The tokenizer's folder.
        tokenizer: PathBuf,
        /// What does not fit.
        problem: String,
    },
}

impl PublishedGenerator {
    /// Reads it as a generator with its tokenizer.
    ///
    /// # Errors
    /// When a file cannot be read, is of something else, or the weights do not fit; when the tokenizer
    /// is not one whose codes it could have learned.
    pub fn read(&self, device: &Device) -> Result<GeneratorModel, ImportError> {
        let tokenizer = TokenizerModel::load(&self.tokenizer, device)?;
        let (network, sampling) = match self.layout {
            PublishedGeneratorLayout::LlamaGen | PublishedGeneratorLayout::Far => {
                self.far(&tokenizer, device)?
            }
            PublishedGeneratorLayout::RqTransformer => self.rq_transformer(&tokenizer, device)?,
            PublishedGeneratorLayout::Taming => self.taming(&tokenizer, device)?,
        };
        let license = self.license.as_deref();
        let license = license.unwrap_or(self.layout.license()).to_owned();
        // Names of classes are published nowhere beside them: numbers ask for them.
        let model = GeneratorModel::new(network, tokenizer, Vec::new(), sampling);
        Ok(model.with_license(license))
    }

    fn far(
        &self,
        tokenizer: &TokenizerModel,
        device: &Device,
    ) -> Result<(AnyGenerator, SamplingConfig), ImportError> {
        let network = tokenizer.network.config();
        let (side, factor) = (
            self.image_size.unwrap_or(network.network.resolution()),
            network.factor(),
        );
        if side == 0 || !side.is_multiple_of(factor) {
            let problem = format!(
                "a position of its code map is {factor}x{factor} pixels, which do not fill images of {side}x{side}"
            );
            return Err(self.misfit(problem));
        }
        let untold = Untold {
            height: side / factor,
            width: side / factor,
            heads: self.heads,
        };
        let model = far::published::load(&self.weights, untold, device)
            .map_err(|source| self.unread(&self.weights, source))?;
        let depth = model.config().depth;
        if (depth > 1) != (self.layout == PublishedGeneratorLayout::Far) {
            let problem = format!(
                "{depth} codes at a position: FAR has several, LlamaGen has one; choose the other layout"
            );
            return Err(self.unread(&self.weights, problem));
        }
        let network = AnyGenerator::Far(model);
        self.require_fit(&network.config(), tokenizer)?;
        let mut sampling = SamplingConfig::default();
        if network.config().can_be_guided() {
            // FAR's with three codes; both authors' usual one.
            let scale = if depth > 2 { 1.75 } else { 2.0 };
            sampling.guidance = Some(Guidance::new(scale));
        }
        Ok((network, sampling))
    }

    fn rq_transformer(
        &self,
        tokenizer: &TokenizerModel,
        device: &Device,
    ) -> Result<(AnyGenerator, SamplingConfig), ImportError> {
        let path = self.config();
        let published = rq_transformer::published::read_config(&path)
            .map_err(|source| self.unread(&path, source))?;
        let config = GeneratorConfig::RqTransformer(published.model.clone());
        self.require_fit(&config, tokenizer)?;
        let codes = code_embedding(&config, tokenizer.network.quantizer())?;
        let model = rq_transformer::published::load(&published.model, &self.weights, codes, device)
            .map_err(|source| self.unread(&self.weights, source))?;
        let sampling = published.sampling.unwrap_or_default();
        Ok((AnyGenerator::RqTransformer(model), sampling))
    }

    fn taming(
        &self,
        tokenizer: &TokenizerModel,
        device: &Device,
    ) -> Result<(AnyGenerator, SamplingConfig), ImportError> {
        let path = self.config();
        let config =
            gpt::published::read_config(&path).map_err(|source| self.unread(&path, source))?;
        self.require_fit(&GeneratorConfig::Gpt(config.clone()), tokenizer)?;
        let model = gpt::published::load(&config, &self.weights, device)
            .map_err(|source| self.unread(&self.weights, source))?;
        // What the authors draw their samples with.
        let (top_k, top_p) = match config.condition {
            gpt::GptCondition::Class { .. } => (600, Some(0.92)),
            gpt::GptCondition::Unconditional { .. } => (250, None),
        };
        let sampling = SamplingConfig {
            top_k: Some(PerDepth::Same(top_k)),
            top_p: top_p.map(PerDepth::Same),
            ..SamplingConfig::default()
        };
        Ok((AnyGenerator::Gpt(model), sampling))
    }

    fn config(&self) -> PathBuf {
        let beside = || self.weights.with_file_name("config.yaml");
        self.config.clone().unwrap_or_else(beside)
    }

    /// The tokenizer must have as many codes at a position, out of as many, as the generator writes.
    fn require_fit(
        &self,
        config: &GeneratorConfig,
        tokenizer: &TokenizerModel,
    ) -> Result<(), ImportError> {
        let written = config.layout().codebook_sizes;
        let known = tokenizer.network.quantizer().spec().codebook_sizes;
        match written == known {
            true => Ok(()),
            false => Err(self.misfit(format!(
                "the codes of a position are out of {written:?} for the one and out of {known:?} for the other; import the tokenizer that was published with it"
            ))),
        }
    }

    fn misfit(&self, problem: String) -> ImportError {
        ImportError::Misfit {
            generator: self.weights.clone(),
            tokenizer: self.tokenizer.clone(),
            problem,
        }
    }

    fn unread(&self, path: &Path, source: impl Into<Box<dyn Error + Send + Sync>>) -> ImportError {
        ImportError::Generator {
            path: path.into(),
            source: source.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Published, PublishedLayout};

    fn golden(path: &str) -> PathBuf {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens")).join(path)
    }

    fn published(
        layout: PublishedGeneratorLayout,
        weights: &str,
        tokenizer: &Path,
    ) -> PublishedGenerator {
        PublishedGenerator {
            layout,
            weights: golden(weights),
            config: None,
            tokenizer: tokenizer.into(),
            image_size: None,
            heads: None,
            license: None,
        }
    }

    /// A published tokenizer as a folder.
    fn tokenizer(layout: PublishedLayout, weights: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let published = Published {
            layout,
            weights: golden(weights),
            config: None,
            license: None,
        };
        let model = published.read(&Device::flex()).unwrap();
        model.save(folder.path()).unwrap();
        folder
    }

    /// The published pair: the tables through which the generator sees codes are the tokenizer's.
    #[test]
    fn an_rq_transformer_comes_with_its_tokenizer() {
        let device = Device::flex();
        let tokenizer = tokenizer(PublishedLayout::RqVae, "rqvae_stage1/model.pt");
        let layout = PublishedGeneratorLayout::RqTransformer;
        let mut generator = published(layout, "rqtransformer_class/model.pt", tokenizer.path());
        let model = generator.read(&device).unwrap();
        assert_eq!(model.description.license, "as its publisher says");
        let folder = tempfile::tempdir().unwrap();
        model.save(folder.path()).unwrap();
        let loaded = crate::Generator::load(folder.path(), &device).unwrap();
        assert_eq!(loaded.model().fingerprint, model.fingerprint);
        let request = crate::Request {
            class: Some("9".into()),
            count: 2,
            seed: 1,
            first: 0,
            sampling: None,
            batch_size: 2,
        };
        let mut go_on = |_| std::ops::ControlFlow::Continue(());
        let images = loaded.generate(&request, &mut go_on).unwrap();
        assert_eq!((images.len(), images[0].width()), (2, 32));
        let message = loaded.generate(
            &crate::Request {
                class: Some("10".into()),
                ..request
            },
            &mut go_on,
        );
        let message = message.unwrap_err().to_string();
        assert!(message.contains("numbers from 0 to 9"), "{message}");
        generator.license = Some("mine".into());
        let named = generator.read(&device).unwrap();
        assert_eq!(named.description.license, "mine");
        assert_ne!(named.fingerprint, model.fingerprint);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let tokenizer = tokenizer(PublishedLayout::LlamaGen, "llamagen_vq/model.pt");
        let message = |generator: &PublishedGenerator| {
            let error = generator.read(&Device::flex()).unwrap_err();
            let source = error.source().map(ToString::to_string);
            format!("{error}: {}", source.unwrap_or_default())
        };
        let layout = PublishedGeneratorLayout::LlamaGen;
        let mut llamagen = published(layout, "llamagen_gpt_c2i/model.pt", tokenizer.path());
        llamagen.heads = Some(2);
        llamagen.image_size = Some(64);
        let other = message(&llamagen);
        assert!(
            other.contains("out of [96] for the one and out of [128]"),
            "{other}"
        );
        llamagen.layout = PublishedGeneratorLayout::Far;
        let one = message(&llamagen);
        assert!(
            one.contains("LlamaGen has one; choose the other layout"),
            "{one}"
        );
        llamagen.image_size = Some(63);
        let odd = message(&llamagen);
        assert!(odd.contains("do not fill images of 63x63"), "{odd}");
        let layout = PublishedGeneratorLayout::Taming;
        let mut taming = published(layout, "taming_mingpt/last.ckpt", tokenizer.path());
        let missing = message(&taming);
        assert!(
            missing.contains("taming_mingpt/config.yaml was not imported"),
            "{missing}"
        );
        taming.config = Some(golden("taming_mingpt/model.yaml"));
        let other = message(&taming);
        assert!(other.contains("out of [91]"), "{other}");
        taming.tokenizer = golden("taming_mingpt");
        assert!(message(&taming).contains("has no image_tokenizer.json"));
    }
}
