//! The transformers of BSQ-ViT as yaml files describe them, also those of Gaussian Quant.

use serde::Deserialize;

use crate::autoencoder::VitConfig;

/// The parameters of a `TransformerEncoder` or `TransformerDecoder` with their published defaults.
///
/// What no published model uses is read to be refused: a model without it would load and be another.
#[derive(Clone, PartialEq, Deserialize)]
pub(super) struct Transformer {
    image_size: usize,
    patch_size: usize,
    width: usize,
    layers: usize,
    heads: usize,
    mlp_ratio: f64,
    #[serde(default)]
    drop_rate: f64,
    #[serde(default)]
    attn_drop_rate: f64,
    #[serde(default)]
    drop_path_rate: f64,
    ls_init_value: Option<f64>,
    #[serde(default = "yes")]
    ln_pre: bool,
    #[serde(default = "yes")]
    ln_post: bool,
    #[serde(default = "yes")]
    use_ffn_output: bool,
    #[serde(default = "published_output")]
    dim_ffn_output: usize,
    #[serde(default)]
    logit_laplace: bool,
    #[serde(default = "one")]
    num_frames: usize,
    #[serde(default = "none")]
    mask_type: Option<String>,
}

fn yes() -> bool {
    true
}

fn one() -> usize {
    1
}

fn published_output() -> usize {
    3072
}

fn none() -> Option<String> {
    Some("none".into())
}

impl Transformer {
    /// The network of this encoder and `decoder`.
    ///
    /// # Errors
    /// When the two differ in more than the output layers, or one asks for what is not there.
    pub(super) fn convert(self, decoder: Self, z_channels: usize) -> Result<VitConfig, String> {
        let output_width = decoder.dim_ffn_output;
        let encoder = Self {
            dim_ffn_output: output_width,
            ..self
        };
        if encoder != decoder {
            return Err("encoder and decoder have different shapes, which is not supported".into());
        }
        encoder.refuse_what_is_unknown()?;
        Ok(VitConfig {
            resolution: encoder.image_size,
            patch_size: encoder.patch_size,
            width: encoder.width,
            layers: encoder.layers,
            heads: encoder.heads,
            mlp_ratio: encoder.mlp_ratio,
            output_width,
            z_channels,
            dropout: encoder.drop_rate,
        })
    }

    fn refuse_what_is_unknown(&self) -> Result<(), String> {
        let masked = self
            .mask_type
            .as_deref()
            .is_some_and(|mask| !mask.eq_ignore_ascii_case("none"));
        for (name, asked_for) in [
            ("attn_drop_rate above 0", self.attn_drop_rate != 0.0),
            ("drop_path_rate above 0", self.drop_path_rate != 0.0),
            ("ls_init_value", self.ls_init_value.is_some()),
            ("ln_pre: false", !self.ln_pre),
            ("ln_post: false", !self.ln_post),
            ("use_ffn_output: false", !self.use_ffn_output),
            ("logit_laplace: true", self.logit_laplace),
            ("several num_frames", self.num_frames != 1),
            ("a mask_type", masked),
        ] {
            if asked_for {
                return Err(format!(
                    "{name} is not supported: no published model has it"
                ));
            }
        }
        Ok(())
    }
}

/// Whether a published `clamp_range` is there.
///
/// # Errors
/// When it is another one than that of images in [−1, 1].
pub(super) fn clamps(range: Option<[f64; 2]>) -> Result<bool, String> {
    match range {
        None => Ok(false),
        Some([-1.0, 1.0]) => Ok(true),
        Some(other) => Err(format!(
            "clamp_range is {other:?}: only images in [-1, 1] are supported"
        )),
    }
}
