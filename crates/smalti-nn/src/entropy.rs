//! Entropies of the choice among codes, with their gradients: how surely each code is chosen, and how
//! evenly all are used.
//!
//! Row n gives code c the probability `p_n(c)`. Of a batch of N rows:
//!
//! * `sample = (1/N)·Σ_n H(p_n)`;
//! * `unused = ln K − H(p̄)` with `p̄ = (1/N)·Σ_n p_n`: zero when all K codes are used equally.
//!
//! [`SignEntropies`]: codes are signs, `p(c) ∝ exp(s·x·c)`. [`SoftmaxEntropies`]: codes are the rows of
//! a table, `p(c) = softmax(τ·x·c)`. [`Logarithm`] says how `ln p` is kept finite.
//!
//! Gradients are found in closed form on the way forward, in slices of bounded memory, and attached
//! to the values; autodiff would keep every table of probabilities, K numbers a row, several times
//! over. On the CPU the tables are made by a kernel, elsewhere by burn's own operations.

use burn::tensor::{Tensor, TensorData};
use smalti_kernels::entropy::Logarithm as Kernel;

mod composed;
mod signs;
mod softmax;
#[cfg(test)]
mod tests;

pub use signs::{Over, SignEntropies};
pub use softmax::SoftmaxEntropies;

/// Probabilities that are held at once (16 MiB of `f32`).
const AT_ONCE: usize = 1 << 22;

/// How the logarithm of a probability near zero is kept finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Logarithm {
    /// `ln p`, where `0·ln 0` is 0.
    Exact,
    /// `ln(p + ε)`.
    Added(f32),
    /// `ln(max(p, ε))`.
    Clamped(f32),
}

/// The logarithms of the two entropies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Logarithms {
    /// Of the entropy of a single choice.
    pub sample: Logarithm,
    /// Of the entropy of the mean.
    pub codebook: Logarithm,
}

/// The two entropies of a batch, each `[1]`, in nats.
#[derive(Clone, Debug)]
pub struct Entropies {
    /// The mean entropy of a choice.
    pub sample: Tensor<1>,
    /// How much the entropy of the use of codes falls short of the most there can be.
    pub unused: Tensor<1>,
}

impl From<Logarithm> for Kernel {
    fn from(logarithm: Logarithm) -> Self {
        match logarithm {
            Logarithm::Exact => Self::Exact,
            Logarithm::Added(epsilon) => Self::Added(epsilon),
            Logarithm::Clamped(epsilon) => Self::Clamped(epsilon),
        }
    }
}

/// `value` with the gradient `slopes` of `rows`.
fn attach(value: Tensor<1>, rows: &Tensor<2>, slopes: Tensor<2>) -> Tensor<1> {
    // Exactly zero, with the gradient that is wanted. Plain tensors count as constants.
    let nothing = rows.clone() - rows.clone().detach();
    value + (nothing * slopes).sum()
}

/// A number beside `rows`.
fn number(value: f64, rows: &Tensor<2>) -> Tensor<1> {
    Tensor::from_data([value as f32], &rows.device())
}

/// Numbers of the shape of `rows`, beside them.
fn like(values: Vec<f32>, rows: &Tensor<2>) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, rows.dims()), &rows.device())
}

/// Entropies of uses, `Σ terms`, and the slope over each.
fn terms(usage: &[f32], logarithm: Logarithm) -> (f64, Vec<f32>) {
    let logarithm = Kernel::from(logarithm);
    let each = usage.iter().map(|&p| logarithm.term(p));
    let (terms, slopes): (Vec<f32>, Vec<f32>) = each.unzip();
    (terms.into_iter().map(f64::from).sum(), slopes)
}
