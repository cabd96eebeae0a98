//! Finished models on disk: self-describing folders.
//!
//! A tokenizer is `image_tokenizer.json` + `model.safetensors`; a generator is `image_generator.json` +
//! `model.safetensors` + the folder `tokenizer/` of the tokenizer whose codes it writes. The
//! fingerprint is BLAKE3 over the description and the weights; it is checked when a model is read and
//! stamped into every token file.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use smalti_data::PreprocessPair;
use smalti_models::autoencoder::{Autoencoder, AutoencoderConfig};
use smalti_models::generators::rq_transformer::CodeEmbedding;
use smalti_models::generators::rq_transformer::config::CodeInput;
use smalti_models::generators::sampling::SamplingConfig;
use smalti_models::generators::{AnyGenerator, GeneratorConfig};
use smalti_nn::Init;
use smalti_nn::state::Weights;
use smalti_quantize::{AnyQuantizer, Quantizer};

use crate::error::TrainError;

/// File name of a tokenizer's description.
pub const TOKENIZER_FILE: &str = "image_tokenizer.json";
/// File name of a generator's description.
pub const GENERATOR_FILE: &str = "image_generator.json";
/// File name of the weights of either.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Folder of a generator's tokenizer.
pub const TOKENIZER_FOLDER: &str = "tokenizer";

const VERSION: u32 = 1;

/// A tokenizer's description without its fingerprint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerDescription {
    /// Of the format.
    pub version: u32,
    /// The autoencoder.
    pub model: AutoencoderConfig,
    /// What training images went through.
    pub preprocess: PreprocessPair,
    /// The licence of the weights, or what is known of it.
    pub license: String,
}

/// A generator's description without its fingerprint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneratorDescription {
    /// Of the format.
    pub version: u32,
    /// The generator.
    pub model: GeneratorConfig,
    /// Names of its classes.
    pub classes: Vec<String>,
    /// How images are sampled unless asked otherwise.
    pub sampling: SamplingConfig,
    /// Fingerprint of the tokenizer whose codes it writes.
    pub tokenizer: String,
    /// The licence of the weights, or what is known of it.
    pub license: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stamped<T> {
    fingerprint: String,
    description: T,
}

/// A tokenizer with its description.
#[derive(Debug)]
pub struct TokenizerModel {
    /// What it is.
    pub description: TokenizerDescription,
    /// The network, untracked.
    pub network: Autoencoder,
    /// Identifies description and weights.
    pub fingerprint: String,
}

/// A generator with its description and tokenizer.
#[derive(Debug)]
pub struct GeneratorModel {
    /// What it is.
    pub description: GeneratorDescription,
    /// The network, untracked.
    pub network: AnyGenerator,
    /// Turns its codes into images.
    pub tokenizer: TokenizerModel,
    /// Identifies description and weights.
    pub fingerprint: String,
}

impl TokenizerModel {
    /// A model as training leaves it, without the prediction heads that only training needs.
    pub fn new(network: Autoencoder, preprocess: PreprocessPair, license: String) -> Self {
        let network = network.without_prediction_heads();
        let description = TokenizerDescription {
            version: VERSION,
            model: network.config().clone(),
            preprocess,
            license,
        };
        let fingerprint = fingerprint(&description, &weight_bytes(&Weights::of(&network)));
        Self {
            description,
            network,
            fingerprint,
        }
    }

    /// Writes the folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), TrainError> {
        let bytes = weight_bytes(&Weights::of(&self.network));
        write(
            folder,
            TOKENIZER_FILE,
            &self.fingerprint,
            &self.description,
            &bytes,
        )
    }

    /// Reads the folder; a run's folder stands for the model in it.
    ///
    /// # Errors
    /// When it is missing, damaged or of another kind.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, TrainError> {
        let folder = &model_folder(folder, TOKENIZER_FILE)?;
        let (description, weights, fingerprint) =
            read::<TokenizerDescription>(folder, TOKENIZER_FILE)?;
        require_version(folder, description.version)?;
        let network = description.model.build(&mut Init::blank(device))?;
        let network = weights
            .load_into(network)
            .map_err(TrainError::weights(&folder.join(WEIGHTS_FILE)))?;
        Ok(Self {
            description,
            network,
            fingerprint,
        })
    }
}

