//! Regularized vector quantization (Zhang, Zhan, Theobalt, Lu, CVPR 2023, arXiv 2303.06424): a codebook that
//! is used as often as a prior says, and that the decoder learns to read with some codes drawn.
//!
//! The encoder gives each position logits `ℓ` over N codes (section 3.1): a 1×1 convolution, or negative squared
//! distances `−‖h − Z_n‖²`. In training a random mask M, an exact share of every image's positions, decides (section
//! 3.2, algorithm 1):
//!
//! * where M = 0 the best code, `k_d = argmax ℓ`, with the gradient of `y = softmax(ℓ/τ)`;
//! * where M = 1 a drawn code, `k_s = argmax (ℓ + g)`, `g` of Gumbel(0, 1), with the gradient of
//!   `y = softmax((ℓ + g)/τ)`.
//!
//! The value is `Z[k]`; with a slope `v` of the loss over it, the chosen rows of Z get `v` and the logits
//! `(1/τ)·y·(Z·v − y·Z·v)` over all N codes. Loss, unweighted:
//!
//! * `prior` = `KL(P ‖ prior)` (equation 1) of the share of positions P that choose each code, over the batch's
//!   positions; see [`prior`]. `posterior = "hard"` counts choices, with the gradient of the mean of y;
//!   `"soft"` averages `softmax(ℓ/τ)`.
//!
//! There is no commitment and no codebook loss. [`Quantized::perturbation`] is `w = M·‖Z[k_s] − Z[k_d]‖²`, by which the
//! probabilistic contrastive loss weighs positions. Encoding is `argmax ℓ`: no mask, nothing drawn.
//!
//! Shapes: latents `[batch, code_dim, height, width]`, codes `[batch, 1, height, width]`. State: `proj.weight [N, code_dim,
//! 1, 1]` and `proj.bias [N]` (not with distances), `embed.weight [N, code_dim]`, the names of taming-transformers'
//! Gumbel VQGAN; where they are configured, `temperature.batches`, `prior.target` and `prior.running`.
//!
//! Where the paper is silent (its authors published no code): P is taken over the batch, because 256 positions of
//! one image cannot use N > 256 codes evenly; the shares of drawn and best codes together, which is what the decoder
//! sees; τ is 1, it shapes gradients only; 40 % are drawn from the first step to the last. Fresh codes
//! have a deviation of 1/√code_dim, and a fresh head gives their negative squared distances, `2·h·Z_n − ‖Z_n‖²`: the
//! gradient of the soft choice then points from the first step to codes that are near. A head that knows nothing of the
//! codes learns about half as fast. With distances the codes get the gradient of the logits as well, which is what the
//! head's weights get otherwise.

mod mask;
pub mod prior;

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use smalti_nn::nearest::{id_tensor, id_values, nearest_codes};
use smalti_nn::state::host_values;
use smalti_nn::{Conv2d, Conv2dConfig, Embedding, Init, Noise, linear};

use crate::codebook::{blame, select_rows};
use crate::config::{InvalidQuantizer, check_size};
use crate::learning::{check_learnable, chosen};
use crate::quantizer::{check_channels, check_codes};
use crate::relaxed;
use crate::rows::{beside, from_rows, single, straight_through, to_rows};
use crate::temperature::{FallingTemperature, Temperature};
use crate::{
    CodeSpec, Codes, Learn, QuantizeError, Quantized, Quantizer, SoftChoices, UpdateReport,
};

use prior::{Prior, PriorState};

/// What a position's choice among codes is made by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Logits {
    /// A 1×1 convolution, as published.
    #[default]
    Head,
    /// Negative squared distances to the codes.
    Distances,
}

/// What the prior is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Posterior {
    /// How often each code is chosen, as published.
    #[default]
    Hard,
    /// The mean probability of each code, before anything is drawn.
    Soft,
}

/// The shape of a regularized quantizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegularizedConfig {
    /// N.
    pub codebook_size: usize,
    /// Width of a code, and channels of the latents.
    pub code_dim: usize,
    /// What a choice is made by.
    #[serde(default)]
    pub logits: Logits,
    /// Share of an image's positions that take a drawn code in training.
    #[serde(default = "published_ratio")]
    pub mask_ratio: f64,
    /// What the prior is compared with.
    #[serde(default)]
    pub posterior: Posterior,
    /// γ of the moving average that is compared instead of a single batch: for codebooks that are large beside the
    /// positions of a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub posterior_decay: Option<f64>,
    /// How often each code should be chosen.
    #[serde(default)]
    pub prior: Prior,
    /// τ.
    #[serde(default)]
    pub temperature: Temperature,
}

fn published_ratio() -> f64 {
    0.4
}

