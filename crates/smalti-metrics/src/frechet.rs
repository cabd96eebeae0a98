//! The Fréchet distance of two sets of images, by the Gaussians of their vectors.
//!
//! `d² = |μ₁ − μ₂|² + tr Σ₁ + tr Σ₂ − 2·tr (Σ₁Σ₂)^½` (Dowson, Landau 1982; for images Heusel et al. 2017, arXiv
//! 1706.08500, equation 6), in `f64`. What is returned is d², as everywhere. With vectors of Inception-v3's
//! last pooling it is called FID; with those of another network it is not, and compares with nothing but
//! distances by the same network of sets prepared alike.
//!
//! The last trace is the sum of the roots of the eigenvalues of Σ₁Σ₂, which are those of the symmetric `LᵀΣ₂L`
//! with `Σ₁ = LLᵀ`. `L` has no more columns than Σ₁ has rank, so a set smaller than its vectors is neither a
//! special case nor a source of complex numbers; published code takes the root of the whole product and adds
//! 1e-6 to singular diagonals. What is left of rounding in an eigenvalue of zero is cut off at zero.
//!
//! With few images the distance is too large: a covariance of N vectors has rank N − 1 at most. Compare sets of
//! equal size, and of many more images than a vector has numbers.

use crate::MetricError;
use crate::eigenvalues::eigenvalues;
use crate::factor::factor;
use crate::moments::FeatureStatistics;

/// The squared Fréchet distance.
///
/// # Errors
/// When the vectors differ in width.
pub fn frechet_distance(
    left: &FeatureStatistics,
    right: &FeatureStatistics,
) -> Result<f64, MetricError> {
    left.require_comparable(right)?;
    let squares = left.mean().iter().zip(right.mean());
    let means: f64 = squares.map(|(a, b)| (a - b) * (a - b)).sum();
    // The smaller set has the lower rank, and the smaller matrix of eigenvalues.
    let (few, many) = match left.count() <= right.count() {
        true => (left, right),
        false => (right, left),
    };
    let root = factor(few.matrix());
    if root.columns() == 0 {
        return Ok(means + many.matrix().trace());
    }
    let product = root.transposed_times(&many.matrix().times(&root));
    let roots = eigenvalues(product).into_iter().map(|v| v.max(0.0).sqrt());
    let common: f64 = roots.sum();
    let distance = means + left.matrix().trace() + right.matrix().trace() - 2.0 * common;
    Ok(distance.max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Features;
    use crate::golden::Golden;

    fn of(features: &Features) -> FeatureStatistics {
        FeatureStatistics::of(features).unwrap()
    }

    #[test]
    fn golden_distances() {
        let golden = Golden::sets();
        let (reference, generated) = (golden.features("feat_ref"), golden.features("feat_gen"));
        let distance = frechet_distance(&of(&reference), &of(&generated)).unwrap();
        for name in ["fid_pytorch_fid_f64", "fid_torch_fidelity_f64"] {
            golden.close_to(name, distance, 1e-9);
        }
        // Of a singular product the published root is rounding to the third digit.
        let few: Vec<usize> = (0..golden.integers("fid_rank_deficient_n")[0] as usize).collect();
        let (reference, generated) = (reference.select(&few), generated.select(&few));
        let (reference, generated) = (of(&reference), of(&generated));
        assert!(reference.is_singular());
        let distance = frechet_distance(&reference, &generated).unwrap();
        golden.close_to("fid_rank_deficient_f64", distance, 24e-3);
    }

    #[test]
    fn equal_sets_are_at_no_distance_whatever_their_rank() {
        let features = Golden::sets().features("feat_ref");
        for count in [2, 12, 24, 25, 120] {
            let some: Vec<usize> = (0..count).collect();
            let some = of(&features.select(&some));
            let distance = frechet_distance(&some, &some).unwrap();
            assert!(distance < 1e-6, "{count}: {distance}");
        }
    }

    #[test]
    fn the_order_of_sets_does_not_matter() {
        let golden = Golden::sets();
        let some: Vec<usize> = (0..30).collect();
        let few = of(&golden.features("feat_ref").select(&some));
        let many = of(&golden.features("feat_gen"));
        let (there, back) = (
            frechet_distance(&few, &many).unwrap(),
            frechet_distance(&many, &few).unwrap(),
        );
        assert!((there - back).abs() < 1e-9 * there, "{there} {back}");
    }

    #[test]
    fn independent_numbers_have_the_distance_of_their_deviations() {
        // Σ₁ = diag(1, 4), Σ₂ = diag(9, 4): (1 − 3)² + (2 − 2)², and means 2 apart.
        let corners = |a: f32, b: f32, mean: f32| {
            let mut features = Features::new(2);
            let scale = 0.75f32.sqrt();
            for (x, y) in [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)] {
                let row = [mean + a * x * scale, b * y * scale];
                features.extend(&row).unwrap();
            }
            of(&features)
        };
        let distance = frechet_distance(&corners(1.0, 2.0, 0.0), &corners(3.0, 2.0, 2.0));
        assert!((distance.unwrap() - 8.0).abs() < 1e-5);
    }

    #[test]
    fn sets_without_spread_are_as_far_as_their_means() {
        let point = |x: f32| {
            let mut features = Features::new(2);
            features.extend(&[x, 0.0, x, 0.0]).unwrap();
            of(&features)
        };
        assert_eq!(frechet_distance(&point(1.0), &point(4.0)), Ok(9.0));
        let other = of(&{
            let mut features = Features::new(3);
            features.extend(&[0.0; 6]).unwrap();
            features
        });
        let error = frechet_distance(&point(1.0), &other);
        assert_eq!(error, Err(MetricError::WidthMismatch { left: 2, right: 3 }));
    }
}
