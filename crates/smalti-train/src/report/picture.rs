//! Pictures: 8-bit RGB pixels, embedded into the page as PNG.
//!
//! Small pictures are enlarged by whole factors and shown with hard pixels (`image-rendering: pixelated`): at 32 × 32 a
//! smoothed enlargement hides exactly what a tokenizer gets wrong.

use super::html::escape;
use base64::{Engine, engine::general_purpose::STANDARD};
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

/// What is wrong with the pixels of a [`Picture`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    /// A side is zero.
    #[error("a picture needs at least one pixel, got {width} x {height}")]
    Empty {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
    },
    /// The buffer does not fit the size.
    #[error("a picture of {width} x {height} needs {expected} values, got {actual}")]
    Length {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
        /// Values that the size asks for.
        expected: u64,
        /// Values that were given.
        actual: usize,
    },
}

/// An 8-bit RGB picture, rows from top to bottom.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl Picture {
    /// Takes `width * height * 3` bytes, red, green and blue of each pixel in turn.
    ///
    /// # Errors
    ///
    /// When a side is zero or the number of bytes does not fit.
    pub fn new(width: u32, height: u32, rgb: impl Into<Vec<u8>>) -> Result<Self, PictureError> {
        let rgb = rgb.into();
        check_length((width, height), 3, rgb.len())?;
        Ok(Self { width, height, rgb })
    }

    /// Pixels across.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Pixels down.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Red, green and blue of each pixel in turn.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// Every pixel as a block of `factor` × `factor` pixels; 0 counts as 1.
    pub fn enlarged(&self, factor: u32) -> Self {
        let factor = factor.max(1) as usize;
        let row_length = self.width as usize * 3;
        let mut rgb = Vec::with_capacity(self.rgb.len() * factor * factor);
        for row in self.rgb.chunks_exact(row_length) {
            let wide: Vec<u8> = row
                .chunks_exact(3)
                .flat_map(|pixel| pixel.repeat(factor))
                .collect();
            (0..factor).for_each(|_| rgb.extend_from_slice(&wide));
        }
        Self {
            width: self.width * factor as u32,
            height: self.height * factor as u32,
            rgb,
        }
    }

    /// An `<img>` about `target` pixels on its longer side. `description` is what a screen reader says.
    pub(super) fn html(&self, target: u32, description: &str) -> String {
        let longer = self.width.max(self.height);
        let factor = target / longer;
        // Enlarged by whole factors; larger pictures are shown at their size or at twice the target, whichever is less.
        let (shown_width, shown_height) = if factor >= 1 {
            (self.width * factor, self.height * factor)
        } else {
            let share = (f64::from(target * 2) / f64::from(longer)).min(1.0);
            let shrunk = |side: u32| ((f64::from(side) * share).round() as u32).max(1);
            (shrunk(self.width), shrunk(self.height))
        };
        let class = if factor >= 2 { " class=\"pixels\"" } else { "" };
        format!(
            "<img{class} width=\"{shown_width}\" height=\"{shown_height}\" alt=\"{}\" src=\"data:image/png;base64,{}\">",
            escape(description),
            STANDARD.encode(self.png())
        )
    }

    fn png(&self) -> Vec<u8> {
        let mut png = Vec::new();
        PngEncoder::new(&mut png)
            .write_image(&self.rgb, self.width, self.height, ExtendedColorType::Rgb8)
            .expect("the length was checked and memory does not fail to write");
        png
    }
}

impl From<&smalti_data::Image> for Picture {
    fn from(image: &smalti_data::Image) -> Self {
        let (width, height) = (image.width() as u32, image.height() as u32);
        Self::new(width, height, image.pixels()).expect("an image has as many bytes as it needs")
    }
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Picture({} x {})", self.width, self.height)
    }
}

/// Refuses an empty picture and a buffer that has not `channels` values a pixel.
pub(super) fn check_length(
    (width, height): (u32, u32),
    channels: u64,
    actual: usize,
) -> Result<(), PictureError> {
    let expected = u64::from(width) * u64::from(height) * channels;
    match expected {
        0 => Err(PictureError::Empty { width, height }),
        _ if expected != actual as u64 => Err(PictureError::Length {
            width,
            height,
            expected,
            actual,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        assert_eq!(
            Picture::new(0, 2, []),
            Err(PictureError::Empty {
                width: 0,
                height: 2
            })
        );
        let message = Picture::new(2, 2, [0; 9])
            .expect_err("three values are missing")
            .to_string();
        assert_eq!(message, "a picture of 2 x 2 needs 12 values, got 9");
    }

    #[test]
    fn the_png_holds_the_pixels() {
        let picture = Picture::new(2, 1, [1, 2, 3, 250, 251, 252]).expect("a valid picture");
        let html = picture.html(64, "two \"pixels\"");
        assert!(html.contains("width=\"64\" height=\"32\" alt=\"two &quot;pixels&quot;\""));
        let encoded = html
            .split("base64,")
            .nth(1)
            .expect("a data URL")
            .trim_end_matches("\">");
        let png = STANDARD.decode(encoded).expect("base64");
        let decoded = image::load_from_memory(&png).expect("a PNG").to_rgb8();
        assert_eq!(decoded.dimensions(), (2, 1));
        assert_eq!(decoded.as_raw(), picture.rgb());
    }

    #[test]
    fn enlarging_repeats_pixels() {
        let picture = Picture::new(2, 1, [1, 1, 1, 2, 2, 2])
            .expect("a valid picture")
            .enlarged(2);
        assert_eq!((picture.width(), picture.height()), (4, 2));
        let row = [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2];
        assert_eq!(picture.rgb(), [row, row].concat());
    }

    #[test]
    fn only_small_pictures_have_hard_pixels() {
        let square = |side: u32| {
            Picture::new(side, side, vec![0; (side * side * 3) as usize]).expect("valid")
        };
        assert!(
            square(32)
                .html(128, "")
                .starts_with("<img class=\"pixels\" width=\"128\" height=\"128\"")
        );
        assert!(square(100).html(128, "").starts_with("<img width=\"100\""));
        assert!(square(200).html(128, "").starts_with("<img width=\"200\""));
        assert!(square(512).html(128, "").starts_with("<img width=\"256\""));
    }
}
