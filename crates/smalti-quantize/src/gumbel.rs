//! Vector quantization by Gumbel samples: DALL-E's tokenizer (Ramesh et al., ICML 2021, arXiv 2102.12092, section
//! 2.1) as taming-transformers has it (`GumbelQuantize`).
//!
//! A 1×1 convolution gives each position logits `ℓ` over N codes; in training every position draws, `g` of Gumbel(0, 1):
//!
//! * `samples = "straight_through"`, the published default: the value is `Z[k]`, `k = argmax (ℓ + g)`, with the gradient
//!   of `softmax((ℓ + g)/τ)`;
//! * `samples = "soft"`: the value is the mixture `softmax((ℓ + g)/τ)·Z` itself, with its gradient; the codes are those
//!   with the largest weight in it.
//!
//! Loss, unweighted: `divergence` = mean over positions of `KL(softmax(ℓ) ‖ uniform) = ln N − H`, in nats, which asks
//! each position to be undecided (published weights are 5·10⁻⁴ and less; DALL-E's grew from 0 to 6.6). It is not the
//! `prior` of [`regularized`](crate::regularized), which asks only that all codes be used over a batch.
//!
//! Shapes: latents `[batch, code_dim, height, width]`, codes `[batch, 1, height, width]`. State, with the published names:
//! `proj.weight [N, code_dim, 1, 1]`, `proj.bias [N]`, `embed.weight [N, code_dim]`; and `temperature.batches [1]` where the
//! temperature falls.
//!
//! Differences: the published module draws when images are encoded for use, too; here
//! [`encode`](Quantizer::encode) takes `argmax ℓ`. Its divergence has `ln(q·N + 10⁻¹⁰)`; here nothing is added, which no
//! `f32` shows.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use smalti_nn::entropy::{Logarithm, Logarithms, SoftmaxEntropies};
use smalti_nn::nearest::id_tensor;
use smalti_nn::state::host_values;
use smalti_nn::{Conv2d, Conv2dConfig, Embedding, Init, Noise};

use crate::codebook::select_rows;
use crate::config::{InvalidQuantizer, check_size};
use crate::learning::{check_learnable, chosen};
use crate::quantizer::{check_channels, check_codes};
use crate::relaxed;
use crate::rows::{beside, from_rows, single, to_rows};
use crate::temperature::{FallingTemperature, Temperature};
use crate::{
    CodeSpec, Codes, Learn, QuantizeError, Quantized, Quantizer, SoftChoices, UpdateReport,
};

/// What the decoder sees in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Samples {
    /// The drawn code.
    #[default]
    StraightThrough,
    /// A mixture of codes.
    Soft,
}

/// The shape of a Gumbel quantizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GumbelConfig {
    /// N.
    pub codebook_size: usize,
    /// Width of a code, and channels of the latents.
    pub code_dim: usize,
    /// What the decoder sees in training.
    #[serde(default)]
    pub samples: Samples,
    /// τ.
    #[serde(default)]
    pub temperature: Temperature,
}

impl GumbelConfig {
    /// With the published defaults.
    pub fn new(codebook_size: usize, code_dim: usize) -> Self {
        Self {
            codebook_size,
            code_dim,
            samples: Samples::default(),
            temperature: Temperature::default(),
        }
    }

    /// Checks every number.
    ///
    /// # Errors
    /// Lists all problems.
    pub fn validate(&self) -> Result<(), InvalidQuantizer> {
        let mut problems: Vec<String> = check_size(self.codebook_size).into_iter().collect();
        if self.code_dim == 0 {
            problems.push("code_dim must be at least 1, got 0".into());
        }
        problems.extend(self.temperature.problems());
        InvalidQuantizer::unless_empty(problems)
    }

    /// Builds the quantizer, with PyTorch's convolution and standard normal codes as published.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn build(&self, init: &mut Init) -> Result<GumbelQuantizer, InvalidQuantizer> {
        self.validate()?;
        let (size, width) = (self.codebook_size, self.code_dim);
        Ok(GumbelQuantizer {
            proj: Conv2dConfig::same(width, size, 1).init(init),
            embed: Embedding::normal(size, width, 1.0, init),
            temperature: FallingTemperature::new(self.temperature, init),
            config: self.clone(),
        })
    }
}

/// A codebook whose codes are drawn in training.
#[derive(Module, Debug)]
pub struct GumbelQuantizer {
    proj: Conv2d,
    embed: Embedding,
    temperature: FallingTemperature,
    #[module(skip)]
    config: GumbelConfig,
}

