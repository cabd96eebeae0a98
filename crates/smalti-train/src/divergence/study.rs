//! What the divergence of a trained VAE is, and what the theory makes of it: all numbers of `smalti divergence`.

use std::ops::RangeInclusive;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use smalti_data::Image;
use smalti_models::autoencoder::Autoencoder;

use super::channels::{ChannelReport, channel_reports, mismatch};
use super::distribution::Distribution;
use super::gather::{Sampling, gather};
use super::groups::{GroupCurve, GroupExperiment};
use super::moments::Moments;
use super::scalars::{ScalarCurve, ScalarExperiment};
use super::scheme::Scheme;
use crate::error::TrainError;
use crate::observer::Observer;

/// The largest codebook that experiments use, as log2.
const LARGEST: u32 = 18;
/// The smallest that the experiment on groups uses at least, as log2.
const SMALL: u32 = 6;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StudyConfig {
    /// Which posteriors are kept.
    pub sampling: Sampling,
    /// Scalars that the experiment quantizes.
    pub scalars: usize,
    /// Codebooks of each size for them.
    pub codebooks: usize,
    /// Groups that the experiment quantizes.
    pub groups: usize,
    /// log2 of the largest codebook.
    pub largest: u32,
}

impl Default for StudyConfig {
    fn default() -> Self {
        Self {
            sampling: Sampling::default(),
            scalars: 1 << 15,
            codebooks: 16,
            groups: 1 << 11,
            largest: LARGEST,
        }
    }
}

/// One group of channels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupReport {
    /// Its channels.
    pub channels: Vec<usize>,
    /// log2 K
    pub codebook_bits: f64,
    /// Its divergence over all positions.
    pub bits: Distribution,
}

/// The divergence of a model's posteriors, after what it does to fit them to the prior.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Study {
    /// Images measured.
    pub images: usize,
    /// Positions kept of them.
    pub positions: usize,
    /// Every channel.
    pub channels: Vec<ChannelReport>,
    /// The share of the divergence that comes from a prior that does not fit.
    pub mismatch: f64,
    /// Every group.
    pub groups: Vec<GroupReport>,
    /// The divergence of all groups together.
    pub group_bits: Distribution,
    /// Single channels with independent codes.
    pub scalar_curve: ScalarCurve,
    /// The model's groups with its own codes.
    pub group_curve: GroupCurve,
}

/// Measures a model on images of one size; `network` must be untracked and have the quantizer of `scheme`.
///
/// # Errors
/// When the network gives NaN, or the observer asks to stop.
pub fn study(
    network: &Autoencoder,
    scheme: &Scheme,
    images: &[Image],
    config: &StudyConfig,
    observer: &mut dyn Observer,
) -> Result<Study, TrainError> {
    let moments = gather(network, images, config.sampling, observer)?;
    let moments = scheme.normalized(&moments);
    let channels = channel_reports(&moments);
    let groups = group_reports(&moments, scheme);
    let group_bits = pooled(&moments, &scheme.groups);
    let scalar_curve = ScalarExperiment {
        codebook_bits: 0..=config.largest,
        scalars: config.scalars,
        codebooks: config.codebooks,
        seed: config.sampling.seed,
    }
    .run(&moments);
    let group_curve = group_curve(&moments, scheme, config, &group_bits, observer)?;
    Ok(Study {
        images: images.len(),
        positions: moments.positions(),
        mismatch: mismatch(&channels),
        channels,
        groups,
        group_bits,
        scalar_curve,
        group_curve,
    })
}

fn group_reports(moments: &Moments, scheme: &Scheme) -> Vec<GroupReport> {
    let parts = scheme.groups.iter().zip(&scheme.codebook_bits);
    let report = |(channels, &codebook_bits): (&Vec<usize>, &f64)| GroupReport {
        channels: channels.clone(),
        codebook_bits,
        bits: Distribution::of(moments.group_bits(channels)),
    };
    parts.map(report).collect()
}

/// The divergences of all groups at all positions.
pub(super) fn pooled(moments: &Moments, groups: &[Vec<usize>]) -> Distribution {
    Distribution::of(groups.iter().flat_map(|group| moments.group_bits(group)))
}

fn group_curve(
    moments: &Moments,
    scheme: &Scheme,
    config: &StudyConfig,
    bits: &Distribution,
    observer: &mut dyn Observer,
) -> Result<GroupCurve, TrainError> {
    let codebook_bits = interesting(bits, config.largest);
    // A few thousand groups: the fused search of the CPU is fast enough wherever the network is.
    let device = Device::flex();
    let size = scheme.groups[0].len();
    let first = *codebook_bits.start();
    observer.begin(
        "quantizing groups",
        "codebook",
        u64::from(config.largest - first + 1),
    );
    let experiment = GroupExperiment {
        codebook_bits,
        groups: config.groups,
        seed: config.sampling.seed,
    };
    let curve = experiment.run(moments, &scheme.groups, &mut |bits, map| {
        if observer.stop_requested() {
            return Err(TrainError::Interrupted);
        }
        let values = scheme.codes.quantize(bits, size, map, &device)?;
        observer.advance(u64::from(bits - first + 1), "");
        Ok(values)
    });
    observer.end();
    curve
}

/// log2 of the codebook sizes from well below the divergence of most groups on.
fn interesting(bits: &Distribution, largest: u32) -> RangeInclusive<u32> {
    let below = (bits.p05 - 6.0).max(1.0) as u32;
    below.min(SMALL).min(largest)..=largest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codebooks_begin_below_the_divergence() {
        let around = |bits: f64| Distribution::of([bits - 1.0, bits, bits + 1.0]);
        assert_eq!(interesting(&around(16.0), 18), 6..=18);
        assert_eq!(interesting(&around(9.0), 18), 2..=18);
        assert_eq!(interesting(&around(3.0), 18), 1..=18);
        assert_eq!(interesting(&around(40.0), 4), 4..=4);
    }
}
