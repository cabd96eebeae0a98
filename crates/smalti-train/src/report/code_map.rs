//! Code maps: a grid of codes as a picture, one colour a code.
//!
//! Colours are a function of the id alone, the same in every picture and every report. Hue, lightness and chroma each
//! follow an additive recurrence `frac(id · α)` with the α of a three-dimensional low-discrepancy sequence (Roberts 2018,
//! "R₃": powers of the inverse of g, the real root of x⁴ = x + 1), in the perceptual space OKLCH (Ottosson 2020), so that
//! neighbouring ids are far apart and the first ids farthest. With thousands of codes some colours are close to each
//! other; equal ids are always equal, and that is what these maps are looked at for.

use super::picture::{Picture, PictureError, check_length};

/// Pixels of the longer side at least, so that a copied map is large enough to look at.
const SHORTEST_MAP: u32 = 128;

impl Picture {
    /// Draws `codes` (`width * height` ids, rows from top to bottom, one depth) with one colour a code, every code as a
    /// block of pixels.
    ///
    /// # Errors
    ///
    /// When a side is zero or the number of codes does not fit.
    pub fn of_codes(width: u32, height: u32, codes: &[u32]) -> Result<Self, PictureError> {
        check_length((width, height), 1, codes.len())?;
        let rgb: Vec<u8> = codes.iter().flat_map(|&code| code_colour(code)).collect();
        Ok(Self::new(width, height, rgb)?.enlarged(SHORTEST_MAP.div_ceil(width.max(height))))
    }
}

/// The colour that stands for a code in every code map.
pub fn code_colour(code: u32) -> [u8; 3] {
    const G: f64 = 1.220_744_084_605_76;
    let sequence = |power: i32| (f64::from(code) * G.powi(-power)).fract();
    let lightness = 0.48 + 0.40 * sequence(2);
    let chroma = 0.06 + 0.09 * sequence(3);
    oklch_to_rgb(lightness, chroma, sequence(1) * std::f64::consts::TAU)
}

/// OKLCH to 8-bit sRGB with Ottosson's matrices; what lies outside the gamut is clipped.
fn oklch_to_rgb(lightness: f64, chroma: f64, hue: f64) -> [u8; 3] {
    let (a, b) = (chroma * hue.cos(), chroma * hue.sin());
    let l = (lightness + 0.396_337_777_4 * a + 0.215_803_757_3 * b).powi(3);
    let m = (lightness - 0.105_561_345_8 * a - 0.063_854_172_8 * b).powi(3);
    let s = (lightness - 0.089_484_177_5 * a - 1.291_485_548_0 * b).powi(3);
    [
        4.076_741_662_1 * l - 3.307_711_591_3 * m + 0.230_969_929_2 * s,
        -1.268_438_004_6 * l + 2.609_757_401_1 * m - 0.341_319_396_5 * s,
        -0.004_196_086_3 * l - 0.703_418_614_7 * m + 1.707_614_701_0 * s,
    ]
    .map(|linear| {
        let linear = linear.clamp(0.0, 1.0);
        let encoded = if linear <= 0.003_130_8 {
            12.92 * linear
        } else {
            1.055 * linear.powf(1.0 / 2.4) - 0.055
        };
        (encoded * 255.0).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn known_colours() {
        assert_eq!(oklch_to_rgb(1.0, 0.0, 0.0), [255, 255, 255]);
        assert_eq!(oklch_to_rgb(0.0, 0.0, 0.0), [0, 0, 0]);
        // sRGB red is oklch(62.796% 0.25768 29.234).
        assert_eq!(
            oklch_to_rgb(0.627_96, 0.257_68, 29.234_f64.to_radians()),
            [255, 0, 0]
        );
    }

    #[test]
    fn the_first_codes_are_far_apart() {
        let distance = |left: [u8; 3], right: [u8; 3]| -> u32 {
            left.iter()
                .zip(right)
                .map(|(&left, right)| u32::from(left.abs_diff(right)))
                .sum()
        };
        for right in 0..32 {
            for left in 0..right {
                let apart = distance(code_colour(left), code_colour(right));
                assert!(apart >= 24, "codes {left} and {right} are {apart} apart");
            }
        }
    }

    #[test]
    fn thousands_of_codes_hardly_share_colours() {
        let colours: HashSet<[u8; 3]> = (0..16_384).map(code_colour).collect();
        assert!(colours.len() > 16_000, "{} colours", colours.len());
    }

    #[test]
    fn every_code_is_a_block() {
        let map = Picture::of_codes(2, 1, &[7, 0]).expect("a valid map");
        assert_eq!((map.width(), map.height()), (128, 64));
        assert_eq!(map.rgb()[..3], code_colour(7));
        assert_eq!(map.rgb()[64 * 3..64 * 3 + 3], code_colour(0));
        assert!(Picture::of_codes(2, 2, &[1]).is_err());
    }
}
