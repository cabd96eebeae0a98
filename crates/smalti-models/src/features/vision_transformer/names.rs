//! What Hugging Face's files call the parts of a vision transformer.
//!
//! Both families come out under one set of names, queries, keys and values packed into one matrix from the top,
//! as [`SelfAttention`](smalti_nn::SelfAttention) has them.

use smalti_nn::state::{Array, Weights};

/// Whose names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Clip,
    Dino,
}

const PARTS: [&str; 3] = ["query", "key", "value"];

impl Family {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Clip => "the image tower of CLIP",
            Self::Dino => "DINOv2",
        }
    }

    /// This project's name of a published array, if the network uses it.
    pub(super) fn field(self, name: &str) -> Option<String> {
        match self {
            Self::Clip => clip(name.split_once("vision_model.")?.1),
            // Inside a larger model the network stands under a name of its own.
            Self::Dino => dino(name.strip_prefix("dinov2.").unwrap_or(name)),
        }
    }
}

fn clip(name: &str) -> Option<String> {
    let whole = match name {
        "embeddings.class_embedding" => "class_token",
        "embeddings.patch_embedding.weight" => "patch",
        "embeddings.position_embedding.weight" => "positions",
        "pre_layrnorm.weight" => "norm_before.weight",
        "pre_layrnorm.bias" => "norm_before.bias",
        name => return layer(name.strip_prefix("encoder.layers.")?, clip_part),
    };
    Some(whole.into())
}

fn clip_part(part: &str) -> Option<&'static str> {
    Some(match part {
        "layer_norm1" => "norm1",
        "layer_norm2" => "norm2",
        "self_attn.q_proj" => "query",
        "self_attn.k_proj" => "key",
        "self_attn.v_proj" => "value",
        "self_attn.out_proj" => "attn.out_proj",
        "mlp.fc1" => "fc1",
        "mlp.fc2" => "fc2",
        _ => return None,
    })
}

fn dino(name: &str) -> Option<String> {
    let whole = match name {
        "embeddings.cls_token" => "class_token",
        "embeddings.patch_embeddings.projection.weight" => "patch",
        "embeddings.patch_embeddings.projection.bias" => "patch_bias",
        "embeddings.position_embeddings" => "positions",
        "layernorm.weight" => "norm_after.weight",
        "layernorm.bias" => "norm_after.bias",
        name => return layer(name.strip_prefix("encoder.layer.")?, dino_part),
    };
    Some(whole.into())
}

fn dino_part(part: &str) -> Option<&'static str> {
    Some(match part {
        "norm1" => "norm1",
        "norm2" => "norm2",
        "attention.attention.query" => "query",
        "attention.attention.key" => "key",
        "attention.attention.value" => "value",
        "attention.output.dense" => "attn.out_proj",
        "layer_scale1" => "scale1",
        "layer_scale2" => "scale2",
        "mlp.fc1" => "fc1",
        "mlp.fc2" => "fc2",
        _ => return None,
    })
}

/// `3.mlp.fc1.weight` as `blocks.3.fc1.weight`.
fn layer(name: &str, part: fn(&str) -> Option<&'static str>) -> Option<String> {
    let (number, rest) = name.split_once('.')?;
    let (of, field) = rest.rsplit_once('.')?;
    let part = part(of)?;
    Some(match field {
        "lambda1" => format!("blocks.{number}.{part}"),
        field => format!("blocks.{number}.{part}.{field}"),
    })
}

/// Tables without their leading axes of one, and queries, keys and values as one.
pub(super) fn packed(mut weights: Weights) -> Result<Weights, Vec<String>> {
    for (name, rank) in [("class_token", 1), ("positions", 2)] {
        if let Some(array) = weights.0.get_mut(name) {
            while array.shape.len() > rank && array.shape[0] == 1 {
                array.shape.remove(0);
            }
        }
    }
    let mut problems = Vec::new();
    for field in ["weight", "bias"] {
        let suffix = format!(".query.{field}");
        let blocks: Vec<String> = weights
            .0
            .keys()
            .filter_map(|name| name.strip_suffix(&suffix).map(str::to_owned))
            .collect();
        for block in blocks {
            let parts = PARTS.map(|part| weights.0.remove(&format!("{block}.{part}.{field}")));
            match stacked(parts) {
                Some(array) => {
                    weights
                        .0
                        .insert(format!("{block}.attn.in_proj_{field}"), array);
                }
                None => problems.push(format!(
                    "{block}: query, key and value do not all have a {field} of one shape"
                )),
            }
        }
    }
    if problems.is_empty() {
        Ok(weights)
    } else {
        Err(problems)
    }
}

/// Arrays of one shape on top of each other.
fn stacked(parts: [Option<Array>; 3]) -> Option<Array> {
    let [Some(first), Some(second), Some(third)] = parts else {
        return None;
    };
    if first.shape != second.shape || first.shape != third.shape || first.shape.is_empty() {
        return None;
    }
    let mut shape = first.shape;
    shape[0] *= 3;
    let values = [first.values, second.values, third.values].concat();
    Some(Array { shape, values })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_come_out_under_one_set_of_names() {
        let cases = [
            (
                Family::Clip,
                "vision_model.encoder.layers.3.self_attn.out_proj.bias",
                Some("blocks.3.attn.out_proj.bias"),
            ),
            (
                Family::Clip,
                "vision_model.pre_layrnorm.bias",
                Some("norm_before.bias"),
            ),
            (Family::Clip, "vision_model.post_layernorm.bias", None),
            (Family::Clip, "vision_model.embeddings.position_ids", None),
            (
                Family::Clip,
                "text_model.encoder.layers.3.mlp.fc1.weight",
                None,
            ),
            (
                Family::Dino,
                "encoder.layer.11.layer_scale2.lambda1",
                Some("blocks.11.scale2"),
            ),
            (
                Family::Dino,
                "encoder.layer.0.attention.attention.key.weight",
                Some("blocks.0.key.weight"),
            ),
            (Family::Dino, "embeddings.mask_token", None),
        ];
        for (family, name, want) in cases {
            assert_eq!(family.field(name).as_deref(), want, "{name}");
        }
    }

    #[test]
    fn a_missing_key_is_told() {
        let array = Array {
            shape: vec![2],
            values: vec![0.0; 2],
        };
        let weights = Weights([("blocks.1.query.bias".into(), array)].into());
        let problems = packed(weights).unwrap_err();
        assert_eq!(
            problems,
            ["blocks.1: query, key and value do not all have a bias of one shape"]
        );
    }
}
