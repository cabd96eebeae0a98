//! The loss of representation learning: a predicted feature should be nearer to its own image's than to
//! other images' (InfoNCE; van den Oord et al. 2018, arXiv 1807.03748; in FQGAN equation 9 of Bai et
//! al. 2024, the form from the code).
//!
//! `L = −mean_i ln( exp(s_ii) / Σ_j exp(s_ij) )`, `s_ij = cos(u_i, t_j)`, `u_i` the prediction from image
//! i, `t_j` the feature of image j. Temperature 1, so its smallest value for N images is
//! `ln(1 + (N − 1)/e)` with orthogonal features, and below that only with opposite ones. The features
//! get no gradient.
//!
//! The negatives are the images of the batch; as published those of one GPU, 32 of a batch of 256. A
//! larger batch on one device can be cut into such runs of images.

use std::num::NonZeroUsize;

use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;

/// The name under which training weighs the loss.
pub const REPRESENTATION: &str = "representation";
/// Images among which the published training finds negatives.
pub const PUBLISHED_NEGATIVES: NonZeroUsize = NonZeroUsize::new(32).expect("it is not zero");
/// The smallest length that a cosine divides by, PyTorch's.
const SHORTEST: f32 = 1e-8;

/// The loss of predictions `[n, width]` against features `[n, width]` of the same images, among runs of
/// at most `among` neighbouring images, or all.
///
/// # Panics
/// When the shapes differ, or there is no image.
pub fn info_nce(
    predictions: Tensor<2>,
    features: Tensor<2>,
    among: Option<NonZeroUsize>,
) -> Tensor<1> {
    let [count, width] = predictions.dims();
    assert_eq!(
        [count, width],
        features.dims(),
        "predictions and features must have one shape"
    );
    assert!(count > 0, "there is no image to learn from");
    let features = constant(features, &predictions);
    let (u, t) = (unit(predictions), unit(features));
    let run = among.map_or(count, NonZeroUsize::get);
    let sums = (0..count).step_by(run).map(|start| {
        let size = run.min(count - start);
        let [u, t] = [&u, &t].map(|rows| rows.clone().narrow(0, start, size));
        let diagonal = Tensor::<2>::eye(size, &u.device());
        let scores = log_softmax(u.matmul(t.transpose()), 1);
        (scores * diagonal).sum().neg()
    });
    let sum = sums.reduce(|a, b| a + b).expect("there is an image");
    sum.div_scalar(count as f64)
}

/// `features` without gradient, where arithmetic with `predictions` is possible.
fn constant(features: Tensor<2>, predictions: &Tensor<2>) -> Tensor<2> {
    match (
        features.device().is_autodiff(),
        predictions.device().is_autodiff(),
    ) {
        (false, true) => Tensor::from_inner(features),
        (true, false) => features.inner(),
        _ => features.detach(),
    }
}

/// Every row scaled to length one.
fn unit(rows: Tensor<2>) -> Tensor<2> {
    // Clamped before the root, whose gradient at zero is infinite.
    let length = rows.clone().square().sum_dim(1);
    rows / length.clamp_min(SHORTEST * SHORTEST).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use smalti_nn::Noise;
    use smalti_nn::state::host_values;

    fn random(seed: u64, shape: [usize; 2], device: &Device) -> Tensor<2> {
        Noise::from_seed(seed).standard_normal(shape, device)
    }

    fn number(loss: Tensor<1>) -> f64 {
        f64::from(loss.into_scalar::<f32>())
    }

    #[test]
    fn perfect_predictions_of_orthogonal_features_have_the_least_loss() {
        let features = Tensor::<2>::eye(32, &Device::flex());
        let loss = number(info_nce(features.clone().mul_scalar(3.0), features, None));
        assert!(
            (loss - (1.0 + 31.0 / 1f64.exp()).ln()).abs() < 1e-5,
            "{loss}"
        );
    }

    #[test]
    fn one_image_has_nothing_to_be_told_from() {
        let [u, t] = [1, 2].map(|seed| random(seed, [1, 6], &Device::flex()));
        assert!(number(info_nce(u, t, None)).abs() < 1e-6);
    }

    #[test]
    fn runs_are_batches_of_their_own() {
        let [u, t] = [1, 2].map(|seed| random(seed, [7, 6], &Device::flex()));
        let whole = number(info_nce(u.clone(), t.clone(), NonZeroUsize::new(3)));
        let parts = [(0, 3), (3, 3), (6, 1)].map(|(start, size)| {
            let [u, t] = [&u, &t].map(|rows| rows.clone().narrow(0, start, size));
            size as f64 * number(info_nce(u, t, None))
        });
        let mean = parts.iter().sum::<f64>() / 7.0;
        assert!((whole - mean).abs() < 1e-6, "{whole}, {mean}");
        assert!((whole - number(info_nce(u, t, None))).abs() > 0.1);
    }

    #[test]
    fn predictions_have_the_slope_of_the_loss_and_features_have_none() {
        let device = Device::flex().autodiff();
        let predictions = random(1, [5, 4], &device).require_grad();
        let tracked = random(2, [5, 4], &device).require_grad();
        let loss = info_nce(predictions.clone(), tracked.clone(), NonZeroUsize::new(3));
        let gradients = loss.backward();
        assert!(tracked.grad(&gradients).is_none());
        let gradient = host_values(predictions.grad(&gradients).expect("tracked"));
        let values = host_values(predictions.inner());
        let features = tracked.inner();
        for (i, expected) in gradient.iter().enumerate() {
            let at = |offset: f32| {
                let mut moved = values.clone();
                moved[i] += offset;
                let moved = Tensor::<1>::from_data(moved.as_slice(), &Device::flex());
                let moved = moved.reshape([5, 4]);
                number(info_nce(moved, features.clone(), NonZeroUsize::new(3)))
            };
            let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!(
                (slope - f64::from(*expected)).abs() < 1e-4,
                "[{i}]: {slope}, {expected}"
            );
        }
    }

    #[test]
    fn features_without_autodiff_are_welcome_and_zeros_have_finite_gradients() {
        let zeros = Tensor::<2>::zeros([3, 4], &Device::flex().autodiff()).require_grad();
        let loss = info_nce(zeros.clone(), random(1, [3, 4], &Device::flex()), None);
        let gradient = zeros.grad(&loss.backward()).expect("tracked");
        assert!(host_values(gradient).iter().all(|v| v.is_finite()));
    }
}
