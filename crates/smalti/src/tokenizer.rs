//! A trained tokenizer: images of any size to token files and back.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use smalti_data::{DataError, Image, ImageRecord, Padding, TokenFile, TokenFileError};
use smalti_quantize::{CodeSpec, Codes, QuantizeError, Quantizer};
use smalti_train::evaluation::{Evaluation, Meter};
use smalti_train::judges::Judges;
use smalti_train::samples::{to_images, to_tensor};
use smalti_train::{TokenizerModel, TrainError};

/// Why an image or a token file could not be converted.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The image.
    #[error(transparent)]
    Image(#[from] DataError),
    /// The token file.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// The network or its codes.
    #[error("{name}: {source}")]
    Quantize {
        /// The image or token file.
        name: String,
        /// What is wrong.
        source: QuantizeError,
    },
    /// Codes of another tokenizer.
    #[error(
        "{name} holds codes of tokenizer {found}, but this is tokenizer {expected}: code numbers mean nothing to another tokenizer"
    )]
    OtherTokenizer {
        /// The token file.
        name: String,
        /// Fingerprint in the file.
        found: String,
        /// Fingerprint of this tokenizer.
        expected: String,
    },
    /// Anything that training and evaluation also meet.
    #[error(transparent)]
    Other(#[from] TrainError),
}

/// A trained tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    model: TokenizerModel,
    device: Device,
}

impl Tokenizer {
    /// Reads the folder of a tokenizer (or of the run that trained it).
    ///
    /// # Errors
    /// When it is missing, damaged or something else.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, TrainError> {
        Ok(Self {
            model: TokenizerModel::load(folder, device)?,
            device: device.clone(),
        })
    }

    /// Takes over a tokenizer in memory.
    pub fn new(model: TokenizerModel, device: &Device) -> Self {
        Self {
            model,
            device: device.clone(),
        }
    }

    /// The network and its description.
    pub fn model(&self) -> &TokenizerModel {
        &self.model
    }

    /// What its codes mean.
    pub fn spec(&self) -> CodeSpec {
        self.model.network.quantizer().spec()
    }

    /// Pixels, in each direction, that share one position of a code map.
    pub fn factor(&self) -> usize {
        self.model.description.model.factor()
    }

    /// Codes of an image of any size, which is padded to whole positions by repeating its edge.
    ///
    /// # Errors
    /// When the network gives numbers that are not finite.
    pub fn encode(&self, name: &str, image: &Image) -> Result<TokenFile, TokenizerError> {
        let padding = Padding::to_multiple(image.width(), image.height(), self.factor())?;
        let padded = padding.pad(image)?;
        let codes = self
            .model
            .network
            .encode(to_tensor(&[padded], &self.device))
            .map_err(|source| TokenizerError::Quantize {
                name: name.into(),
                source,
            })?;
        Ok(TokenFile {
            tokenizer: self.model.fingerprint.clone(),
            codebook_sizes: self
                .spec()
                .codebook_sizes
                .iter()
                .map(|&size| size as u32)
                .collect(),
            codes: codes.values(),
            shape: codes.dims(),
            images: vec![ImageRecord::padded(name, &padding)],
        })
    }

    /// The images of a token file, at their own sizes.
    ///
    /// # Errors
    /// When the codes are of another tokenizer or do not fit.
    pub fn decode(&self, tokens: &TokenFile) -> Result<Vec<Image>, TokenizerError> {
        let name = tokens
            .images
            .first()
            .map_or("the token file", |image| &image.name);
        if tokens.tokenizer != self.model.fingerprint {
            let short = |fingerprint: &str| smalti_train::model_dir::short(fingerprint).to_owned();
            return Err(TokenizerError::OtherTokenizer {
                name: name.into(),
                found: short(&tokens.tokenizer),
                expected: short(&self.model.fingerprint),
            });
        }
        let codes = Codes::from_values(&tokens.codes, tokens.shape, &self.device);
        let images =
            self.model
                .network
                .decode(&codes)
                .map_err(|source| TokenizerError::Quantize {
                    name: name.into(),
                    source,
                })?;
        let images = to_images(images)?;
        let cut = images.iter().zip(&tokens.images).map(|(image, record)| {
            let [left, top, width, height] = record.crop;
            Ok(image.crop(left, top, width, height)?)
        });
        cut.collect()
    }

    /// Encodes and decodes images at their own sizes and measures; `judges` judge as well. `images` are names and
    /// images.
    ///
    /// # Errors
    /// When an image cannot be converted or is too small to be judged, or there is none.
    pub fn evaluate(
        &self,
        images: impl Iterator<Item = Result<(String, Image), DataError>>,
        judges: &Judges,
        mut watch: impl FnMut(usize),
    ) -> Result<Evaluation, TokenizerError> {
        let quantizer = self.model.network.quantizer();
        let mut meter = Meter::new(quantizer);
        for (count, next) in images.enumerate() {
            let (name, image) = next?;
            let tokens = self.encode(&name, &image)?;
            meter.observe_codes(&tokens.codes, tokens.shape)?;
            let codes = Codes::from_values(&tokens.codes, tokens.shape, &self.device);
            meter.observe_branches(quantizer, &codes)?;
            let decoded = self.decode(&tokens)?;
            meter.observe_pair(&image, &decoded[0])?;
            judges.require_size(&name, &image)?;
            let pair = (std::slice::from_ref(&image), &decoded[..]);
            meter.judge(judges, pair, &self.device)?;
            watch(count + 1);
        }
        if meter
            .statistics()
            .per_depth()
            .iter()
            .all(|depth| depth.observed == 0)
        {
            return Err(TrainError::Layout {
                path: PathBuf::from("."),
                problem: "there are no images to evaluate".into(),
            }
            .into());
        }
        Ok(meter.finish()?)
    }
}
