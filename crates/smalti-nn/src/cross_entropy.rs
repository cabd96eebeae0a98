//! Cross entropy of logits against ids or against distributions.
//!
//! `loss[n] = −Σ_k q[n,k]·log p[n,k]`, `log p = x − m − log(Σ_k exp(x_k − m) + ε)`, `m = max_k x_k`.
//! Logits `[rows, classes]`, losses `[rows]`; logits of −∞ are classes that cannot occur (as long as
//! no target has weight on them). The `ε` is zero but for losses that published code defines
//! otherwise: RQ-Transformer's soft targets add 1e-7.

use burn::tensor::{Int, Tensor};

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
            assert_eq!(
                ids.dims(),
                [rows],
                "cross entropy: one id for each of {rows} rows"
            );
            log_partition - shifted.gather(1, ids.unsqueeze_dim(1)).squeeze_dim::<1>(1)
        }
        Targets::Distributions(weights) => {
            assert_eq!(
                weights.dims(),
                [rows, classes],
                "cross entropy: a weight for each logit"
            );
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
    use burn::tensor::Device;

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
