//! Codes chosen by logits, with the gradient of a soft choice.
//!
//! A 1×1 convolution gives every position a logit for each of N codes, `ℓ = W·h + b`. With draws `g` of
//! Gumbel(0, 1) (or zeros) the choice is `k = argmax(ℓ + g)`, which with draws is a sample of `softmax(ℓ)`, and the soft
//! choice `y = softmax((ℓ + g)/τ)` (Jang et al., ICLR 2017; Maddison et al., ICLR 2017). The straight-through value
//! `(onehot(k) − sg(y) + y)·Z` is found as `Z[k] + (y − sg(y))·sg(Z)`, which has the same gradients: rows of Z that were
//! chosen get theirs, and the logits `(1/τ)·y·(Z·∇ − y·Z·∇)` over all N codes.

use burn::tensor::{Int, Tensor, TensorData};
use rand::Rng;
use smalti_nn::nearest::{id_values, largest_products};
use smalti_nn::{Conv2d, Noise, linear, softmax};

use crate::QuantizeError;
use crate::codebook::{blame, select_rows};
use crate::rows::{beside, straight_through};

/// A 1×1 convolution as an affine map of rows: `[codes, channels]` and `[codes]`, fit to stand beside `rows`.
pub(crate) fn as_affine(head: &Conv2d, rows: &Tensor<2>) -> (Tensor<2>, Tensor<1>) {
    let weight = head.weight.val();
    let [codes, channels, _, _] = weight.dims();
    let weight = beside(weight.reshape([codes, channels]), rows);
    (weight, beside(head.bias.val(), rows))
}

/// The logits of rows, `[n, codes]`.
pub(crate) fn logits_of(head: &Conv2d, rows: Tensor<2>) -> Tensor<2> {
    let (weight, bias) = as_affine(head, &rows);
    linear(rows, weight, Some(bias))
}

/// Rows one number longer and the table that they are multiplied by to give the logits.
pub(crate) fn as_products(head: &Conv2d, rows: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let (weight, bias) = as_affine(head, &rows);
    let ones = rows.clone().narrow(1, 0, 1).ones_like();
    let table = Tensor::cat(vec![weight, bias.unsqueeze_dim(1)], 1);
    (Tensor::cat(vec![rows, ones], 1), table)
}

/// The code with the largest logit at each row, the first of equals; no logit is ever stored.
pub(crate) fn best_of(head: &Conv2d, rows: Tensor<2>) -> Result<Tensor<1, Int>, QuantizeError> {
    let rows = rows.inner();
    let (longer, table) = as_products(head, rows.clone());
    largest_products(longer, table.inner()).map_err(|_| blame(rows))
}

/// Draws of Gumbel(0, 1), `−ln(−ln u)`.
pub(crate) fn gumbel_values(noise: &mut Noise, count: usize) -> Vec<f32> {
    let rng = noise.rng();
    // 24 random bits as PyTorch's uniform numbers have, kept off both ends.
    let uniform = |bits: u32| ((bits >> 8) as f32 + 0.5) * (1.0 / (1 << 24) as f32);
    let draw = |_| -(-uniform(rng.next_u32()).min(1.0 - f32::EPSILON / 2.0).ln()).ln();
    (0..count).map(draw).collect()
}

/// Draws for the rows that `drawn` names, zeros elsewhere: `[n, codes]`.
pub(crate) fn gumbel_rows(drawn: &[bool], codes: usize, noise: &mut Noise) -> Vec<f32> {
    let mut values = vec![0.0; drawn.len() * codes];
    for (row, _) in values
        .chunks_exact_mut(codes)
        .zip(drawn)
        .filter(|(_, drawn)| **drawn)
    {
        row.copy_from_slice(&gumbel_values(noise, codes));
    }
    values
}

/// Host numbers beside `logits`, of their shape.
pub(crate) fn like(values: Vec<f32>, logits: &Tensor<2>) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, logits.dims()), &logits.device())
}

