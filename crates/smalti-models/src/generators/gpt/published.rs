//! Reading the authors' files: a `Net2NetTransformer` of taming-transformers (CompVis).
//!
//! A yaml (`model.yaml`, `…-project.yaml`) says what the model is: sizes of the transformer, what it is
//! conditioned on, the first stage. The `.ckpt` file holds the transformer's arrays under
//! `transformer.` below `state_dict`, beside those of the first stage (`first_stage_model.`, a tokenizer
//! that [`crate::autoencoder::published::taming`] reads) and causal masks (made anew). A `.safetensors` file holds the same names.
//!
//! Models without a condition and with classes are read. Those conditioned on the codes of another
//! image (depth, segmentation, coordinates, drawings) are refused: they have many tokens before the
//! image's.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::Deserialize;
use smalti_nn::Init;
use smalti_nn::state::WeightsError;

use super::config::{GptCondition, GptConfig};
use super::model::Gpt;
use crate::generators::config::InvalidGenerator;
use crate::generators::layout::CodebookSize;
use crate::weights_file::read_weights;

/// Why published files could not be used.
#[derive(Debug, thiserror::Error)]
pub enum PublishedError {
    /// The configuration could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The configuration is no YAML, or keys are missing or of the wrong type.
    #[error("{path} is not the configuration of a taming transformer: {source}")]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_norway::Error,
    },
    /// The configuration asks for what is not known here.
    #[error("{path} is of a model that is not supported:{}", .problems.iter().map(|p| format!("\n  {p}")).collect::<String>())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// All of it.
        problems: Vec<String>,
    },
    /// The configuration contradicts itself.
    #[error(transparent)]
    Invalid(#[from] InvalidGenerator),
    /// The weights are of something else.
    #[error("{path} holds no taming transformer: it has no arrays named transformer.…")]
    Other {
        /// The file.
        path: PathBuf,
    },
    /// The weights could not be read, or do not fit.
    #[error("{path}: {source}")]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: WeightsError,
    },
}

/// What the arrays of the transformer are named.
const PREFIX: &str = "transformer.";

#[derive(Deserialize)]
struct File {
    model: Target<Model>,
}

#[derive(Deserialize)]
struct Target<T> {
    target: String,
    params: T,
}

#[derive(Deserialize)]
struct Model {
    transformer_config: Target<Transformer>,
    first_stage_config: Target<FirstStage>,
    cond_stage_config: Condition,
    permuter_config: Option<Permuter>,
    #[serde(default = "one")]
    pkeep: f64,
    #[serde(default)]
    sos_token: u32,
    #[serde(default)]
    unconditional: bool,
}

#[derive(Deserialize)]
struct Transformer {
    vocab_size: usize,
    block_size: usize,
    n_layer: usize,
    n_head: usize,
    n_embd: usize,
    #[serde(default)]
    n_unmasked: usize,
    #[serde(default)]
    embd_pdrop: f64,
    #[serde(default)]
    resid_pdrop: f64,
    #[serde(default)]
    attn_pdrop: f64,
}

#[derive(Deserialize)]
struct FirstStage {
    n_embed: usize,
    ddconfig: Network,
}

#[derive(Deserialize)]
struct Network {
    resolution: usize,
    ch_mult: Vec<usize>,
}

#[derive(Deserialize)]
struct Permuter {
    target: String,
}

/// A marker such as `__is_unconditional__`, or a model.
#[derive(Deserialize)]
#[serde(untagged)]
enum Condition {
    Marker(String),
    Stage {
        target: String,
        params: Option<StageParams>,
    },
}

#[derive(Deserialize)]
struct StageParams {
    n_classes: Option<usize>,
}

fn one() -> f64 {
    1.0
}

/// Reads the configuration of a published transformer.
///
/// # Errors
/// When it is of something else, or of a model that is not supported.
pub fn read_config(path: &Path) -> Result<GptConfig, PublishedError> {
    let text = std::fs::read_to_string(path).map_err(|source| PublishedError::Read {
        path: path.into(),
        source,
    })?;
    let file: File = serde_norway::from_str(&text).map_err(|source| PublishedError::Yaml {
        path: path.into(),
        source,
    })?;
    let mut problems = Vec::new();
    let config = file.config(&mut problems);
    match config.filter(|_| problems.is_empty()) {
        Some(config) => {
            config.validate()?;
            Ok(config)
        }
        None => Err(PublishedError::Unsupported {
            path: path.into(),
            problems,
        }),
    }
}

impl File {
    fn config(self, problems: &mut Vec<String>) -> Option<GptConfig> {
        let Target { target, params } = self.model;
        if !target.ends_with(".Net2NetTransformer") {
            problems.push(format!(
                "model.target: expected Net2NetTransformer, got {target}"
            ));
        }
        let Target {
            target,
            params: transformer,
        } = &params.transformer_config;
        if !target.ends_with("mingpt.GPT") {
            problems.push(format!(
                "transformer_config.target: expected mingpt.GPT, got {target}"
            ));
        }
        if transformer.n_unmasked > 1 {
            let got = transformer.n_unmasked;
            problems.push(format!(
                "transformer_config.n_unmasked: expected 0, got {got}"
            ));
        }
        if let Some(permuter) = &params.permuter_config
            && !permuter.target.ends_with(".Identity")
        {
            let got = &permuter.target;
            problems.push(format!(
                "permuter_config.target: expected Identity (codes in raster order), got {got}"
            ));
        }
        let condition = params.condition(problems)?;
        let Network {
            resolution,
            ch_mult,
        } = &params.first_stage_config.params.ddconfig;
        let side = resolution >> ch_mult.len().saturating_sub(1);
        Some(GptConfig {
            height: side,
            width: side,
            depth: 1,
            codebook_size: CodebookSize::Same(params.first_stage_config.params.n_embed),
            vocab_size: transformer.vocab_size,
            block_size: transformer.block_size,
            embed_dim: transformer.n_embd,
            layers: transformer.n_layer,
            heads: transformer.n_head,
            condition,
            keep: params.pkeep,
            embedding_dropout: transformer.embd_pdrop,
            attention_dropout: transformer.attn_pdrop,
            residual_dropout: transformer.resid_pdrop,
        })
    }
}

