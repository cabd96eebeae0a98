//! Residual quantization: every code refines what the codes before it left over.
//!
//! `r₀ = sg(x)`, `k_d = nearest(r_{d−1})`, `r_d = r_{d−1} − e(k_d)`, `ẑ_d = ẑ_{d−1} + e(k_d)` (Lee
//! et al., CVPR 2022, section 3.1, eq. 3–4). The value is `ẑ_D`, the gradient passes straight
//! through the whole stack, and the loss `commitment` is `(1/D)·Σ_d mean((x − sg(ẑ_d))²)`: the
//! paper sums over depths, the published code averages, and so does this.
//!
//! Shapes: latents `[batch, code_dim / fold², height, width]`, codes
//! `[batch, depth, height / fold, width / fold]`.
//! State: one codebook shared by all depths, or one for each.
//!
//! Learning: by default all depths are quantized with one table, which is then updated once from
//! the residuals of all depths; [`PerDepth`](crate::UpdateOrder::PerDepth) is the published order.
//! See [`learning`](crate::learning) for why.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};
use smalti_nn::{Init, Noise};

use crate::config::{InvalidQuantizer, PerDepth, check_size};
use crate::folding::{fold, unfold};
use crate::quantizer::check_codes;
use crate::rows::{beside, from_rows, straight_through, to_rows};
use crate::{CodeSpec, Codebook, Codes, Learning, QuantizeError, Quantized, Quantizer};

pub use soft::SoftCodes;

mod soft;
#[cfg(test)]
mod tests;
mod training;

/// The shape of a residual quantizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResidualConfig {
    /// Number of codes: one number, or one for each depth with separate codebooks.
    pub codebook_size: PerDepth<usize>,
    /// Width of a code.
    pub code_dim: usize,
    /// Codes at each position.
    pub depth: usize,
    /// Whether all depths use one codebook.
    #[serde(default = "yes")]
    pub shared: bool,
    /// Latent positions, in each direction, that are quantized as one vector.
    #[serde(default = "one")]
    pub fold: usize,
    /// How the codebooks learn.
    #[serde(default)]
    pub learning: Learning,
}

fn yes() -> bool {
    true
}

fn one() -> usize {
    1
}

impl ResidualConfig {
    /// One shared codebook with the default learning.
    pub fn new(codebook_size: usize, code_dim: usize, depth: usize) -> Self {
        Self {
            codebook_size: PerDepth::All(codebook_size),
            code_dim,
            depth,
            shared: true,
            fold: 1,
            learning: Learning::default(),
        }
    }

    /// Checks every number.
    ///
    /// # Errors
    /// Lists all problems.
    pub fn validate(&self) -> Result<(), InvalidQuantizer> {
        let mut problems = self.learning.problems();
        if self.depth == 0 {
            problems.push("depth must be at least 1".into());
        }
        let folded = self.fold.saturating_mul(self.fold);
        if self.fold == 0 {
            problems.push("fold must be at least 1, got 0".into());
        } else if self.code_dim == 0 || !self.code_dim.is_multiple_of(folded) {
            problems.push(format!(
                "code_dim must be a positive multiple of fold² ({folded}), got {}",
                self.code_dim
            ));
        }
        match &self.codebook_size {
            PerDepth::Each(sizes) if sizes.len() != self.depth => {
                problems.push(format!(
                    "codebook_size lists {} sizes for a depth of {}",
                    sizes.len(),
                    self.depth
                ));
            }
            PerDepth::Each(_) if self.shared => {
                problems.push(
                    "a shared codebook has one size: set shared = false to give one for each depth"
                        .into(),
                );
            }
            _ => {}
        }
        problems.extend(self.sizes().into_iter().find_map(check_size));
        InvalidQuantizer::unless_empty(problems)
    }

    fn sizes(&self) -> Vec<usize> {
        (0..self.depth)
            .filter_map(|d| self.codebook_size.at(d))
            .collect()
    }

    /// Builds the quantizer.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn build(&self, init: &mut Init) -> Result<ResidualQuantizer, InvalidQuantizer> {
        self.validate()?;
        let sizes = self.sizes();
        let tables = if self.shared { &sizes[..1] } else { &sizes[..] };
        let codebooks = tables
            .iter()
            .map(|&size| Codebook::new(size, self.code_dim, &self.learning, init))
            .collect();
        Ok(ResidualQuantizer {
            codebooks,
            config: self.clone(),
        })
    }
}

/// A stack of codebooks (or one, used `depth` times).
#[derive(Module, Debug)]
pub struct ResidualQuantizer {
    codebooks: Vec<Codebook>,
    #[module(skip)]
    config: ResidualConfig,
}

/// A pass over the depths: one more residual than there are ids and partial sums.
struct Stack {
    residuals: Vec<Tensor<2>>,
    ids: Vec<Tensor<1, Int>>,
    partial_sums: Vec<Tensor<2>>,
}

impl ResidualQuantizer {
    /// The configuration it was built from.
    pub fn config(&self) -> &ResidualConfig {
        &self.config
    }

    /// The codes of one depth, `[codebook_size, code_dim]`.
    pub fn table(&self, depth: usize) -> Tensor<2> {
        self.codebook(depth).table()
    }

    fn codebook(&self, depth: usize) -> &Codebook {
        &self.codebooks[self.book(depth)]
    }

    /// Which codebook a depth uses.
    fn book(&self, depth: usize) -> usize {
        if self.config.shared { 0 } else { depth }
    }

