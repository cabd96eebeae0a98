//! The nearest code of every vector, always in `f32` whatever the precision of training.

use burn::backend::DispatchDevice;
use burn::tensor::{Device, Int, Tensor, TensorData};
use smalti_kernels::nearest::{CodebookIndex, Metric, NearestError};

use crate::state::host_values;

mod weighted;

pub use weighted::{WeightedIndex, weighted_codes};

/// How many distances are held at once by the composed search (64 MiB of `f32`).
const DISTANCES_AT_ONCE: usize = 1 << 24;

/// Some vector or code is NaN or infinite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("vectors or codes are not finite (NaN or infinity): there is no nearest code")]
pub struct NonFinite;

/// For every row of `vectors [n, width]` the index of the row of `codes [k, width]` with the smallest
/// Euclidean distance, `[n]`. Ties go to the lowest index. No gradient.
///
/// On the CPU a fused search that never stores the distances; elsewhere
/// `argmin(‖c‖² − 2·x·c)`, in slices of bounded memory.
///
/// # Errors
/// When a vector or a code is not finite.
pub fn nearest_codes(vectors: Tensor<2>, codes: Tensor<2>) -> Result<Tensor<1, Int>, NonFinite> {
    best_codes(vectors, codes, Metric::Euclidean)
}

/// For every row of `vectors [n, width]` the index of the row of `codes [k, width]` with the largest
/// inner product, `[n]`. Ties go to the lowest index. No gradient.
///
/// # Errors
/// When a vector or a code is not finite.
pub fn largest_products(vectors: Tensor<2>, codes: Tensor<2>) -> Result<Tensor<1, Int>, NonFinite> {
    best_codes(vectors, codes, Metric::InnerProduct)
}

fn best_codes(
    vectors: Tensor<2>,
    codes: Tensor<2>,
    metric: Metric,
) -> Result<Tensor<1, Int>, NonFinite> {
    let (vectors, codes) = (vectors.inner(), codes.inner());
    let device = vectors.device();
    if matches!(device.as_dispatch(), DispatchDevice::Flex(_)) {
        let [count, width] = vectors.dims();
        let ids = search(&host_values(vectors), host_values(codes), width, metric)?;
        return Ok(id_tensor(&ids, [count], &device));
    }
    let finite = |t: &Tensor<2>| t.clone().abs().max().into_scalar::<f32>().is_finite();
    if finite(&vectors) && finite(&codes) {
        Ok(composed(vectors, codes, metric))
    } else {
        Err(NonFinite)
    }
}

/// [`nearest_codes`] of rows on the host, all of which must be finite.
pub fn nearest_rows(vectors: &[f32], codes: &[f32], width: usize) -> Vec<u32> {
    search(vectors, codes.to_vec(), width, Metric::Euclidean)
        .expect("rows on the host were checked to be finite")
}

fn search(
    vectors: &[f32],
    codes: Vec<f32>,
    width: usize,
    metric: Metric,
) -> Result<Vec<u32>, NonFinite> {
    let mut ids = vec![0; vectors.len() / width];
    let index = CodebookIndex::new(codes, width, metric).map_err(refusal)?;
    index.search(vectors, &mut ids).map_err(refusal)?;
    Ok(ids)
}

/// Shapes are this module's own doing, so only numbers can be refused.
fn refusal(error: NearestError) -> NonFinite {
    match error {
        NearestError::NonFiniteCode { .. } | NearestError::NonFiniteQuery { .. } => NonFinite,
        shape => unreachable!("{shape}"),
    }
}

fn composed(vectors: Tensor<2>, codes: Tensor<2>, metric: Metric) -> Tensor<1, Int> {
    let [count, width] = vectors.dims();
    let [size, _] = codes.dims();
    let norms = codes.clone().square().sum_dim(1).transpose();
    let norms = match metric {
        Metric::Euclidean => norms,
        Metric::InnerProduct => norms.zeros_like(),
    };
    let transposed = codes.transpose();
    let rows = (DISTANCES_AT_ONCE / size).max(1);
    let slices = (0..count).step_by(rows).map(|start| {
        let end = (start + rows).min(count);
        let slice = vectors.clone().slice([start..end, 0..width]);
        let scores = norms.clone() - slice.matmul(transposed.clone()).mul_scalar(2.0);
        scores.argmin(1).reshape([end - start])
    });
    Tensor::cat(slices.collect(), 0)
}

/// Host integers as a tensor of ids.
pub fn id_tensor<const D: usize>(
    ids: &[u32],
    shape: [usize; D],
    device: &Device,
) -> Tensor<D, Int> {
    let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    Tensor::from_data(TensorData::new(ids, shape), device)
}

/// A tensor of ids on the host.
pub fn id_values<const D: usize>(ids: Tensor<D, Int>) -> Vec<u32> {
    let ids: Vec<i64> = ids
        .into_data()
        .convert::<i64>()
        .try_into_vec()
        .expect("converted just now");
    ids.into_iter()
        .map(|id| u32::try_from(id).expect("ids are not negative"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Noise;

    #[test]
    fn the_kernel_and_the_composition_agree() {
        let device = Device::flex();
        let mut noise = Noise::from_seed(1);
        let vectors = noise.standard_normal::<2>([70, 5], &device);
        let codes = noise.standard_normal::<2>([33, 5], &device);
        for metric in [Metric::Euclidean, Metric::InnerProduct] {
            let kernel = best_codes(vectors.clone(), codes.clone(), metric).unwrap();
            let composed = composed(vectors.clone(), codes.clone(), metric);
            assert_eq!(id_values(kernel), id_values(composed));
        }
    }

    #[test]
    fn the_longest_code_along_a_vector_has_the_largest_product() {
        let device = Device::flex();
        let codes = Tensor::<2>::from_data([[1.0, 0.0], [3.0, 0.0], [3.0, 0.0]], &device);
        let vectors = Tensor::<2>::from_data([[1.0, 0.5], [-1.0, 0.0]], &device);
        let chosen = largest_products(vectors.clone(), codes.clone()).unwrap();
        assert_eq!(id_values(chosen), [1, 0]);
        assert_eq!(id_values(nearest_codes(vectors, codes).unwrap()), [0, 0]);
    }

    #[test]
    fn a_nan_has_no_nearest_code() {
        let device = Device::flex();
        let vectors = Tensor::<2>::from_data([[0.0, f32::NAN]], &device);
        assert_eq!(
            nearest_codes(vectors, Tensor::ones([4, 2], &device)).err(),
            Some(NonFinite)
        );
    }
}
