//! Residual quantization: every code refines what the codes before it left over.
//!
//! `r₀ = sg(x)`, `k_d = nearest(r_{d−1})`, `r_d = r_{d−1} − e(k_d)`, `ẑ_d = ẑ_{d−1} + e(k_d)`
//! (Lee et al., CVPR 2022, section 3.1, eq. 3–4). The value is `ẑ_D`, the gradient passes straight
//! through the whole stack, and the loss `commitment` is `(1/D)·Σ_d mean((x − sg(ẑ_d))²)`: the paper sums
//! over depths, the published code averages, and so does this.
//!
//! Shapes: latents `[batch, code_dim / fold², height, width]`, codes `[batch, depth, height / fold, width / fold]`.
//! State: one codebook shared by all depths, or one for each.
//!
//! Learning: by default all depths are quantized with one table, which is then updated once from the
//! residuals of all depths; [`UpdateOrder::PerDepth`] is the published order. See [`learning`](crate::learning)
//! for why.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};
use smalti_nn::nearest::id_values;
use smalti_nn::state::host_values;
use smalti_nn::{Init, Noise};

use crate::config::{InvalidQuantizer, PerDepth};
use crate::folding::{fold, unfold};
use crate::learning::Draws;
use crate::quantizer::check_codes;
use crate::rows::{from_rows, straight_through, to_rows};
use crate::{CodeSpec, Codebook, Codes, Learn, Learning, QuantizeError, Quantized, Quantizer, UpdateOrder, UpdateReport};

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
        if self.fold == 0 || !self.code_dim.is_multiple_of(self.fold * self.fold) || self.code_dim == 0 {
            problems.push(format!("code_dim ({}) must be a positive multiple of fold² ({})", self.code_dim, self.fold * self.fold));
        }
        match &self.codebook_size {
            PerDepth::Each(sizes) if sizes.len() != self.depth => {
                problems.push(format!("codebook_size lists {} sizes for a depth of {}", sizes.len(), self.depth));
            }
            PerDepth::Each(_) if self.shared => {
                problems.push("a shared codebook has one size: set shared = false to give one for each depth".into());
            }
            _ => {}
        }
        if self.sizes().contains(&0) {
            problems.push("codebook_size must be at least 1, got 0".into());
        }
        InvalidQuantizer::unless_empty(problems)
    }

    fn sizes(&self) -> Vec<usize> {
        (0..self.depth).filter_map(|d| self.codebook_size.at(d)).collect()
    }

    /// Builds the quantizer.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn build(&self, init: &mut Init) -> Result<ResidualQuantizer, InvalidQuantizer> {
        self.validate()?;
        let sizes = self.sizes();
        let tables = if self.shared { &sizes[..1] } else { &sizes[..] };
        let codebooks = tables.iter().map(|&size| Codebook::new(size, self.code_dim, &self.learning, init)).collect();
        Ok(ResidualQuantizer { codebooks, config: self.clone() })
    }
}

/// A stack of codebooks (or one, used `depth` times).
#[derive(Module, Debug)]
pub struct ResidualQuantizer {
    codebooks: Vec<Codebook>,
    #[module(skip)]
    config: ResidualConfig,
}

/// Codes drawn from the distributions over codes, with those distributions as targets.
#[derive(Debug)]
pub struct SoftCodes {
    /// The codes.
    pub codes: Codes,
    /// `softmax(−‖r − e‖² / temperature)` at each depth, `[batch · height · width, codebook_size]`.
    pub targets: Vec<Tensor<2>>,
}

