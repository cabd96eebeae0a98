//! The autoencoder: encoder, quantizer and decoder.
//!
//! `images → encoder → 1×1 → quantizer → 1×1 → decoder → images` (Lee et al., CVPR 2022, section 3.1).
//! The 1×1 convolutions are there whatever the numbers of channels, as in the published RQ-VAE and
//! latent diffusion, or not at all, as in Gaussian Quant and BSQ-ViT.
//!
//! Where the quantizer works on a distribution the latents are its moments: means, then logarithms of
//! variances, along the channels.
//!
//! An encoder that ends in branches (FQGAN) has a 1×1 convolution in each of them instead of the first.
//! Prediction heads look at single branches of the quantized latents; only the passes of training run
//! them.
//!
//! Encoder and decoder are deterministic, without an output activation. Images are in [−1, 1];
//! reconstructions are clamped to that range where the configuration says so, else only where they are
//! shown.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use smalti_nn::{Conv2d, Conv2dConfig, Init, Noise};
use smalti_quantize::{
    AnyQuantizer, Codes, Learn, NamedLoss, QuantizeError, Quantized, Quantizer, QuantizerConfig,
    UpdateReport, only_branch,
};

use super::parts::in_parts;
use super::{AutoencoderConfig, Decoder, Encoder, InvalidAutoencoder, PredictionHead};

/// The name of the last layer's weight, by whose gradients losses on images are balanced.
pub const LAST_LAYER: &str = "decoder.conv_out.weight";

/// Images to codes and back.
#[derive(Module, Debug)]
pub struct Autoencoder {
    encoder: Encoder,
    quant_conv: Option<Conv2d>,
    quantizer: AnyQuantizer,
    post_quant_conv: Option<Conv2d>,
    decoder: Decoder,
    /// One for each entry of the configuration's `representation`.
    heads: Vec<PredictionHead>,
    #[module(skip)]
    config: AutoencoderConfig,
}

/// What a training step sees of the autoencoder.
#[derive(Debug)]
pub struct Reconstruction {
    /// The decoder's output, clamped where the configuration says so, `[batch, 3, height, width]`.
    pub images: Tensor<4>,
    /// The quantized latents, with the gradient of the quantizer's estimator;
    /// [`Autoencoder::branch_maps`] deals them out.
    pub quantized: Tensor<4>,
    /// What the prediction heads make of them, in the order of the configuration's `representation`,
    /// `[batch, width]` each: the first argument of [`info_nce`](super::info_nce).
    pub predictions: Vec<Tensor<2>>,
    /// The codes between.
    pub codes: Codes,
    /// The quantizer's losses, unweighted.
    pub losses: Vec<NamedLoss>,
}

impl Autoencoder {
    pub(super) fn new(config: &AutoencoderConfig, init: &mut Init) -> Self {
        let (network, quantizer) = (&config.network, &config.quantizer);
        let encoder_channels = config.encoder_channels();
        let projection = |inputs, outputs, init: &mut Init| {
            let layer = Conv2dConfig::same(inputs, outputs, 1);
            config.projections.then(|| layer.init(init))
        };
        Self {
            encoder: Encoder::new(network, encoder_channels, init),
            quant_conv: match network.branches() {
                Some(_) => None,
                None => projection(encoder_channels, quantizer.latent_channels(), init),
            },
            quantizer: quantizer.build(init).expect("validated with the rest"),
            post_quant_conv: projection(quantizer.quantized_channels(), network.z_channels(), init),
            decoder: Decoder::new(network, init),
            heads: Self::fresh_heads(config, init),
            config: config.clone(),
        }
    }

    fn fresh_heads(config: &AutoencoderConfig, init: &mut Init) -> Vec<PredictionHead> {
        let channels = config.quantizer.quantized_channels() / config.quantizer.branches();
        let grid = config.network.resolution() / config.network.factor();
        let heads = config.representation.iter();
        heads
            .map(|head| PredictionHead::new(head, channels, grid, init))
            .collect()
    }

    /// This model without its prediction heads, which only training needs.
    pub fn without_prediction_heads(mut self) -> Self {
        self.heads.clear();
        self.config.representation.clear();
        self
    }

