//! The shape of an autoencoder, read off the names and sizes of its arrays.

use smalti_nn::state::Weights;

use super::super::network::{convolutional, size};
use crate::autoencoder::ConvolutionalConfig;

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
        let network = convolutional(weights, norm_groups, None)?;
        let has = |name: &str| weights.0.contains_key(name);
        let projections = has("quant_conv.weight");
        if projections != has("post_quant_conv.weight") {
            return Err("it has only one of quant_conv and post_quant_conv".into());
        }
        let (moments, latents) = if projections {
            (
                size(weights, "quant_conv.weight", 0)?,
                size(weights, "post_quant_conv.weight", 1)?,
            )
        } else {
            (
                size(weights, "encoder.conv_out.weight", 0)?,
                network.z_channels,
            )
        };
        if moments != 2 * latents {
            return Err(format!(
                "the encoder gives {moments} channels and the decoder takes {latents}: means and variances of each would be {}",
                2 * latents
            ));
        }
        Ok(Self {
            network,
            projections,
            channels: latents,
        })
    }
}
