//! From a trained VAE to a tokenizer, without training: all that `smalti convert` decides and measures.
//!
//! The network stays as it is; what is chosen is the quantizer between its halves. In this order:
//!
//! 1. The posteriors of the user's images are gathered ([`gather`](super::gather)).
//! 2. Channels are fitted to the prior ([`prior`](super::prior)).
//! 3. Channels are put into groups ([`grouping`](super::grouping)).
//! 4. Each group's divergence is held against log2 K. Theorem 3.2, carried over to groups
//!    ([`theory`](super::theory)), says how many errors will be large at least; the codes themselves say how many
//!    are.
//!
//! The quantizer that comes out is one of [`GaussianConfig`], so `encode`, `decode` and `evaluate` take it as they
//! take a trained one. Its constraint is the default one: should the model be trained further, its target is log2 K.

use serde::{Deserialize, Serialize};
use smalti_data::Image;
use smalti_quantize::{GaussianConfig, Layout, QuantizerConfig};

use super::channels::{ChannelReport, channel_reports};
use super::conversion_config::{ConversionConfig, divisors};
use super::distribution::Distribution;
use super::gather::gather;
use super::grouping::Grouping;
use super::groups::normalized_error;
use super::moments::Moments;
use super::prior::{Normalize, Prior};
use super::quality::{Exhibit, Quality, measure};
use super::scheme::Scheme;
use super::source::Source;
use super::theory::GroupBounds;
use crate::error::TrainError;
use crate::model_dir::TokenizerModel;
use crate::observer::Observer;

/// The share of groups above log2 K from which on the user is warned.
pub const TOO_MANY: f64 = 0.1;
/// Positions whose codes are looked up to count large errors.
const CODED: usize = 2048;

/// One channel before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConvertedChannel {
    /// As the encoder gives it.
    pub raw: ChannelReport,
    /// Mean divergence in bits with the prior that the model came with.
    pub kept_bits: f64,
    /// Mean divergence in bits in the tokenizer.
    pub bits: f64,
    /// The shift in the tokenizer.
    pub shift: f32,
    /// The scale in the tokenizer.
    pub scale: f32,
}

/// One group of the tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConvertedGroup {
    /// Its channels.
    pub channels: Vec<usize>,
    /// log2 K
    pub codebook_bits: f64,
    /// Its divergence over all positions.
    pub bits: Distribution,
    /// Share of positions whose divergence exceeds log2 K by more than the tolerance.
    pub above: f64,
    /// Share of large errors that theory predicts at least, for independent codes.
    pub at_least: f64,
    /// Share of large errors that theory predicts at most, for independent codes and the nearest of them.
    pub at_most: f64,
    /// Share of large errors of the tokenizer's codes: Σ((ẑ − μ)/σ)²/m of 1 or more.
    pub large_errors: f64,
    /// Mean of Σ((ẑ − μ)/σ)²/m.
    pub error: f64,
}

/// What another group size would give with the same codebook size and the same kind of grouping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alternative {
    /// Channels that share a code.
    pub group: usize,
    /// Bits at each position.
    pub bits_per_position: f64,
    /// Mean divergence of a group.
    pub mean_bits: f64,
    /// What one group in twenty exceeds.
    pub p95_bits: f64,
    /// Share of groups above log2 K and the tolerance.
    pub above: f64,
}

/// What a conversion decided and measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conversion {
    /// What was converted.
    pub source: String,
    /// Images measured.
    pub images: usize,
    /// Positions kept of them.
    pub positions: usize,
    /// The share of the divergence that came from the prior the model came with.
    pub misfit: f64,
    /// Which shift and scale the tokenizer has.
    pub normalize: Normalize,
    /// Every channel.
    pub channels: Vec<ConvertedChannel>,
    /// Every group.
    pub groups: Vec<ConvertedGroup>,
    /// The divergence of all groups together.
    pub group_bits: Distribution,
    /// Bits by which a group may exceed log2 K.
    pub tolerance: f64,
    /// Other group sizes.
    pub alternatives: Vec<Alternative>,
    /// Reconstructions of the VAE and of the tokenizer.
    pub quality: Quality,
}

