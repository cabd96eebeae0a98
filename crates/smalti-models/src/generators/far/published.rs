//! Reading the authors' files: LlamaGen's (FoundationVision/LlamaGen) and FAR's (showlab/FQGAN).
//!
//! A `.pt` file holds the parameters under `model`, `module` or `state_dict`, whichever comes first of
//! these, or at its top; a `.safetensors` file holds the same names. Sub-tokens are counted from 1 there
//! (`tok_embeddings_1`, `output_1`; a single one has no number), from 0 here (`tok_embeddings.0`).
//! Prefixes `module.` and `_orig_mod.` are stripped; caches and the table of rotations, which is made
//! anew, are left out. Everything else must fit.
//!
//! No configuration is published beside them: shapes tell everything but the grid and the heads, which
//! are 64 wide in all files but the 3B's (100).

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use smalti_nn::Init;
use smalti_nn::state::{Weights, WeightsError};

use super::config::{FarCondition, FarConfig, HeadConfig, PUBLISHED_DROPOUT};
use super::model::Far;
use crate::generators::config::InvalidGenerator;
use crate::generators::layout::CodebookSize;

/// Width of a head, but where something else is said.
const HEAD_WIDTH: usize = 64;

/// What a file does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Untold {
    /// Rows of the code map.
    pub height: usize,
    /// Columns of the code map.
    pub width: usize,
    /// Attention heads; `None`: of 64 elements each.
    pub heads: Option<usize>,
}

