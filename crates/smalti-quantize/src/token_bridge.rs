//! TokenBridge: every channel of Gaussian latents rounded to one of a few values, after training
//! (Wang et al., "Bridging Continuous and Discrete Tokens for Autoregressive Visual Generation",
//! ICCV 2025).
//!
//! With `n = 2^bits`, the mean `x = scale·μ` of a channel is cut to the code whose centre is nearest
//! to `y`. The choices:
//!
//! * [`Range::Official`]: `y` is `x` clamped to ±5 and mapped to ±3, and back with 5/3;
//!   [`Range::Plain`]: `y = x`.
//! * [`Centres::ConditionalMeans`]: the boundaries `b_i` between bins are the normal distribution's
//!   quantiles `i/n` with the ends at ±3, and a centre is the mean of a standard normal number within
//!   its bin, `(φ(a) − φ(b))/(Φ(b) − Φ(a))`. Being nearest to a centre is not quite the same as lying
//!   in its bin. [`Centres::Midpoints`]: the middles between neighbouring quantiles, with ends at ±3, as
//!   the authors of Gaussian Quant have it in their comparison.
//!
//! Training is that of [`GaussianQuantizer`](crate::GaussianQuantizer) with groups of one channel: a
//! sample of the posterior, and the loss `divergence`. With a target constraint every channel is held
//! near `bits` bits; [`Constraint::Even`] is the autoencoder that the method was made for.
//!
//! Shapes: latents `[batch, 2c, height, width]`, means first; codes `[batch, c, height, width]`;
//! quantized `[batch, c, height, width]`. State: that of the constraint.
//!
//! Differences. The published code cuts a *sample* of the posterior; encoding is a pure function
//! here, so it cuts the mean, which lies nearer to what the decoder wants by the posterior's own
//! variance. It divides by the scale outside the quantizer, here decoding does. Divergences are
//! measured on `scale·z`. More than 9 bits are refused (10 with midpoints): the outer quantiles
//! would lie beyond ±3, where the published code divides zero by zero.

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use smalti_nn::state::host_values;
use smalti_nn::{Init, Noise};

use crate::config::InvalidQuantizer;
use crate::constraint::{Constraint, DivergenceConstraint};
use crate::normal::{density, inverse_cdf};
use crate::posterior::GaussianPosterior;
use crate::quantizer::check_codes;
use crate::{CodeSpec, Codes, Learn, QuantizeError, Quantized, Quantizer, UpdateReport};

#[cfg(test)]
mod tests;

/// Where the outermost boundaries lie.
const END: f64 = 3.0;

/// `P(X < −3)` of a standard normal number.
const BELOW_END: f64 = 0.001_349_898_031_630_094_6;

/// How scaled latents meet the centres.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Range {
    /// [−5, 5] is mapped to [−3, 3].
    #[default]
    Official,
    /// They are compared as they are.
    Plain,
}

impl Range {
    /// `y/x` where nothing is clamped.
    fn ratio(self) -> f32 {
        match self {
            Self::Official => 3.0 / 5.0,
            Self::Plain => 1.0,
        }
    }
}

/// Which value stands for a bin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Centres {
    /// The mean of a standard normal number within the bin.
    #[default]
    ConditionalMeans,
    /// The middle between the bin's ends.
    Midpoints,
}

impl Centres {
    /// The most bits for which every bin lies within the ends.
    fn most_bits(self) -> u32 {
        match self {
            Self::ConditionalMeans => 9,
            Self::Midpoints => 10,
        }
    }

