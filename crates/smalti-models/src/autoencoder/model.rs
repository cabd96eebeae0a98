//! The autoencoder: encoder, quantizer and decoder.
//!
//! `images → encoder → 1×1 → quantizer → 1×1 → decoder → images` (Lee et al., CVPR 2022, section 3.1).
//! Deterministic, without an output activation; images are in [−1, 1] and are clamped only where they
//! are shown. The 1×1 convolutions are there whatever the numbers of channels, as in the published
//! models.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use smalti_nn::{Conv2d, Conv2dConfig, Init, Noise};
use smalti_quantize::{
    AnyQuantizer, Codes, Learn, NamedLoss, QuantizeError, Quantizer, UpdateReport,
};

use super::{AutoencoderConfig, Decoder, Encoder};

/// Images to codes and back.
#[derive(Module, Debug)]
pub struct Autoencoder {
    encoder: Encoder,
    quant_conv: Conv2d,
    quantizer: AnyQuantizer,
    post_quant_conv: Conv2d,
    decoder: Decoder,
    #[module(skip)]
    config: AutoencoderConfig,
}

/// What a training step sees of the autoencoder.
#[derive(Debug)]
pub struct Reconstruction {
    /// The decoder's output, `[batch, 3, height, width]`.
    pub images: Tensor<4>,
    /// The codes between.
    pub codes: Codes,
    /// The quantizer's losses, unweighted.
    pub losses: Vec<NamedLoss>,
}

impl Autoencoder {
    pub(super) fn new(config: &AutoencoderConfig, init: &mut Init) -> Self {
        let (network, latent_channels) = (&config.network, config.quantizer.latent_channels());
        Self {
            encoder: Encoder::new(network, init),
            quant_conv: Conv2dConfig::same(network.z_channels, latent_channels, 1).init(init),
            quantizer: config
                .quantizer
                .build(init)
                .expect("validated with the rest"),
            post_quant_conv: Conv2dConfig::same(latent_channels, network.z_channels, 1).init(init),
            decoder: Decoder::new(network, init),
            config: config.clone(),
        }
    }

    /// The configuration it was built from.
    pub fn config(&self) -> &AutoencoderConfig {
        &self.config
    }

    /// The quantizer between encoder and decoder.
    pub fn quantizer(&self) -> &AnyQuantizer {
        &self.quantizer
    }

    /// The device of the parameters.
    pub fn device(&self) -> Device {
        self.quant_conv.weight.val().device()
    }

    /// What the quantizer sees: `[batch, 3, height, width]` to
    /// `[batch, latent channels, height / factor, width / factor]`.
    pub fn latents(&self, images: Tensor<4>, noise: Option<&mut Noise>) -> Tensor<4> {
        self.quant_conv.forward(self.encoder.forward(images, noise))
    }

    /// The decoder's view of quantized latents: the inverse direction of [`latents`](Self::latents).
    pub fn images(&self, quantized: Tensor<4>, noise: Option<&mut Noise>) -> Tensor<4> {
        self.decoder
            .forward(self.post_quant_conv.forward(quantized), noise)
    }

    /// Images in [−1, 1] to codes `[batch, depth, height / factor, width / factor]`.
    ///
    /// # Errors
    /// When the latents are not finite or the sides are no multiples of the factor.
    pub fn encode(&self, images: Tensor<4>) -> Result<Codes, QuantizeError> {
        self.quantizer.encode(self.latents(images, None))
    }

    /// Codes to images, nominally in [−1, 1].
    ///
    /// # Errors
    /// When the codes are not of this quantizer.
    pub fn decode(&self, codes: &Codes) -> Result<Tensor<4>, QuantizeError> {
        Ok(self.images(self.quantizer.decode(codes)?, None))
    }

    /// One pass of training: reconstructs, and lets the codebook learn.
    ///
    /// # Errors
    /// When the latents are not finite; the codebook has not changed then.
    pub fn reconstruct_and_update(
        &mut self,
        images: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<(Reconstruction, UpdateReport), QuantizeError> {
        let latents = self.latents(images, Some(noise));
        let (quantized, report) = self.quantizer.quantize_and_update(latents, noise)?;
        let images = self.images(quantized.quantized, Some(noise));
        Ok((
            Reconstruction {
                images,
                codes: quantized.codes,
                losses: quantized.losses,
            },
            report,
        ))
    }

    /// Reconstructs with everything as it is, without dropout: what evaluation does.
    ///
    /// # Errors
    /// When the latents are not finite.
    pub fn reconstruct(
        &self,
        images: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<Reconstruction, QuantizeError> {
        let quantized = self.quantizer.quantize(self.latents(images, None), noise)?;
        let images = self.images(quantized.quantized, None);
        Ok(Reconstruction {
            images,
            codes: quantized.codes,
            losses: quantized.losses,
        })
    }
}
