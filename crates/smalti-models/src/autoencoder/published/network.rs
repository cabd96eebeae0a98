//! The shape of a convolutional network, read off the names and sizes of its arrays.

use smalti_nn::state::Weights;

use crate::autoencoder::ConvolutionalConfig;

/// Side at which levels are told apart where a file does not hold that of training.
const RESOLUTION: usize = 256;

/// One dimension of an array.
///
/// # Errors
/// When there is no such array.
pub(super) fn size(weights: &Weights, name: &str, axis: usize) -> Result<usize, String> {
    let array = weights.0.get(name);
    array
        .and_then(|array| array.shape.get(axis).copied())
        .ok_or_else(|| format!("it has no {name}"))
}

/// The network whose arrays have this project's names; of images that have `grid` latents in a row,
/// where that is known.
///
/// # Errors
/// When arrays are missing from which its shape would follow, or contradict one another.
pub(super) fn convolutional(
    weights: &Weights,
    norm_groups: usize,
    grid: Option<usize>,
) -> Result<ConvolutionalConfig, String> {
    let has = |name: String| weights.0.contains_key(&name);
    let channels = size(weights, "encoder.conv_in.weight", 0)?;
    let first = |level: usize| format!("encoder.down.{level}.block.0.conv1.weight");
    let multipliers = (0..).take_while(|&level| has(first(level))).map(|level| {
        match size(weights, &first(level), 0)? {
            width if channels > 0 && width.is_multiple_of(channels) => Ok(width / channels),
            width => Err(format!(
                "level {level} has {width} channels, no multiple of the first layer's {channels}"
            )),
        }
    });
    let multipliers = multipliers.collect::<Result<Vec<_>, String>>()?;
    let blocks = (0..)
        .take_while(|block| has(format!("encoder.down.0.block.{block}.conv1.weight")))
        .count();
    let resolution = grid.map_or(RESOLUTION, |grid| {
        grid << multipliers.len().saturating_sub(1)
    });
    let attending = |part: &str| -> Vec<usize> {
        (0..multipliers.len())
            .filter(|level| has(format!("{part}.{level}.attn.0.q.weight")))
            .map(|level| resolution >> level)
            .collect()
    };
    let (of_encoder, of_decoder) = (attending("encoder.down"), attending("decoder.up"));
    Ok(ConvolutionalConfig {
        resolution,
        channels,
        multipliers,
        blocks,
        decoder_attention_resolutions: (of_decoder != of_encoder).then_some(of_decoder),
        attention_resolutions: of_encoder,
        middle_attention: has("encoder.mid.attn_1.q.weight".into()),
        z_channels: size(weights, "decoder.conv_in.weight", 1)?,
        norm_groups,
        dropout: 0.0,
        branches: None,
    })
}