impl Model {
    fn condition(&self, problems: &mut Vec<String>) -> Option<GptCondition> {
        let unconditional = GptCondition::Unconditional {
            start_token: self.sos_token,
        };
        let got = match &self.cond_stage_config {
            _ if self.unconditional => return Some(unconditional),
            Condition::Marker(marker) if marker == "__is_unconditional__" => {
                return Some(unconditional);
            }
            Condition::Stage { target, params } if target.ends_with(".Labelator") => {
                let classes = params.as_ref().and_then(|params| params.n_classes);
                if classes.is_none() {
                    problems.push("cond_stage_config.params.n_classes: expected a number".into());
                }
                return Some(GptCondition::Class { classes: classes? });
            }
            Condition::Marker(marker) => marker,
            Condition::Stage { target, .. } => target,
        };
        problems.push(format!(
            "cond_stage_config: expected classes (Labelator) or __is_unconditional__, got {got}"
        ));
        None
    }
}

/// Reads the weights of a transformer of this configuration.
///
/// # Errors
/// When the file cannot be read, is of something else, or does not fit; every difference is listed.
pub fn load(config: &GptConfig, path: &Path, device: &Device) -> Result<Gpt, PublishedError> {
    let wanted = |name: &str| name.starts_with(PREFIX) && !name.ends_with(".attn.mask");
    let wrong = |source| PublishedError::Weights {
        path: path.into(),
        source,
    };
    let weights = read_weights(path, &["state_dict"], wanted).map_err(wrong)?;
    if weights.0.is_empty() {
        return Err(PublishedError::Other { path: path.into() });
    }
    let weights = weights
        .rename(|name| name.strip_prefix(PREFIX).map(str::to_owned))
        .map_err(wrong)?;
    let model = config.build(&mut Init::blank(device))?;
    weights.load_into(model).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACES: &str = "
model:
  base_learning_rate: 4.5e-06
  target: taming.models.cond_transformer.Net2NetTransformer
  params:
    cond_stage_key: image
    sos_token: 7
    pkeep: 0.9
    transformer_config:
      target: taming.modules.transformer.mingpt.GPT
      params: {vocab_size: 1024, block_size: 256, n_layer: 24, n_head: 16, n_embd: 1664}
    first_stage_config:
      target: taming.models.vqgan.VQModel
      params:
        ckpt_path: x.ckpt
        embed_dim: 256
        n_embed: 1024
        ddconfig: {resolution: 256, ch: 128, ch_mult: [1, 1, 2, 2, 4]}
    cond_stage_config: __is_unconditional__
data: {target: main.DataModuleFromConfig}
";

    fn read(yaml: &str) -> Result<GptConfig, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.yaml");
        std::fs::write(&path, yaml).unwrap();
        read_config(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn a_released_configuration_is_the_preset() {
        let expected = GptConfig {
            condition: GptCondition::Unconditional { start_token: 7 },
            keep: 0.9,
            ..super::super::Preset::Faces.config()
        };
        assert_eq!(read(FACES), Ok(expected));
        let classes = FACES.replace(
            "__is_unconditional__",
            "{target: taming.modules.util.Labelator, params: {n_classes: 1000}}",
        );
        let condition = read(&classes).unwrap().condition;
        assert_eq!(condition, GptCondition::Class { classes: 1000 });
    }

    #[test]
    fn what_is_not_supported_is_listed() {
        let yaml = FACES
            .replace("cond_transformer.Net2NetTransformer", "vqgan.VQModel")
            .replace("mingpt.GPT", "xtransformer.GPT")
            .replace("n_head: 16", "n_head: 16, n_unmasked: 256")
            .replace(
                "    pkeep",
                "    permuter_config: {target: taming.modules.transformer.permuter.ZCurve}\n    pkeep",
            )
            .replace("__is_unconditional__", "__is_first_stage__");
        let message = read(&yaml).unwrap_err();
        for part in [
            "model.yaml is of a model that is not supported",
            "expected Net2NetTransformer, got taming.models.vqgan.VQModel",
            "expected mingpt.GPT, got taming.modules.transformer.xtransformer.GPT",
            "n_unmasked: expected 0, got 256",
            "expected Identity (codes in raster order), got taming.modules.transformer.permuter.ZCurve",
            "cond_stage_config: expected classes (Labelator) or __is_unconditional__, got __is_first_stage__",
        ] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
        let message = read("model: {target: a.Net2NetTransformer}").unwrap_err();
        assert!(
            message.contains("not the configuration of a taming transformer"),
            "{message}"
        );
        let message = read(&FACES.replace("block_size: 256", "block_size: 255")).unwrap_err();
        assert!(
            message.contains("block_size: expected at least 256"),
            "{message}"
        );
    }

    #[test]
    fn other_files_are_named() {
        let config = read(FACES).unwrap();
        let golden = |case: &str| {
            let goldens = concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens");
            Path::new(goldens).join(case)
        };
        let load = |path: &Path| {
            let error = load(&config, path, &Device::flex()).unwrap_err();
            error.to_string()
        };
        let message = load(&golden("taming_vqgan/last.ckpt"));
        assert!(
            message.contains("no arrays named transformer."),
            "{message}"
        );
        assert!(load(&golden("nowhere.ckpt")).contains("nowhere.ckpt"));
    }
}
