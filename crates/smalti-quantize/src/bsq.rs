//! Binary spherical quantization: signs on the unit sphere (Zhao et al., ICLR 2025, section 3.2).
//!
//! `u = x/‖x‖`, `q = sign(u)/√d` over all d channels of a position, where zero counts as negative.
//! The published gradient passes straight through the sign only, so that of the value is scaled by
//! 1/√d as the value is. Losses, unweighted:
//!
//! * `commitment` = mean (u − sg(q))²; the reference sums over channels, so its weight β is here
//!   β·d;
//! * `sample_entropy` and `unused_entropy` with `p(c|u) = softmax(2τ·u·c)`, summed over groups of
//!   `entropy_group` bits (eq. 8 to 10). Bits are independent given the latent, so the first is
//!   exact for any group; the second is exact within a group and an upper bound of the usage
//!   beyond it. A group of 1 is the reference's "analytical" form. See
//!   [`entropy`](crate::entropy) for how they make up the published loss, which divides both by τ.
//!
//! Shapes: latents `[batch, depth · bits, height, width]`, codes `[batch, depth, height, width]`: d bits
//! are cut into `depth` codes of `bits` bits, because codes are 32-bit integers. The first channel
//! is the most significant bit. No state.
//!
//! Differences: ids are packed as whole numbers; the reference packs in `f32` and truncates, which
//! can be one too low and holds no more than 24 bits, and the author's code of Gaussian Quant packs
//! 16 bits whatever d is. That code also counts the use of all bits as one distribution over two
//! values, which [`LFQ`](crate::lfq) of one-bit sub-codebooks can do; the paper's is taken here.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use smalti_nn::Noise;
use smalti_nn::entropy::{Entropies, Over, SignEntropies};

use crate::config::InvalidQuantizer;
use crate::digits::Significance;
use crate::entropy::{Logarithm, Logarithms, MOST_BITS, check_temperature};
use crate::learning::learn_nothing;
use crate::quantizer::{check_channels, check_codes};
use crate::rows::{from_rows, single, straight_through, to_rows, unit_rows};
use crate::signs::{Signs, check_bits};
use crate::{CodeSpec, Codes, Learn, QuantizeError, Quantized, Quantizer, UpdateReport};

/// The shape of a binary spherical quantizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BsqConfig {
    /// Bits of one code, each a channel.
    pub bits: usize,
    /// Codes at each position. Together they are one point of the sphere.
    #[serde(default = "one")]
    pub depth: usize,
    /// Whether latents and values lie on the unit sphere; without, latents are taken as they are and
    /// values are ±1.
    #[serde(default = "yes")]
    pub normalize: bool,
    /// Which bit of an id the first channel is.
    #[serde(default = "highest")]
    pub first_channel: Significance,
    /// Bits whose joint use the entropies look at.
    #[serde(default = "one")]
    pub entropy_group: usize,
    /// τ of the entropies' distribution.
    #[serde(default = "unit")]
    pub inverse_temperature: f32,
    /// How the entropies keep logarithms finite.
    #[serde(default = "published")]
    pub logarithms: Logarithms,
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

fn highest() -> Significance {
    Significance::Highest
}

fn unit() -> f32 {
    1.0
}

fn published() -> Logarithms {
    Logarithms::both(Logarithm::Added { epsilon: 1e-8 })
}

impl BsqConfig {
    /// `depth` codes of `bits` bits, entropies of single bits.
    pub fn new(bits: usize, depth: usize) -> Self {
        Self {
            bits,
            depth,
            normalize: true,
            first_channel: Significance::Highest,
            entropy_group: 1,
            inverse_temperature: 1.0,
            logarithms: published(),
        }
    }

    /// Channels of the latents: d.
    pub fn channels(&self) -> usize {
        self.bits * self.depth
    }

    /// Checks every number.
    ///
    /// # Errors
    /// Lists all problems.
    pub fn validate(&self) -> Result<(), InvalidQuantizer> {
        let mut problems = check_bits(self.bits, self.depth);
        if !(1..=MOST_BITS).contains(&self.entropy_group) {
            problems.push(format!(
                "entropy_group must lie between 1 and {MOST_BITS}, got {}",
                self.entropy_group
            ));
        } else if problems.is_empty() && !self.channels().is_multiple_of(self.entropy_group) {
            problems.push(format!(
                "entropy_group must divide bits · depth ({}), got {}",
                self.channels(),
                self.entropy_group
            ));
        }
        problems.extend(check_temperature(self.inverse_temperature));
        problems.extend(self.logarithms.problems());
        InvalidQuantizer::unless_empty(problems)
    }

    /// Builds the quantizer. It has no parameters.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn build(&self) -> Result<BsqQuantizer, InvalidQuantizer> {
        self.validate()?;
        Ok(BsqQuantizer {
            config: self.clone(),
        })
    }
}

/// Signs on the unit sphere.
#[derive(Module, Debug)]
pub struct BsqQuantizer {
    #[module(skip)]
    config: BsqConfig,
}

impl BsqQuantizer {
    /// Length of every component of a value: 1/√d.
    fn magnitude(&self) -> f32 {
        if self.config.normalize {
            1.0 / (self.config.channels() as f32).sqrt()
        } else {
            1.0
        }
    }

    fn signs(&self) -> Signs {
        Signs {
            bits: self.config.bits,
            depth: self.config.depth,
            first: self.config.first_channel,
            magnitude: self.magnitude(),
        }
    }

    fn entropies(&self, rows: Tensor<2>) -> Entropies {
        let entropies = SignEntropies {
            bits: self.config.entropy_group,
            sharpness: 2.0 * self.config.inverse_temperature * self.magnitude(),
            over: Over::Sum,
            logarithms: self.config.logarithms.into(),
        };
        entropies.of(rows)
    }
}

impl Quantizer for BsqQuantizer {
    fn spec(&self) -> CodeSpec {
        self.signs().spec()
    }

    fn encode(&self, latents: Tensor<4>) -> Result<Codes, QuantizeError> {
        check_channels(&latents, self.config.channels())?;
        // Scaling changes no sign, but could round small numbers to zero.
        Ok(self.signs().of(&latents)?.0)
    }

    fn decode(&self, codes: &Codes) -> Result<Tensor<4>, QuantizeError> {
        check_codes(codes, &self.spec())?;
        Ok(self.signs().decode(codes))
    }

    fn quantize(&self, latents: Tensor<4>, _noise: &mut Noise) -> Result<Quantized, QuantizeError> {
        check_channels(&latents, self.config.channels())?;
        let latents = single(latents);
        let (codes, values) = self.signs().of(&latents)?;
        let [batch, _, height, width] = latents.dims();
        let rows = to_rows(latents);
        let rows = if self.config.normalize {
            unit_rows(rows)
        } else {
            rows
        };
        let Entropies { sample, unused } = self.entropies(rows.clone());
        let points = from_rows(rows, [batch, height, width]);
        let commitment = (points.clone() - values.clone()).square().mean();
        let through = points.mul_scalar(self.magnitude());
        let losses = vec![
            ("commitment", commitment),
            ("sample_entropy", sample),
            ("unused_entropy", unused),
        ];
        Ok(Quantized::new(
            straight_through(through, values),
            codes,
            losses,
        ))
    }
}

impl Learn for BsqQuantizer {
    fn quantize_and_update(
        &mut self,
        latents: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<(Quantized, UpdateReport), QuantizeError> {
        learn_nothing(self, latents, noise)
    }
}

#[cfg(test)]
mod tests;
