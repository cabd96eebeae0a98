//! The two ways in which published files name the same arrays.
//!
//! | diffusers | the original code |
//! |---|---|
//! | `encoder.down_blocks.i.resnets.j` | `encoder.down.i.block.j` |
//! | `encoder.down_blocks.i.downsamplers.0` | `encoder.down.i.downsample` |
//! | `decoder.up_blocks.i`, counted from the lowest resolution | `decoder.up.(last − i)` |
//! | `decoder.up_blocks.i.upsamplers.0` | `decoder.up.(last − i).upsample` |
//! | `mid_block.resnets.0` and `.1` | `mid.block_1` and `_2` |
//! | `….attentions.0.{group_norm, to_q, to_k, to_v, to_out.0}` | `mid.attn_1.{norm, q, k, v, proj_out}` |
//! | the same, older: `query`, `key`, `value`, `proj_attn` | |
//! | `conv_shortcut`, `conv_norm_out` | `nin_shortcut`, `norm_out` |
//!
//! Attention's matrices are `[c, c]` in diffusers and 1×1 convolutions `[c, c, 1, 1]` in the original.

use smalti_nn::state::{Weights, WeightsError};

/// What the arrays of an autoencoder are called within a whole diffusion model.
const PREFIXES: [&str; 2] = ["first_stage_model.", "vae."];

/// Whether an array of a file belongs to an autoencoder.
pub(super) fn is_wanted(name: &str) -> bool {
    let name = without_prefix(name);
    ["encoder.", "decoder.", "quant_conv.", "post_quant_conv."]
        .iter()
        .any(|start| name.starts_with(start))
}

fn without_prefix(name: &str) -> &str {
    PREFIXES
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name)
}

/// The arrays under the names and in the shapes of the original code, whichever they came in.
pub(super) fn original(weights: Weights) -> Result<Weights, WeightsError> {
    let levels = weights
        .0
        .keys()
        .filter_map(|name| number_after(without_prefix(name), "decoder.up_blocks."))
        .max()
        .map_or(0, |last| last + 1);
    let mut weights = weights.rename(|name| Some(renamed(without_prefix(name), levels)))?;
    for (name, array) in &mut weights.0 {
        if name.contains(".attn") && array.shape.len() == 2 {
            array.shape.extend([1, 1]);
        }
    }
    Ok(weights)
}

/// The whole number that stands in `name` after `start`.
fn number_after(name: &str, start: &str) -> Option<usize> {
    name.strip_prefix(start)?.split('.').next()?.parse().ok()
}

