//! Reading the authors' files: `config.yaml` beside `model.pt` (kakaobrain/rq-vae-transformer).
//!
//! The YAML says more than a model needs (data, optimiser …); unknown keys are ignored there. The
//! `.pt` file holds the parameters under the names of [`RqTransformer`]'s fields, at its top or under
//! `state_dict`; the codebooks come from the tokenizer of the same archive (codes mean nothing to
//! another one). What the released model class cannot express here is an error, never ignored.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::Deserialize;
use smalti_nn::Init;
use smalti_nn::state::{Weights, WeightsError};

use super::code_embedding::CodeEmbedding;
use super::config::{
    CodeInput, CodebookSize, Condition, GeluKind, InvalidGenerator, RqTransformerConfig, Sharing,
    StackConfig,
};
use super::model::RqTransformer;
use crate::generators::loss::LossWeights;
use crate::generators::sampling::{PerDepth, SamplingConfig};

/// What a published configuration file says about a generator.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedConfig {
    /// The model.
    pub model: RqTransformerConfig,
    /// How the authors sample from it, where the file tells.
    pub sampling: Option<SamplingConfig>,
    /// How it was trained, where the file tells.
    pub objective: Option<Objective>,
}

/// The training objective of a published configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// Whether targets are distributions over codes.
    pub soft_targets: bool,
    /// Whether the codes shown to the model are drawn from these distributions.
    pub stochastic_codes: bool,
    /// Temperature of the distributions.
    pub temperature: f64,
    /// Weights of the losses.
    pub weights: LossWeights,
}