impl Conversion {
    /// Share of groups, over all positions, above log2 K and the tolerance.
    pub fn above(&self) -> f64 {
        average(self.groups.iter().map(|group| group.above))
    }

    /// Mean of log2 K over the groups.
    pub fn codebook_bits(&self) -> f64 {
        average(self.groups.iter().map(|group| group.codebook_bits))
    }

    /// What the user should know before using the tokenizer.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let (above, bits) = (self.above(), self.codebook_bits());
        if above > TOO_MANY {
            let fits = self.alternatives.iter().rev().find(|a| a.above <= TOO_MANY);
            let advice = match fits {
                Some(other) => format!(
                    "groups of {} would fit, at {:.0} bits a position",
                    other.group, other.bits_per_position
                ),
                None => "no smaller group fits; the VAE holds more bits than such codes can: train one with quantizer kind = \"gaussian\", whose constraint holds them down".into(),
            };
            warnings.push(format!(
                "{:.0} % of the groups hold more than log2 K + {} = {:.1} bits (mean {:.1}): theory predicts large errors there; {advice}",
                100.0 * above,
                self.tolerance,
                bits + self.tolerance,
                self.group_bits.mean
            ));
        }
        let idle = bits - self.group_bits.p95;
        if idle > 1.0 {
            warnings.push(format!(
                "19 of 20 groups hold less than {:.1} bits: a codebook of 2^{} would do for them, or larger groups",
                self.group_bits.p95,
                self.group_bits.p95.ceil().max(1.0)
            ));
        }
        warnings
    }
}

/// A tokenizer, what is to be said of it, and pictures.
#[derive(Debug)]
pub struct Converted {
    /// The tokenizer.
    pub model: TokenizerModel,
    /// What was decided and measured.
    pub conversion: Conversion,
    /// Images beside what the VAE and what the tokenizer make of them.
    pub exhibits: Vec<Exhibit>,
}

/// Makes a tokenizer of a VAE; `images` are of one size and stand for those that it is meant for.
///
/// # Errors
/// When what is asked for does not fit the VAE, the network gives NaN, or the observer asks to stop.
pub fn convert(
    source: Source,
    images: &[Image],
    config: &ConversionConfig,
    observer: &mut dyn Observer,
) -> Result<Converted, TrainError> {
    let quantizer = config.quantizer(source.scheme.channels())?;
    let raw = gather(&source.network, images, config.sampling, observer)?;
    let prior = Prior::fit(&raw, &source.scheme, config.normalize);
    let moments = prior.moments(&raw);
    let codebook_bits: Vec<f64> = quantizer
        .sizes()
        .iter()
        .map(|&k| (k as f64).log2())
        .collect();
    let order = config.grouping.order(&moments, &codebook_bits);
    let quantizer = GaussianConfig {
        layout: Layout::Order(order.map_err(TrainError::Request)?),
        normalization: prior.normalization.clone(),
        ..quantizer
    };
    let quantizer = QuantizerConfig::Gaussian(quantizer);
    let scheme = Scheme::of(&quantizer).expect("it is Gaussian");
    let mut init = smalti_nn::Init::new(&source.network.device(), 0);
    let network = source.network.with_quantizer(quantizer, &mut init)?;
    let groups = converted_groups(&moments, &scheme, config.tolerance)?;
    let (quality, exhibits) = measure(&network, images, observer)?;
    let conversion = Conversion {
        source: source.name,
        images: images.len(),
        positions: moments.positions(),
        misfit: prior.misfit,
        normalize: prior.normalize,
        channels: converted_channels(&raw, &source.scheme.normalized(&raw), &moments, &prior),
        groups,
        group_bits: super::study::pooled(&moments, &scheme.groups),
        tolerance: config.tolerance,
        alternatives: alternatives(&moments, config, codebook_bits[0]),
        quality,
    };
    Ok(Converted {
        model: TokenizerModel::new(network, source.preprocess, source.license),
        conversion,
        exhibits,
    })
}

