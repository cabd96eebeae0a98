//! What codes cost, in bits per pixel of the image they stand for.
//!
//! Two ideal rates, both without headers: the fixed rate spends `log2(codebook_size)` bits on every
//! code, the entropy rate what an order-0 entropy coder with the observed frequencies would spend.
//! A file in which codes are stored as u32 is larger than either.

use crate::{CodeStatistics, MetricError};

/// Positions of codes and pixels of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeRate {
    /// Spatial positions of codes: height times width of the code grid. Every position holds one
    /// code per depth.
    pub positions: usize,
    /// Pixels of the image, counted once (not per channel).
    pub pixels: usize,
}

impl CodeRate {
    /// Bits per pixel when every code costs the logarithm of its codebook's size.
    pub fn fixed(&self, codebook_sizes: &[usize]) -> Result<f64, MetricError> {
        let mut bits = 0.0;
        for &size in codebook_sizes {
            crate::psnr::positive("a codebook size", size as f64)?;
            bits += (size as f64).log2();
        }
        self.per_pixel(bits)
    }

    /// Bits per pixel at the entropy of the observed codes, each depth coded with its own
    /// frequencies.
    pub fn entropy(&self, statistics: &CodeStatistics) -> Result<f64, MetricError> {
        self.per_pixel(
            statistics
                .per_depth()
                .iter()
                .map(|depth| depth.entropy_bits)
                .sum(),
        )
    }

    fn per_pixel(&self, bits_per_position: f64) -> Result<f64, MetricError> {
        crate::psnr::positive("the number of pixels", self.pixels as f64)?;
        Ok(bits_per_position * self.positions as f64 / self.pixels as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_setting() {
        // RQ-VAE on 256x256: 8x8x4 codes of a codebook of 16384, 14 bits each.
        let rate = CodeRate {
            positions: 64,
            pixels: 256 * 256,
        };
        assert!((rate.fixed(&[16384; 4]).unwrap() - 64.0 * 4.0 * 14.0 / 65536.0).abs() < 1e-12);
    }

    #[test]
    fn entropy_is_at_most_the_fixed_rate() {
        let mut statistics = CodeStatistics::new(&[4]);
        statistics.observe(&[0, 1, 0, 1], [1, 1, 2, 2]).unwrap();
        let rate = CodeRate {
            positions: 4,
            pixels: 16,
        };
        assert!((rate.entropy(&statistics).unwrap() - 0.25).abs() < 1e-12);
        assert!((rate.fixed(&[4]).unwrap() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn no_pixels_and_no_codes_are_errors() {
        assert!(
            CodeRate {
                positions: 4,
                pixels: 0
            }
            .fixed(&[4])
            .is_err()
        );
        assert!(
            CodeRate {
                positions: 4,
                pixels: 4
            }
            .fixed(&[0])
            .is_err()
        );
    }
}
