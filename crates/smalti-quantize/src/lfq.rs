//! Lookup-free quantization: a code is the signs of its channels (Yu et al., ICLR 2024, section 3.1).
//!
//! `q = s·sign(x)`, where zero counts as negative; the gradient passes straight through. The codebook
//! of a sub-codebook of d bits is `{−s, +s}ᵈ` and never stored. Losses, unweighted:
//!
//! * `commitment` = mean (x − sg(q))²;
//! * `sample_entropy` and `unused_entropy` over each sub-codebook's 2ᵈ codes with
//!   `p(c|x) = softmax(2τ·x·c)`; see [`entropy`](crate::entropy), also for how they make up the
//!   published entropy loss.
//!
//! Several sub-codebooks (`depth`) are the reference's `num_codebooks`, each of d channels that lie
//! side by side. Open-MAGVIT2 and the author's code of Gaussian Quant count the use of all sub-codebooks
//! as one (`pooled`); the common library takes each by itself.
//!
//! Shapes: latents `[batch, depth · bits, height, width]`, codes `[batch, depth, height, width]`. No
//! state.
//!
//! Differences: one id for each sub-codebook, where the author's code of Gaussian Quant packs all of
//! them into one. The first channel is the most significant bit, as there and in the common
//! library; Open-MAGVIT2 has it `lowest`. The entropies are found without a gradient graph over the
//! 2ᵈ codes and cannot be NaN, which half precision made them there.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use smalti_nn::Noise;
use smalti_nn::entropy::{Entropies, Over, SignEntropies};

use crate::config::InvalidQuantizer;
use crate::digits::Significance;
use crate::entropy::{Logarithms, MOST_BITS, check_temperature};
use crate::learning::learn_nothing;
use crate::quantizer::{check_channels, check_codes};
use crate::rows::{single, straight_through, to_rows};
use crate::signs::{Signs, check_bits};
use crate::{CodeSpec, Codes, Learn, QuantizeError, Quantized, Quantizer, UpdateReport};

/// The shape of a lookup-free quantizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LfqConfig {
    /// Bits of one code, each a channel.
    pub bits: usize,
    /// Codes at each position: sub-codebooks.
    #[serde(default = "one")]
    pub depth: usize,
    /// s: values are ±s.
    #[serde(default = "unit")]
    pub scale: f32,
    /// Which bit of an id the first channel is.
    #[serde(default = "highest")]
    pub first_channel: Significance,
    /// τ of the entropies' distribution.
    #[serde(default = "hundred")]
    pub inverse_temperature: f32,
    /// Whether the use of all sub-codebooks is counted as one.
    #[serde(default = "yes")]
    pub pooled: bool,
    /// How the entropies keep logarithms finite.
    #[serde(default = "Logarithms::magvit")]
    pub logarithms: Logarithms,
}

fn one() -> usize {
    1
}

fn unit() -> f32 {
    1.0
}

fn highest() -> Significance {
    Significance::Highest
}

fn hundred() -> f32 {
    100.0
}

fn yes() -> bool {
    true
}

impl LfqConfig {
    /// `depth` sub-codebooks of `bits` bits with the reference's entropies.
    pub fn new(bits: usize, depth: usize) -> Self {
        Self {
            bits,
            depth,
            scale: 1.0,
            first_channel: Significance::Highest,
            inverse_temperature: 100.0,
            pooled: true,
            logarithms: Logarithms::magvit(),
        }
    }

    /// Channels of the latents.
    pub fn channels(&self) -> usize {
        self.bits * self.depth
    }

    /// Checks every number.
    ///
    /// # Errors
    /// Lists all problems.
    pub fn validate(&self) -> Result<(), InvalidQuantizer> {
        let mut problems = check_bits(self.bits, self.depth);
        if problems.is_empty() && self.bits > MOST_BITS {
            problems.push(format!(
                "bits must be at most {MOST_BITS}, got {}: the entropy of the codebook is taken over \
                 2^bits codes; use more depth with fewer bits",
                self.bits
            ));
        }
        if !(self.scale.is_finite() && self.scale > 0.0) {
            problems.push(format!(
                "scale must be positive and finite, got {}",
                self.scale
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
    pub fn build(&self) -> Result<LfqQuantizer, InvalidQuantizer> {
        self.validate()?;
        Ok(LfqQuantizer {
            config: self.clone(),
        })
    }
}

/// Signs of channels.
#[derive(Module, Debug)]
pub struct LfqQuantizer {
    #[module(skip)]
    config: LfqConfig,
}

impl LfqQuantizer {
    fn signs(&self) -> Signs {
        Signs {
            bits: self.config.bits,
            depth: self.config.depth,
            first: self.config.first_channel,
            magnitude: self.config.scale,
        }
    }

    fn entropies(&self, latents: Tensor<4>) -> Entropies {
        let entropies = SignEntropies {
            bits: self.config.bits,
            sharpness: 2.0 * self.config.inverse_temperature * self.config.scale,
            over: if self.config.pooled {
                Over::Pooled
            } else {
                Over::Mean
            },
            logarithms: self.config.logarithms.into(),
        };
        entropies.of(to_rows(latents))
    }
}

impl Quantizer for LfqQuantizer {
    fn spec(&self) -> CodeSpec {
        self.signs().spec()
    }

    fn encode(&self, latents: Tensor<4>) -> Result<Codes, QuantizeError> {
        check_channels(&latents, self.config.channels())?;
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
        let commitment = (latents.clone() - values.clone()).square().mean();
        let Entropies { sample, unused } = self.entropies(latents.clone());
        let losses = vec![
            ("commitment", commitment),
            ("sample_entropy", sample),
            ("unused_entropy", unused),
        ];
        Ok(Quantized::new(
            straight_through(latents, values),
            codes,
            losses,
        ))
    }
}

impl Learn for LfqQuantizer {
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
