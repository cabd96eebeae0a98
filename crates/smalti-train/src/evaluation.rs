//! How good a tokenizer is: fidelity, rate and use of its codebooks over a whole set of images.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use smalti_data::Image;
use smalti_metrics::{
    CodeStatistics, DepthStatistics, FeatureMoments, Planes, SsimConfig, frechet_distance,
    near_zero_rows, psnr_u8, ssim,
};
use smalti_models::autoencoder::Autoencoder;
use smalti_nn::state::host_values;
use smalti_quantize::{AnyQuantizer, CodeSpec, Codes, Quantizer};

use crate::error::TrainError;
use crate::judges::Judges;
use crate::observer::Observer;
use crate::samples::{to_images, to_tensor};

/// What the codes of one depth say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DepthReport {
    /// Number of codes.
    pub codebook_size: usize,
    /// Fraction of them seen at least once.
    pub usage: f64,
    /// Codes never seen.
    pub dead: usize,
    /// Rows of its table that are shorter than a thousandth of the median; none counted where no table is stored
    /// or none learns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near_zero: Option<usize>,
    /// 2 to the entropy, in codes.
    pub perplexity: f64,
    /// Bits per code.
    pub entropy_bits: f64,
}

/// The Fréchet distance of reconstructions to their images, by one network's vectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrechetReport {
    /// The network and its vector.
    pub network: String,
    /// Numbers of a vector. Of no more images than this the distance is too large.
    pub width: usize,
    /// Squared, as always.
    pub distance: f64,
}

/// How alike what two codebooks of a factorized tokenizer say is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BranchCorrelation {
    /// The depths of both, from 0.
    pub depths: [usize; 2],
    /// Mean over positions of the squared cosine of both codes: 1 when they say the same, one over their width for
    /// independent directions, 0 for orthogonal ones.
    pub mean_squared_cosine: f64,
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
    /// How far all reconstructions are from all images, where a network to take it with was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frechet: Option<FrechetReport>,
    /// Bits of the codes at a fixed rate for each pixel.
    pub bits_per_pixel: f64,
    /// Bits of the codes for each pixel, each depth coded with its own frequencies.
    pub entropy_bits_per_pixel: f64,
    /// Fraction of all codes of all codebooks seen at least once; a shared codebook counts once.
    pub usage: f64,
    /// One entry for each depth.
    pub depths: Vec<DepthReport>,
    /// One entry for each pair of codebooks of a factorized tokenizer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub correlations: Vec<BranchCorrelation>,
}

impl Evaluation {
    /// Mean of the depths' perplexities.
    pub fn perplexity(&self) -> f64 {
        self.depths.iter().map(|d| d.perplexity).sum::<f64>() / self.depths.len() as f64
    }

    /// The Fréchet distance alone.
    pub fn frechet_distance(&self) -> Option<f64> {
        Some(self.frechet.as_ref()?.distance)
    }

