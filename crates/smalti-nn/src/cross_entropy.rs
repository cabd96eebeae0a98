//! Cross entropy of logits against ids or against distributions.
//!
//! `loss[n] = −Σ_k q[n,k]·log p[n,k]`, `log p = x − m − log(Σ_k exp(x_k − m) + ε)`, `m = max_k x_k`.
//! Logits `[rows, classes]`, losses `[rows]`; logits of −∞ are classes that cannot occur (as long as
//! no target has weight on them). The `ε` is zero but for losses that published code defines
//! otherwise: RQ-Transformer's soft targets add 1e-7.

use std::sync::Arc;

use burn::tensor::{Int, Tensor};
use rayon::prelude::*;
use smalti_kernels::CrossEntropy as Kernel;
use smalti_kernels::cross_entropy::{BackwardRows, Partition, Targets as KernelTargets};

use crate::hook::{self, CpuOp, CpuTensor, cpu_tensor, dims, elements};
use crate::nearest::id_values;

/// What the logits should say.
#[derive(Clone, Debug)]
pub enum Targets {
    /// One class for each row: `[rows]`.
    Ids(Tensor<1, Int>),
    /// A distribution over the classes for each row: `[rows, classes]`.
    Distributions(Tensor<2>),
}

/// The cross entropy of each row, `[rows]`; see the [module's documentation](self).
pub fn cross_entropy(logits: Tensor<2>, targets: Targets, partition_epsilon: f64) -> Tensor<1> {
    let [rows, classes] = logits.dims();
    let epsilon = partition_epsilon as f32;
    match targets {
        Targets::Ids(ids) => {
            assert_eq!(
                ids.dims(),
                [rows],
                "cross entropy: one id for each of {rows} rows"
            );
            if !hook::is_on_cpu(&logits) {
                return composed(logits, Targets::Ids(ids), partition_epsilon);
            }
            let op = AgainstIds {
                ids: id_values(ids).into(),
                epsilon,
            };
            hook::call(op, [logits.into_dispatch()])
                .unwrap_or_else(|_| unreachable!("just seen to be on the CPU"))
        }
        Targets::Distributions(weights) => {
            let sizes = [rows, classes];
            assert_eq!(
                weights.dims(),
                sizes,
                "cross entropy: a weight for each logit"
            );
            let op = AgainstDistributions { epsilon };
            match hook::call(op, [logits.into_dispatch(), weights.into_dispatch()]) {
                Ok(losses) => losses,
                Err([logits, weights]) => {
                    let [logits, weights] = [logits, weights].map(Tensor::from_dispatch);
                    composed(logits, Targets::Distributions(weights), partition_epsilon)
                }
            }
        }
    }
}

/// The cross entropy of the CPU against one class for each row of the logits.
#[derive(Clone, Debug)]
struct AgainstIds {
    ids: Arc<[u32]>,
    epsilon: f32,
}

impl CpuOp<1> for AgainstIds {
    type Saved = Vec<Partition>;
    const CHEAP: bool = false;

    fn forward(&self, [logits]: &[CpuTensor; 1]) -> (CpuTensor, Vec<Partition>) {
        losses(logits, KernelTargets::Classes(&self.ids), self.epsilon)
    }

    fn backward(
        &self,
        [logits]: &[CpuTensor; 1],
        partitions: Vec<Partition>,
        grad: CpuTensor,
        _: [bool; 1],
    ) -> [Option<CpuTensor>; 1] {
        let rows = BackwardRows {
            partitions: &partitions,
            grad_losses: elements(&grad),
        };
        [Some(grad_logits(
            logits,
            KernelTargets::Classes(&self.ids),
            rows,
            self.epsilon,
        ))]
    }
}

/// The cross entropy of the CPU; inputs are the logits and the distributions.
#[derive(Clone, Copy, Debug)]
struct AgainstDistributions {
    epsilon: f32,
}

impl CpuOp<2> for AgainstDistributions {
    type Saved = Vec<Partition>;
    const CHEAP: bool = false;

    fn forward(&self, [logits, weights]: &[CpuTensor; 2]) -> (CpuTensor, Vec<Partition>) {
        losses(
            logits,
            KernelTargets::Probabilities(elements(weights)),
            self.epsilon,
        )
    }