/// One pass over the depths.
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
        &self.codebooks[if self.config.shared { 0 } else { depth }]
    }

    /// `ẑ_1 … ẑ_D` on the folded grid, each `[batch, code_dim, height', width']`.
    ///
    /// # Errors
    /// As [`Quantizer::encode`].
    pub fn partial_sums(&self, latents: Tensor<4>) -> Result<Vec<Tensor<4>>, QuantizeError> {
        let (rows, grid) = self.rows(latents)?;
        Ok(self.stack(rows)?.partial_sums.into_iter().map(|sum| from_rows(sum, grid)).collect())
    }

    /// The sum of the codes of some depths only: `0..d` is a coarse preview, `d..d + 1` one layer.
    ///
    /// # Errors
    /// As [`Quantizer::decode`].
    pub fn decode_depths(&self, codes: &Codes, depths: Range<usize>) -> Result<Tensor<4>, QuantizeError> {
        check_codes(codes, &self.spec())?;
        let [batch, _, height, width] = codes.dims();
        let sum = depths
            .map(|depth| self.codebook(depth).lookup(codes.at_depth(depth)))
            .reduce(|sum, code| sum + code)
            .expect("at least one depth is decoded");
        Ok(unfold(from_rows(sum, [batch, height, width]), self.config.fold))
    }

    /// Distributions over the codes of every depth, and codes drawn from them (or the likeliest ones
    /// where `noise` is `None`). The next depth's residual subtracts the code that was drawn.
    ///
    /// `Q(k | r) ∝ exp(−‖r − e(k)‖² / temperature)` (section 3.3 of the paper).
    ///
    /// # Errors
    /// As [`Quantizer::encode`].
    pub fn soft_codes(
        &self,
        latents: Tensor<4>,
        temperature: f64,
        mut noise: Option<&mut Noise>,
    ) -> Result<SoftCodes, QuantizeError> {
        let (rows, grid) = self.rows(latents)?;
        let mut residual = rows;
        let (mut ids, mut targets) = (Vec::new(), Vec::new());
        for depth in 0..self.config.depth {
            let table = self.table(depth).inner();
            let hard = self.codebook(depth).nearest(residual.clone())?;
            let probabilities = softmax(distances(residual.clone(), table.clone()).div_scalar(-temperature), 1);
            let id = match noise.as_deref_mut() {
                Some(noise) => draw(probabilities.clone(), noise),
                None => hard,
            };
            residual = residual - table.select(0, id.clone());
            ids.push(id);
            targets.push(probabilities);
        }
        Ok(SoftCodes { codes: Codes::from_depths(ids, grid), targets })
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
        let mut stack = Stack { residuals: vec![rows], ids: Vec::new(), partial_sums: Vec::new() };
        for depth in 0..self.config.depth {
            let residual = stack.residuals[depth].clone();
            let id = self.codebook(depth).nearest(residual.clone())?;
            let code = self.table(depth).inner().select(0, id.clone());
            stack.push(residual, id, code);
        }
        Ok(stack)
    }

    /// Quantizes in the published order: the table is rewritten after every depth.
    fn stack_per_depth(&mut self, rows: Tensor<2>, draws: &mut dyn Draws) -> Result<(Stack, UpdateReport), QuantizeError> {
        // Checked before anything changes: later residuals are finite when these are.
        self.codebook(0).nearest(rows.clone())?;
        let mut stack = Stack { residuals: vec![rows], ids: Vec::new(), partial_sums: Vec::new() };
        let mut report = UpdateReport::default();
        let learning = self.config.learning.clone();
        for depth in 0..self.config.depth {
            let residual = stack.residuals[depth].clone();
            let id = self.codebook(depth).nearest(residual.clone())?;
            let code = self.table(depth).inner().select(0, id.clone());
            let book = if self.config.shared { 0 } else { depth };
            let (vectors, ids) = (host_values(residual.clone()), id_values(id.clone()));
            report.merge(&self.codebooks[book].update(&vectors, &ids, &learning, draws));
            stack.push(residual, id, code);
        }
        Ok((stack, report))
    }

    /// Updates every codebook once, from the residuals of the depths that used it.
    fn update_jointly(&mut self, stack: &Stack, draws: &mut dyn Draws) -> UpdateReport {
        let learning = self.config.learning.clone();
        let mut report = UpdateReport::default();
        let books = self.codebooks.len();
        for (book, codebook) in self.codebooks.iter_mut().enumerate() {
            let depths = if books == 1 { 0..self.config.depth } else { book..book + 1 };
            let vectors: Vec<f32> = depths.clone().flat_map(|d| host_values(stack.residuals[d].clone())).collect();
            let ids: Vec<u32> = depths.flat_map(|d| id_values(stack.ids[d].clone())).collect();
            report.merge(&codebook.update(&vectors, &ids, &learning, draws));
        }
        report
    }

    /// Places fresh codes on the first latents: separate codebooks each on their depth's residuals, the
    /// parts of a shared one on the residuals of one depth after the other.
    fn start(&mut self, rows: Tensor<2>, noise: &mut Noise) -> Result<(), QuantizeError> {
        let learning = self.config.learning.clone();
        let Some(iterations) = self.codebooks[0].awaits_start(&learning) else { return Ok(()) };
        self.codebook(0).nearest(rows.clone())?;
        let (depth, width) = (self.config.depth, self.config.code_dim);
        let mut residual = host_values(rows);
        for d in 0..depth {
            let book = if self.config.shared { 0 } else { d };
            let size = self.codebooks[book].size();
            let part = if self.config.shared { d * size / depth..(d + 1) * size / depth } else { 0..size };
            if part.is_empty() {
                continue;
            }
            self.codebooks[book].start_on(&residual, part.clone(), iterations, noise);
            let codes = &self.codebooks[book].averages().table[part.start * width..part.end * width];
            let ids = smalti_nn::nearest::nearest_rows(&residual, codes, width);
            for (vector, id) in residual.chunks_exact_mut(width).zip(ids) {
                let code = &codes[id as usize * width..][..width];
                vector.iter_mut().zip(code).for_each(|(v, c)| *v -= c);
            }
        }
        Ok(())
    }

    /// Straight-through output and losses of a pass.
    fn finish(&self, latents: Tensor<4>, folded: Tensor<4>, stack: Stack, grid: [usize; 3]) -> Quantized {
        let tracked = |sum: &Tensor<2>| {
            let map = from_rows(sum.clone(), grid);
            if folded.device().is_autodiff() { Tensor::from_inner(map) } else { map }
        };
        let terms = stack.partial_sums.iter().map(|sum| (folded.clone() - tracked(sum)).square().mean());
        let commitment = terms.reduce(|a, b| a + b).expect("depth is at least 1").div_scalar(self.config.depth as f64);
        let last = tracked(stack.partial_sums.last().expect("depth is at least 1"));
        Quantized {
            quantized: straight_through(latents, unfold(last, self.config.fold)),
            codes: Codes::from_depths(stack.ids, grid),
            losses: vec![("commitment", commitment)],
        }
    }

    fn train_with(
        &mut self,
        latents: Tensor<4>,
        noise: &mut Noise,
        draws: &mut dyn Draws,
    ) -> Result<(Quantized, UpdateReport), QuantizeError> {
        let folded = self.folded(latents.clone())?;
        let (rows, grid) = self.rows(latents.clone())?;
        self.start(rows.clone(), noise)?;
        let (stack, report) = match self.config.learning.order {
            UpdateOrder::PerDepth => self.stack_per_depth(rows, draws)?,
            UpdateOrder::Joint => {
                let stack = self.stack(rows)?;
                let report = self.update_jointly(&stack, draws);
                (stack, report)
            }
        };
        Ok((self.finish(latents, folded, stack, grid), report))
    }
}

