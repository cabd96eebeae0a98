//! SimVQ: a frozen random codebook behind a learned linear map (Zhu et al., 2024, section 4).
//!
//! With a table E of normal numbers that never changes, the codes are `W·e_k + b`; the nearest wins
//! by Euclidean distance. Every step moves all codes, those that nobody chose included, so none
//! dies. Losses, unweighted: `commitment` = mean (x − sg(q))², `codebook` = mean (sg(x) − q)², whose
//! gradient is W's and b's. The reference's `legacy` forms weigh the one or the other with β = 0.25.
//!
//! Shapes: latents `[batch, code_dim, height, width]`, codes `[batch, 1, height, width]`. State, with
//! the published names: `embedding.weight [K, code_dim]`, frozen, and
//! `embedding_proj.{weight [code_dim, code_dim], bias}`, learned by the optimiser.
//!
//! Differences: none. The bias is the official code's; the common library has none, and the rotation
//! trick for a gradient ([`Estimator::Rotation`]). A high learning rate can make W diverge; the
//! authors warm it up.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use smalti_nn::{Embedding, Init, Linear, Noise};

use crate::codebook::{search, select_rows};
use crate::config::{InvalidQuantizer, check_size};
use crate::learning::learn_nothing;
use crate::quantizer::{check_channels, check_codes};
use crate::rows::{beside, from_rows, single, to_rows};
use crate::{CodeSpec, Codes, Estimator, Learn, QuantizeError, Quantized, Quantizer, UpdateReport};

/// The shape of a SimVQ quantizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimVqConfig {
    /// Number of codes.
    pub codebook_size: usize,
    /// Width of a code.
    pub code_dim: usize,
    /// Whether the map has a bias.
    #[serde(default = "yes")]
    pub bias: bool,
    /// How the value's gradient gets past the choice of a code.
    #[serde(default)]
    pub estimator: Estimator,
}

fn yes() -> bool {
    true
}

impl SimVqConfig {
    /// With a bias, straight through.
    pub fn new(codebook_size: usize, code_dim: usize) -> Self {
        Self {
            codebook_size,
            code_dim,
            bias: true,
            estimator: Estimator::StraightThrough,
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
        InvalidQuantizer::unless_empty(problems)
    }

    /// Builds the quantizer: numbers of deviation 1/√code_dim, and PyTorch's default for a linear map.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn build(&self, init: &mut Init) -> Result<SimVqQuantizer, InvalidQuantizer> {
        self.validate()?;
        let (size, width) = (self.codebook_size, self.code_dim);
        let deviation = 1.0 / (width as f32).sqrt();
        let mut embedding = Embedding::normal(size, width, deviation, init);
        embedding.weight = embedding.weight.set_require_grad(false);
        let embedding_proj = Linear {
            weight: init.fan_in([width, width], width),
            bias: self.bias.then(|| init.fan_in([width], width)),
        };
        Ok(SimVqQuantizer {
            embedding,
            embedding_proj,
            config: self.clone(),
        })
    }
}

/// A frozen table and a learned map.
#[derive(Module, Debug)]
pub struct SimVqQuantizer {
    embedding: Embedding,
    embedding_proj: Linear,
    #[module(skip)]
    config: SimVqConfig,
}

impl SimVqQuantizer {
    /// The codes, `[codebook_size, code_dim]`.
    pub fn table(&self) -> Tensor<2> {
        self.embedding_proj.forward(self.embedding.weight.val())
    }
}

impl Quantizer for SimVqQuantizer {
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
        let ids = search(to_rows(single(latents.inner())), self.table())?;
        Ok(Codes::from_depths(vec![ids], [batch, height, width]))
    }

    fn decode(&self, codes: &Codes) -> Result<Tensor<4>, QuantizeError> {
        check_codes(codes, &self.spec())?;
        let [batch, _, height, width] = codes.dims();
        // Out of the whole table, so that a row does not depend on how many are asked for.
        let rows = select_rows(self.table(), codes.at_depth(0));
        Ok(from_rows(rows, [batch, height, width]))
    }

    fn quantize(&self, latents: Tensor<4>, _noise: &mut Noise) -> Result<Quantized, QuantizeError> {
        check_channels(&latents, self.config.code_dim)?;
        let [batch, _, height, width] = latents.dims();
        let grid = [batch, height, width];
        let rows = to_rows(single(latents));
        self.config.estimator.check(&rows)?;
        let table = self.table();
        let ids = search(rows.clone(), table.clone())?;
        let codes = beside(select_rows(table, ids.clone()), &rows);
        let commitment = (rows.clone() - codes.clone().detach()).square().mean();
        let codebook = (rows.clone().detach() - codes.clone()).square().mean();
        Ok(Quantized::new(
            from_rows(self.config.estimator.pass(rows, codes), grid),
            Codes::from_depths(vec![ids], grid),
            vec![("commitment", commitment), ("codebook", codebook)],
        ))
    }
}

impl Learn for SimVqQuantizer {
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