/// An array's name in the original code, of a decoder with `levels` levels. A name that is neither
/// of the two codes' stays, to be listed as unexpected.
fn renamed(name: &str, levels: usize) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let level = |number: &str| number.parse::<usize>().ok();
    let (stem, rest) = match parts[..] {
        [part, "conv_norm_out", ref rest @ ..] => (format!("{part}.norm_out"), rest),
        ["encoder", "down_blocks", number, ref rest @ ..] => {
            (format!("encoder.down.{number}"), rest)
        }
        ["decoder", "up_blocks", number, ref rest @ ..] => match level(number) {
            Some(number) if number < levels => {
                (format!("decoder.up.{}", levels - 1 - number), rest)
            }
            _ => return name.to_owned(),
        },
        [part, "mid_block", "resnets", number, ref rest @ ..] => match level(number) {
            Some(number) => (format!("{part}.mid.block_{}", number + 1), rest),
            None => return name.to_owned(),
        },
        [part, "mid_block", "attentions", "0", ref rest @ ..] => {
            (format!("{part}.mid.attn_1"), rest)
        }
        _ => return name.to_owned(),
    };
    let (inner, rest) = match *rest {
        ["resnets", number, ref rest @ ..] => (format!("{stem}.block.{number}"), rest),
        ["attentions", number, ref rest @ ..] => (format!("{stem}.attn.{number}"), rest),
        ["downsamplers", "0", ref rest @ ..] => (format!("{stem}.downsample"), rest),
        ["upsamplers", "0", ref rest @ ..] => (format!("{stem}.upsample"), rest),
        _ => (stem, rest),
    };
    let attention = inner.contains(".attn");
    let (layer, rest) = match *rest {
        ["conv_shortcut", ref rest @ ..] => ("nin_shortcut", rest),
        ["group_norm", ref rest @ ..] if attention => ("norm", rest),
        ["to_q" | "query", ref rest @ ..] if attention => ("q", rest),
        ["to_k" | "key", ref rest @ ..] if attention => ("k", rest),
        ["to_v" | "value", ref rest @ ..] if attention => ("v", rest),
        ["to_out", "0", ref rest @ ..] | ["proj_attn", ref rest @ ..] if attention => {
            ("proj_out", rest)
        }
        [layer, ref rest @ ..] => (layer, rest),
        [] => return inner,
    };
    [&[inner.as_str(), layer], rest].concat().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use smalti_nn::state::Array;
    use std::collections::BTreeMap;

    #[test]
    fn names_of_diffusers_become_the_original_ones() {
        for (from, to) in [
            ("encoder.conv_in.weight", "encoder.conv_in.weight"),
            (
                "encoder.down_blocks.1.resnets.0.conv_shortcut.bias",
                "encoder.down.1.block.0.nin_shortcut.bias",
            ),
            (
                "encoder.down_blocks.2.downsamplers.0.conv.weight",
                "encoder.down.2.downsample.conv.weight",
            ),
            (
                "encoder.down_blocks.3.attentions.1.to_q.weight",
                "encoder.down.3.attn.1.q.weight",
            ),
            (
                "decoder.up_blocks.0.resnets.2.norm1.weight",
                "decoder.up.3.block.2.norm1.weight",
            ),
            (
                "decoder.up_blocks.2.upsamplers.0.conv.bias",
                "decoder.up.1.upsample.conv.bias",
            ),
            (
                "decoder.mid_block.resnets.1.conv2.weight",
                "decoder.mid.block_2.conv2.weight",
            ),
            (
                "encoder.mid_block.attentions.0.group_norm.weight",
                "encoder.mid.attn_1.norm.weight",
            ),
            (
                "encoder.mid_block.attentions.0.to_out.0.bias",
                "encoder.mid.attn_1.proj_out.bias",
            ),
            (
                "encoder.mid_block.attentions.0.value.weight",
                "encoder.mid.attn_1.v.weight",
            ),
            (
                "encoder.mid_block.attentions.0.proj_attn.weight",
                "encoder.mid.attn_1.proj_out.weight",
            ),
            ("decoder.conv_norm_out.bias", "decoder.norm_out.bias"),
            ("post_quant_conv.weight", "post_quant_conv.weight"),
            (
                "decoder.up.0.block.1.conv1.bias",
                "decoder.up.0.block.1.conv1.bias",
            ),
            ("encoder.something.else", "encoder.something.else"),
        ] {
            assert_eq!(renamed(from, 4), to);
        }
    }

    #[test]
    fn an_autoencoder_is_found_within_a_whole_model() {
        assert!(is_wanted("first_stage_model.encoder.conv_in.weight"));
        assert!(is_wanted("vae.post_quant_conv.bias"));
        assert!(is_wanted("quant_conv.bias"));
        assert!(!is_wanted("model.diffusion_model.input_blocks.0.0.weight"));
        assert!(!is_wanted("cond_stage_model.encoder.weight"));
        assert!(!is_wanted("loss.logvar"));
    }

    #[test]
    fn matrices_of_attention_become_convolutions() {
        let array = |shape: &[usize]| Array {
            shape: shape.to_vec(),
            values: vec![0.5; shape.iter().product()],
        };
        let weights = Weights(BTreeMap::from([
            (
                "vae.encoder.mid_block.attentions.0.to_k.weight".into(),
                array(&[2, 2]),
            ),
            (
                "vae.encoder.mid_block.attentions.0.to_k.bias".into(),
                array(&[2]),
            ),
        ]));
        let weights = original(weights).unwrap().0;
        assert_eq!(weights["encoder.mid.attn_1.k.weight"].shape, [2, 2, 1, 1]);
        assert_eq!(weights["encoder.mid.attn_1.k.bias"].shape, [2]);
    }
}