    /// `ẑ_1 … ẑ_D` on the folded grid, each `[batch, code_dim, height', width']`.
    ///
    /// # Errors
    /// As [`Quantizer::encode`].
    pub fn partial_sums(&self, latents: Tensor<4>) -> Result<Vec<Tensor<4>>, QuantizeError> {
        let (rows, grid) = self.rows(latents)?;
        Ok(self
            .stack(rows)?
            .partial_sums
            .into_iter()
            .map(|sum| from_rows(sum, grid))
            .collect())
    }

    /// The sum of the codes of some depths only: `0..d` is a coarse preview, `d..d + 1` one layer.
    ///
    /// # Errors
    /// As [`Quantizer::decode`]; and when the depths are none, or not there.
    pub fn decode_depths(
        &self,
        codes: &Codes,
        depths: Range<usize>,
    ) -> Result<Tensor<4>, QuantizeError> {
        check_codes(codes, &self.spec())?;
        if depths.is_empty() || depths.end > self.config.depth {
            let Range { start, end } = depths;
            return Err(QuantizeError::Depths {
                start,
                end,
                depth: self.config.depth,
            });
        }
        let [batch, _, height, width] = codes.dims();
        let sum = depths
            .map(|depth| self.codebook(depth).lookup(codes.at_depth(depth)))
            .reduce(|sum, code| sum + code)
            .expect("the range is not empty");
        Ok(unfold(
            from_rows(sum, [batch, height, width]),
            self.config.fold,
        ))
    }

    /// Untracked rows of the folded latents, and the code grid `[batch, height', width']`.
    fn rows(&self, latents: Tensor<4>) -> Result<(Tensor<2>, [usize; 3]), QuantizeError> {
        let folded = self.folded(latents.inner())?;
        let [batch, _, height, width] = folded.dims();
        Ok((to_rows(folded), [batch, height, width]))
    }

    fn folded(&self, latents: Tensor<4>) -> Result<Tensor<4>, QuantizeError> {
        let expected = self.config.code_dim / (self.config.fold * self.config.fold);
        let [_, got, _, _] = latents.dims();
        if got != expected {
            return Err(QuantizeError::Channels { expected, got });
        }
        fold(latents, self.config.fold)
    }

    /// Quantizes with the tables as they are.
    fn stack(&self, rows: Tensor<2>) -> Result<Stack, QuantizeError> {
        let mut stack = Stack::new(rows);
        for _ in 0..self.config.depth {
            self.step(&mut stack)?;
        }
        Ok(stack)
    }

    /// Quantizes the next depth.
    fn step(&self, stack: &mut Stack) -> Result<(), QuantizeError> {
        let depth = stack.ids.len();
        let residual = stack.residuals[depth].clone();
        let id = self
            .codebook(depth)
            .nearest(residual)
            .map_err(|error| match error {
                // The first residual is the latents; the others are not finite only by overflow.
                QuantizeError::NonFinite if depth > 0 => QuantizeError::TooLarge,
                error => error,
            })?;
        let code = self.table(depth).inner().select(0, id.clone());
        stack.push(id, code);
        Ok(())
    }

    /// Straight-through output and losses of a pass.
    fn finish(
        &self,
        latents: Tensor<4>,
        folded: Tensor<4>,
        stack: Stack,
        grid: [usize; 3],
    ) -> Quantized {
        let map = |sum: &Tensor<2>| beside(from_rows(sum.clone(), grid), &folded);
        let terms = stack
            .partial_sums
            .iter()
            .map(|sum| (folded.clone() - map(sum)).square().mean());
        let total = terms.reduce(|a, b| a + b).expect("depth is at least 1");
        let commitment = total.div_scalar(self.config.depth as f64);
        let last = map(stack.partial_sums.last().expect("depth is at least 1"));
        Quantized::new(
            straight_through(latents, unfold(last, self.config.fold)),
            Codes::from_depths(stack.ids, grid),
            vec![("commitment", commitment)],
        )
    }
}

impl Stack {
    fn new(rows: Tensor<2>) -> Self {
        Self {
            residuals: vec![rows],
            ids: Vec::new(),
            partial_sums: Vec::new(),
        }
    }

    fn push(&mut self, id: Tensor<1, Int>, code: Tensor<2>) {
        let sum = match self.partial_sums.last() {
            Some(sum) => sum.clone() + code.clone(),
            None => code.clone(),
        };
        let residual = self.residuals[self.ids.len()].clone() - code;
        self.residuals.push(residual);
        self.ids.push(id);
        self.partial_sums.push(sum);
    }
}

impl Quantizer for ResidualQuantizer {
    fn spec(&self) -> CodeSpec {
        CodeSpec {
            codebook_sizes: self.config.sizes(),
            code_dim: self.config.code_dim,
            fold: self.config.fold,
        }
    }

    fn encode(&self, latents: Tensor<4>) -> Result<Codes, QuantizeError> {
        let (rows, grid) = self.rows(latents)?;
        Ok(Codes::from_depths(self.stack(rows)?.ids, grid))
    }

    fn decode(&self, codes: &Codes) -> Result<Tensor<4>, QuantizeError> {
        self.decode_depths(codes, 0..self.config.depth)
    }

    fn quantize(&self, latents: Tensor<4>, _noise: &mut Noise) -> Result<Quantized, QuantizeError> {
        let folded = self.folded(latents.clone())?;
        let (rows, grid) = self.rows(latents.clone())?;
        let stack = self.stack(rows)?;
        Ok(self.finish(latents, folded, stack, grid))
    }
}