impl RegularizedConfig {
    /// As published.
    pub fn new(codebook_size: usize, code_dim: usize) -> Self {
        Self {
            codebook_size,
            code_dim,
            logits: Logits::Head,
            mask_ratio: published_ratio(),
            posterior: Posterior::Hard,
            posterior_decay: None,
            prior: Prior::default(),
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
        if !(0.0..=1.0).contains(&self.mask_ratio) {
            problems.push(format!(
                "mask_ratio must lie between 0 and 1, got {}",
                self.mask_ratio
            ));
        }
        if let Some(decay) = self.posterior_decay
            && !(decay > 0.0 && decay < 1.0)
        {
            problems.push(format!(
                "posterior_decay must lie between 0 and 1, got {decay}"
            ));
        }
        problems.extend(self.prior.problems(self.codebook_size));
        problems.extend(self.temperature.problems());
        InvalidQuantizer::unless_empty(problems)
    }

    /// Builds the quantizer.
    ///
    /// # Errors
    /// When the configuration is invalid or the file of a prior cannot be used.
    pub fn build(&self, init: &mut Init) -> Result<RegularizedQuantizer, InvalidQuantizer> {
        self.validate()?;
        let (size, width) = (self.codebook_size, self.code_dim);
        let embed = Embedding::normal(size, width, 1.0 / (width as f32).sqrt(), init);
        Ok(RegularizedQuantizer {
            proj: (self.logits == Logits::Head).then(|| head_of_distances(&embed, init)),
            embed,
            temperature: FallingTemperature::new(self.temperature, init),
            prior: PriorState::new(&self.prior, size, self.posterior_decay, init)?,
            config: self.clone(),
        })
    }
}

/// A head whose logits are the negative squared distances to the codes, but for what is the same at a position.
fn head_of_distances(codes: &Embedding, init: &mut Init) -> Conv2d {
    let codes = codes.weight.val();
    let [size, width] = codes.dims();
    let squares = host_values(codes.clone().square().sum_dim(1).neg());
    let doubled = host_values(codes.mul_scalar(2.0));
    let mut head = Conv2dConfig::same(width, size, 1).init(init);
    head.weight = init.given([size, width, 1, 1], doubled);
    head.bias = init.given([size], squares);
    head
}

/// A codebook with a prior over its use.
#[derive(Module, Debug)]
pub struct RegularizedQuantizer {
    proj: Option<Conv2d>,
    embed: Embedding,
    temperature: FallingTemperature,
    prior: PriorState,
    #[module(skip)]
    config: RegularizedConfig,
}

/// What chance does to a batch.
struct Draws {
    /// Which rows take a drawn code.
    drawn: Vec<bool>,
    /// Of Gumbel(0, 1) in those rows, zeros in the others, `[n, codes]`; none without such rows.
    gumbel: Option<Vec<f32>>,
}

/// What a training step makes of a batch.
struct Pass {
    quantized: Quantized,
    /// P, `[codes]`.
    shares: Tensor<1>,
    decided: SoftChoices,
}

/// Codes of a batch's rows.
struct Choice {
    ids: Tensor<1, Int>,
    decided: SoftChoices,
    /// The soft choice whose gradient each row has.
    soft: Tensor<2>,
    /// `‖Z[drawn] − Z[best]‖²` of each row.
    perturbation: Tensor<1>,
}

impl RegularizedQuantizer {
    /// The codes, `[codebook_size, code_dim]`.
    pub fn table(&self) -> Tensor<2> {
        self.embed.weight.val()
    }

    /// The configuration it was built from.
    pub fn config(&self) -> &RegularizedConfig {
        &self.config
    }

    /// τ of the next batch.
    pub fn temperature(&self) -> f64 {
        self.temperature.now()
    }

    /// ℓ, `[n, codes]`, but for what is the same over a row.
    fn logits(&self, rows: Tensor<2>) -> Tensor<2> {
        match &self.proj {
            Some(head) => relaxed::logits_of(head, rows),
            None => {
                // −‖h − z‖² = 2·h·z − ‖z‖² − ‖h‖².
                let table = beside(self.table(), &rows);
                let squares = table.clone().square().sum_dim(1).squeeze_dim::<1>(1);
                linear(rows.mul_scalar(2.0), table, Some(squares.neg()))
            }
        }
    }

    /// The best code of every row.
    fn best(&self, rows: Tensor<2>) -> Result<Tensor<1, Int>, QuantizeError> {
        match &self.proj {
            Some(head) => relaxed::best_of(head, rows),
            None => nearest_codes(rows.clone(), self.table()).map_err(|_| blame(rows)),
        }
    }

    fn draw(&self, [batch, height, width]: [usize; 3], noise: &mut Noise) -> Draws {
        let drawn = mask::drawn(batch, height * width, self.config.mask_ratio, noise);
        let codes = self.config.codebook_size;
        let any = drawn.contains(&true);
        let gumbel = any.then(|| relaxed::gumbel_rows(&drawn, codes, noise));
        Draws { drawn, gumbel }
    }

