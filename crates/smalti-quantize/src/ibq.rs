//! Index backpropagation quantization: a gradient for every code at every step (Shi et al., ICCV
//! 2025, section 3.2).
//!
//! `P = softmax(E·x)`, `k = argmax_k e_k·x`: the largest inner product, not the smallest distance. The
//! value is `e_k`; its gradient is that of `(onehot(k) − sg(P) + P)·E`: the chosen code's own, and
//! that of the soft choice over all codes. Losses, unweighted, with q the value with that gradient:
//!
//! * `double_quantization` = mean (q − x)², the reference's first term, which moves latents and all
//!   codes at once;
//! * `commitment` = mean (sg(e_k) − x)²;
//! * `codebook` = mean (e_k − sg(x))², which the reference weighs with β = 0.25;
//! * `sample_entropy` and `unused_entropy` with `p(c|x) = softmax(τ·x·c)`, τ = 100, weighed with 0.05
//!   there; see [`entropy`](crate::entropy).
//!
//! Shapes: latents `[batch, code_dim, height, width]`, codes `[batch, 1, height, width]`. State, with
//! the published name: `embedding.weight [K, code_dim]`, learned by the optimiser.
//!
//! Differences: neither the one-hot matrix nor P, K numbers for every position, are ever held as a
//! whole. Dimensions in the hundreds are known to
//! collapse, 32 is not.

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};
use smalti_nn::attention::full_attention;
use smalti_nn::entropy::{Entropies, SoftmaxEntropies};
use smalti_nn::nearest::largest_products;
use smalti_nn::state::host_values;
use smalti_nn::{Embedding, Init, Noise};

use crate::codebook::{blame, select_rows};
use crate::config::{InvalidQuantizer, check_size};
use crate::entropy::{Logarithms, check_temperature};
use crate::learning::{check_learnable, learn_nothing};
use crate::quantizer::{check_channels, check_codes};
use crate::rows::{beside, from_rows, single, straight_through, to_rows};
use crate::{CodeSpec, Codes, Learn, QuantizeError, Quantized, Quantizer, UpdateReport};

/// The shape of an IBQ quantizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IbqConfig {
    /// Number of codes.
    pub codebook_size: usize,
    /// Width of a code.
    pub code_dim: usize,
    /// τ of the entropies' distribution.
    #[serde(default = "hundred")]
    pub inverse_temperature: f32,
    /// How the entropies keep logarithms finite.
    #[serde(default = "Logarithms::magvit")]
    pub logarithms: Logarithms,
}

fn hundred() -> f32 {
    100.0
}

impl IbqConfig {
    /// With the reference's entropies.
    pub fn new(codebook_size: usize, code_dim: usize) -> Self {
        Self {
            codebook_size,
            code_dim,
            inverse_temperature: 100.0,
            logarithms: Logarithms::magvit(),
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
        problems.extend(check_temperature(self.inverse_temperature));
        problems.extend(self.logarithms.problems());
        InvalidQuantizer::unless_empty(problems)
    }

    /// Builds the quantizer, with standard normal codes as published.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn build(&self, init: &mut Init) -> Result<IbqQuantizer, InvalidQuantizer> {
        self.validate()?;
        Ok(IbqQuantizer {
            embedding: Embedding::normal(self.codebook_size, self.code_dim, 1.0, init),
            config: self.clone(),
        })
    }
}

/// A table whose every code has a gradient.
#[derive(Module, Debug)]
pub struct IbqQuantizer {
    embedding: Embedding,
    #[module(skip)]
    config: IbqConfig,
}

impl IbqQuantizer {
    /// The codes, `[codebook_size, code_dim]`.
    pub fn table(&self) -> Tensor<2> {
        self.embedding.weight.val()
    }

    fn choose(&self, rows: Tensor<2>) -> Result<Tensor<1, Int>, QuantizeError> {
        largest_products(rows.clone(), self.table()).map_err(|_| blame(rows))
    }

    /// The chosen codes, with the gradient of the choice.
    fn propagated(rows: &Tensor<2>, table: &Tensor<2>, codes: Tensor<2>) -> Tensor<2> {
        // P·E is what latents see that attend to the codes; P is never held as a whole.
        let [_, width] = rows.dims();
        let one = |rows: Tensor<2>| rows.unsqueeze::<4>();
        // Attention divides by √width.
        let query = rows.clone().mul_scalar((width as f64).sqrt());
        let soft = full_attention(one(query), one(table.clone()), one(table.clone().detach()));
        let soft = soft.reshape(rows.dims());
        let of_codes = codes.clone() - codes.clone().detach();
        straight_through(soft + of_codes, codes)
    }

    fn losses(
        &self,
        rows: Tensor<2>,
        table: Tensor<2>,
        [propagated, codes]: [Tensor<2>; 2],
    ) -> Vec<(&'static str, Tensor<1>)> {
        let entropies = SoftmaxEntropies {
            inverse_temperature: self.config.inverse_temperature,
            logarithms: self.config.logarithms.into(),
        };
        let Entropies { sample, unused } = entropies.of(rows.clone(), table);
        let distance = |a: Tensor<2>, b: Tensor<2>| (a - b).square().mean();
        vec![
            ("double_quantization", distance(propagated, rows.clone())),
            ("commitment", distance(codes.clone().detach(), rows.clone())),
            ("codebook", distance(codes, rows.detach())),
            ("sample_entropy", sample),
            ("unused_entropy", unused),
        ]
    }
}

impl Quantizer for IbqQuantizer {
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
        let ids = self.choose(to_rows(single(latents.inner())))?;
        Ok(Codes::from_depths(vec![ids], [batch, height, width]))
    }

    fn decode(&self, codes: &Codes) -> Result<Tensor<4>, QuantizeError> {
        check_codes(codes, &self.spec())?;
        let [batch, _, height, width] = codes.dims();
        let rows = select_rows(self.table(), codes.at_depth(0));
        Ok(from_rows(rows, [batch, height, width]))
    }

    fn quantize(&self, latents: Tensor<4>, _noise: &mut Noise) -> Result<Quantized, QuantizeError> {
        check_channels(&latents, self.config.code_dim)?;
        let [batch, _, height, width] = latents.dims();
        let grid = [batch, height, width];
        let rows = to_rows(single(latents));
        // Products that overflow have no softmax, and no rows no mean.
        check_learnable(&host_values(rows.clone().inner()))?;
        let ids = self.choose(rows.clone())?;
        let table = beside(self.table(), &rows);
        let codes = select_rows(table.clone(), ids.clone());
        let propagated = Self::propagated(&rows, &table, codes.clone());
        Ok(Quantized::new(
            from_rows(propagated.clone(), grid),
            Codes::from_depths(vec![ids], grid),
            self.losses(rows, table, [propagated, codes]),
        ))
    }
}

impl Learn for IbqQuantizer {
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
