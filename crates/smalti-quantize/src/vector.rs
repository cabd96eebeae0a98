//! Vector quantization: one code at each position (van den Oord et al., NeurIPS 2017).
//!
//! `k = argmin_k ‖x − e_k‖²`, value `e_k`, gradient straight through. Losses: `commitment` = mean‖x
//! − sg(e_k)‖² and, where the optimiser learns the codebook, `codebook` = mean‖sg(x) − e_k‖².
//!
//! With [`Metric::Cosine`] latents and codes are scaled to length one before they are compared, and
//! the quantized value is the scaled code (Yu et al., ICLR 2022); losses compare the scaled
//! vectors.
//!
//! With `entropies` there are `sample_entropy` and `unused_entropy` as well, of the soft choice by
//! distance ([`DistanceEntropies`]): the quantizer of LlamaGen (Sun et al. 2024, arXiv 2406.06525), whose
//! codebook is `metric = "cosine"`, `rule = "gradient"`.
//!
//! [`Estimator::Rotation`] turns the value's gradient instead of passing it straight through.
//!
//! Shapes: latents `[batch, code_dim, height, width]`, codes `[batch, 1, height, width]`. State:
//! one codebook. Differences: the reference codes of the family disagree about which side of the
//! loss is weighted; here both are named and weighed in the configuration.

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};
use smalti_nn::nearest::id_values;
use smalti_nn::state::host_values;
use smalti_nn::{Init, Noise};

use crate::codebook::search;
use crate::config::{InvalidQuantizer, check_size};
use crate::learning::check_learnable;
use crate::quantizer::{check_channels, check_codes};
use crate::rows::{beside, from_rows, to_rows, unit_rows};
use crate::{
    CodeSpec, Codebook, Codes, DistanceEntropies, Estimator, Learn, Learning, QuantizeError,
    Quantized, Quantizer, UpdateReport,
};

/// What nearest means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Smallest squared distance.
    Euclidean,
    /// Smallest angle.
    Cosine,
}

/// What moves the codes toward the latents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Moving averages, outside the optimiser.
    Ema,
    /// The loss `codebook`, by the optimiser.
    Gradient,
}

/// The shape of a vector quantizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorConfig {
    /// Number of codes.
    pub codebook_size: usize,
    /// Width of a code.
    pub code_dim: usize,
    /// What nearest means.
    #[serde(default = "euclidean")]
    pub metric: Metric,
    /// What moves the codes.
    #[serde(default = "ema")]
    pub rule: Rule,
    /// How the value's gradient gets past the choice of a code.
    #[serde(default)]
    pub estimator: Estimator,
    /// The entropies of the soft choice as two more losses, where they are wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropies: Option<DistanceEntropies>,
    /// Moving averages, revival and start. With the rule `gradient` the averages only watch which
    /// codes are dead.
    #[serde(default)]
    pub learning: Learning,
}

fn euclidean() -> Metric {
    Metric::Euclidean
}

fn ema() -> Rule {
    Rule::Ema
}

impl VectorConfig {
    /// Euclidean, learned by moving averages.
    pub fn new(codebook_size: usize, code_dim: usize) -> Self {
        Self {
            codebook_size,
            code_dim,
            metric: Metric::Euclidean,
            rule: Rule::Ema,
            estimator: Estimator::StraightThrough,
            entropies: None,
            learning: Learning::default(),
        }
    }

    /// Checks every number.
    ///
    /// # Errors
    /// Lists all problems.
    pub fn validate(&self) -> Result<(), InvalidQuantizer> {
        let mut problems = self.learning.problems();
        problems.extend(check_size(self.codebook_size));
        if self.code_dim == 0 {
            problems.push("code_dim must be at least 1, got 0".into());
        }
        problems.extend(self.entropies.iter().flat_map(DistanceEntropies::problems));
        InvalidQuantizer::unless_empty(problems)
    }

    /// Builds the quantizer.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn build(&self, init: &mut Init) -> Result<VectorQuantizer, InvalidQuantizer> {
        self.validate()?;
        let codebook = match self.rule {
            Rule::Ema => Codebook::new(self.codebook_size, self.code_dim, &self.learning, init),
            Rule::Gradient => {
                Codebook::trained(self.codebook_size, self.code_dim, &self.learning, init)
            }
        };
        Ok(VectorQuantizer {
            codebook,
            config: self.clone(),
        })
    }
}

/// One codebook.
#[derive(Module, Debug)]
pub struct VectorQuantizer {
    codebook: Codebook,
    #[module(skip)]
    config: VectorConfig,
}

