//! The entropies made of burn's own operations, for devices without a kernel.

use burn::tensor::activation::{sigmoid, softmax as softmax_rows};
use burn::tensor::{Device, Tensor, TensorData};

use super::{
    AT_ONCE, Entropies, Logarithm, SignEntropies, SoftmaxEntropies, attach, number, terms,
};
use crate::state::host_values;

/// Below this, `p·ln p` is nothing.
const SMALLEST: f32 = 1e-37;

impl Logarithm {
    /// `−p·ln p`, and the slope of it over p.
    fn terms(self, p: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let (logarithm, rest) = match self {
            Self::Exact => (p.clone().clamp_min(SMALLEST).log(), p.ones_like()),
            Self::Added(epsilon) => {
                let sum = p.clone().add_scalar(epsilon);
                (sum.clone().log(), p.clone() / sum)
            }
            Self::Clamped(epsilon) => {
                let above = p.clone().greater_equal_elem(epsilon).float();
                (p.clone().clamp_min(epsilon).log(), above)
            }
        };
        ((p * logarithm.clone()).neg(), (logarithm + rest).neg())
    }
}

/// Rows in slices of at most `rows`.
fn slices(all: &Tensor<2>, rows: usize) -> Vec<Tensor<2>> {
    let [count, _] = all.dims();
    let starts = (0..count).step_by(rows.max(1));
    starts
        .map(|start| all.clone().narrow(0, start, rows.max(1).min(count - start)))
        .collect()
}

/// Probabilities of the codes of every row and group, and the mean of each of their bits.
struct Joint {
    /// `[rows · groups, 2^bits]`, the first bit the least significant.
    table: Tensor<2>,
    /// `[rows · groups, bits]`, between −1 and 1.
    means: Tensor<2>,
}

impl Joint {
    /// By doubling: a bit more is a table twice as wide.
    fn new(of: &SignEntropies, rows: Tensor<2>) -> Self {
        let [count, width] = rows.dims();
        let groups = count * width / of.bits;
        let logits = rows
            .reshape([groups, of.bits])
            .mul_scalar(2.0 * of.sharpness);
        let (set, clear) = (sigmoid(logits.clone()), sigmoid(logits.neg()));
        let mut table = Tensor::<2>::ones([groups, 1], &set.device());
        for bit in 0..of.bits {
            let [clear, set] = [&clear, &set].map(|bits| bits.clone().narrow(1, bit, 1));
            table = Tensor::cat(vec![table.clone() * clear, table * set], 1);
        }
        Self {
            table,
            means: set - clear,
        }
    }

    /// `Σ_c w(c)·∂ ln p(c)` for `weighted = w`, `[rows · groups, bits]`.
    fn pull_back(&self, of: &SignEntropies, weighted: Tensor<2>, signs: &Tensor<2>) -> Tensor<2> {
        let mean = self.means.clone() * weighted.clone().sum_dim(1);
        (weighted.matmul(signs.clone()) - mean).mul_scalar(of.sharpness)
    }
}

/// Every code, `[2^bits, bits]`, as ±1, the first bit the least significant.
fn sign_table(bits: usize, device: &Device) -> Tensor<2> {
    let sign = |code: usize, bit: usize| {
        if code >> bit & 1 == 1 { 1.0f32 } else { -1.0 }
    };
    let values: Vec<f32> = (0..1usize << bits)
        .flat_map(|code| (0..bits).map(move |bit| sign(code, bit)))
        .collect();
    Tensor::from_data(TensorData::new(values, [1 << bits, bits]), device)
}

