//! Peak signal-to-noise ratio.
//!
//! `PSNR = 10 log10(data_range² / MSE)` in decibel, the mean of squared errors over all pixels
//! *and* channels of one image. Equal images give infinity. `data_range` is the width of the value
//! range: 255 for bytes, 2 for images in [-1, 1]. The figure of a set of images is the mean of the
//! images' decibels, not the decibel of the pooled error (which is lower).

use crate::{MetricError, Planes};

/// Mean squared error over all pixels and channels.
pub fn mse(left: &Planes, right: &Planes) -> Result<f64, MetricError> {
    left.common_shape(right)?;
    Ok(squared_error(
        left.data()
            .iter()
            .copied()
            .zip(right.data().iter().copied()),
    ) / left.data().len() as f64)
}

/// PSNR in decibel of one image.
pub fn psnr(left: &Planes, right: &Planes, data_range: f64) -> Result<f64, MetricError> {
    positive("data_range", data_range)?;
    Ok(psnr_from_mse(mse(left, right)?, data_range))
}

/// PSNR in decibel of a mean squared error; infinite for zero.
pub fn psnr_from_mse(mse: f64, data_range: f64) -> f64 {
    10.0 * (data_range * data_range / mse).log10()
}

/// PSNR in decibel of two byte images of the same layout, range 255, without a copy. The sum of
/// squares is exact.
pub fn psnr_u8(left: &[u8], right: &[u8]) -> Result<f64, MetricError> {
    same_length("bytes of the second image", left.len(), right.len())?;
    let sum: u64 = left
        .iter()
        .zip(right)
        .map(|(&a, &b)| u64::from(a.abs_diff(b)).pow(2))
        .sum();
    Ok(psnr_from_mse(sum as f64 / left.len() as f64, 255.0))
}

/// PSNR in decibel of every image of a batch `[batch, channels, height, width]`.
pub fn psnr_batch_f32(
    left: &[f32],
    right: &[f32],
    batch: usize,
    data_range: f64,
) -> Result<Vec<f64>, MetricError> {
    positive("data_range", data_range)?;
    same_length("values of the second batch", left.len(), right.len())?;
    if batch == 0 || !left.len().is_multiple_of(batch) {
        return Err(MetricError::WrongLength {
            what: "values of a batch, a multiple of its images",
            shape: vec![batch],
            expected: batch * left.len().div_ceil(batch.max(1)),
            got: left.len(),
        });
    }
    let size = left.len() / batch;
    let decibels = left
        .chunks_exact(size)
        .zip(right.chunks_exact(size))
        .map(|(a, b)| {
            let pairs = a
                .iter()
                .map(|&x| f64::from(x))
                .zip(b.iter().map(|&x| f64::from(x)));
            psnr_from_mse(squared_error(pairs) / size as f64, data_range)
        });
    Ok(decibels.collect())
}

/// Arithmetic mean; `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

pub(crate) fn positive(what: &'static str, got: f64) -> Result<(), MetricError> {
    if got.is_finite() && got > 0.0 {
        Ok(())
    } else {
        Err(MetricError::NotPositive { what, got })
    }
}

fn same_length(what: &'static str, expected: usize, got: usize) -> Result<(), MetricError> {
    if expected == 0 {
        return Err(MetricError::Empty {
            what,
            shape: vec![expected],
        });
    }
    if expected != got {
        return Err(MetricError::WrongLength {
            what,
            shape: vec![expected],
            expected,
            got,
        });
    }
    Ok(())
}

fn squared_error(pairs: impl Iterator<Item = (f64, f64)>) -> f64 {
    pairs.map(|(a, b)| (a - b) * (a - b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;

    #[test]
    fn golden_pairs() {
        let golden = Golden::open();
        for case in ["p0", "p1", "p2"] {
            let (a, b) = golden.pair(case);
            golden.close(
                &format!("{case}.psnr_255_f64"),
                psnr(&a, &b, 255.0).unwrap(),
            );
            golden.close(
                &format!("{case}.psnr_255_f64"),
                psnr_u8(
                    golden.bytes(&format!("{case}.a")),
                    golden.bytes(&format!("{case}.b")),
                )
                .unwrap(),
            );
            // The reference scales both images to [-1, 1] and says 2.
            let scale = |x: &Planes| {
                let [c, h, w] = x.shape();
                Planes::from_f64(x.data().iter().map(|v| v / 127.5 - 1.0).collect(), c, h, w)
                    .unwrap()
            };
            golden.close(
                &format!("{case}.psnr_range2_f64"),
                psnr(&scale(&a), &scale(&b), 2.0).unwrap(),
            );
        }
    }

    #[test]
    fn batch_is_the_images_one_by_one() {
        let left = [0.0, 0.5, -1.0, 1.0];
        let right = [0.0, 0.0, -1.0, 1.0];
        let decibels = psnr_batch_f32(&left, &right, 2, 2.0).unwrap();
        assert!((decibels[0] - 10.0 * (4.0f64 / 0.125).log10()).abs() < 1e-12);
        assert_eq!(decibels[1], f64::INFINITY);
        assert_eq!(mean(&[1.0, 2.0]), Some(1.5));
        assert_eq!(mean(&[]), None);
    }

    #[test]
    fn wrong_input_is_an_error() {
        assert!(psnr_u8(&[], &[]).is_err());
        assert!(psnr_u8(&[1], &[1, 2]).is_err());
        assert!(psnr_batch_f32(&[0.0; 3], &[0.0; 3], 2, 2.0).is_err());
        assert!(psnr_batch_f32(&[0.0; 2], &[0.0; 2], 0, 2.0).is_err());
        assert!(psnr_batch_f32(&[0.0; 2], &[0.0; 2], 2, f64::NAN).is_err());
        let one = Planes::from_f32(&[0.0], 1, 1, 1).unwrap();
        let two = Planes::from_f32(&[0.0; 2], 1, 1, 2).unwrap();
        assert!(matches!(
            mse(&one, &two),
            Err(MetricError::ShapeMismatch { .. })
        ));
    }
}
