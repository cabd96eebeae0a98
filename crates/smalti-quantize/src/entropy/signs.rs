//! Entropies over codes that are signs, `c ∈ {−s, +s}ᵍ`: LFQ and BSQ.
//!
//! The bits of such a code are independent given the latent, so its 2ᵍ probabilities are products
//! of g. Only their mean over positions, whose bits are not independent, needs the table.

use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor, TensorData};

use super::{AT_ONCE, Entropies, Logarithms, attach};

/// More bits than this would make tables that no training can afford.
pub(crate) const MOST_BITS: usize = 18;

/// How the entropies of several groups are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// One distribution over the positions of all groups.
    Pooled,
    /// The mean of the groups' entropies.
    Mean,
    /// The sum: the entropy of all groups together, as if they were independent.
    Sum,
}

/// What the entropies are taken of.
#[derive(Clone, Debug)]
pub(crate) struct SignEntropies {
    /// Bits of a group.
    pub(crate) bits: usize,
    /// 2·τ·s: a bit is set with the probability σ(2·sharpness·x).
    pub(crate) sharpness: f32,
    pub(crate) over: Over,
    pub(crate) logarithms: Logarithms,
}

/// Probabilities of the codes of every row and group, and the mean of each of their bits.
struct Joint {
    /// `[rows · groups, 2^bits]`, the first bit the most significant.
    table: Tensor<2>,
    /// `[rows · groups, bits]`, between −1 and 1.
    means: Tensor<2>,
}

impl SignEntropies {
    /// Of rows `[n, groups · bits]`.
    pub(crate) fn of(&self, rows: Tensor<2>) -> Entropies {
        let plain = rows.clone().inner();
        let [count, width] = plain.dims();
        let (groups, size) = (width / self.bits, 1 << self.bits);
        let slices = slices(&plain, (AT_ONCE / (groups * size)).max(1));
        let tracked = rows.device().is_autodiff();
        let signs = sign_table(self.bits, &plain.device());

        let mut total = Tensor::<1>::zeros([1], &plain.device());
        let mut usage = Tensor::<2>::zeros([groups, size], &plain.device());
        let mut sample_slopes = Vec::new();
        for slice in &slices {
            let [rows, _] = slice.dims();
            let joint = self.joint(slice.clone());
            let (terms, slopes) = self.logarithms.sample.terms(joint.table.clone());
            total = total + terms.sum();
            let tables = joint.table.clone().reshape([rows, groups, size]);
            usage = usage + tables.sum_dim(0).reshape([groups, size]);
            if tracked {
                let pulled = self.pull_back(&joint, joint.table.clone() * slopes, &signs);
                sample_slopes.push(pulled.reshape([rows, width]));
            }
        }
        let share = match self.over {
            Over::Pooled | Over::Mean => 1.0 / (count * groups) as f32,
            Over::Sum => 1.0 / count as f32,
        };
        let sample = total.mul_scalar(share);
        let (unused, usage_slopes) = self.unused(usage.div_scalar(count as f32));
        if !tracked {
            return Entropies { sample, unused };
        }
        let usage_slopes = usage_slopes.div_scalar(count as f32).unsqueeze::<3>();
        let unused_slopes = slices.into_iter().map(|slice| {
            let [rows, _] = slice.dims();
            let joint = self.joint(slice);
            let tables = joint.table.clone().reshape([rows, groups, size]);
            let weighted = (tables * usage_slopes.clone()).reshape([rows * groups, size]);
            self.pull_back(&joint, weighted, &signs)
                .reshape([rows, width])
        });
        let unused_slopes = Tensor::cat(unused_slopes.collect(), 0);
        let sample_slopes = Tensor::cat(sample_slopes, 0).mul_scalar(share);
        Entropies {
            sample: attach(sample, &rows, sample_slopes),
            unused: attach(unused, &rows, unused_slopes),
        }
    }

    /// Probabilities of all codes, by doubling: a bit more is a table twice as wide.
    fn joint(&self, rows: Tensor<2>) -> Joint {
        let [count, width] = rows.dims();
        let groups = count * width / self.bits;
        let logits = rows
            .reshape([groups, self.bits])
            .mul_scalar(2.0 * self.sharpness);
        let (set, clear) = (sigmoid(logits.clone()), sigmoid(logits.neg()));
        let mut table = Tensor::<2>::ones([groups, 1], &set.device());
        for bit in 0..self.bits {
            let pair = vec![
                clear.clone().narrow(1, bit, 1),
                set.clone().narrow(1, bit, 1),
            ];
            let pair = Tensor::cat(pair, 1).unsqueeze_dim::<3>(1);
            table = (table.unsqueeze_dim::<3>(2) * pair).reshape([groups, 2 << bit]);
        }
        Joint {
            table,
            means: set - clear,
        }
    }

    /// `Σ_c w(c)·∂ ln p(c)/∂xᵢ` for `weighted = w`, `[rows · groups, bits]`.
    fn pull_back(&self, joint: &Joint, weighted: Tensor<2>, signs: &Tensor<2>) -> Tensor<2> {
        let mean = joint.means.clone() * weighted.clone().sum_dim(1);
        (weighted.matmul(signs.clone()) - mean).mul_scalar(self.sharpness)
    }

    /// `ln K − H` of the mean probabilities `[groups, K]`, and the slopes over them.
    fn unused(&self, usage: Tensor<2>) -> (Tensor<1>, Tensor<2>) {
        let [groups, size] = usage.dims();
        let most = self.bits as f32 * std::f32::consts::LN_2;
        let usage = match self.over {
            Over::Pooled => usage.sum_dim(0).div_scalar(groups as f32),
            Over::Mean | Over::Sum => usage,
        };
        let (terms, slopes) = self.logarithms.codebook.terms(usage);
        let (parts, share) = match self.over {
            Over::Pooled => (1.0, 1.0 / groups as f32),
            Over::Mean => (1.0 / groups as f32, 1.0 / groups as f32),
            Over::Sum => (1.0, 1.0),
        };
        let most = if self.over == Over::Sum {
            most * groups as f32
        } else {
            most
        };
        let unused = terms.sum().mul_scalar(-parts).add_scalar(most);
        let slopes = slopes.mul_scalar(-share);
        (unused, slopes.expand([groups, size]))
    }
}

/// Rows in slices of at most `rows`.
pub(super) fn slices(all: &Tensor<2>, rows: usize) -> Vec<Tensor<2>> {
    let [count, _] = all.dims();
    let starts = (0..count).step_by(rows);
    starts
        .map(|start| all.clone().narrow(0, start, rows.min(count - start)))
        .collect()
}

/// Every code, `[2^bits, bits]`, as ±1, the first bit the most significant.
fn sign_table(bits: usize, device: &Device) -> Tensor<2> {
    let sign = |code: usize, bit: usize| {
        let set = code >> (bits - 1 - bit) & 1 == 1;
        if set { 1.0f32 } else { -1.0 }
    };
    let values: Vec<f32> = (0..1usize << bits)
        .flat_map(|code| (0..bits).map(move |bit| sign(code, bit)))
        .collect();
    Tensor::from_data(TensorData::new(values, [1 << bits, bits]), device)
}
