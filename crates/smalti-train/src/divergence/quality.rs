//! What a VAE and the tokenizer made of it leave of images, side by side.

use serde::{Deserialize, Serialize};
use smalti_data::Image;
use smalti_metrics::psnr_u8;
use smalti_models::autoencoder::Autoencoder;
use smalti_quantize::Quantizer;

use super::gather::batch_size;
use crate::error::TrainError;
use crate::evaluation::{Evaluation, Meter};
use crate::observer::Observer;
use crate::samples::{to_images, to_tensor};

/// Images that are shown.
const SHOWN: usize = 12;

/// Fidelity of both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Mean of the images' PSNR when the decoder is given the posterior's mean, in dB: nothing is quantized.
    pub vae_psnr_db: f64,
    /// The tokenizer.
    pub tokenizer: Evaluation,
}

/// One image and what is left of it.
#[derive(Clone, Debug)]
pub struct Exhibit {
    /// As it went in.
    pub original: Image,
    /// From the posterior's mean.
    pub vae: Image,
    /// From the codes.
    pub tokenizer: Image,
    /// PSNR of both in dB.
    pub psnr_db: [f64; 2],
}

/// Measures a network with a Gaussian quantizer on images of one size; it must be untracked.
///
/// # Errors
/// When the network gives NaN, or the observer asks to stop.
pub fn measure(
    network: &Autoencoder,
    images: &[Image],
    observer: &mut dyn Observer,
) -> Result<(Quality, Vec<Exhibit>), TrainError> {
    let channels = network.config().quantizer.quantized_channels();
    let mut meter = Meter::new(network.quantizer());
    let (mut vae_psnr, mut exhibits) = (0.0, Vec::new());
    let stride = images.len().div_ceil(SHOWN).max(1);
    observer.begin("reconstructing", "image", images.len() as u64);
    let mut done = 0;
    for batch in images.chunks(batch_size(&images[0])) {
        if observer.stop_requested() {
            return Err(TrainError::Interrupted);
        }
        let latents = network.latents(to_tensor(batch, &network.device()), None);
        let mean = latents.clone().narrow(1, 0, channels);
        let codes = network.quantizer().encode(latents)?;
        meter.observe_codes(&codes.values(), codes.dims())?;
        let vae = to_images(network.images(mean, None))?;
        let tokenizer = to_images(network.decode(&codes)?)?;
        for ((original, vae), tokenizer) in batch.iter().zip(vae).zip(tokenizer) {
            let psnr = psnr_u8(original.pixels(), vae.pixels())?;
            let coded = meter.observe_pair(original, &tokenizer)?;
            vae_psnr += psnr;
            if done % stride == 0 {
                exhibits.push(Exhibit {
                    original: original.clone(),
                    vae,
                    tokenizer,
                    psnr_db: [psnr, coded],
                });
            }
            done += 1;
        }
        observer.advance(done as u64, "");
    }
    observer.end();
    let quality = Quality {
        vae_psnr_db: vae_psnr / images.len() as f64,
        tokenizer: meter.finish()?,
    };
    Ok((quality, exhibits))
}