    fn backward(
        &self,
        [logits, weights]: &[CpuTensor; 2],
        partitions: Vec<Partition>,
        grad: CpuTensor,
        [of_logits, of_weights]: [bool; 2],
    ) -> [Option<CpuTensor>; 2] {
        let rows = BackwardRows {
            partitions: &partitions,
            grad_losses: elements(&grad),
        };
        let targets = KernelTargets::Probabilities(elements(weights));
        [
            of_logits.then(|| grad_logits(logits, targets, rows, self.epsilon)),
            of_weights.then(|| grad_weights(logits, rows)),
        ]
    }
}

fn losses(
    logits: &CpuTensor,
    targets: KernelTargets,
    partition_epsilon: f32,
) -> (CpuTensor, Vec<Partition>) {
    let [rows, classes] = dims(logits);
    let mut losses = hook::output(rows);
    let kernel = Kernel {
        classes,
        partition_epsilon,
    };
    let partitions = kernel.forward(elements(logits), targets, &mut losses);
    (cpu_tensor(losses, [rows]), partitions)
}

fn grad_logits(
    logits: &CpuTensor,
    targets: KernelTargets,
    rows: BackwardRows,
    partition_epsilon: f32,
) -> CpuTensor {
    let sizes @ [_, classes] = dims(logits);
    let values = elements(logits);
    let mut output = hook::output(values.len());
    let kernel = Kernel {
        classes,
        partition_epsilon,
    };
    kernel.backward(values, targets, rows, &mut output);
    cpu_tensor(output, sizes)
}

/// `log S − (x − m)` for each logit, times the gradient of its row's loss.
fn grad_weights(logits: &CpuTensor, rows: BackwardRows) -> CpuTensor {
    let sizes @ [_, classes] = dims(logits);
    let values = elements(logits);
    let mut output = hook::output(values.len());
    let parts = output
        .par_chunks_mut(classes)
        .zip(values.par_chunks(classes));
    let rows = rows.partitions.par_iter().zip(rows.grad_losses);
    parts
        .zip(rows)
        .for_each(|((to, logits), (partition, &grad))| {
            let log_sum = partition.sum.ln();
            for (to, &logit) in to.iter_mut().zip(logits) {
                // An impossible class counts nothing, as in the composition.
                let shifted = if logit == f32::NEG_INFINITY {
                    0.0
                } else {
                    logit - partition.largest
                };
                *to = grad * (log_sum - shifted);
            }
        });
    cpu_tensor(output, sizes)
}

