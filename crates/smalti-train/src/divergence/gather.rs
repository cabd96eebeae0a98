//! From images to posteriors.

use smalti_data::Image;
use smalti_models::autoencoder::Autoencoder;
use smalti_nn::state::host_values;

use super::moments::{Moments, chosen, stream};
use crate::error::TrainError;
use crate::observer::Observer;
use crate::samples::to_tensor;

/// Pixels that pass the network together, about: four images of 256 by 256.
const PIXELS: usize = 1 << 18;

/// How many posteriors are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Positions over all images, about; every image contributes at least one.
    pub positions: usize,
    /// Of the choice among an image's positions.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            positions: 1 << 16,
            seed: 0,
        }
    }
}

/// The posteriors of images of one size, as the network gives them; `network` must be untracked.
///
/// # Errors
/// When a number is not finite, or the observer asks to stop.
///
/// # Panics
/// When there is no image, or the quantizer does not take means and variances.
pub fn gather(
    network: &Autoencoder,
    images: &[Image],
    sampling: Sampling,
    observer: &mut dyn Observer,
) -> Result<Moments, TrainError> {
    let channels = network.config().quantizer.quantized_channels();
    assert_eq!(network.config().quantizer.latent_channels(), 2 * channels);
    let mut moments = Moments::new(channels);
    let mut rng = stream(sampling.seed);
    let wanted = sampling.positions.div_ceil(images.len()).max(1);
    observer.begin("measuring posteriors", "image", images.len() as u64);
    let mut done = 0;
    for batch in images.chunks(batch_size(&images[0])) {
        if observer.stop_requested() {
            return Err(TrainError::Interrupted);
        }
        let latents = network.latents(to_tensor(batch, &network.device()), None);
        let [_, _, height, width] = latents.dims();
        let maps = host_values(latents);
        for map in maps.chunks_exact(2 * channels * height * width) {
            moments.push(map, chosen(height * width, wanted, &mut rng))?;
        }
        done += batch.len();
        observer.advance(done as u64, "");
    }
    observer.end();
    Ok(moments)
}

/// How many images of this size pass the network together.
pub(super) fn batch_size(image: &Image) -> usize {
    (PIXELS / (image.width() * image.height()).max(1)).clamp(1, 64)
}