impl GumbelQuantizer {
    /// The codes, `[codebook_size, code_dim]`.
    pub fn table(&self) -> Tensor<2> {
        self.embed.weight.val()
    }

    /// τ of the next batch.
    pub fn temperature(&self) -> f64 {
        self.temperature.now()
    }

    /// Quantizes with given draws of Gumbel(0, 1), `[n, codes]` in row order; how decided the choices were beside it.
    fn training_pass(
        &self,
        latents: Tensor<4>,
        draw: impl FnOnce(usize) -> Vec<f32>,
    ) -> Result<(Quantized, SoftChoices), QuantizeError> {
        check_channels(&latents, self.config.code_dim)?;
        let [batch, _, height, width] = latents.dims();
        let grid = [batch, height, width];
        let count = batch * height * width;
        let rows = to_rows(single(latents));
        check_learnable(&host_values(rows.clone().inner()))?;
        let logits = relaxed::logits_of(&self.proj, rows.clone());
        let perturbed = logits.clone() + relaxed::like(draw(count), &logits);
        let ids = |logits: &Tensor<2>| {
            let ids = relaxed::largest(logits);
            id_tensor(&ids, [count], &rows.device().inner())
        };
        let (ids, best) = (ids(&perturbed), ids(&logits));
        let temperature = self.temperature.now();
        let soft = relaxed::soft_choice(perturbed, temperature);
        let choices = SoftChoices::of(&soft, &vec![true; count], [&ids, &best], temperature);
        let table = beside(self.table(), &rows);
        let value = match self.config.samples {
            Samples::StraightThrough => relaxed::chosen_codes(soft, table, ids.clone()),
            Samples::Soft => relaxed::mixed_codes(soft, table),
        };
        let quantized = Quantized::new(
            from_rows(value, grid),
            Codes::from_depths(vec![ids], grid),
            vec![("divergence", self.divergence(rows))],
        );
        Ok((quantized, choices))
    }

    fn pass_with(
        &self,
        latents: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<(Quantized, SoftChoices), QuantizeError> {
        let codes = self.config.codebook_size;
        self.training_pass(latents, |count| {
            relaxed::gumbel_values(noise, count * codes)
        })
    }

    /// `ln N − H(softmax ℓ)`, the mean over rows.
    fn divergence(&self, rows: Tensor<2>) -> Tensor<1> {
        let entropies = SoftmaxEntropies {
            inverse_temperature: 1.0,
            logarithms: Logarithms {
                sample: Logarithm::Exact,
                codebook: Logarithm::Exact,
            },
        };
        let (rows, table) = relaxed::as_products(&self.proj, rows);
        let entropy = entropies.of(rows, table).sample;
        entropy
            .neg()
            .add_scalar((self.config.codebook_size as f64).ln())
    }
}

impl Quantizer for GumbelQuantizer {
    fn spec(&self) -> CodeSpec {
        CodeSpec {
            codebook_sizes: vec![self.config.codebook_size],
            code_dim: self.config.code_dim,
            fold: 1,
        }
    }

    fn encode(&self, latents: Tensor<4>) -> Result<Codes, QuantizeError> {
        check_channels(&latents, self.config.code_dim)?;
        let [batch, _, height, width] = latents.dims();
        let ids = relaxed::best_of(&self.proj, to_rows(single(latents.inner())))?;
        Ok(Codes::from_depths(vec![ids], [batch, height, width]))
    }

    fn decode(&self, codes: &Codes) -> Result<Tensor<4>, QuantizeError> {
        check_codes(codes, &self.spec())?;
        let [batch, _, height, width] = codes.dims();
        let rows = select_rows(self.table(), codes.at_depth(0));
        Ok(from_rows(rows, [batch, height, width]))
    }

    fn quantize(&self, latents: Tensor<4>, noise: &mut Noise) -> Result<Quantized, QuantizeError> {
        Ok(self.pass_with(latents, noise)?.0)
    }
}

impl Learn for GumbelQuantizer {
    /// The codebook is the optimiser's to move: what moves here is the temperature, after the batch was quantized
    /// with the old one.
    fn quantize_and_update(
        &mut self,
        latents: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<(Quantized, UpdateReport), QuantizeError> {
        let (quantized, choices) = self.pass_with(latents, noise)?;
        let report = UpdateReport {
            chosen: chosen(&quantized.codes),
            codes: self.config.codebook_size,
            choices: Some(choices),
            ..UpdateReport::default()
        };
        self.temperature.advance();
        Ok((quantized, report))
    }
}

#[cfg(test)]
mod tests;