fn converted_channels(
    raw: &Moments,
    kept: &Moments,
    fitted: &Moments,
    prior: &Prior,
) -> Vec<ConvertedChannel> {
    let (kept, fitted) = (channel_reports(kept), channel_reports(fitted));
    let channel = |raw: ChannelReport| {
        let i = raw.channel;
        let (shift, scale) = prior.of_channel(i);
        ConvertedChannel {
            raw,
            kept_bits: kept[i].bits,
            bits: fitted[i].bits,
            shift,
            scale,
        }
    };
    channel_reports(raw).into_iter().map(channel).collect()
}

fn converted_groups(
    moments: &Moments,
    scheme: &Scheme,
    tolerance: f64,
) -> Result<Vec<ConvertedGroup>, TrainError> {
    let parts = scheme.groups.iter().zip(&scheme.codebook_bits);
    let group = |(channels, &codebook_bits): (&Vec<usize>, &f64)| {
        let bits = moments.group_bits(channels);
        let limit = codebook_bits + tolerance;
        let above = bits.iter().filter(|bits| **bits > limit).count();
        let bounds = GroupBounds::new(channels.len());
        let predicted: Vec<(f64, f64)> = (0..moments.positions())
            .map(|position| bounds.large_error(&moments.group(position, channels), codebook_bits))
            .collect();
        let errors = coded_errors(moments, scheme, channels, codebook_bits)?;
        Ok(ConvertedGroup {
            channels: channels.clone(),
            codebook_bits,
            above: above as f64 / bits.len() as f64,
            bits: Distribution::of(bits),
            at_least: average(predicted.iter().map(|bounds| bounds.0)),
            at_most: average(predicted.iter().map(|bounds| bounds.1)),
            large_errors: average(
                errors
                    .iter()
                    .map(|error| f64::from(u8::from(*error >= 1.0))),
            ),
            error: average(errors.iter().copied()),
        })
    };
    parts.map(group).collect()
}

/// Σ((ẑ − μ)/σ)²/m of the codes of one group, at positions spread over all.
fn coded_errors(
    moments: &Moments,
    scheme: &Scheme,
    channels: &[usize],
    codebook_bits: f64,
) -> Result<Vec<f64>, TrainError> {
    let (all, count) = (moments.positions(), moments.positions().min(CODED));
    let places: Vec<(usize, &[usize])> = (0..count).map(|i| (i * all / count, channels)).collect();
    let map = moments.map(&places);
    let device = burn::tensor::Device::flex();
    let (size, bits) = (channels.len(), codebook_bits as u32);
    let values = scheme.codes.quantize(bits, size, &map, &device)?;
    let errors = places.iter().enumerate().map(|(place, (position, _))| {
        let value = |i: usize| f64::from(values[i * count + place]);
        normalized_error(&moments.group(*position, channels), value)
    });
    Ok(errors.collect())
}

/// Every group size that divides the channels, with one codebook size for all.
fn alternatives(
    moments: &Moments,
    config: &ConversionConfig,
    codebook_bits: f64,
) -> Vec<Alternative> {
    // A custom order says nothing about groups of another size.
    let grouping = match &config.grouping {
        Grouping::Custom(_) => Grouping::Even,
        other => other.clone(),
    };
    let channels = moments.channels();
    let alternative = |group: usize| {
        let depth = channels / group;
        let order = grouping
            .order(moments, &vec![codebook_bits; depth])
            .expect("no custom order");
        let bits: Vec<f64> = order
            .chunks(group)
            .flat_map(|channels| moments.group_bits(channels))
            .collect();
        let limit = codebook_bits + config.tolerance;
        let above = bits.iter().filter(|bits| **bits > limit).count() as f64 / bits.len() as f64;
        let bits = Distribution::of(bits);
        Alternative {
            group,
            bits_per_position: depth as f64 * codebook_bits,
            mean_bits: bits.mean,
            p95_bits: bits.p95,
            above,
        }
    };
    divisors(channels).map(alternative).collect()
}

fn average(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len();
    values.sum::<f64>() / count as f64
}

#[cfg(test)]
#[path = "conversion_tests.rs"]
mod tests;