    /// Images of too small a set for its Fréchet distance, and the numbers of a vector.
    pub fn too_few(&self) -> Option<(usize, usize)> {
        let width = self.frechet.as_ref()?.width;
        (self.images <= width).then_some((self.images, width))
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

/// Vectors of images and of their reconstructions.
#[derive(Debug)]
struct Looks {
    network: String,
    images: FeatureMoments,
    reconstructions: FeatureMoments,
}

/// Gathers measures image by image.
#[derive(Debug)]
pub struct Meter {
    spec: CodeSpec,
    near_zero: Vec<Option<usize>>,
    /// Sums over positions.
    correlations: Vec<BranchCorrelation>,
    looks: Option<Looks>,
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
            near_zero: (0..spec.depth())
                .map(|depth| near_zero(quantizer, depth))
                .collect(),
            correlations: Vec::new(),
            looks: None,
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

    /// Adds how alike the branches of a factorized quantizer are in these codes; nothing for others.
    ///
    /// # Errors
    /// When they are not its codes.
    pub fn observe_branches(
        &mut self,
        quantizer: &AnyQuantizer,
        codes: &Codes,
    ) -> Result<(), TrainError> {
        let Some(quantizer) = quantizer.as_factorized() else {
            return Ok(());
        };
        let [batch, _, height, width] = codes.dims();
        let positions = (batch * height * width) as f64;
        let means = quantizer.correlations(codes)?;
        if self.correlations.is_empty() {
            let none = means.iter().map(|mean| BranchCorrelation {
                depths: mean.branches,
                mean_squared_cosine: 0.0,
            });
            self.correlations = none.collect();
        }
        for (sum, mean) in self.correlations.iter_mut().zip(means) {
            sum.mean_squared_cosine += positions * mean.mean_squared_cosine;
        }
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

    /// Lets networks judge images of one size and their reconstructions.
    ///
    /// # Errors
    /// When a network gives NaN.
    pub fn judge(
        &mut self,
        judges: &Judges,
        (images, reconstructions): (&[Image], &[Image]),
        device: &Device,
    ) -> Result<(), TrainError> {
        if let Some(perceptual) = &judges.perceptual {
            // Of what is shown, 8-bit and clamped, as all measures are.
            let [a, b] = [images, reconstructions].map(|images| to_tensor(images, device));
            let distances = host_values(perceptual.distances(a, b));
            self.perceptual.extend(distances.into_iter().map(f64::from));
        }
        if let Some(features) = &judges.features {
            let looks = self.looks.get_or_insert_with(|| Looks {
                network: features.title().into(),
                images: FeatureMoments::new(features.width()),
                reconstructions: FeatureMoments::new(features.width()),
            });
            looks.images.observe(&features.vectors(images))?;
            let vectors = features.vectors(reconstructions);
            looks.reconstructions.observe(&vectors)?;
        }
        Ok(())
    }

    /// The counts of all codes so far.
    pub fn statistics(&self) -> &CodeStatistics {
        &self.statistics
    }

    /// The measures.
    ///
    /// # Errors
    /// When a Fréchet distance is to be taken of a single image.
    pub fn finish(&self) -> Result<Evaluation, TrainError> {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let report = |(depth, &near_zero): (DepthStatistics, &Option<usize>)| DepthReport {
            codebook_size: depth.codebook_size,
            usage: depth.usage,
            dead: depth.dead,
            near_zero,
            perplexity: depth.perplexity,
            entropy_bits: depth.entropy_bits,
        };
        let per_depth = self.statistics.per_depth().into_iter();
        let depths: Vec<DepthReport> = per_depth.zip(&self.near_zero).map(report).collect();
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
        Ok(Evaluation {
            images: self.psnr.len(),
            psnr_db: mean(&self.psnr),
            ssim: (!self.ssim.is_empty()).then(|| mean(&self.ssim)),
            perceptual: (!self.perceptual.is_empty()).then(|| mean(&self.perceptual)),
            frechet: self.looks.as_ref().map(Looks::report).transpose()?,
            bits_per_pixel: self.spec.bits_per_position() * density,
            entropy_bits_per_pixel: depths.iter().map(|d| d.entropy_bits).sum::<f64>() * density,
            usage,
            depths,
            correlations: self
                .correlations
                .iter()
                .map(|sum| BranchCorrelation {
                    depths: sum.depths,
                    mean_squared_cosine: sum.mean_squared_cosine / self.positions as f64,
                })
                .collect(),
        })
    }
}

impl Looks {
    fn report(&self) -> Result<FrechetReport, TrainError> {
        let (images, reconstructions) = (
            self.images.statistics()?,
            self.reconstructions.statistics()?,
        );
        Ok(FrechetReport {
            network: self.network.clone(),
            width: images.width(),
            distance: frechet_distance(&images, &reconstructions)?,
        })
    }
}

/// Rows near zero of the table of one depth; none of a table that never changes.
fn near_zero(quantizer: &AnyQuantizer, depth: usize) -> Option<usize> {
    if matches!(quantizer, AnyQuantizer::Gaussian(_)) {
        return None;
    }
    let table = quantizer.table(depth)?;
    let [_, width] = table.dims();
    Some(near_zero_rows(&host_values(table), width))
}

/// How a set of images is measured.
#[derive(Debug)]
pub struct Measuring {
    /// Images that pass the network together.
    pub batch_size: usize,
    /// Who judges as well.
    pub judges: Judges,
}

impl Measuring {
    /// Without a network that judges.
    pub fn plain(batch_size: usize) -> Self {
        Self {
            batch_size,
            judges: Judges::default(),
        }
    }
}

/// Reconstructs images of one size and measures; `model` must be untracked.
///
/// # Errors
/// When an image is too small for a judge, or a network gives NaN.
pub fn evaluate(
    model: &Autoencoder,
    images: &[Image],
    measuring: &Measuring,
    observer: &mut dyn Observer,
) -> Result<(Evaluation, CodeStatistics), TrainError> {
    let mut meter = Meter::new(model.quantizer());
    if let Some(image) = images.first() {
        measuring.judges.require_size("an image", image)?;
    }
    observer.begin("evaluating", "image", images.len() as u64);
    let device = model.device();
    let mut done = 0;
    for batch in images.chunks(measuring.batch_size) {
        let codes = model.encode(to_tensor(batch, &device))?;
        meter.observe_codes(&codes.values(), codes.dims())?;
        meter.observe_branches(model.quantizer(), &codes)?;
        let reconstructions = to_images(model.decode(&codes)?)?;
        for (image, reconstruction) in batch.iter().zip(&reconstructions) {
            meter.observe_pair(image, reconstruction)?;
        }
        let pairs = (batch, &reconstructions[..]);
        meter.judge(&measuring.judges, pairs, &device)?;
        done += batch.len();
        observer.advance(done as u64, "");
    }
    observer.end();
    Ok((meter.finish()?, meter.statistics))
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

#[cfg(test)]
mod tests;
