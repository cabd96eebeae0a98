//! How good a tokenizer is: fidelity, rate and use of its codebooks over a whole set of images.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use smalti_data::Image;
use smalti_metrics::{CodeStatistics, Planes, SsimConfig, psnr_u8, ssim};
use smalti_models::autoencoder::Autoencoder;
use smalti_models::perceptual::Lpips;
use smalti_nn::state::host_values;
use smalti_quantize::{AnyQuantizer, CodeSpec, Quantizer};

use crate::config::TokenizerRun;
use crate::error::TrainError;
use crate::observer::Observer;
use crate::samples::{to_images, to_tensor};

/// What the codes of one depth say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DepthReport {
    /// Number of codes.
    pub codebook_size: usize,
    /// Fraction of them seen at least once.
    pub usage: f64,
    /// 2 to the entropy, in codes.
    pub perplexity: f64,
    /// Bits per code.
    pub entropy_bits: f64,
}

/// Measures over a set of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Images measured.
    pub images: usize,
    /// Mean of the images' PSNR on 8-bit RGB, in dB.
    pub psnr_db: f64,
    /// Mean of the images' SSIM (7×7 uniform window, 8-bit RGB; images of at least 7×7 pixels).
    pub ssim: Option<f64>,
    /// Mean of the perceptual distances, where a network to take them with was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perceptual: Option<f64>,
    /// Bits of the codes at a fixed rate for each pixel.
    pub bits_per_pixel: f64,
    /// Bits of the codes for each pixel, each depth coded with its own frequencies.
    pub entropy_bits_per_pixel: f64,
    /// Fraction of all codes of all codebooks seen at least once; a shared codebook counts once.
    pub usage: f64,
    /// One entry for each depth.
    pub depths: Vec<DepthReport>,
}

impl Evaluation {
    /// Mean of the depths' perplexities.
    pub fn perplexity(&self) -> f64 {
        self.depths.iter().map(|d| d.perplexity).sum::<f64>() / self.depths.len() as f64
    }

    /// The codebooks in words: `512`, `256 × 2` for two codes at a position, `64, 16` for two
    /// codes of different codebooks.
    pub fn codebooks(&self) -> String {
        let parts = self
            .depths
            .chunk_by(|a, b| a.codebook_size == b.codebook_size);
        let parts = parts.map(|equal| match equal.len() {
            1 => equal[0].codebook_size.to_string(),
            count => format!("{} × {count}", equal[0].codebook_size),
        });
        parts.collect::<Vec<_>>().join(", ")
    }
}

/// Gathers measures image by image.
#[derive(Debug)]
pub struct Meter {
    spec: CodeSpec,
    shared: bool,
    statistics: CodeStatistics,
    psnr: Vec<f64>,
    ssim: Vec<f64>,
    perceptual: Vec<f64>,
    positions: usize,
    pixels: usize,
}

impl Meter {
    /// A meter for the codes of `quantizer`.
    pub fn new(quantizer: &AnyQuantizer) -> Self {
        let spec = quantizer.spec();
        let statistics = CodeStatistics::new(&spec.codebook_sizes);
        Self {
            spec,
            shared: quantizer.shares_table(),
            statistics,
            psnr: Vec::new(),
            ssim: Vec::new(),
            perceptual: Vec::new(),
            positions: 0,
            pixels: 0,
        }
    }

    /// Adds codes `[batch, depth, height, width]`.
    ///
    /// # Errors
    /// When they do not fit the codebooks.
    pub fn observe_codes(&mut self, codes: &[u32], shape: [usize; 4]) -> Result<(), TrainError> {
        self.statistics.observe(codes, shape)?;
        self.positions += shape[0] * shape[2] * shape[3];
        Ok(())
    }

    /// Adds an image with its reconstruction, and returns its PSNR in dB.
    ///
    /// # Errors
    /// When their sizes differ.
    pub fn observe_pair(
        &mut self,
        image: &Image,
        reconstruction: &Image,
    ) -> Result<f64, TrainError> {
        let psnr = psnr_u8(image.pixels(), reconstruction.pixels())?;
        self.psnr.push(psnr);
        self.pixels += image.width() * image.height();
        if image.width() >= 7 && image.height() >= 7 {
            let planes = |image: &Image| {
                Planes::from_u8_interleaved(image.pixels(), image.height(), image.width(), 3)
            };
            self.ssim.push(ssim(
                &planes(image)?,
                &planes(reconstruction)?,
                SsimConfig::uniform7(255.0),
            )?);
        }
        Ok(psnr)
    }