    /// The centres of `2^bits` bins, ascending.
    fn values(self, bits: u32) -> Vec<f32> {
        let count = 1_usize << bits;
        let share = |i: usize| i as f64 / count as f64;
        let boundary = |i: usize| match i {
            0 => -END,
            i if i == count => END,
            i => inverse_cdf(share(i)),
        };
        // The probability below a boundary; the ends were moved inwards.
        let below = |i: usize| match i {
            0 => BELOW_END,
            i if i == count => 1.0 - BELOW_END,
            i => share(i),
        };
        let centre = |i: usize| match self {
            Self::ConditionalMeans => {
                (density(boundary(i)) - density(boundary(i + 1))) / (below(i + 1) - below(i))
            }
            Self::Midpoints if i == 0 => -END,
            Self::Midpoints if i + 1 == count => END,
            Self::Midpoints => 0.5 * (boundary(i) + boundary(i + 1)),
        };
        (0..count).map(|i| centre(i) as f32).collect()
    }
}

/// The shape of a TokenBridge quantizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenBridgeConfig {
    /// Bits of a code; a channel has 2^bits.
    pub bits: u32,
    /// Channels of the quantized latents, and codes at each position.
    pub channels: usize,
    /// What latents are multiplied with to have about unit variance: 0.2325 for the autoencoder
    /// that the method was published with.
    #[serde(default = "one")]
    pub scale: f32,
    /// How scaled latents meet the centres.
    #[serde(default)]
    pub range: Range,
    /// Which value stands for a bin.
    #[serde(default)]
    pub centres: Centres,
    /// What holds the divergence near the number of bits in training.
    #[serde(default)]
    pub constraint: Constraint,
}

fn one() -> f32 {
    1.0
}

impl TokenBridgeConfig {
    /// As published, but for the scale of its autoencoder.
    pub fn new(bits: u32, channels: usize) -> Self {
        Self {
            bits,
            channels,
            scale: one(),
            range: Range::default(),
            centres: Centres::default(),
            constraint: Constraint::default(),
        }
    }

    /// Number of codes of a channel.
    pub fn codebook_size(&self) -> usize {
        1 << self.bits
    }

    /// Checks every number.
    ///
    /// # Errors
    /// Lists all problems.
    pub fn validate(&self) -> Result<(), InvalidQuantizer> {
        let mut problems = self.constraint.problems();
        let most = self.centres.most_bits();
        if !(1..=most).contains(&self.bits) {
            problems.push(format!(
                "bits must lie between 1 and {most} with these centres, got {}",
                self.bits
            ));
        }
        if self.channels == 0 {
            problems.push("channels must be at least 1, got 0".into());
        }
        // Beyond this the logarithm of a scaled variance says nothing.
        if !(1e-6..=1e6).contains(&self.scale) {
            problems.push(format!(
                "scale must lie between 1e-6 and 1e6, got {}",
                self.scale
            ));
        }
        InvalidQuantizer::unless_empty(problems)
    }

    /// Builds the quantizer.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn build(&self, init: &mut Init) -> Result<TokenBridgeQuantizer, InvalidQuantizer> {
        self.validate()?;
        let bits = vec![f64::from(self.bits); self.channels];
        Ok(TokenBridgeQuantizer {
            constraint: DivergenceConstraint::new(&self.constraint, &bits, init),
            centres: self.centres.values(self.bits),
            config: self.clone(),
        })
    }
}

/// Gaussian latents cut channel by channel.
#[derive(Module, Debug)]
pub struct TokenBridgeQuantizer {
    constraint: DivergenceConstraint,
    #[module(skip)]
    centres: Vec<f32>,
    #[module(skip)]
    config: TokenBridgeConfig,
}

impl TokenBridgeQuantizer {
    /// The configuration it was built from.
    pub fn config(&self) -> &TokenBridgeConfig {
        &self.config
    }

    /// The value of each code before it is mapped back to the latents, ascending.
    pub fn centres(&self) -> &[f32] {
        &self.centres
    }

    /// What holds the divergence near the number of bits.
    pub fn constraint(&self) -> &DivergenceConstraint {
        &self.constraint
    }

    /// The same, for whoever merges the statistics of several processes before they move it.
    pub fn constraint_mut(&mut self) -> &mut DivergenceConstraint {
        &mut self.constraint
    }

