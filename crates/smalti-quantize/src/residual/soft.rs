//! Soft targets: how likely each code is at each depth, and codes drawn from that.
//!
//! `Q(k | r) = softmax_k(−‖r − e(k)‖² / τ)` with the squared distance as it is, not divided by the
//! width (Lee et al., CVPR 2022, section 3.3). The next depth's residual subtracts the code that
//! was drawn, so codes and targets belong together.

use burn::tensor::activation::softmax;
use burn::tensor::{Int, Tensor};
use smalti_nn::Noise;
use smalti_nn::nearest::id_tensor;
use smalti_nn::state::host_values;

use super::ResidualQuantizer;
use crate::learning::check_range;
use crate::{Codes, QuantizeError};

/// Codes drawn from the distributions over codes, with those distributions as targets.
#[derive(Debug)]
pub struct SoftCodes {
    /// The codes.
    pub codes: Codes,
    /// `softmax(−‖r − e‖² / temperature)` at each depth, `[batch · height · width, codebook_size]`.
    pub targets: Vec<Tensor<2>>,
}

impl ResidualQuantizer {
    /// Distributions over the codes of every depth, and codes drawn from them (or the nearest ones
    /// where `noise` is `None`).
    ///
    /// # Errors
    /// As [`Quantizer::encode`](crate::Quantizer::encode); and when the temperature is not
    /// positive, or the latents are so large that their squared distances are not finite.
    pub fn soft_codes(
        &self,
        latents: Tensor<4>,
        temperature: f64,
        mut noise: Option<&mut Noise>,
    ) -> Result<SoftCodes, QuantizeError> {
        if !(temperature.is_finite() && temperature > 0.0) {
            return Err(QuantizeError::Temperature { got: temperature });
        }
        let (mut residual, grid) = self.rows(latents)?;
        check_range(&host_values(residual.clone()))?;
        let (mut ids, mut targets) = (Vec::new(), Vec::new());
        for depth in 0..self.config.depth {
            let table = self.table(depth).inner();
            let scores = distances(residual.clone(), table.clone()).div_scalar(-temperature);
            let probabilities = softmax(scores, 1);
            let id = match noise.as_deref_mut() {
                Some(noise) => draw(probabilities.clone(), noise),
                None => self.codebook(depth).nearest(residual.clone())?,
            };
            residual = residual - table.select(0, id.clone());
            ids.push(id);
            targets.push(probabilities);
        }
        Ok(SoftCodes {
            codes: Codes::from_depths(ids, grid),
            targets,
        })
    }
}

/// Squared distances `[n, k]`.
fn distances(rows: Tensor<2>, table: Tensor<2>) -> Tensor<2> {
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
            found
                .or_else(|| row.iter().rposition(|p| *p > 0.0))
                .unwrap_or(0) as u32
        })
        .collect();
    id_tensor(&ids, [rows], &device)
}