    /// Adds perceptual distances of images to their reconstructions.
    pub fn observe_distances(&mut self, distances: &[f32]) {
        self.perceptual
            .extend(distances.iter().map(|d| f64::from(*d)));
    }

    /// The counts of all codes so far.
    pub fn statistics(&self) -> &CodeStatistics {
        &self.statistics
    }

    /// The measures.
    pub fn finish(&self) -> Evaluation {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let depths: Vec<DepthReport> = self
            .statistics
            .per_depth()
            .into_iter()
            .map(|depth| DepthReport {
                codebook_size: depth.codebook_size,
                usage: depth.usage,
                perplexity: depth.perplexity,
                entropy_bits: depth.entropy_bits,
            })
            .collect();
        let density = self.positions as f64 / self.pixels as f64;
        let usage = match self.statistics.shared() {
            Some(all) if self.shared => all.usage,
            _ => {
                let seen: f64 = depths
                    .iter()
                    .map(|d| d.usage * d.codebook_size as f64)
                    .sum();
                seen / depths.iter().map(|d| d.codebook_size as f64).sum::<f64>()
            }
        };
        Evaluation {
            images: self.psnr.len(),
            psnr_db: mean(&self.psnr),
            ssim: (!self.ssim.is_empty()).then(|| mean(&self.ssim)),
            perceptual: (!self.perceptual.is_empty()).then(|| mean(&self.perceptual)),
            bits_per_pixel: self.spec.bits_per_position() * density,
            entropy_bits_per_pixel: depths.iter().map(|d| d.entropy_bits).sum::<f64>() * density,
            usage,
            depths,
        }
    }
}

/// How a set of images is measured.
#[derive(Debug)]
pub struct Measuring {
    /// Images that pass the network together.
    pub batch_size: usize,
    /// The distance to take as well, untracked.
    pub perceptual: Option<Lpips>,
}

impl Measuring {
    /// As a run measures; `device` is not an autodiff one.
    ///
    /// # Errors
    /// When the files of the perceptual network cannot be read.
    pub fn of(run: &TokenizerRun, device: &Device) -> Result<Self, TrainError> {
        let perceptual = run.perceptual.as_ref();
        Ok(Self {
            batch_size: run.training.batch_size,
            perceptual: perceptual.map(|p| p.load(device)).transpose()?,
        })
    }

    /// Without a network that judges.
    pub fn plain(batch_size: usize) -> Self {
        Self {
            batch_size,
            perceptual: None,
        }
    }
}

/// Reconstructs images of one size and measures; `model` must be untracked.
///
/// # Errors
/// When an image cannot be read or the network gives NaN.
pub fn evaluate(
    model: &Autoencoder,
    images: &[Image],
    measuring: &Measuring,
    observer: &mut dyn Observer,
) -> Result<(Evaluation, CodeStatistics), TrainError> {
    let mut meter = Meter::new(model.quantizer());
    observer.begin("evaluating", "image", images.len() as u64);
    let device = model.device();
    let mut done = 0;
    for batch in images.chunks(measuring.batch_size) {
        let codes = model.encode(to_tensor(batch, &device))?;
        meter.observe_codes(&codes.values(), codes.dims())?;
        let reconstructions = to_images(model.decode(&codes)?)?;
        for (image, reconstruction) in batch.iter().zip(&reconstructions) {
            meter.observe_pair(image, reconstruction)?;
        }
        if let Some(perceptual) = &measuring.perceptual {
            // Of what is shown, 8-bit and clamped, as all measures are.
            let pair = (
                to_tensor(batch, &device),
                to_tensor(&reconstructions, &device),
            );
            meter.observe_distances(&host_values(perceptual.distances(pair.0, pair.1)));
        }
        done += batch.len();
        observer.advance(done as u64, "");
    }
    observer.end();
    Ok((meter.finish(), meter.statistics))
}

/// What codes leave of images of one size. Not the training path, which may add noise to the latents
/// instead of quantizing them.
///
/// # Errors
/// When the network gives NaN.
pub fn reconstructions(model: &Autoencoder, images: &[Image]) -> Result<Vec<Image>, TrainError> {
    let codes = model.encode(to_tensor(images, &model.device()))?;
    to_images(model.decode(&codes)?)
}
