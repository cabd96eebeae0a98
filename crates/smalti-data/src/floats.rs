//! Bytes to the library's float images and back: `[3, height, width]` f32 in [-1, 1].
//!
//! To floats: `(v / 255 - 0.5) / 0.5` in single precision, what `ToTensor` and `Normalize(0.5,
//! 0.5)` of torchvision compute. Back: three conventions are published, [`ByteRounding`]; they
//! differ by one level in up to half of the pixels.

use crate::{DataError, Image};

/// How a value `x` in [-1, 1] becomes a byte. All clamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ByteRounding {
    /// `round(255 (x/2 + 1/2))`, halves to even: undoes the way to floats exactly.
    #[default]
    Nearest,
    /// `floor(127.5 x + 128)`, of the guided-diffusion code base, on which many published Fréchet
    /// distances rest.
    GuidedDiffusion,
    /// `floor(255 (x/2 + 1/2) + 0.5)`, torchvision's `save_image`: `Nearest` with halves upwards.
    SaveImage,
}

impl ByteRounding {
    /// The byte of one value; 0 for NaN.
    pub fn byte(self, x: f32) -> u8 {
        // The casts saturate at 0 and 255.
        match self {
            Self::Nearest => (255.0 * (x / 2.0 + 0.5).clamp(0.0, 1.0)).round_ties_even() as u8,
            Self::GuidedDiffusion => (127.5 * x + 128.0).floor() as u8,
            Self::SaveImage => (255.0 * (x / 2.0 + 0.5) + 0.5).floor() as u8,
        }
    }
}

/// Appends the planes `[3, height, width]` of an image to a buffer (of a batch).
pub fn append_planes(image: &Image, planes: &mut Vec<f32>) {
    planes.reserve(image.pixels().len());
    for channel in 0..3 {
        planes.extend(
            image
                .pixels()
                .iter()
                .skip(channel)
                .step_by(3)
                .map(|&byte| (f32::from(byte) / 255.0 - 0.5) / 0.5),
        );
    }
}

/// The planes `[3, height, width]` of an image.
pub fn to_planes(image: &Image) -> Vec<f32> {
    let mut planes = Vec::new();
    append_planes(image, &mut planes);
    planes
}

/// The image of planes `[3, height, width]`. Values outside of [-1, 1] are clamped, NaN is an
/// error.
pub fn from_planes(
    planes: &[f32],
    width: usize,
    height: usize,
    rounding: ByteRounding,
) -> Result<Image, DataError> {
    let area = width.saturating_mul(height);
    let expected = area.saturating_mul(3);
    if planes.len() != expected {
        return Err(DataError::WrongBuffer {
            width,
            height,
            what: "values",
            expected,
            got: planes.len(),
        });
    }
    if let Some(index) = planes.iter().position(|value| value.is_nan()) {
        return Err(DataError::NotANumber {
            index,
            width,
            height,
        });
    }
    let mut pixels = Vec::with_capacity(expected);
    for i in 0..area {
        pixels.extend(
            [planes[i], planes[area + i], planes[2 * area + i]].map(|value| rounding.byte(value)),
        );
    }
    Image::new(width, height, pixels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;

    #[test]
    fn every_byte_survives_the_way_to_floats_and_back() {
        let image = Image::new(16, 16, (0..768u32).map(|i| (i / 3) as u8).collect()).unwrap();
        let planes = to_planes(&image);
        assert_eq!((planes[0], planes[255]), (-1.0, 1.0));
        for rounding in [
            ByteRounding::Nearest,
            ByteRounding::GuidedDiffusion,
            ByteRounding::SaveImage,
        ] {
            assert_eq!(
                from_planes(&planes, 16, 16, rounding).unwrap(),
                image,
                "{rounding:?}"
            );
        }
    }

    #[test]
    fn golden_conventions() {
        let golden = Golden::open("metrics_resize");
        let values = golden.f32("to_u8.in");
        let conventions = [
            ("round", ByteRounding::Nearest),
            ("adm", ByteRounding::GuidedDiffusion),
            ("mul255_add05", ByteRounding::SaveImage),
        ];
        for (name, rounding) in conventions {
            let got: Vec<u8> = values.iter().map(|&x| rounding.byte(x)).collect();
            assert_eq!(got, golden.bytes(&format!("to_u8.{name}")), "{name}");
        }
    }

    #[test]
    fn nan_and_wrong_lengths_are_errors_and_infinities_are_clamped() {
        let mut planes = vec![f32::INFINITY, f32::NEG_INFINITY, 0.0];
        assert_eq!(
            from_planes(&planes, 1, 1, ByteRounding::Nearest)
                .unwrap()
                .pixels(),
            [255, 0, 128]
        );
        planes[1] = f32::NAN;
        assert!(matches!(
            from_planes(&planes, 1, 1, ByteRounding::Nearest),
            Err(DataError::NotANumber { index: 1, .. })
        ));
        assert!(matches!(
            from_planes(&planes, 1, 2, ByteRounding::Nearest),
            Err(DataError::WrongBuffer { expected: 6, .. })
        ));
    }
}
