//! What a conversion is asked for.

use smalti_quantize::config::PerDepth;
use smalti_quantize::{GaussianConfig, Generator, Layout};

use super::gather::Sampling;
use super::grouping::{Grouping, listed};
use super::prior::Normalize;
use crate::error::TrainError;

/// What a conversion is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct ConversionConfig {
    /// Number of codes: one number for all groups, or one for each.
    pub codebook_sizes: Vec<usize>,
    /// Channels that share a code.
    pub group: usize,
    /// How codes are made.
    pub generator: Generator,
    /// What they are made from.
    pub seed: u64,
    /// How strongly codes far from the origin are preferred.
    pub beta: f64,
    /// Which channels share a code.
    pub grouping: Grouping,
    /// Whether channels are fitted to the prior.
    pub normalize: Normalize,
    /// Bits by which a group may exceed log2 K and still count as fitting; the constraint in training allows ½.
    pub tolerance: f64,
    /// Which posteriors are kept.
    pub sampling: Sampling,
}

impl ConversionConfig {
    /// As the published models, with an even grouping.
    pub fn new(codebook_size: usize, group: usize) -> Self {
        let published = GaussianConfig::new(codebook_size, group, group);
        Self {
            codebook_sizes: vec![codebook_size],
            group,
            generator: published.generator,
            seed: published.seed,
            beta: published.beta,
            grouping: Grouping::default(),
            normalize: Normalize::default(),
            tolerance: 0.5,
            sampling: Sampling::default(),
        }
    }

    /// The quantizer that is asked for, channels in their own order.
    ///
    /// # Errors
    /// When it does not fit a VAE of so many channels.
    pub fn quantizer(&self, channels: usize) -> Result<GaussianConfig, TrainError> {
        let group = self.group;
        if group == 0 || !channels.is_multiple_of(group) {
            let divisors: Vec<usize> = divisors(channels).collect();
            return Err(TrainError::Request(format!(
                "the VAE has {channels} channels, which groups of {group} do not divide; possible are groups of {}",
                listed(&divisors)
            )));
        }
        self.grouping.check(channels).map_err(TrainError::Request)?;
        if !self.tolerance.is_finite() {
            let problem = format!(
                "the tolerance must be a finite number of bits, got {}",
                self.tolerance
            );
            return Err(TrainError::Request(problem));
        }
        let quantizer = GaussianConfig {
            codebook_size: match self.codebook_sizes[..] {
                [size] => PerDepth::All(size),
                _ => PerDepth::Each(self.codebook_sizes.clone()),
            },
            generator: self.generator,
            seed: self.seed,
            beta: self.beta,
            layout: Layout::Contiguous,
            ..GaussianConfig::new(2, group, channels)
        };
        match quantizer.validate() {
            Ok(()) => Ok(quantizer),
            Err(invalid) => Err(TrainError::Request(invalid.to_string())),
        }
    }
}

/// Group sizes that divide the channels.
pub(super) fn divisors(channels: usize) -> impl Iterator<Item = usize> {
    (1..=channels).filter(move |group| channels.is_multiple_of(*group))
}
