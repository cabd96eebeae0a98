//! A trained Gaussian VAE: to be studied, or made a tokenizer.

use std::path::Path;

use burn::tensor::Device;
use smalti_data::Image;
use smalti_train::divergence::conversion::{Converted, convert};
use smalti_train::divergence::conversion_config::ConversionConfig;
use smalti_train::divergence::source::Source;
use smalti_train::divergence::study::{Study, StudyConfig, study};
use smalti_train::{Observer, TrainError};

/// An autoencoder whose encoder gives means and variances.
///
/// ```no_run
/// use smalti::divergence::conversion_config::ConversionConfig;
/// use smalti::{Device, Silent, Vae};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let vae = Vae::load("vae".as_ref(), &Device::flex())?;
/// let images = [smalti::Image::open("cat.png".as_ref())?.crop(0, 0, 256, 256)?];
/// let converted = vae.convert(&images, &ConversionConfig::new(65536, 4), &mut Silent)?;
/// converted.model.save("tokenizer".as_ref())?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Vae(Source);

impl Vae {
    /// Reads a tokenizer with a Gaussian quantizer, or a published VAE.
    ///
    /// # Errors
    /// When it is missing, damaged, or its latents are no distributions.
    pub fn load(path: &Path, device: &Device) -> Result<Self, TrainError> {
        Source::open(path, device).map(Self)
    }

    /// What it is, for people.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Channels of its latents.
    pub fn channels(&self) -> usize {
        self.0.scheme.channels()
    }

    /// Pixels, in each direction, that share one position of the latents.
    pub fn factor(&self) -> usize {
        self.0.network.config().factor()
    }

    /// The side of the square images that it is measured on unless asked otherwise.
    pub fn side(&self) -> usize {
        self.0.side()
    }

    /// Measures the divergence of its posteriors on square images of one size, and what the theory makes of it.
    ///
    /// # Errors
    /// When the network gives NaN, or the observer asks to stop.
    pub fn study(
        &self,
        images: &[Image],
        config: &StudyConfig,
        observer: &mut dyn Observer,
    ) -> Result<Study, TrainError> {
        study(&self.0.network, &self.0.scheme, images, config, observer)
    }

    /// Makes a tokenizer of it, for images like these, which are of one size.
    ///
    /// # Errors
    /// When what is asked for does not fit it, the network gives NaN, or the observer asks to stop.
    pub fn convert(
        self,
        images: &[Image],
        config: &ConversionConfig,
        observer: &mut dyn Observer,
    ) -> Result<Converted, TrainError> {
        convert(self.0, images, config, observer)
    }
}
