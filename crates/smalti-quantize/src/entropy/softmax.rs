//! Entropies over the codes of a table, `p(c|x) = softmax(τ·x·c)`: IBQ.

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;

use super::signs::slices;
use super::{AT_ONCE, Entropies, Logarithms, attach};
use crate::rows::beside;

/// What the entropies are taken of.
#[derive(Clone, Debug)]
pub(crate) struct SoftmaxEntropies {
    /// τ.
    pub(crate) inverse_temperature: f32,
    pub(crate) logarithms: Logarithms,
}

/// Gradients of one entropy.
struct Slopes {
    rows: Vec<Tensor<2>>,
    table: Tensor<2>,
}

impl Slopes {
    fn new(table: &Tensor<2>) -> Self {
        Self {
            rows: Vec::new(),
            table: table.zeros_like(),
        }
    }

    /// `value` with these gradients, scaled.
    fn attach(
        self,
        value: Tensor<1>,
        rows: &Tensor<2>,
        table: &Tensor<2>,
        scale: f32,
    ) -> Tensor<1> {
        let of_rows = Tensor::cat(self.rows, 0).mul_scalar(scale);
        let value = attach(value, rows, of_rows);
        if table.device().is_autodiff() {
            attach(value, table, self.table.mul_scalar(scale))
        } else {
            value
        }
    }
}

impl SoftmaxEntropies {
    /// Of rows `[n, width]` and a table `[K, width]`, with the gradients of both.
    pub(crate) fn of(&self, rows: Tensor<2>, table: Tensor<2>) -> Entropies {
        let table = beside(table, &rows);
        let (plain, codes) = (rows.clone().inner(), table.clone().inner());
        let ([count, _], [size, _]) = (plain.dims(), codes.dims());
        let slices = slices(&plain, (AT_ONCE / size).max(1));
        let tracked = rows.device().is_autodiff();

        let mut total = Tensor::<1>::zeros([1], &plain.device());
        let mut usage = Tensor::<2>::zeros([1, size], &plain.device());
        let mut sample_slopes = Slopes::new(&codes);
        for slice in &slices {
            let p = self.probabilities(slice, &codes);
            let (terms, slopes) = self.logarithms.sample.terms(p.clone());
            total = total + terms.sum();
            usage = usage + p.clone().sum_dim(0);
            if tracked {
                self.pull_back(slice, &codes, [p, slopes], &mut sample_slopes);
            }
        }
        let share = 1.0 / count as f32;
        let sample = total.mul_scalar(share);
        let (terms, usage_slopes) = self.logarithms.codebook.terms(usage.mul_scalar(share));
        let unused = terms.sum().neg().add_scalar((size as f32).ln());
        if !tracked {
            return Entropies { sample, unused };
        }
        let mut unused_slopes = Slopes::new(&codes);
        for slice in &slices {
            let p = self.probabilities(slice, &codes);
            let slopes = usage_slopes.clone().neg().expand(p.dims());
            self.pull_back(slice, &codes, [p, slopes], &mut unused_slopes);
        }
        Entropies {
            sample: sample_slopes.attach(sample, &rows, &table, share),
            unused: unused_slopes.attach(unused, &rows, &table, share),
        }
    }

    fn probabilities(&self, rows: &Tensor<2>, table: &Tensor<2>) -> Tensor<2> {
        let products = rows.clone().matmul(table.clone().transpose());
        softmax(products.mul_scalar(self.inverse_temperature), 1)
    }

    /// Adds the gradients of `Σ_c w(c)·p(c)` for the weights `slopes`, taken as constants.
    fn pull_back(
        &self,
        rows: &Tensor<2>,
        table: &Tensor<2>,
        [p, slopes]: [Tensor<2>; 2],
        to: &mut Slopes,
    ) {
        let weighted = p.clone() * slopes;
        let logits = weighted.clone() - p * weighted.sum_dim(1);
        let logits = logits.mul_scalar(self.inverse_temperature);
        to.rows.push(logits.clone().matmul(table.clone()));
        to.table = to.table.clone() + logits.transpose().matmul(rows.clone());
    }
}
