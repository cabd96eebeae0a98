//! Structural similarity (Wang et al. 2004, "Image Quality Assessment: From Error Visibility to
//! Structural Similarity", equation 13).
//!
//! ```text
//! SSIM = (2 μa μb + C1)(2 σab + C2) / ((μa² + μb² + C1)(σa² + σb² + C2))
//! C1 = (0.01 R)², C2 = (0.03 R)²
//! ```
//!
//! with local means μ and (co)variances σ under a window, averaged over all windows that lie fully
//! inside the image, then over channels. `R` is `data_range`. Published numbers use several
//! conventions, which give different values for the same images:
//!
//! - [`SsimWindow::Uniform`] with size 7: scikit-image's default, sample covariance (divided by N -
//!   1).
//! - [`SsimWindow::Gaussian`]: 11 taps, σ 1.5, covariance divided by N. This is the paper's, and
//!   scikit-image's with `gaussian_weights=True, use_sample_covariance=False` (its mirrored border
//!   is cropped away again).
//! - [`SsimWindow::GaussianSingle`]: the same with weights rounded to single precision, which is
//!   pytorch-msssim's; it differs from the former by up to about 1e-7.
//! - some evaluation scripts give images in [0, 1] and say `R = 2`: state `data_range: 2.0` on such
//!   values to reproduce them.

use crate::filter::{Window, filter_valid};
use crate::psnr::{mean, positive};
use crate::{MetricError, Planes};

/// The window under which local statistics are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SsimWindow {
    /// A square of equal weights with sample covariance; scikit-image's default has size 7.
    Uniform {
        /// Side in pixels, odd, at least 3.
        size: usize,
    },
    /// 11 taps of a gaussian with σ 1.5, covariance of the population.
    Gaussian,
    /// As `Gaussian`, with weights computed in single precision.
    GaussianSingle,
}

/// How SSIM is computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SsimConfig {
    /// Width of the value range: 255 for bytes, 2 for [-1, 1].
    pub data_range: f64,
    /// The window.
    pub window: SsimWindow,
}

impl SsimConfig {
    /// scikit-image's defaults.
    pub fn uniform7(data_range: f64) -> Self {
        Self {
            data_range,
            window: SsimWindow::Uniform { size: 7 },
        }
    }

    /// The paper's window, as scikit-image computes it.
    pub fn gaussian(data_range: f64) -> Self {
        Self {
            data_range,
            window: SsimWindow::Gaussian,
        }
    }

    /// The paper's window, as pytorch-msssim computes it.
    pub fn gaussian_single(data_range: f64) -> Self {
        Self {
            data_range,
            window: SsimWindow::GaussianSingle,
        }
    }
}

/// SSIM of one image: the mean over channels of the mean over windows.
pub fn ssim(left: &Planes, right: &Planes, config: SsimConfig) -> Result<f64, MetricError> {
    let [_, height, width] = left.common_shape(right)?;
    let terms = Terms::new(config)?;
    terms.fits("SSIM", height, width)?;
    let channels: Vec<f64> = left
        .planes()
        .zip(right.planes())
        .map(|(a, b)| terms.means(a, b, height, width).ssim)
        .collect();
    Ok(mean(&channels).expect("planes are never empty"))
}

/// Mean SSIM of a plane, and the mean of its contrast-structure factor alone (what MS-SSIM takes
/// from the finer scales).
pub(crate) struct PlaneSimilarity {
    pub(crate) ssim: f64,
    pub(crate) contrast_structure: f64,
}

/// Window and constants, prepared once.
pub(crate) struct Terms {
    window: Window,
    covariance_scale: f64,
    c1: f64,
    c2: f64,
}

impl Terms {
    pub(crate) fn new(config: SsimConfig) -> Result<Self, MetricError> {
        positive("data_range", config.data_range)?;
        let (window, covariance_scale) = match config.window {
            SsimWindow::Uniform { size } => {
                if size < 3 || size % 2 == 0 {
                    return Err(MetricError::BadWindow { got: size });
                }
                let pixels = (size * size) as f64;
                (Window::Uniform(size), pixels / (pixels - 1.0))
            }
            SsimWindow::Gaussian => (Window::gaussian(11, 1.5), 1.0),
            SsimWindow::GaussianSingle => (Window::gaussian_single(11, 1.5), 1.0),
        };
        let c1 = (0.01 * config.data_range).powi(2);
        let c2 = (0.03 * config.data_range).powi(2);
        Ok(Self {
            window,
            covariance_scale,
            c1,
            c2,
        })
    }

