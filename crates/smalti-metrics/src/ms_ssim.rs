//! Multi-scale structural similarity (Wang, Simoncelli, Bovik 2003, equation 7).
//!
//! `MS-SSIM = Π_{s<5} max(cs_s, 0)^{w_s} · max(ssim_5, 0)^{w_5}` per channel, then the mean over
//! channels, with `cs` the contrast-structure factor of SSIM, an 11-tap gaussian window (σ 1.5,
//! [`crate::SsimWindow::GaussianSingle`]) and halving by 2x2 means between scales. As in
//! pytorch-msssim, negative factors count as 0 (the paper leaves them undefined), and an odd side
//! is padded by one row of zeros at *both* ends that count in the mean.

use crate::psnr::mean;
use crate::ssim::Terms;
use crate::{MetricError, Planes, SsimConfig};

/// Exponents of the five scales, finest first.
pub const MS_SSIM_WEIGHTS: [f64; 5] = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333];

/// The smallest side that works: after four halvings the window of 11 pixels must still fit.
pub const MS_SSIM_MIN_SIDE: usize = 161;

/// MS-SSIM of one image, both sides at least [`MS_SSIM_MIN_SIDE`].
pub fn ms_ssim(left: &Planes, right: &Planes, data_range: f64) -> Result<f64, MetricError> {
    let [_, height, width] = left.common_shape(right)?;
    if height.min(width) < MS_SSIM_MIN_SIDE {
        return Err(MetricError::TooSmall {
            metric: "MS-SSIM",
            needed: MS_SSIM_MIN_SIDE,
            height,
            width,
        });
    }
    let terms = Terms::new(SsimConfig::gaussian_single(data_range))?;
    let channels: Vec<f64> = left
        .planes()
        .zip(right.planes())
        .map(|(a, b)| plane_value(&terms, a, b, [height, width]))
        .collect();
    Ok(mean(&channels).expect("planes are never empty"))
}

fn plane_value(terms: &Terms, a: &[f64], b: &[f64], [mut height, mut width]: [usize; 2]) -> f64 {
    let (mut a, mut b) = (a.to_vec(), b.to_vec());
    let mut product = 1.0;
    for (scale, weight) in MS_SSIM_WEIGHTS.into_iter().enumerate() {
        let means = terms.means(&a, &b, height, width);
        if scale + 1 == MS_SSIM_WEIGHTS.len() {
            product *= means.ssim.max(0.0).powf(weight);
        } else {
            product *= means.contrast_structure.max(0.0).powf(weight);
            b = halve(&b, height, width).0;
            (a, [height, width]) = halve(&a, height, width);
        }
    }
    product
}

/// Means of 2x2 pixels with stride 2; an odd side gets a zero row before and after.
fn halve(plane: &[f64], height: usize, width: usize) -> (Vec<f64>, [usize; 2]) {
    let (pad_y, pad_x) = (height % 2, width % 2);
    let (out_height, out_width) = (height / 2 + pad_y, width / 2 + pad_x);
    // Coordinates of the padded plane; what lies outside of the image is zero.
    let at = |y: usize, x: usize| match (y.checked_sub(pad_y), x.checked_sub(pad_x)) {
        (Some(y), Some(x)) if y < height && x < width => plane[y * width + x],
        _ => 0.0,
    };
    let mut out = Vec::with_capacity(out_height * out_width);
    for y in (0..2 * out_height).step_by(2) {
        out.extend(
            (0..2 * out_width)
                .step_by(2)
                .map(|x| (at(y, x) + at(y, x + 1) + at(y + 1, x) + at(y + 1, x + 1)) / 4.0),
        );
    }
    (out, [out_height, out_width])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;

    #[test]
    fn golden_pair() {
        let golden = Golden::open();
        let (a, b) = golden.pair("ms0");
        golden.close("ms0.ms_ssim_f64", ms_ssim(&a, &b, 255.0).unwrap());
    }

    #[test]
    fn odd_sides_get_zeros_at_both_ends() {
        let (out, size) = halve(&[4.0, 8.0, 12.0], 1, 3);
        // Padded: a zero row above and below, a zero column left and right: [0 4 | 8 12 | 0].
        assert_eq!(size, [1, 2]);
        assert_eq!(out, [1.0, 5.0]);
    }

    #[test]
    fn limits() {
        let image = |side: usize| {
            Planes::from_f64(
                (0..side * side).map(|i| (i % 251) as f64).collect(),
                1,
                side,
                side,
            )
            .unwrap()
        };
        assert!(matches!(
            ms_ssim(&image(160), &image(160), 255.0),
            Err(MetricError::TooSmall { needed: 161, .. })
        ));
        assert!((ms_ssim(&image(161), &image(161), 255.0).unwrap() - 1.0).abs() < 1e-12);
    }
}