    /// The same network around another, fresh quantizer.
    ///
    /// # Errors
    /// When the quantizer is invalid or works on another number of channels.
    pub fn with_quantizer(
        self,
        quantizer: QuantizerConfig,
        init: &mut Init,
    ) -> Result<Self, InvalidAutoencoder> {
        let old = &self.config.quantizer;
        let channels =
            |config: &QuantizerConfig| (config.latent_channels(), config.quantized_channels());
        let config = AutoencoderConfig {
            quantizer,
            ..self.config.clone()
        };
        config.validate()?;
        if channels(old) != channels(&config.quantizer) {
            return Err(InvalidAutoencoder(vec![format!(
                "quantizer: the network gives latents of {} channels and takes {}, the quantizer takes {} and gives {}",
                channels(old).0,
                channels(old).1,
                channels(&config.quantizer).0,
                channels(&config.quantizer).1,
            )]));
        }
        let quantizer = config.quantizer.build(init).expect("validated above");
        Ok(Self {
            quantizer,
            config,
            ..self
        })
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
        self.decoder.device()
    }

    /// What the quantizer sees, moments where it works on a distribution: `[batch, 3, height, width]`
    /// to `[batch, latent channels, height / factor, width / factor]`.
    ///
    /// # Panics
    /// When a side is no multiple of the network's factor, and the network is a transformer.
    pub fn latents(&self, images: Tensor<4>, noise: Option<&mut Noise>) -> Tensor<4> {
        let [_, _, height, width] = images.dims();
        match noise {
            Some(noise) => self.encoded(images, Some(noise)),
            None => in_parts(images, height * width, |part| self.encoded(part, None)),
        }
    }

    /// Encoder and projection.
    fn encoded(&self, images: Tensor<4>, noise: Option<&mut Noise>) -> Tensor<4> {
        let latents = self.encoder.forward(images, noise);
        match &self.quant_conv {
            Some(projection) => projection.forward(latents),
            None => latents,
        }
    }

    /// The decoder's view of quantized latents, never clamped: the inverse direction of
    /// [`latents`](Self::latents).
    pub fn images(&self, quantized: Tensor<4>, noise: Option<&mut Noise>) -> Tensor<4> {
        let [_, _, height, width] = quantized.dims();
        let pixels = height * width * self.config.network.factor().pow(2);
        match noise {
            Some(noise) => self.decoded(quantized, Some(noise)),
            None => in_parts(quantized, pixels, |part| self.decoded(part, None)),
        }
    }

    /// Projection and decoder.
    fn decoded(&self, quantized: Tensor<4>, noise: Option<&mut Noise>) -> Tensor<4> {
        self.decoder.last_layer(self.hidden(quantized, noise))
    }

    /// Quantized latents up to the decoder's last layer: the input of [`finish`](Self::finish).
    pub fn hidden(&self, quantized: Tensor<4>, noise: Option<&mut Noise>) -> Tensor<4> {
        let latents = match &self.post_quant_conv {
            Some(projection) => projection.forward(quantized),
            None => quantized,
        };
        self.decoder.hidden(latents, noise)
    }

    /// The decoder's last layer, then the clamp where the configuration asks for it: reconstructions of
    /// what [`hidden`](Self::hidden) leaves.
    pub fn finish(&self, hidden: Tensor<4>) -> Tensor<4> {
        self.clamped(self.decoder.last_layer(hidden))
    }

    fn clamped(&self, images: Tensor<4>) -> Tensor<4> {
        if self.config.clamp {
            images.clamp(-1.0, 1.0)
        } else {
            images
        }
    }

    /// Refuses images that would not come back at their own size.
    ///
    /// # Errors
    /// When a side is no multiple of the factor.
    pub fn check(&self, images: &Tensor<4>) -> Result<(), QuantizeError> {
        let [_, _, height, width] = images.dims();
        let factor = self.config.factor();
        if height.is_multiple_of(factor) && width.is_multiple_of(factor) {
            Ok(())
        } else {
            Err(QuantizeError::Sides {
                height,
                width,
                factor,
            })
        }
    }