pub(super) fn signs(of: &SignEntropies, rows: Tensor<2>) -> Entropies {
    let plain = rows.clone().inner();
    let [count, width] = plain.dims();
    let (groups, size) = (width / of.bits, 1 << of.bits);
    let slices = slices(&plain, AT_ONCE / (groups * size));
    let signs = sign_table(of.bits, &plain.device());

    let mut total = Tensor::<1>::zeros([1], &plain.device());
    let mut usage = Tensor::<2>::zeros([groups, size], &plain.device());
    let mut sample_slopes = Vec::new();
    for slice in &slices {
        let [rows, _] = slice.dims();
        let joint = Joint::new(of, slice.clone());
        let (terms, slopes) = of.logarithms.sample.terms(joint.table.clone());
        total = total + terms.sum();
        let tables = joint.table.clone().reshape([rows, groups, size]);
        usage = usage + tables.sum_dim(0).reshape([groups, size]);
        let pulled = joint.pull_back(of, joint.table.clone() * slopes, &signs);
        sample_slopes.push(pulled.reshape([rows, width]));
    }
    let share = of.share(count, groups) as f32;
    let unused = of.unused(&host_values(usage.div_scalar(count as f32)), groups);
    let weights = TensorData::new(unused.slopes, [1, groups, size]);
    let weights = Tensor::<3>::from_data(weights, &plain.device()).div_scalar(count as f32);
    let unused_slopes = slices.into_iter().map(|slice| {
        let [rows, _] = slice.dims();
        let joint = Joint::new(of, slice);
        let tables = joint.table.clone().reshape([rows, groups, size]);
        let weighted = (tables * weights.clone()).reshape([rows * groups, size]);
        joint.pull_back(of, weighted, &signs).reshape([rows, width])
    });
    let unused_slopes = Tensor::cat(unused_slopes.collect(), 0);
    let sample_slopes = Tensor::cat(sample_slopes, 0).mul_scalar(share);
    let sample = total.mul_scalar(share);
    Entropies {
        sample: attach(sample, &rows, sample_slopes),
        unused: attach(number(unused.value, &rows), &rows, unused_slopes),
    }
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

    /// Adds the gradients of `Σ_c w(c)·p(c)` for the weights `slopes`, taken as constants.
    fn add(&mut self, [rows, table]: [&Tensor<2>; 2], p: Tensor<2>, slopes: Tensor<2>, tau: f32) {
        let weighted = p.clone() * slopes;
        let logits = weighted.clone() - p * weighted.sum_dim(1);
        let logits = logits.mul_scalar(tau);
        self.rows.push(logits.clone().matmul(table.clone()));
        self.table = self.table.clone() + logits.transpose().matmul(rows.clone());
    }

    /// `value` with these gradients, scaled.
    fn attach(self, value: Tensor<1>, [rows, table]: [&Tensor<2>; 2], scale: f32) -> Tensor<1> {
        let of_rows = Tensor::cat(self.rows, 0).mul_scalar(scale);
        let value = attach(value, rows, of_rows);
        attach(value, table, self.table.mul_scalar(scale))
    }
}

pub(super) fn softmax(of: &SoftmaxEntropies, rows: Tensor<2>, table: Tensor<2>) -> Entropies {
    let (plain, codes) = (rows.clone().inner(), table.clone().inner());
    let ([count, _], [size, _]) = (plain.dims(), codes.dims());
    let slices = slices(&plain, AT_ONCE / size);
    let tau = of.inverse_temperature;
    let probabilities = |rows: &Tensor<2>| {
        let products = rows.clone().matmul(codes.clone().transpose());
        softmax_rows(products.mul_scalar(tau), 1)
    };
    let mut total = Tensor::<1>::zeros([1], &plain.device());
    let mut usage = Tensor::<2>::zeros([1, size], &plain.device());
    let mut sample_slopes = Slopes::new(&codes);
    for slice in &slices {
        let p = probabilities(slice);
        let (terms, slopes) = of.logarithms.sample.terms(p.clone());
        total = total + terms.sum();
        usage = usage + p.clone().sum_dim(0);
        sample_slopes.add([slice, &codes], p, slopes, tau);
    }
    let share = 1.0 / count as f32;
    let (used, weights) = terms(
        &host_values(usage.mul_scalar(share)),
        of.logarithms.codebook,
    );
    let weights = TensorData::new(weights, [1, size]);
    let weights = Tensor::<2>::from_data(weights, &plain.device()).neg();
    let mut unused_slopes = Slopes::new(&codes);
    for slice in &slices {
        let p = probabilities(slice);
        let weights = weights.clone().expand(p.dims());
        unused_slopes.add([slice, &codes], p, weights, tau);
    }
    let sample = total.mul_scalar(share);
    let unused = number((size as f64).ln() - used, &rows);
    Entropies {
        sample: sample_slopes.attach(sample, [&rows, &table], share),
        unused: unused_slopes.attach(unused, [&rows, &table], share),
    }
}