impl GeneratorModel {
    /// A model as training leaves it.
    pub fn new(
        network: AnyGenerator,
        tokenizer: TokenizerModel,
        classes: Vec<String>,
        sampling: SamplingConfig,
    ) -> Self {
        let description = GeneratorDescription {
            version: VERSION,
            model: network.config(),
            classes,
            sampling,
            tokenizer: tokenizer.fingerprint.clone(),
            license: tokenizer.description.license.clone(),
        };
        let fingerprint = fingerprint(&description, &weight_bytes(&Weights::of(&network)));
        Self {
            description,
            network,
            tokenizer,
            fingerprint,
        }
    }

    /// The same with another licence of the weights than the tokenizer's.
    pub fn with_license(mut self, license: String) -> Self {
        self.description.license = license;
        let weights = weight_bytes(&Weights::of(&self.network));
        self.fingerprint = fingerprint(&self.description, &weights);
        self
    }

    /// Writes the folder, its tokenizer in it.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), TrainError> {
        self.tokenizer.save(&folder.join(TOKENIZER_FOLDER))?;
        let bytes = weight_bytes(&Weights::of(&self.network));
        write(
            folder,
            GENERATOR_FILE,
            &self.fingerprint,
            &self.description,
            &bytes,
        )
    }

    /// Reads the folder; a run's folder stands for the model in it.
    ///
    /// # Errors
    /// When it is missing, damaged or of another kind, or its tokenizer is not the one it was
    /// trained with.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, TrainError> {
        let folder = &model_folder(folder, GENERATOR_FILE)?;
        let (description, weights, fingerprint) =
            read::<GeneratorDescription>(folder, GENERATOR_FILE)?;
        require_version(folder, description.version)?;
        let tokenizer = TokenizerModel::load(&folder.join(TOKENIZER_FOLDER), device)?;
        if tokenizer.fingerprint != description.tokenizer {
            let problem = format!(
                "the generator writes codes of tokenizer {}, but {TOKENIZER_FOLDER}/ holds {}",
                short(&description.tokenizer),
                short(&tokenizer.fingerprint)
            );
            return Err(TrainError::layout(folder, problem));
        }
        let codes = code_embedding(&description.model, tokenizer.network.quantizer())?;
        let network = description.model.build(codes, &mut Init::blank(device))?;
        let network = weights
            .load_into(network)
            .map_err(TrainError::weights(&folder.join(WEIGHTS_FILE)))?;
        Ok(Self {
            description,
            network,
            tokenizer,
            fingerprint,
        })
    }
}

/// The frozen codebooks that a generator sees codes through, where its configuration asks for them.
///
/// # Errors
/// When the tokenizer stores no table of codes.
pub fn code_embedding(
    config: &GeneratorConfig,
    quantizer: &AnyQuantizer,
) -> Result<Option<CodeEmbedding>, TrainError> {
    match config {
        GeneratorConfig::RqTransformer(config)
            if matches!(config.embedding, CodeInput::Tokenizer { .. }) =>
        {
            Ok(Some(CodeEmbedding::new(code_tables(quantizer)?)))
        }
        _ => Ok(None),
    }
}

/// A quantizer's codebooks: one that all depths share, or one for each.
///
/// # Errors
/// When its codes have no table.
pub(crate) fn code_tables(quantizer: &AnyQuantizer) -> Result<Vec<Tensor<2>>, TrainError> {
    let tables = match quantizer.shares_table() {
        true => 1,
        false => quantizer.spec().depth(),
    };
    let tables: Option<Vec<_>> = (0..tables).map(|depth| quantizer.table(depth)).collect();
    tables.ok_or_else(|| {
        let problem = "embedding: this tokenizer's codes have no table; use kind = \"own\"";
        TrainError::Config(vec![problem.into()])
    })
}

/// The first characters of a fingerprint, for people.
pub fn short(fingerprint: &str) -> &str {
    fingerprint.get(..12).unwrap_or(fingerprint)
}

fn weight_bytes(weights: &Weights) -> Vec<u8> {
    let metadata = BTreeMap::from([("format".to_owned(), "smalti model 1".to_owned())]);
    weights.to_safetensors(&metadata)
}

fn fingerprint<T: Serialize>(description: &T, weights: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&serde_json::to_vec(description).expect("a description serialises"));
    hasher.update(weights);
    hasher.finalize().to_hex().to_string()
}

fn write<T: Serialize>(
    folder: &Path,
    name: &str,
    fingerprint: &str,
    description: &T,
    weights: &[u8],
) -> Result<(), TrainError> {
    std::fs::create_dir_all(folder).map_err(TrainError::io("create", folder))?;
    smalti_data::atomic::write(&folder.join(WEIGHTS_FILE), weights)?;
    let stamped = Stamped {
        fingerprint: fingerprint.to_owned(),
        description,
    };
    crate::json::write(&folder.join(name), &stamped)
}