    /// Images in [−1, 1] to codes `[batch, depth, height / factor, width / factor]`.
    ///
    /// # Errors
    /// When the latents are not finite or the sides are no multiples of the factor.
    pub fn encode(&self, images: Tensor<4>) -> Result<Codes, QuantizeError> {
        self.check(&images)?;
        self.quantizer.encode(self.latents(images, None))
    }

    /// Codes to images, nominally in [−1, 1].
    ///
    /// # Errors
    /// When the codes are not of this quantizer.
    pub fn decode(&self, codes: &Codes) -> Result<Tensor<4>, QuantizeError> {
        Ok(self.clamped(self.images(self.quantizer.decode(codes)?, None)))
    }

    /// Codes to images with zeros for all branches but one: what that branch holds by itself. Without
    /// branches there is one, branch 0.
    ///
    /// # Errors
    /// When the codes are not of this quantizer, or there is no such branch.
    pub fn decode_branch(&self, codes: &Codes, branch: usize) -> Result<Tensor<4>, QuantizeError> {
        let quantized = self.quantizer.decode(codes)?;
        let kept = only_branch(quantized, self.config.quantizer.branches(), branch)?;
        Ok(self.finish(self.hidden(kept, None)))
    }

    /// Quantized latents of each branch, `[batch, code_dim, rows, columns]`; without branches, all of
    /// them.
    pub fn branch_maps(&self, quantized: &Tensor<4>) -> Vec<Tensor<4>> {
        let branches = self.config.quantizer.branches();
        let [_, channels, _, _] = quantized.dims();
        let width = channels / branches;
        (0..branches)
            .map(|branch| quantized.clone().narrow(1, branch * width, width))
            .collect()
    }

    /// What the prediction heads make of quantized latents, in the order of the configuration's
    /// `representation`, `[batch, width]` each: the first argument of [`info_nce`](super::info_nce).
    pub fn predictions(&self, quantized: &Tensor<4>) -> Vec<Tensor<2>> {
        if self.heads.is_empty() {
            return Vec::new();
        }
        let maps = self.branch_maps(quantized);
        let branches = self.config.network.branches();
        let branches = branches.expect("validated: heads name branches");
        let heads = self.heads.iter().zip(&self.config.representation);
        heads
            .map(|(head, config)| {
                let branch = branches.index(&config.branch);
                let branch = branch.expect("validated: the branch is there");
                head.forward(maps[branch].clone())
            })
            .collect()
    }

    /// Quantizes [`latents`](Self::latents) as training sees it, and lets the codebook learn.
    ///
    /// # Errors
    /// When the latents are not finite; the codebook has not changed then.
    pub fn quantize_and_update(
        &mut self,
        latents: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<(Quantized, UpdateReport), QuantizeError> {
        self.quantizer.quantize_and_update(latents, noise)
    }

    /// One pass of training: reconstructs, and lets the codebook learn.
    ///
    /// # Errors
    /// As [`encode`](Self::encode); the codebook has not changed then.
    pub fn reconstruct_and_update(
        &mut self,
        images: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<(Reconstruction, UpdateReport), QuantizeError> {
        self.check(&images)?;
        let latents = self.latents(images, Some(noise));
        let (quantized, report) = self.quantize_and_update(latents, noise)?;
        let reconstruction = Reconstruction {
            images: self.finish(self.hidden(quantized.quantized.clone(), Some(noise))),
            predictions: self.predictions(&quantized.quantized),
            quantized: quantized.quantized,
            codes: quantized.codes,
            losses: quantized.losses,
        };
        Ok((reconstruction, report))
    }

    /// Reconstructs with everything as it is, without dropout, through the quantizer's training path:
    /// where that draws a sample instead of a code, [`encode`](Self::encode) and
    /// [`decode`](Self::decode) show what the codes hold.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn reconstruct(
        &self,
        images: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<Reconstruction, QuantizeError> {
        self.check(&images)?;
        let quantized = self.quantizer.quantize(self.latents(images, None), noise)?;
        Ok(Reconstruction {
            images: self.finish(self.hidden(quantized.quantized.clone(), None)),
            predictions: self.predictions(&quantized.quantized),
            quantized: quantized.quantized,
            codes: quantized.codes,
            losses: quantized.losses,
        })
    }
}