/// Why published files could not be used.
#[derive(Debug, thiserror::Error)]
pub enum PublishedError {
    /// The configuration file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The configuration file is no YAML, or keys are missing or of the wrong type.
    #[error("the configuration is not that of a published RQ-Transformer: {0}")]
    Yaml(#[from] serde_norway::Error),
    /// The configuration asks for what no published model uses.
    #[error("the configuration is not supported:{}", .0.iter().map(|p| format!("\n  {p}")).collect::<String>())]
    Unsupported(Vec<String>),
    /// The configuration contradicts itself or the codebooks.
    #[error(transparent)]
    Invalid(#[from] InvalidGenerator),
    /// The parameters could not be read or do not fit.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    dataset: Dataset,
    arch: Arch,
    loss: Option<Loss>,
    sampling: Option<Sampling>,
}

#[derive(Default, Deserialize)]
struct Dataset {
    vocab_size: Option<OneOrMany<usize>>,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

#[derive(Deserialize)]
struct Arch {
    r#type: String,
    block_size: [usize; 3],
    vocab_size: Option<OneOrMany<usize>>,
    embed_dim: usize,
    input_embed_dim: Option<usize>,
    #[serde(default)]
    shared_tok_emb: bool,
    #[serde(default)]
    shared_cls_emb: bool,
    #[serde(default)]
    input_emb_vqvae: bool,
    #[serde(default)]
    head_emb_vqvae: bool,
    #[serde(default)]
    cumsum_depth_ctx: bool,
    #[serde(default)]
    vocab_size_cond: usize,
    #[serde(default)]
    block_size_cond: usize,
    #[serde(default)]
    embd_pdrop: f64,
    body: Stack,
    head: Stack,
}

#[derive(Deserialize)]
struct Stack {
    n_layer: usize,
    block: Block,
}

#[derive(Deserialize)]
struct Block {
    n_head: usize,
    embed_dim: Option<usize>,
    #[serde(default = "yes")]
    mlp_bias: bool,
    #[serde(default = "yes")]
    attn_bias: bool,
    #[serde(default)]
    attn_pdrop: f64,
    #[serde(default = "residual_dropout")]
    resid_pdrop: f64,
    #[serde(default = "exact_gelu")]
    gelu: String,
}

#[derive(Deserialize)]
struct Loss {
    r#type: String,
    #[serde(default)]
    stochastic_codes: bool,
    #[serde(default = "one")]
    temp: f64,
    img_weight: Option<f64>,
    txt_weight: Option<f64>,
}

#[derive(Deserialize)]
struct Sampling {
    #[serde(default = "one")]
    temp: f64,
    top_k: Option<OneOrMany<usize>>,
    top_p: Option<OneOrMany<f64>>,
}

const fn yes() -> bool {
    true
}

const fn residual_dropout() -> f64 {
    0.1
}

const fn one() -> f64 {
    1.0
}

fn exact_gelu() -> String {
    "v1".into()
}

impl PublishedConfig {
    /// Reads the text of a `config.yaml`.
    ///
    /// # Errors
    /// When it is not that of an RQ-Transformer, or asks for what is not supported.
    pub fn parse(yaml: &str) -> Result<Self, PublishedError> {
        let file: File = serde_norway::from_str(yaml)?;
        let mut problems = Vec::new();
        let model = file.arch.model(file.dataset.vocab_size, &mut problems);
        if let Some(model) = model.filter(|_| problems.is_empty()) {
            model.validate()?;
            let objective = file.loss.map(|loss| loss.objective(&model.condition));
            Ok(Self {
                model,
                sampling: file.sampling.map(Sampling::config),
                objective,
            })
        } else {
            Err(PublishedError::Unsupported(problems))
        }
    }
}

impl Arch {
    fn model(
        self,
        vocab_size: Option<OneOrMany<usize>>,
        problems: &mut Vec<String>,
    ) -> Option<RqTransformerConfig> {
        if self.r#type != "rq-transformer" {
            problems.push(format!(
                "arch.type: expected rq-transformer, got {}",
                self.r#type
            ));
        }
        let [height, width, depth] = self.block_size;
        let embedding = self.embedding(problems);
        let condition = self.condition();
        let vocab_size = self.vocab_size.clone().or(vocab_size);
        if vocab_size.is_none() {
            problems.push("arch.vocab_size or dataset.vocab_size: expected one of them".into());
        }
        let body = self.body.config("arch.body", self.embed_dim, problems);
        let head = self.head.config("arch.head", self.embed_dim, problems);
        Some(RqTransformerConfig {
            height,
            width,
            depth,
            codebook_size: match vocab_size? {
                OneOrMany::One(size) => CodebookSize::Same(size),
                OneOrMany::Many(sizes) => CodebookSize::PerDepth(sizes),
            },
            embed_dim: self.embed_dim,
            embedding: embedding?,
            classifier: if self.shared_cls_emb {
                Sharing::Shared
            } else {
                Sharing::PerDepth
            },
            condition,
            body,
            head,
            embedding_dropout: self.embd_pdrop,
        })
    }

    fn embedding(&self, problems: &mut Vec<String>) -> Option<CodeInput> {
        match (self.input_emb_vqvae, self.head_emb_vqvae) {
            (true, true) => {
                if self.input_embed_dim.is_none() {
                    problems
                        .push("arch.input_embed_dim: expected the width of the codebook".into());
                }
                Some(CodeInput::Tokenizer {
                    code_dim: self.input_embed_dim?,
                    cumulative: self.cumsum_depth_ctx,
                })
            }
            // The published class reads cumsum_depth_ctx only beside head_emb_vqvae.
            (false, false) => Some(CodeInput::Own {
                tables: if self.shared_tok_emb {
                    Sharing::Shared
                } else {
                    Sharing::PerDepth
                },
            }),
            _ => {
                problems.push("arch: input_emb_vqvae and head_emb_vqvae must be equal".into());
                None
            }
        }
    }

    fn condition(&self) -> Condition {
        match (self.vocab_size_cond.max(1), self.block_size_cond.max(1)) {
            (1, 1) => Condition::Unconditional {},
            (classes, 1) => Condition::Class { classes },
            (vocab_size, length) => Condition::Text { vocab_size, length },
        }
    }
}

impl Stack {
    fn config(self, name: &str, width: usize, problems: &mut Vec<String>) -> StackConfig {
        let block = self.block;
        if !(block.mlp_bias && block.attn_bias) {
            problems.push(format!(
                "{name}.block: layers without bias are not supported"
            ));
        }
        if let Some(got) = block.embed_dim.filter(|&own| own != width) {
            problems.push(format!(
                "{name}.block.embed_dim: expected arch.embed_dim {width}, got {got}"
            ));
        }
        let gelu = match block.gelu.as_str() {
            "v1" => GeluKind::Exact,
            "v2" => GeluKind::Logistic,
            other => {
                problems.push(format!("{name}.block.gelu: expected v1 or v2, got {other}"));
                GeluKind::Exact
            }
        };
        StackConfig {
            layers: self.n_layer,
            heads: block.n_head,
            attention_dropout: block.attn_pdrop,
            residual_dropout: block.resid_pdrop,
            gelu,
        }
    }
}

impl Loss {
    fn objective(self, condition: &Condition) -> Objective {
        let published = LossWeights::published(condition);
        Objective {
            soft_targets: self.r#type == "soft_target_cross_entropy",
            stochastic_codes: self.stochastic_codes,
            temperature: self.temp,
            weights: LossWeights {
                codes: self.img_weight.unwrap_or(published.codes),
                text: self.txt_weight.unwrap_or(published.text),
            },
        }
    }
}

impl LossWeights {
    /// The published weights: 0.9 and 0.1 for text models, else the codes alone.
    pub const fn published(condition: &Condition) -> Self {
        match condition {
            Condition::Text { .. } => Self {
                codes: 0.9,
                text: 0.1,
            },
            _ => Self {
                codes: 1.0,
                text: 0.0,
            },
        }
    }
}

impl Sampling {
    fn config(self) -> SamplingConfig {
        fn per_depth<T: Copy>(value: OneOrMany<T>) -> PerDepth<T> {
            match value {
                OneOrMany::One(value) => PerDepth::Same(value),
                OneOrMany::Many(values) if values.len() == 1 => PerDepth::Same(values[0]),
                OneOrMany::Many(values) => PerDepth::Each(values),
            }
        }
        SamplingConfig {
            temperature: self.temp as f32,
            top_k: self.top_k.map(per_depth),
            top_p: self.top_p.map(per_depth),
            ..SamplingConfig::default()
        }
    }
}

/// Reads a `config.yaml`.
///
/// # Errors
/// When it cannot be read, is not that of an RQ-Transformer, or asks for what is not supported.
pub fn read_config(path: &Path) -> Result<PublishedConfig, PublishedError> {
    let yaml = std::fs::read_to_string(path).map_err(|source| PublishedError::Read {
        path: path.into(),
        source,
    })?;
    PublishedConfig::parse(&yaml)
}

/// Reads the weights of a model of this configuration.
///
/// `codes` are the codebooks of the tokenizer in the same archive, without their padding row.
///
/// # Errors
/// When the file cannot be read, or the parameters do not fit.
pub fn load(
    config: &RqTransformerConfig,
    weights: &Path,
    codes: Option<CodeEmbedding>,
    device: &Device,
) -> Result<RqTransformer, PublishedError> {
    let mut model = config.build(codes, &mut Init::new(device, 0))?;
    // The codebooks are not in the file; loading is strict about all the rest.
    let codes = model.code_embedding.take();
    let mut model = Weights::read_pytorch(weights)?.load_into(model)?;
    model.code_embedding = codes;
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHURCH: &str = "
dataset: {type: LSUN-church, vocab_size: 16384}
arch:
  type: rq-transformer
  block_size: [8, 8, 4]
  embed_dim: 1024
  input_embed_dim: 256
  shared_tok_emb: true
  shared_cls_emb: true
  input_emb_vqvae: true
  head_emb_vqvae: true
  cumsum_depth_ctx: true
  vocab_size_cond: 1
  block_size_cond: 1
  body: {n_layer: 24, block: {n_head: 16, embed_dim: 1024}}
  head: {n_layer: 4, block: {n_head: 16}}
loss: {type: soft_target_cross_entropy, stochastic_codes: true, temp: 0.5}
optimizer: {type: adamW, init_lr: 0.0005}
sampling: {temp: 1.0, top_k: [1400], top_p: [1.0]}
";

    #[test]
    fn a_released_configuration_is_the_preset_with_its_sampling() {
        let config = PublishedConfig::parse(CHURCH).unwrap();
        assert_eq!(config.model, super::super::Preset::LsunChurch.config());
        let sampling = config.sampling.unwrap();
        assert_eq!(sampling.top_k, Some(PerDepth::Same(1400)));
        assert_eq!(sampling.top_p, Some(PerDepth::Same(1.0)));
        let objective = config.objective.unwrap();
        assert!(objective.soft_targets && objective.stochastic_codes);
        assert_eq!(objective.temperature, 0.5);
        assert_eq!(
            objective.weights,
            LossWeights {
                codes: 1.0,
                text: 0.0
            }
        );
    }

    #[test]
    fn what_is_not_supported_is_listed() {
        let yaml = CHURCH
            .replace("type: rq-transformer", "type: other")
            .replace("head_emb_vqvae: true", "head_emb_vqvae: false")
            .replace(
                "{n_head: 16, embed_dim: 1024}",
                "{n_head: 16, embed_dim: 512, mlp_bias: false}",
            )
            .replace("{n_head: 16}", "{n_head: 16, gelu: v3}");
        let message = PublishedConfig::parse(&yaml).unwrap_err().to_string();
        for part in [
            "expected rq-transformer, got other",
            "input_emb_vqvae and head_emb_vqvae",
            "arch.body.block: layers without bias",
            "arch.body.block.embed_dim: expected arch.embed_dim 1024, got 512",
            "arch.head.block.gelu: expected v1 or v2, got v3",
        ] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
        let missing = CHURCH.replace("vocab_size: 16384", "root: x");
        assert!(
            PublishedConfig::parse(&missing)
                .unwrap_err()
                .to_string()
                .contains("dataset.vocab_size")
        );
        let broken = PublishedConfig::parse("arch: {type: rq-vae}")
            .unwrap_err()
            .to_string();
        assert!(
            broken.contains("not that of a published RQ-Transformer"),
            "{broken}"
        );
    }
}