    pub(crate) fn fits(
        &self,
        metric: &'static str,
        height: usize,
        width: usize,
    ) -> Result<(), MetricError> {
        let needed = self.window.size();
        if height < needed || width < needed {
            return Err(MetricError::TooSmall {
                metric,
                needed,
                height,
                width,
            });
        }
        Ok(())
    }

    pub(crate) fn means(
        &self,
        a: &[f64],
        b: &[f64],
        height: usize,
        width: usize,
    ) -> PlaneSimilarity {
        let local = |plane: &[f64]| filter_valid(plane, height, width, &self.window);
        let product =
            |x: &[f64], y: &[f64]| local(&x.iter().zip(y).map(|(p, q)| p * q).collect::<Vec<_>>());
        let (mean_a, mean_b) = (local(a), local(b));
        let (mean_aa, mean_bb, mean_ab) = (product(a, a), product(b, b), product(a, b));
        let (mut ssim, mut contrast_structure) = (0.0, 0.0);
        for i in 0..mean_a.len() {
            let (mu_a, mu_b) = (mean_a[i], mean_b[i]);
            let var_a = self.covariance_scale * (mean_aa[i] - mu_a * mu_a);
            let var_b = self.covariance_scale * (mean_bb[i] - mu_b * mu_b);
            let covariance = self.covariance_scale * (mean_ab[i] - mu_a * mu_b);
            let structure = (2.0 * covariance + self.c2) / (var_a + var_b + self.c2);
            contrast_structure += structure;
            ssim +=
                structure * (2.0 * mu_a * mu_b + self.c1) / (mu_a * mu_a + mu_b * mu_b + self.c1);
        }
        let windows = mean_a.len() as f64;
        PlaneSimilarity {
            ssim: ssim / windows,
            contrast_structure: contrast_structure / windows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;

    #[test]
    fn golden_uniform_window() {
        let golden = Golden::open();
        for case in ["p0", "p1", "p2"] {
            let (a, b) = golden.pair(case);
            let unit = |x: &Planes| {
                let [c, h, w] = x.shape();
                Planes::from_f64(x.data().iter().map(|v| v / 255.0).collect(), c, h, w).unwrap()
            };
            golden.close(
                &format!("{case}.ssim_u7_range255_f64"),
                ssim(&a, &b, SsimConfig::uniform7(255.0)).unwrap(),
            );
            golden.close(
                &format!("{case}.ssim_u7_range1_f64"),
                ssim(&unit(&a), &unit(&b), SsimConfig::uniform7(1.0)).unwrap(),
            );
            golden.close(
                &format!("{case}.ssim_u7_range2_f64"),
                ssim(&unit(&a), &unit(&b), SsimConfig::uniform7(2.0)).unwrap(),
            );
        }
    }

    #[test]
    fn golden_gaussian_window_of_both_libraries() {
        let golden = Golden::open();
        for case in ["p0", "p1", "p2"] {
            let (a, b) = golden.pair(case);
            golden.close(
                &format!("{case}.ssim_gauss_skimage_f64"),
                ssim(&a, &b, SsimConfig::gaussian(255.0)).unwrap(),
            );
            golden.close(
                &format!("{case}.ssim_gauss_pytorch_msssim_f64"),
                ssim(&a, &b, SsimConfig::gaussian_single(255.0)).unwrap(),
            );
        }
        let (a, b) = golden.pair("ms0");
        golden.close(
            "ms0.ssim_gauss_f64",
            ssim(&a, &b, SsimConfig::gaussian_single(255.0)).unwrap(),
        );
    }

    #[test]
    fn equal_images_are_one_and_bad_input_is_refused() {
        let image =
            Planes::from_f64((0..150).map(|i| f64::from(i % 7)).collect(), 1, 10, 15).unwrap();
        assert!((ssim(&image, &image, SsimConfig::uniform7(255.0)).unwrap() - 1.0).abs() < 1e-12);
        assert!(matches!(
            ssim(&image, &image, SsimConfig::gaussian(255.0)),
            Err(MetricError::TooSmall { needed: 11, .. })
        ));
        assert!(matches!(
            ssim(&image, &image, SsimConfig::uniform7(0.0)),
            Err(MetricError::NotPositive { .. })
        ));
        for size in [0, 1, 4] {
            let config = SsimConfig {
                data_range: 1.0,
                window: SsimWindow::Uniform { size },
            };
            assert_eq!(
                ssim(&image, &image, config),
                Err(MetricError::BadWindow { got: size })
            );
        }
    }
}