    /// The best code where nothing is drawn, the drawn one elsewhere.
    fn choose(
        &self,
        rows: Tensor<2>,
        logits: Tensor<2>,
        draws: Draws,
    ) -> Result<Choice, QuantizeError> {
        let best = self.best(rows)?;
        let temperature = self.temperature.now();
        let Some(gumbel) = draws.gumbel else {
            let soft = relaxed::soft_choice(logits, temperature);
            return Ok(Choice {
                decided: SoftChoices::of(&soft, &draws.drawn, [&best, &best], temperature),
                soft,
                perturbation: Tensor::zeros([draws.drawn.len()], &best.device()),
                ids: best,
            });
        };
        let perturbed = logits.clone() + relaxed::like(gumbel, &logits);
        let sampled = relaxed::largest(&perturbed).into_iter();
        let both = id_values(best.clone()).into_iter().zip(sampled);
        let each = both.zip(&draws.drawn);
        let ids: Vec<u32> = each
            .map(|((best, sample), &drawn)| if drawn { sample } else { best })
            .collect();
        let ids = id_tensor(&ids, [draws.drawn.len()], &best.device());
        let codes = |ids: &Tensor<1, Int>| self.table().inner().select(0, ids.clone());
        let distance = (codes(&ids) - codes(&best)).square().sum_dim(1);
        let soft = relaxed::soft_choice(perturbed, temperature);
        Ok(Choice {
            decided: SoftChoices::of(&soft, &draws.drawn, [&ids, &best], temperature),
            ids,
            soft,
            perturbation: distance.squeeze_dim::<1>(1),
        })
    }

    /// P, `[codes]`.
    fn shares(&self, logits: Tensor<2>, choice: &Choice) -> Tensor<1> {
        let mean = |soft: Tensor<2>| soft.mean_dim(0).squeeze_dim::<1>(0);
        if self.config.posterior == Posterior::Soft {
            return mean(relaxed::soft_choice(logits, self.temperature.now()));
        }
        let size = self.config.codebook_size;
        let ids = id_values(choice.ids.clone());
        let mut counts = vec![0u32; size];
        ids.iter().for_each(|&id| counts[id as usize] += 1);
        let share = |count| (f64::from(count) / ids.len() as f64) as f32;
        let shares: Vec<f32> = counts.into_iter().map(share).collect();
        let soft = mean(choice.soft.clone());
        let hard = Tensor::from_data(TensorData::new(shares, [size]), &soft.device());
        straight_through(soft, hard)
    }

    /// Quantizes with given draws.
    fn training_pass(
        &self,
        latents: Tensor<4>,
        draw: impl FnOnce([usize; 3]) -> Draws,
    ) -> Result<Pass, QuantizeError> {
        check_channels(&latents, self.config.code_dim)?;
        let [batch, _, height, width] = latents.dims();
        let grid = [batch, height, width];
        let rows = to_rows(single(latents));
        check_learnable(&host_values(rows.clone().inner()))?;
        let logits = self.logits(rows.clone());
        let choice = self.choose(rows.clone(), logits.clone(), draw(grid))?;
        let shares = self.shares(logits, &choice);
        let losses = vec![("prior", self.prior.loss(shares.clone()))];
        let table = beside(self.table(), &rows);
        let value = relaxed::chosen_codes(choice.soft, table, choice.ids.clone());
        let quantized = Quantized {
            perturbation: Some(choice.perturbation.reshape(grid)),
            ..Quantized::new(
                from_rows(value, grid),
                Codes::from_depths(vec![choice.ids], grid),
                losses,
            )
        };
        Ok(Pass {
            quantized,
            shares,
            decided: choice.decided,
        })
    }
}

impl Quantizer for RegularizedQuantizer {
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
        let ids = self.best(to_rows(single(latents.inner())))?;
        Ok(Codes::from_depths(vec![ids], [batch, height, width]))
    }

    fn decode(&self, codes: &Codes) -> Result<Tensor<4>, QuantizeError> {
        check_codes(codes, &self.spec())?;
        let [batch, _, height, width] = codes.dims();
        let rows = select_rows(self.table(), codes.at_depth(0));
        Ok(from_rows(rows, [batch, height, width]))
    }

    fn quantize(&self, latents: Tensor<4>, noise: &mut Noise) -> Result<Quantized, QuantizeError> {
        let pass = self.training_pass(latents, |grid| self.draw(grid, noise))?;
        Ok(pass.quantized)
    }
}

impl Learn for RegularizedQuantizer {
    /// The codebook is the optimiser's to move: what moves here are the temperature and the average of P, after
    /// the batch was quantized with the old ones.
    fn quantize_and_update(
        &mut self,
        latents: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<(Quantized, UpdateReport), QuantizeError> {
        let pass = self.training_pass(latents, |grid| self.draw(grid, noise))?;
        let report = UpdateReport {
            chosen: chosen(&pass.quantized.codes),
            codes: self.config.codebook_size,
            choices: Some(pass.decided),
            ..UpdateReport::default()
        };
        self.prior.learn(&pass.shares);
        self.temperature.advance();
        Ok((pass.quantized, report))
    }
}

#[cfg(test)]
mod tests;