impl Stack {
    fn push(&mut self, residual: Tensor<2>, id: Tensor<1, Int>, code: Tensor<2>) {
        let sum = match self.partial_sums.last() {
            Some(sum) => sum.clone() + code.clone(),
            None => code.clone(),
        };
        self.residuals.push(residual - code);
        self.ids.push(id);
        self.partial_sums.push(sum);
    }
}

impl Quantizer for ResidualQuantizer {
    fn spec(&self) -> CodeSpec {
        CodeSpec { codebook_sizes: self.config.sizes(), code_dim: self.config.code_dim, fold: self.config.fold }
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

impl Learn for ResidualQuantizer {
    fn quantize_and_update(
        &mut self,
        latents: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<(Quantized, UpdateReport), QuantizeError> {
        let mut draws = noise.fork();
        self.train_with(latents, noise, draws.rng())
    }
}

/// Squared distances `[n, k]`.
pub(crate) fn distances(rows: Tensor<2>, table: Tensor<2>) -> Tensor<2> {
    let rows_norm = rows.clone().square().sum_dim(1);
    let table_norm = table.clone().square().sum_dim(1).transpose();
    (rows_norm + table_norm - rows.matmul(table.transpose()).mul_scalar(2.0)).clamp_min(0.0)
}

/// One id from each row of probabilities, by inverting the cumulative sum.
fn draw(probabilities: Tensor<2>, noise: &mut Noise) -> Tensor<1, Int> {
    let [rows, classes] = probabilities.dims();
    let device = probabilities.device();
    let values = host_values(probabilities);
    let levels = noise.uniform_values(rows);
    let ids: Vec<u32> = values
        .chunks_exact(classes)
        .zip(levels)
        .map(|(row, level)| {
            let mut left = level * row.iter().sum::<f32>();
            let found = row.iter().position(|p| {
                left -= p;
                left < 0.0
            });
            // Rounding can leave a crumb past the end: then the last code with any probability.
            found.or_else(|| row.iter().rposition(|p| *p > 0.0)).unwrap_or(0) as u32
        })
        .collect();
    smalti_nn::nearest::id_tensor(&ids, [rows], &device)
}

#[cfg(test)]
mod tests;
