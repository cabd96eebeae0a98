//! The shape of a network, read off the names and sizes of its arrays.

use smalti_nn::state::Weights;

use crate::autoencoder::ConvolutionalConfig;

/// Side at which levels are told apart; files do not hold that of training.
const RESOLUTION: usize = 256;

/// What the arrays say.
pub(super) struct Shape {
    pub(super) network: ConvolutionalConfig,
    pub(super) projections: bool,
    pub(super) channels: usize,
}

impl Shape {
    /// Reads the shape off arrays under the original code's names.
    ///
    /// # Errors
    /// When arrays are missing from which it would follow, or contradict one another.
    pub(super) fn of(weights: &Weights, norm_groups: usize) -> Result<Self, String> {
        let size = |name: &str, axis: usize| {
            weights
                .0
                .get(name)
                .and_then(|array| array.shape.get(axis).copied())
                .ok_or_else(|| format!("it has no {name}"))
        };
        let has = |name: String| weights.0.contains_key(&name);
        let channels = size("encoder.conv_in.weight", 0)?;
        let first = |level: usize| format!("encoder.down.{level}.block.0.conv1.weight");
        let multipliers = (0..)
            .take_while(|&level| has(first(level)))
            .map(|level| match size(&first(level), 0)? {
                width if channels > 0 && width.is_multiple_of(channels) => Ok(width / channels),
                width => Err(format!(
                    "level {level} has {width} channels, no multiple of the first layer's {channels}"
                )),
            });
        let multipliers = multipliers.collect::<Result<Vec<_>, String>>()?;
        let blocks = (0..)
            .take_while(|block| has(format!("encoder.down.0.block.{block}.conv1.weight")))
            .count();
        let attending = |part: &str| -> Vec<usize> {
            (0..multipliers.len())
                .filter(|level| has(format!("{part}.{level}.attn.0.q.weight")))
                .map(|level| RESOLUTION >> level)
                .collect()
        };
        let (of_encoder, of_decoder) = (attending("encoder.down"), attending("decoder.up"));
        let z_channels = size("decoder.conv_in.weight", 1)?;
        let projections = has("quant_conv.weight".into());
        if projections != has("post_quant_conv.weight".into()) {
            return Err("it has only one of quant_conv and post_quant_conv".into());
        }
        let (moments, latents) = if projections {
            (
                size("quant_conv.weight", 0)?,
                size("post_quant_conv.weight", 1)?,
            )
        } else {
            (size("encoder.conv_out.weight", 0)?, z_channels)
        };
        if moments != 2 * latents {
            return Err(format!(
                "the encoder gives {moments} channels and the decoder takes {latents}: means and variances of each would be {}",
                2 * latents
            ));
        }
        Ok(Self {
            network: ConvolutionalConfig {
                resolution: RESOLUTION,
                channels,
                multipliers,
                blocks,
                decoder_attention_resolutions: (of_decoder != of_encoder).then_some(of_decoder),
                attention_resolutions: of_encoder,
                middle_attention: has("encoder.mid.attn_1.q.weight".into()),
                z_channels,
                norm_groups,
                dropout: 0.0,
            },
            projections,
            channels: latents,
        })
    }
}