/// The soft choice, `softmax(logits / τ)`.
pub(crate) fn soft_choice(logits: Tensor<2>, temperature: f64) -> Tensor<2> {
    if temperature == 1.0 {
        softmax(logits)
    } else {
        softmax(logits.mul_scalar(1.0 / temperature))
    }
}

/// The largest number's place in each row, on the host.
pub(crate) fn largest(logits: &Tensor<2>) -> Vec<u32> {
    let [count, _] = logits.dims();
    let ids: Tensor<2, Int> = logits.clone().inner().argmax(1);
    id_values(ids.reshape([count]))
}

/// The chosen codes' rows with the gradient of the soft choice, straight through: `[n, code_dim]`.
pub(crate) fn chosen_codes(soft: Tensor<2>, table: Tensor<2>, ids: Tensor<1, Int>) -> Tensor<2> {
    let mixed = mixed_codes(soft, table.clone().detach());
    let codes = select_rows(table, ids);
    let of_codes = codes.clone() - codes.clone().detach();
    straight_through(mixed + of_codes, codes)
}

/// The mean of the codes under the soft choice, `[n, code_dim]`.
pub(crate) fn mixed_codes(soft: Tensor<2>, table: Tensor<2>) -> Tensor<2> {
    linear(soft, table.transpose(), None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use smalti_nn::state::host_values;
    use smalti_nn::{Conv2dConfig, Init};

    /// Mean γ, variance π²/6.
    #[test]
    fn draws_have_the_moments_of_gumbels_distribution() {
        let values = gumbel_values(&mut Noise::from_seed(1), 100_000);
        let count = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
        let squares = values.iter().map(|&v| (f64::from(v) - mean).powi(2));
        let variance = squares.sum::<f64>() / count;
        assert!(values.iter().all(|v| v.is_finite()));
        assert!((mean - 0.577_215_7).abs() < 0.015, "{mean}");
        assert!((variance - 1.644_934).abs() < 0.04, "{variance}");
    }

    #[test]
    fn only_named_rows_are_drawn() {
        let rows = gumbel_rows(&[false, true, false], 4, &mut Noise::from_seed(1));
        assert!(rows[..4].iter().chain(&rows[8..]).all(|v| *v == 0.0));
        assert_eq!(rows[4..8], gumbel_values(&mut Noise::from_seed(1), 4));
    }

    /// The largest of logits with draws is a sample of their softmax.
    #[test]
    fn the_largest_perturbed_logit_is_a_sample() {
        let (count, device) = (40_000, Device::flex());
        let given = [0.5f32, -1.0, 1.5];
        let logits = Tensor::<2>::from_data([given], &device).repeat(&[count, 1]);
        let draws = gumbel_rows(&vec![true; count], 3, &mut Noise::from_seed(2));
        let draws = like(draws, &logits);
        let chosen = largest(&(logits + draws));
        let sum: f32 = given.iter().map(|l| l.exp()).sum();
        for (code, logit) in given.iter().enumerate() {
            let share = chosen.iter().filter(|&&id| id as usize == code).count() as f32;
            let expected = logit.exp() / sum;
            assert!((share / count as f32 - expected).abs() < 0.01, "{code}");
        }
    }

    #[test]
    fn the_search_without_logits_finds_the_largest() {
        let device = Device::flex();
        let head = Conv2dConfig::same(5, 33, 1).init(&mut Init::new(&device, 3));
        let rows: Tensor<2> = Noise::from_seed(4).standard_normal([40, 5], &device);
        let logits = logits_of(&head, rows.clone());
        assert_eq!(
            id_values(best_of(&head, rows.clone()).unwrap()),
            largest(&logits)
        );
        let (rows, table) = as_products(&head, rows);
        let products = host_values(rows.matmul(table.transpose()));
        for (a, b) in products.iter().zip(host_values(logits)) {
            assert!((a - b).abs() < 1e-5);
        }
    }
}
