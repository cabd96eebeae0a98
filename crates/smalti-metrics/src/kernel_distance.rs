//! The kernel distance of two sets of images (KID, where the vectors are Inception-v3's).
//!
//! The squared maximum mean discrepancy with the kernel `k(x, y) = (x·y/width + 1)³`, in its unbiased form (Bińkowski et
//! al. 2018, arXiv 1801.01401, section 4; Gretton et al. 2012, equation 3):
//! `Σ_{i≠j} k(xᵢ, xⱼ)/(m(m−1)) + Σ_{i≠j} k(yᵢ, yⱼ)/(n(n−1)) − 2·Σ_{i,j} k(xᵢ, yⱼ)/(mn)`. Few images do not make it
//! larger, only less certain, and it may fall below zero. Time grows with the square of the images:
//! [`kernel_distances`] takes it of drawn subsets, as publications do (100 of 1000).

use crate::MetricError;
use crate::features::Features;

/// Vectors whose products are taken together.
const BLOCK: usize = 512;

/// The kernel distance of all vectors.
///
/// # Errors
/// When widths differ, or a set has fewer than two vectors.
pub fn kernel_distance(reference: &Features, generated: &Features) -> Result<f64, MetricError> {
    reference.require_comparable(generated, ("the kernel distance", 2))?;
    let pairs = |count: usize| (count * (count - 1)) as f64;
    let own = |set: &Features| {
        let equal: f64 = (0..set.len())
            .map(|i| kernel(set.row(i).iter().map(|&v| f64::from(v).powi(2)).sum(), set))
            .sum();
        (sum(set, set) - equal) / pairs(set.len())
    };
    let across = sum(reference, generated) / (reference.len() * generated.len()) as f64;
    Ok(own(reference) + own(generated) - 2.0 * across)
}

/// The kernel distance of each pair of subsets, given by the numbers of their vectors.
///
/// # Errors
/// As [`kernel_distance`].
pub fn kernel_distances<'a>(
    reference: &Features,
    generated: &Features,
    subsets: impl IntoIterator<Item = (&'a [usize], &'a [usize])>,
) -> Result<Vec<f64>, MetricError> {
    let subsets = subsets.into_iter();
    subsets
        .map(|(a, b)| kernel_distance(&reference.select(a), &generated.select(b)))
        .collect()
}

/// The kernel of two vectors of this set's width, by their product.
fn kernel(product: f64, set: &Features) -> f64 {
    (product / set.width() as f64 + 1.0).powi(3)
}

/// The sum over all pairs.
fn sum(left: &Features, right: &Features) -> f64 {
    let origin = vec![0.0; left.width()];
    let blocks = |set: &Features| {
        let count = set.len();
        (0..count)
            .step_by(BLOCK)
            .map(move |from| (from, (from + BLOCK).min(count)))
    };
    let mut total = 0.0;
    for part in blocks(left) {
        let rows = left.block(part, &origin);
        for part in blocks(right) {
            let products = rows.times_transposed(&right.block(part, &origin));
            let kernels = products.values().iter().map(|&p| kernel(p, left));
            total += kernels.sum::<f64>();
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;

    #[test]
    fn golden_distance() {
        let golden = Golden::sets();
        let (reference, generated) = (golden.features("feat_ref"), golden.features("feat_gen"));
        // The reference takes its kernels in f32.
        golden.close_to(
            "kid_full_f64",
            kernel_distance(&reference, &generated).unwrap(),
            1e-7,
        );
        let all: Vec<usize> = (0..120).collect();
        let (some, others) = (&all[..50], &all[50..]);
        let parts = [(&all[..], &all[..]), (some, others)];
        let distances = kernel_distances(&reference, &generated, parts).unwrap();
        let of_some = kernel_distance(&reference.select(some), &generated.select(others));
        assert_eq!(
            distances[0],
            kernel_distance(&reference, &generated).unwrap()
        );
        assert_eq!(distances[1], of_some.unwrap());
    }

    #[test]
    fn blocks_are_summed_like_pairs() {
        let mut features = Features::new(3);
        let values = (0..3 * (BLOCK + 5)).map(|i| (i as f32 * 0.37).sin());
        features.extend(&values.collect::<Vec<_>>()).unwrap();
        let mut expected = 0.0;
        for i in 0..features.len() {
            for j in 0..features.len() {
                let pairs = features.row(i).iter().zip(features.row(j));
                let product: f64 = pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                expected += (product / 3.0 + 1.0).powi(3);
            }
        }
        let got = sum(&features, &features);
        assert!((got / expected - 1.0).abs() < 1e-11, "{got} {expected}");
    }

    #[test]
    fn a_single_vector_has_no_pair() {
        let mut one = Features::new(2);
        one.extend(&[1.0, 0.0]).unwrap();
        let mut two = one.clone();
        two.extend(&[0.0, 1.0]).unwrap();
        let error = kernel_distance(&two, &one).unwrap_err().to_string();
        assert!(error.contains("the generated set"), "{error}");
        assert!(error.contains("at least 2"), "{error}");
    }
}