fn read<T: Serialize + for<'de> Deserialize<'de>>(
    folder: &Path,
    name: &str,
) -> Result<(T, Weights, String), TrainError> {
    let (path, weights_path) = (folder.join(name), folder.join(WEIGHTS_FILE));
    let json = std::fs::read(&path).map_err(TrainError::io("read", &path))?;
    let unreadable = |e: serde_json::Error| {
        TrainError::layout(&path, format!("the description cannot be read: {e}"))
    };
    let stamped: Stamped<T> = serde_json::from_slice(&json).map_err(unreadable)?;
    let bytes = std::fs::read(&weights_path).map_err(TrainError::io("read", &weights_path))?;
    if fingerprint(&stamped.description, &bytes) != stamped.fingerprint {
        let problem = format!(
            "{name} and {WEIGHTS_FILE} do not have the fingerprint {}: one of the two was changed or damaged; copy the folder again",
            short(&stamped.fingerprint)
        );
        return Err(TrainError::layout(folder, problem));
    }
    let weights = Weights::from_safetensors(&bytes)
        .map_err(|problem| TrainError::layout(&weights_path, problem))?;
    Ok((stamped.description, weights, stamped.fingerprint))
}

fn require_version(folder: &Path, version: u32) -> Result<(), TrainError> {
    match version {
        VERSION => Ok(()),
        other => Err(TrainError::layout(
            folder,
            format!("the model has format version {other}, this program reads {VERSION}"),
        )),
    }
}

/// The folder with the description `name`: the one given, or `model/` in it.
fn model_folder(folder: &Path, name: &str) -> Result<std::path::PathBuf, TrainError> {
    for candidate in [folder.to_owned(), folder.join("model")] {
        if candidate.join(name).is_file() {
            return Ok(candidate);
        }
    }
    let holds =
        |name: &str| folder.join(name).is_file() || folder.join("model").join(name).is_file();
    let problem = if !folder.exists() {
        "there is no such folder".to_owned()
    } else if folder.is_file() {
        "this is a file, the folder of a model is needed".to_owned()
    } else if name == TOKENIZER_FILE && holds(GENERATOR_FILE) {
        format!(
            "this is a generator, a tokenizer is needed; the generator's own is in its folder {TOKENIZER_FOLDER}/"
        )
    } else if name == GENERATOR_FILE && holds(TOKENIZER_FILE) {
        "this is a tokenizer, a generator is needed; `smalti train` trains one on its codes"
            .to_owned()
    } else if folder.join("config.toml").is_file() {
        "the run is not finished, it has no model yet".to_owned()
    } else {
        format!("the folder has no {name}")
    };
    Err(TrainError::layout(folder, problem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use smalti_models::generators::rq_transformer::config::Sharing;
    use smalti_models::generators::rq_transformer::{Preset, RqTransformerConfig};
    use smalti_quantize::{FsqConfig, QuantizerConfig, StackedConfig, VectorConfig};

    fn tables(quantizer: &QuantizerConfig, embedding: CodeInput) -> Result<usize, String> {
        let config = GeneratorConfig::RqTransformer(RqTransformerConfig {
            embedding,
            ..Preset::ALL[0].config()
        });
        let quantizer = quantizer.build(&mut Init::new(&Device::flex(), 1)).unwrap();
        let embedding = code_embedding(&config, &quantizer);
        embedding
            .map(|tables| tables.map_or(0, |tables| tables.shapes().len()))
            .map_err(|error| error.to_string())
    }

    fn frozen() -> CodeInput {
        CodeInput::Tokenizer {
            code_dim: 4,
            cumulative: true,
        }
    }

    #[test]
    fn codes_without_a_table_need_an_embedding_of_their_own() {
        let levels = QuantizerConfig::Fsq(FsqConfig::new(&[8, 5, 5, 5]));
        let message = tables(&levels, frozen()).unwrap_err();
        assert!(
            message.contains("no table; use kind = \"own\""),
            "{message}"
        );
        let own = CodeInput::Own {
            tables: Sharing::Shared,
        };
        assert_eq!(tables(&levels, own), Ok(0));
    }

    #[test]
    fn every_depth_of_a_stack_has_its_own_table() {
        let stage = QuantizerConfig::Vector(VectorConfig::new(8, 4));
        assert_eq!(tables(&stage, frozen()), Ok(1));
        let stack = QuantizerConfig::Stacked(StackedConfig::new(3, stage));
        assert_eq!(tables(&stack, frozen()), Ok(3));
    }
}