impl VectorQuantizer {
    /// The codes as they are used: scaled to length one under [`Metric::Cosine`].
    pub fn table(&self) -> Tensor<2> {
        self.scaled(self.codebook.table())
    }

    /// The codes as they are stored.
    #[cfg(test)]
    pub(crate) fn codebook(&self) -> &Codebook {
        &self.codebook
    }

    fn scaled(&self, rows: Tensor<2>) -> Tensor<2> {
        match self.config.metric {
            Metric::Euclidean => rows,
            Metric::Cosine => unit_rows(rows),
        }
    }

    fn check(&self, latents: &Tensor<4>) -> Result<[usize; 3], QuantizeError> {
        check_channels(latents, self.config.code_dim)?;
        let [batch, _, height, width] = latents.dims();
        Ok([batch, height, width])
    }

    fn nearest(&self, rows: Tensor<2>) -> Result<Tensor<1, Int>, QuantizeError> {
        search(rows, self.table())
    }

    fn finish(&self, latents: Tensor<4>, grid: [usize; 3]) -> Result<Quantized, QuantizeError> {
        let rows = self.scaled(to_rows(latents));
        self.config.estimator.check(&rows)?;
        if self.config.entropies.is_some() {
            // Distances that overflow have no softmax, and no rows no mean.
            check_learnable(&host_values(rows.clone().inner()))?;
        }
        let ids = self.nearest(rows.clone())?;
        let codes = beside(self.scaled(self.codebook.lookup(ids.clone())), &rows);
        let mut losses = vec![(
            "commitment",
            (rows.clone() - codes.clone().detach()).square().mean(),
        )];
        if self.config.rule == Rule::Gradient {
            losses.push((
                "codebook",
                (rows.clone().detach() - codes.clone()).square().mean(),
            ));
        }
        if let Some(entropies) = &self.config.entropies {
            losses.extend(entropies.of(rows.clone(), beside(self.table(), &rows)));
        }
        Ok(Quantized::new(
            from_rows(self.config.estimator.pass(rows, codes), grid),
            Codes::from_depths(vec![ids], grid),
            losses,
        ))
    }

    fn learn(
        &mut self,
        latents: Tensor<4>,
        grid: [usize; 3],
        noise: &mut Noise,
    ) -> Result<(Quantized, UpdateReport), QuantizeError> {
        let rows = self.scaled(to_rows(latents.clone().inner()));
        let vectors = host_values(rows.clone());
        if let Some(iterations) = self.codebook.awaits_start(&self.config.learning) {
            self.codebook
                .start_on(&vectors, 0..self.config.codebook_size, iterations, noise);
        }
        let learning = &self.config.learning;
        match self.config.rule {
            Rule::Ema => {
                let quantized = self.finish(latents, grid)?;
                let ids = quantized.codes.values();
                let report = self
                    .codebook
                    .update(&vectors, &ids, learning, noise.rng())?;
                Ok((quantized, report))
            }
            Rule::Gradient => {
                let ids = id_values(self.nearest(rows)?);
                let report = self.codebook.watch(&vectors, &ids, learning, noise.rng())?;
                Ok((self.finish(latents, grid)?, report))
            }
        }
    }
}

impl Quantizer for VectorQuantizer {
    fn spec(&self) -> CodeSpec {
        CodeSpec {
            codebook_sizes: vec![self.config.codebook_size],
            code_dim: self.config.code_dim,
            fold: 1,
        }
    }

    fn encode(&self, latents: Tensor<4>) -> Result<Codes, QuantizeError> {
        let grid = self.check(&latents)?;
        let rows = self.scaled(to_rows(latents.inner()));
        let ids = self.nearest(rows)?;
        Ok(Codes::from_depths(vec![ids], grid))
    }

    fn decode(&self, codes: &Codes) -> Result<Tensor<4>, QuantizeError> {
        check_codes(codes, &self.spec())?;
        let [batch, _, height, width] = codes.dims();
        Ok(from_rows(
            self.scaled(self.codebook.lookup(codes.at_depth(0))),
            [batch, height, width],
        ))
    }

    fn quantize(&self, latents: Tensor<4>, _noise: &mut Noise) -> Result<Quantized, QuantizeError> {
        let grid = self.check(&latents)?;
        self.finish(latents, grid)
    }
}

impl Learn for VectorQuantizer {
    fn quantize_and_update(
        &mut self,
        latents: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<(Quantized, UpdateReport), QuantizeError> {
        let grid = self.check(&latents)?;
        check_learnable(&host_values(latents.clone().inner()))?;
        let before = self.codebook.clone();
        let result = self.learn(latents, grid, noise);
        if result.is_err() {
            self.codebook = before;
        }
        result
    }
}

#[cfg(test)]
mod tests;