/// [`cross_entropy`] made of burn's own operations.
fn composed(logits: Tensor<2>, targets: Targets, partition_epsilon: f64) -> Tensor<1> {
    // The shift by the maximum cancels, so no gradient needs to pass through it.
    let shifted = logits.clone().sub(logits.detach().max_dim(1));
    let partition = shifted.clone().exp().sum_dim(1);
    let partition = match partition_epsilon {
        0.0 => partition,
        epsilon => partition.add_scalar(epsilon),
    };
    let log_partition = partition.log().squeeze_dim::<1>(1);
    match targets {
        Targets::Ids(ids) => {
            log_partition - shifted.gather(1, ids.unsqueeze_dim(1)).squeeze_dim::<1>(1)
        }
        Targets::Distributions(weights) => {
            // 0·(−∞) would be NaN: impossible classes count nothing where they have no weight.
            let impossible = shifted.clone().equal_elem(f32::NEG_INFINITY);
            let mass = weights.clone().sum_dim(1).squeeze_dim::<1>(1);
            let picked = weights * shifted.mask_fill(impossible, 0.0);
            log_partition * mass - picked.sum_dim(1).squeeze_dim::<1>(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::agreement::{Inputs, assert_agree, assert_slopes};
    use burn::tensor::Device;

    type Compute = fn(Tensor<2>, Targets, f64) -> Tensor<1>;

    #[test]
    fn kernel_and_composition_agree_against_distributions() {
        let of = |f: Compute, epsilon| {
            move |i: &Inputs| f(i.get(0), Targets::Distributions(i.get(1)), epsilon)
        };
        for classes in [3, 40] {
            let shapes: [&[usize]; 2] = [&[5, classes], &[5, classes]];
            for epsilon in [0.0, 0.5] {
                assert_agree(
                    &shapes,
                    1e-5,
                    of(cross_entropy, epsilon),
                    of(composed, epsilon),
                );
            }
            assert_slopes(&shapes, of(cross_entropy, 0.0));
            let twice =
                |f: Compute| move |i: &Inputs| f(i.get(0), Targets::Distributions(i.get(0)), 0.0);
            assert_agree(
                &[&[5, classes]],
                1e-5,
                twice(cross_entropy),
                twice(composed),
            );
        }
    }

    #[test]
    fn kernel_and_composition_agree_against_ids() {
        let of = |f: Compute, epsilon| {
            move |i: &Inputs| {
                let logits = i.get::<2>(0);
                let ids = Tensor::from_data([0, 39, 7], &logits.device());
                f(logits, Targets::Ids(ids), epsilon)
            }
        };
        for epsilon in [0.0, 0.5] {
            let shapes: [&[usize]; 1] = [&[3, 40]];
            assert_agree(
                &shapes,
                1e-5,
                of(cross_entropy, epsilon),
                of(composed, epsilon),
            );
        }
        assert_slopes(&[&[3, 40]], of(cross_entropy, 0.0));
    }

    const LOGITS: [[f32; 3]; 2] = [[1.0, -2.0, 0.5], [80.0, 0.0, 100.0]];
    const WEIGHTS: [[f32; 3]; 2] = [[0.2, 0.5, 0.3], [0.0, 0.25, 0.75]];

    fn reference(epsilon: f64, weights: [[f32; 3]; 2]) -> [f64; 2] {
        std::array::from_fn(|n| {
            let max = LOGITS[n].iter().fold(f64::MIN, |m, &x| m.max(f64::from(x)));
            let sum: f64 = LOGITS[n].iter().map(|&x| (f64::from(x) - max).exp()).sum();
            let log_sum = (sum + epsilon).ln();
            (0..3)
                .map(|k| -f64::from(weights[n][k]) * (f64::from(LOGITS[n][k]) - max - log_sum))
                .sum()
        })
    }

    fn compare(got: Tensor<1>, want: [f64; 2]) {
        let got = got.try_into_vec_as::<f32>().unwrap();
        for (got, want) in got.iter().zip(want) {
            assert!(
                (f64::from(*got) - want).abs() < 1e-5 * want.max(1.0),
                "{got} {want}"
            );
        }
    }

    #[test]
    fn losses_agree_with_f64() {
        let device = Device::flex();
        let logits = Tensor::<2>::from_data(LOGITS, &device);
        let weights = Tensor::<2>::from_data(WEIGHTS, &device);
        for epsilon in [0.0, 1e-7, 0.5] {
            let targets = Targets::Distributions(weights.clone());
            compare(
                cross_entropy(logits.clone(), targets, epsilon),
                reference(epsilon, WEIGHTS),
            );
        }
        let ids = Targets::Ids(Tensor::from_data([1, 2], &device));
        let one_hot = [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        compare(cross_entropy(logits, ids, 0.0), reference(0.0, one_hot));
    }

    #[test]
    fn gradient_is_probability_minus_target() {
        let device = Device::flex().autodiff();
        let logits = Tensor::<2>::from_data(LOGITS, &device).require_grad();
        let weights = Tensor::<2>::from_data(WEIGHTS, &device);
        let loss = cross_entropy(logits.clone(), Targets::Distributions(weights), 0.0).sum();
        let gradient = logits
            .grad(&loss.backward())
            .unwrap()
            .try_into_vec_as::<f32>()
            .unwrap();
        for (n, row) in LOGITS.iter().enumerate() {
            let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
            for (k, &x) in row.iter().enumerate() {
                let want = f64::from(x).exp() / sum - f64::from(WEIGHTS[n][k]);
                assert!(
                    (f64::from(gradient[3 * n + k]) - want).abs() < 1e-6,
                    "{gradient:?}"
                );
            }
        }
    }

    #[test]
    fn impossible_classes_count_nothing() {
        let device = Device::flex().autodiff();
        let logits =
            Tensor::<2>::from_data([[0.0, 0.0, f32::NEG_INFINITY]], &device).require_grad();
        let ln2 = std::f32::consts::LN_2;
        let ids = Targets::Ids(Tensor::from_data([0], &device));
        let soft = Targets::Distributions(Tensor::from_data([[0.5, 0.5, 0.0]], &device));
        for targets in [ids, soft] {
            let loss = cross_entropy(logits.clone(), targets, 0.0);
            let gradient = logits.grad(&loss.clone().sum().backward()).unwrap();
            assert!((loss.into_scalar::<f32>() - ln2).abs() < 1e-6);
            assert!(!gradient.contains_nan().into_scalar::<bool>());
        }
    }
}
