//! The code of a fixed codebook that stands best for a Gaussian, always in `f32` or wider.

use burn::backend::DispatchDevice;
use burn::tensor::{Int, Tensor, TensorData};

use super::{DISTANCES_AT_ONCE, NonFinite, id_tensor, refusal};
use crate::state::host_values;

pub use smalti_kernels::nearest::WeightedIndex;

/// For every Gaussian, a row of `means [n, width]` and of `log_variances [n, width]` within ±80,
/// the index of the code with the largest score `Σ β·c² − (c − μ)²/σ²`, `[n]`. Ties go to the
/// lowest index. No gradient.
///
/// On the CPU a fused search that never stores the scores and decides in `f64`; elsewhere the same
/// sum in `f32`, one dimension after the other and in slices of bounded memory. That is slower than
/// a matrix product of `[c², c]`, but the terms of a good code are small, so it rounds less, and no
/// device multiplies it with fewer digits than asked for. The codes are sent to the device at each
/// call.
///
/// # Errors
/// When a number is not finite.
///
/// # Panics
/// When a log-variance is outside ±80.
pub fn weighted_codes(
    means: Tensor<2>,
    log_variances: Tensor<2>,
    index: &WeightedIndex,
) -> Result<Tensor<1, Int>, NonFinite> {
    let (means, log_variances) = (means.inner(), log_variances.inner());
    let device = means.device();
    if matches!(device.as_dispatch(), DispatchDevice::Flex(_)) {
        let [count, _] = means.dims();
        let mut ids = vec![0; count];
        let (means, log_variances) = (host_values(means), host_values(log_variances));
        index
            .search(&means, &log_variances, &mut ids)
            .map_err(refusal)?;
        return Ok(id_tensor(&ids, [count], &device));
    }
    let finite = |t: &Tensor<2>| t.clone().abs().max().into_scalar::<f32>().is_finite();
    if finite(&means) && finite(&log_variances) {
        Ok(weighted_composed(means, log_variances, index))
    } else {
        Err(NonFinite)
    }
}

fn weighted_composed(
    means: Tensor<2>,
    log_variances: Tensor<2>,
    index: &WeightedIndex,
) -> Tensor<1, Int> {
    let [count, width] = means.dims();
    let size = index.codebook_size();
    let table = TensorData::new(index.codes().to_vec(), [size, width]);
    let codes = Tensor::<2>::from_data(table, &means.device()).transpose();
    let weights = log_variances.neg().exp();
    let rows = (DISTANCES_AT_ONCE / size).max(1);
    let slices = (0..count).step_by(rows).map(|start| {
        let end = (start + rows).min(count);
        let of = |t: &Tensor<2>, i: usize| t.clone().slice([start..end, i..i + 1]);
        let terms = (0..width).map(|i| {
            let code = codes.clone().slice([i..i + 1, 0..size]);
            let gap = code.clone() - of(&means, i);
            gap.square() * of(&weights, i) - code.square().mul_scalar(index.beta())
        });
        let scores = terms.reduce(|a, b| a + b).expect("codes have a width");
        scores.argmin(1).reshape([end - start])
    });
    Tensor::cat(slices.collect(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Noise;
    use crate::nearest::id_values;
    use burn::tensor::Device;

    #[test]
    fn the_weighted_kernel_and_its_composition_agree() {
        let device = Device::flex();
        let mut noise = Noise::from_seed(2);
        let index = WeightedIndex::new(noise.normal_values(300 * 4), 4, 1.0).unwrap();
        let means = noise.standard_normal::<2>([70, 4], &device);
        let log_variances = noise.standard_normal::<2>([70, 4], &device) - 2.0;
        let kernel = weighted_codes(means.clone(), log_variances.clone(), &index).unwrap();
        let composed = weighted_composed(means.clone(), log_variances.clone(), &index);
        assert_eq!(id_values(kernel), id_values(composed));
        let broken = log_variances.mul_scalar(f32::NAN);
        assert_eq!(weighted_codes(means, broken, &index).err(), Some(NonFinite));
    }
}
