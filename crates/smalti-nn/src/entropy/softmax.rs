//! Codes that are rows of a table.

use burn::tensor::Tensor;
use smalti_kernels::entropy::{choices, weighted};
use smalti_kernels::gemm::{Matrix, MatrixMut, Product, gemm};

use super::{AT_ONCE, Entropies, Logarithms, attach, composed, like, number, terms};
use crate::state::{host_values, on_cpu};

/// Entropies over the rows of a table, `p(c) = softmax(τ·x·c)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SoftmaxEntropies {
    /// τ.
    pub inverse_temperature: f32,
    /// How logarithms are kept finite.
    pub logarithms: Logarithms,
}

/// Rows and a table on the host.
struct Problem<'a> {
    rows: &'a [f32],
    table: &'a [f32],
    width: usize,
    inverse_temperature: f32,
}

/// Gradients of the rows and the table.
struct Slopes {
    rows: Vec<f32>,
    table: Vec<f32>,
}

impl Problem<'_> {
    fn size(&self) -> usize {
        self.table.len() / self.width
    }

    /// Runs `turn` on the logits of some rows after the others; it leaves slopes over them.
    fn each(&self, mut turn: impl FnMut(&mut [f32])) -> Slopes {
        let (width, size) = (self.width, self.size());
        let mut slopes = Slopes {
            rows: vec![0.0; self.rows.len()],
            table: vec![0.0; self.table.len()],
        };
        let slice = (AT_ONCE / size).max(1) * width;
        let table = Matrix::new(self.table, size, width);
        let parts = self.rows.chunks(slice).zip(slopes.rows.chunks_mut(slice));
        for (rows, slopes_of_rows) in parts {
            let count = rows.len() / width;
            let rows = Matrix::new(rows, count, width);
            let mut logits = vec![0.0; count * size];
            let products = Product::new(rows, table.transposed());
            let to = MatrixMut::new(&mut logits, count, size);
            gemm(&products.with_alpha(self.inverse_temperature), to);
            turn(&mut logits);

            let logits = Matrix::new(&logits, count, size);
            let of_rows = Product::new(logits, table).with_alpha(self.inverse_temperature);
            gemm(&of_rows, MatrixMut::new(slopes_of_rows, count, width));
            let of_table = Product::new(logits.transposed(), rows)
                .with_alpha(self.inverse_temperature)
                .with_beta(1.0);
            gemm(&of_table, MatrixMut::new(&mut slopes.table, size, width));
        }
        slopes
    }
}

impl Slopes {
    /// `value` with these gradients, scaled.
    fn attach(mut self, value: f64, rows: &Tensor<2>, table: &Tensor<2>, scale: f32) -> Tensor<1> {
        for slope in self.rows.iter_mut().chain(&mut self.table) {
            *slope *= scale;
        }
        let value = attach(number(value, rows), rows, like(self.rows, rows));
        attach(value, table, like(self.table, table))
    }
}

impl SoftmaxEntropies {
    /// Of rows `[n, width]` and a table `[K, width]`, both with autodiff or both without; both get
    /// gradients.
    pub fn of(&self, rows: Tensor<2>, table: Tensor<2>) -> Entropies {
        if !on_cpu(&rows) {
            return composed::softmax(self, rows, table);
        }
        let [count, width] = rows.dims();
        let (values, codes) = (
            host_values(rows.clone().inner()),
            host_values(table.clone().inner()),
        );
        let problem = Problem {
            rows: &values,
            table: &codes,
            width,
            inverse_temperature: self.inverse_temperature,
        };
        let share = 1.0 / count as f32;
        let (mut entropy, mut usage) = (0.0, vec![0.0; problem.size()]);
        let sample_slopes = problem.each(|logits| {
            let found = choices(problem.size(), logits, self.logarithms.sample.into());
            entropy += found.entropy;
            let sums = usage.iter_mut().zip(found.usage);
            sums.for_each(|(sum, used)| *sum += used * share);
        });
        let (used, mut weights) = terms(&usage, self.logarithms.codebook);
        weights.iter_mut().for_each(|weight| *weight = -*weight);
        let unused_slopes = problem.each(|logits| weighted(logits, &weights));
        let sample = entropy * f64::from(share);
        let unused = (problem.size() as f64).ln() - used;
        Entropies {
            sample: sample_slopes.attach(sample, &rows, &table, share),
            unused: unused_slopes.attach(unused, &rows, &table, share),
        }
    }
}