    fn posterior(&self, latents: Tensor<4>) -> Result<GaussianPosterior, QuantizeError> {
        GaussianPosterior::from_moments(latents, self.config.channels)
    }

    /// The divergence of each channel of the scaled latents.
    fn nats(&self, posterior: &GaussianPosterior) -> Tensor<4> {
        let channels = self.config.channels;
        let (shift, scale) = (vec![0.0; channels], vec![self.config.scale; channels]);
        posterior.normalized(&shift, &scale).kl_nats()
    }

    fn cut(&self, posterior: &GaussianPosterior) -> Codes {
        let means = posterior.mean().inner();
        let ids: Vec<u32> = host_values(means.clone())
            .into_iter()
            .map(|mean| self.nearest(mean * self.config.scale))
            .collect();
        Codes::from_values(&ids, means.dims(), &means.device())
    }

    /// The code of a scaled mean.
    fn nearest(&self, x: f32) -> u32 {
        let y = match self.config.range {
            Range::Official => x.clamp(-5.0, 5.0) * self.config.range.ratio(),
            Range::Plain => x,
        };
        let above = self.centres.partition_point(|centre| *centre < y);
        let Some(below) = above.checked_sub(1) else {
            return 0;
        };
        // In f64, where differences of f32 are exact; the lower one on ties.
        let gap = |i: usize| (f64::from(self.centres[i]) - f64::from(y)).abs();
        let nearer = above < self.centres.len() && gap(above) < gap(below);
        (if nearer { above } else { below }) as u32
    }

    fn training_pass(
        &self,
        latents: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<(Quantized, Tensor<4>), QuantizeError> {
        let posterior = self.posterior(latents)?;
        let nats = self.nats(&posterior);
        let losses = vec![("divergence", self.constraint.loss(nats.clone()))];
        let (value, codes) = (posterior.sample(noise), self.cut(&posterior));
        Ok((Quantized::new(value, codes, losses), nats))
    }
}

impl Quantizer for TokenBridgeQuantizer {
    fn spec(&self) -> CodeSpec {
        CodeSpec {
            codebook_sizes: vec![self.config.codebook_size(); self.config.channels],
            code_dim: 1,
            fold: 1,
        }
    }

    fn encode(&self, latents: Tensor<4>) -> Result<Codes, QuantizeError> {
        Ok(self.cut(&self.posterior(latents.inner())?))
    }

    fn decode(&self, codes: &Codes) -> Result<Tensor<4>, QuantizeError> {
        check_codes(codes, &self.spec())?;
        let back = self.config.range.ratio() * self.config.scale;
        let values: Vec<f32> = codes
            .values()
            .into_iter()
            .map(|id| self.centres[id as usize] / back)
            .collect();
        let data = TensorData::new(values, codes.dims());
        Ok(Tensor::from_data(data, &codes.tensor().device()))
    }

    fn quantize(&self, latents: Tensor<4>, noise: &mut Noise) -> Result<Quantized, QuantizeError> {
        Ok(self.training_pass(latents, noise)?.0)
    }
}

impl Learn for TokenBridgeQuantizer {
    /// What moves is the state of the constraint, after the loss was taken with the old one.
    fn quantize_and_update(
        &mut self,
        latents: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<(Quantized, UpdateReport), QuantizeError> {
        if latents.dims().contains(&0) {
            return Err(QuantizeError::Empty);
        }
        let (quantized, nats) = self.training_pass(latents, noise)?;
        let size = self.config.codebook_size();
        let mut seen = vec![false; size];
        for id in quantized.codes.values() {
            seen[id as usize] = true;
        }
        let report = UpdateReport {
            divergence: Some(self.constraint.learn(nats)?),
            chosen: seen.into_iter().filter(|seen| *seen).count(),
            codes: size,
            ..UpdateReport::default()
        };
        Ok((quantized, report))
    }
}