/// Why a published file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum PublishedError {
    /// It holds something else.
    #[error("{path} is not a published generator of the LlamaGen family: {problem}")]
    Other {
        /// The file.
        path: PathBuf,
        /// What is missing or strange.
        problem: String,
    },
    /// Its shapes contradict one another or what was said.
    #[error(transparent)]
    Invalid(#[from] InvalidGenerator),
    /// It could not be read, or does not fit.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// Reads a generator.
///
/// # Errors
/// When the file cannot be read, is of something else, or holds too little or too much.
pub fn load(path: &Path, untold: Untold, device: &Device) -> Result<Far, PublishedError> {
    let weights = match path.extension().is_some_and(|e| e == "safetensors") {
        true => Weights::read_safetensors_where(path, |name| renamed(name).is_some())?,
        false => {
            let keys = ["model", "module", "state_dict"];
            Weights::read_pytorch_where(path, &keys, |name| renamed(name).is_some())?
        }
    };
    let weights = weights.rename(renamed)?;
    let config = config_of(&weights, untold).map_err(|problem| PublishedError::Other {
        path: path.into(),
        problem,
    })?;
    let model = config.build(&mut Init::blank(device))?;
    Ok(weights.load_into(model)?)
}

/// A published name as ours; `None` for what is made anew.
fn renamed(name: &str) -> Option<String> {
    let mut name = name;
    while let Some(rest) = ["module.", "_orig_mod."]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
    {
        name = rest;
    }
    if name.contains(".kv_cache.") || name == "freqs_cis" || name == "causal_mask" {
        return None;
    }
    let (first, rest) = name.split_once('.')?;
    for list in ["tok_embeddings", "output"] {
        let number = match first.strip_prefix(list) {
            Some("") => Some(1),
            Some(number) => number.strip_prefix('_').and_then(|n| n.parse().ok()),
            None => None,
        };
        if let Some(number) = number.filter(|number: &usize| *number > 0) {
            return Some(format!("{list}.{}.{rest}", number - 1));
        }
    }
    Some(name.to_owned())
}

/// What the shapes say.
fn config_of(weights: &Weights, untold: Untold) -> Result<FarConfig, String> {
    let shape = |name: &str| match weights.0.get(name).map(|array| &array.shape[..]) {
        Some(&[rows, columns]) => Ok([rows, columns]),
        Some(other) => Err(format!("{name} has the shape {other:?}, not two axes")),
        None => Err(format!("{name} is missing")),
    };
    let count = |list: &str, last: &str| {
        let has = |i: &usize| weights.0.contains_key(&format!("{list}.{i}.{last}"));
        (0..).take_while(has).count()
    };
    let [_, embed_dim] = shape("tok_embeddings.0.weight")?;
    let [hidden, _] = shape("layers.0.feed_forward.w1.weight")?;
    let depth = count("tok_embeddings", "weight");
    let sizes = (0..depth).map(|d| Ok(shape(&format!("tok_embeddings.{d}.weight"))?[0]));
    let sizes = sizes.collect::<Result<Vec<_>, String>>()?;
    let condition = match weights.0.contains_key("cls_embedding.uncond_embedding") {
        true => {
            let [tokens, feature_dim] = shape("cls_embedding.uncond_embedding")?;
            FarCondition::Caption {
                tokens,
                feature_dim,
                dropout: PUBLISHED_DROPOUT,
            }
        }
        false => {
            let [rows, _] = shape("cls_embedding.embedding_table.weight")?;
            FarCondition::classes(rows.saturating_sub(1))
        }
    };
    let head = match count("ar_head", "attention_norm.weight") {
        0 => HeadConfig::Linear {},
        layers => HeadConfig::Autoregressive { layers },
    };
    let config = FarConfig {
        height: untold.height,
        width: untold.width,
        depth,
        codebook_size: CodebookSize::of(&sizes),
        embed_dim,
        layers: count("layers", "attention_norm.weight"),
        heads: untold.heads.unwrap_or(embed_dim / HEAD_WIDTH),
        hidden: None,
        head,
        condition,
        token_dropout: PUBLISHED_DROPOUT,
        residual_dropout: PUBLISHED_DROPOUT,
    };
    let usual = config.hidden_width() == hidden;
    Ok(FarConfig {
        hidden: (!usual).then_some(hidden),
        ..config
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::far::testing::{all_kinds, random, tiny};
    use smalti_nn::state::Array;
    use std::collections::BTreeMap;

    const UNTOLD: Untold = Untold {
        height: 2,
        width: 3,
        heads: Some(2),
    };

    /// The parameters of a model under the authors' names.
    fn published(model: &Far) -> Weights {
        let single = model.config().depth == 1;
        let name = |name: &str| {
            let Some((list, rest)) = name.split_once('.') else {
                return Some(name.to_owned());
            };
            let numbered = ["tok_embeddings", "output"].contains(&list);
            let Some((number, rest)) = rest.split_once('.').filter(|_| numbered) else {
                return Some(name.to_owned());
            };
            let number = number.parse::<usize>().unwrap() + 1;
            Some(match single {
                true => format!("{list}.{rest}"),
                false => format!("{list}_{number}.{rest}"),
            })
        };
        Weights::of(model).rename(name).unwrap()
    }

    fn written(weights: &Weights) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, weights.to_safetensors(&BTreeMap::new())).unwrap();
        (folder, path)
    }

    #[test]
    fn names_and_shapes_tell_the_configuration() {
        let plain = FarConfig {
            head: HeadConfig::Linear {},
            ..tiny(1)
        };
        for config in [plain, tiny(2), tiny(3), all_kinds()[3].clone()] {
            let model = random(&config, &Device::flex(), 1);
            let mut weights = published(&model);
            let array = |size| Array {
                shape: vec![size],
                values: vec![0.0; size],
            };
            weights.0.insert("freqs_cis".into(), array(3));
            let cache = "layers.0.attention.kv_cache.k_cache";
            weights.0.insert(cache.into(), array(2));
            let weights = weights.rename(|name| Some(format!("_orig_mod.module.{name}")));
            let (_folder, path) = written(&weights.unwrap());
            let read = load(&path, UNTOLD, &Device::flex()).unwrap();
            assert_eq!(read.config(), &config);
            assert_eq!(Weights::of(&read), Weights::of(&model));
        }
    }

    #[test]
    fn other_files_are_refused() {
        let model = random(&tiny(2), &Device::flex(), 1);
        let refused = |change: &dyn Fn(&mut Weights)| {
            let mut weights = published(&model);
            change(&mut weights);
            let (_folder, path) = written(&weights);
            load(&path, UNTOLD, &Device::flex())
                .unwrap_err()
                .to_string()
        };
        let message = refused(&|w| {
            w.0.remove("tok_embeddings_1.weight");
        });
        assert!(
            message.contains("tok_embeddings.0.weight is missing"),
            "{message}"
        );
        let message = refused(&|w| {
            let array = w.0["norm.weight"].clone();
            w.0.insert("norm.bias".into(), array);
        });
        assert!(message.contains("unexpected: norm.bias"), "{message}");
        let message = refused(&|w| {
            w.0.remove("ar_head.0.feed_forward.w2.weight");
        });
        assert!(
            message.contains("missing: ar_head.0.feed_forward.w2.weight"),
            "{message}"
        );
    }

    #[test]
    fn heads_are_64_wide_where_nothing_is_said() {
        let config = FarConfig {
            embed_dim: 128,
            hidden: None,
            heads: 2,
            ..tiny(2)
        };
        let model = random(&config, &Device::flex(), 1);
        let (_folder, path) = written(&published(&model));
        let untold = Untold {
            heads: None,
            ..UNTOLD
        };
        let read = load(&path, untold, &Device::flex()).unwrap();
        assert_eq!(read.config(), &config);
    }
}
