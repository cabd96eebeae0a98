//! The picture type at the edges of the library: 8-bit RGB, row after row.

use std::path::Path;

use image::ImageEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};

use crate::{DataError, DecodeLimits, atomic, decode};

/// An 8-bit RGB image of at least one pixel.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Image {
    /// From `height * width * 3` bytes, row after row.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Self, DataError> {
        if width == 0 || height == 0 {
            return Err(DataError::NoPixels { width, height });
        }
        let expected = width.saturating_mul(height).saturating_mul(3);
        if pixels.len() != expected {
            return Err(DataError::WrongBuffer {
                width,
                height,
                what: "bytes",
                expected,
                got: pixels.len(),
            });
        }
        Ok(Self {
            width,
            height,
            pixels,
        })
    }

    /// An image of one colour.
    pub fn filled(width: usize, height: usize, colour: [u8; 3]) -> Result<Self, DataError> {
        Self::new(width, height, colour.repeat(width * height))
    }

    /// Reads and decodes a file with the default limits, see [`crate::decode`] for what becomes of
    /// other pixel formats.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let bytes = std::fs::read(path).map_err(DataError::io("read", path))?;
        decode::decode(&path.display().to_string(), &bytes, DecodeLimits::default())
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The bytes, `[height, width, 3]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The bytes, `[height, width, 3]`.
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }

    /// Red, green and blue at a place. Panics outside of the image.
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        assert!(
            x < self.width && y < self.height,
            "({x}, {y}) is outside of {} x {}",
            self.width,
            self.height
        );
        let start = (y * self.width + x) * 3;
        [
            self.pixels[start],
            self.pixels[start + 1],
            self.pixels[start + 2],
        ]
    }

    /// The rectangle whose upper left corner is at (`left`, `top`).
    pub fn crop(
        &self,
        left: usize,
        top: usize,
        width: usize,
        height: usize,
    ) -> Result<Self, DataError> {
        if left.saturating_add(width) > self.width || top.saturating_add(height) > self.height {
            return Err(DataError::CropTooLarge {
                crop_width: width,
                crop_height: height,
                width: self.width,
                height: self.height,
            });
        }
        let mut pixels = Vec::with_capacity(width * height * 3);
        for row in self.rows().skip(top).take(height) {
            pixels.extend_from_slice(&row[left * 3..(left + width) * 3]);
        }
        Self::new(width, height, pixels)
    }

    /// Left and right exchanged.
    pub fn flip_horizontal(&self) -> Self {
        let mut pixels = Vec::with_capacity(self.pixels.len());
        for row in self.rows() {
            pixels.extend(row.chunks_exact(3).rev().flatten());
        }
        Self { pixels, ..*self }
    }

    /// Draws `other` with its upper left corner at (`left`, `top`); what lies outside is left away.
    pub fn paste(&mut self, other: &Self, left: usize, top: usize) {
        let width = other.width.min(self.width.saturating_sub(left)) * 3;
        if width == 0 {
            return;
        }
        let target = self.pixels.chunks_exact_mut(self.width * 3).skip(top);
        for (target, source) in target.zip(other.rows()) {
            target[left * 3..left * 3 + width].copy_from_slice(&source[..width]);
        }
    }

    /// Rows of `width * 3` bytes.
    pub fn rows(&self) -> impl Iterator<Item = &[u8]> {
        self.pixels.chunks_exact(self.width * 3)
    }

    /// As the bytes of a PNG file.
    pub fn to_png(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let side =
            |value: usize| u32::try_from(value).expect("images are at most 4 giga-pixels wide");
        PngEncoder::new_with_quality(&mut bytes, CompressionType::Default, FilterType::Adaptive)
            .write_image(
                &self.pixels,
                side(self.width),
                side(self.height),
                image::ExtendedColorType::Rgb8,
            )
            .expect("writing a whole image to memory cannot fail");
        bytes
    }

    /// Saves a PNG file; whole or not at all.
    pub fn save_png(&self, path: &Path) -> Result<(), DataError> {
        atomic::write(path, &self.to_png())
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({} x {})", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(width: usize, height: usize) -> Image {
        Image::new(
            width,
            height,
            (0..width * height * 3).map(|i| i as u8).collect(),
        )
        .unwrap()
    }

    #[test]
    fn png_files_keep_every_byte() {
        let folder = tempfile::tempdir().unwrap();
        for (width, height) in [(1, 1), (7, 5), (64, 3)] {
            let image = counting(width, height);
            let path = folder.path().join("image.png");
            image.save_png(&path).unwrap();
            assert_eq!(Image::open(&path).unwrap(), image);
        }
        let missing = folder.path().join("missing.png");
        assert!(
            Image::open(&missing)
                .unwrap_err()
                .to_string()
                .contains("missing.png")
        );
    }

    #[test]
    fn wrong_buffers_are_errors() {
        assert!(matches!(
            Image::new(2, 2, vec![0; 11]),
            Err(DataError::WrongBuffer {
                expected: 12,
                got: 11,
                ..
            })
        ));
        assert!(matches!(
            Image::new(0, 2, vec![]),
            Err(DataError::NoPixels { .. })
        ));
        assert!(Image::new(usize::MAX, 2, vec![0; 3]).is_err());
    }

    #[test]
    fn crop_flip_and_paste_move_pixels() {
        let image = counting(4, 3);
        let crop = image.crop(1, 2, 2, 1).unwrap();
        assert_eq!(
            [crop.pixel(0, 0), crop.pixel(1, 0)],
            [image.pixel(1, 2), image.pixel(2, 2)]
        );
        assert!(matches!(
            image.crop(3, 0, 2, 1),
            Err(DataError::CropTooLarge { .. })
        ));
        assert_eq!(image.flip_horizontal().pixel(0, 1), image.pixel(3, 1));
        assert_eq!(image.flip_horizontal().flip_horizontal(), image);
        let mut canvas = Image::filled(4, 3, [9; 3]).unwrap();
        canvas.paste(&crop, 3, 2);
        assert_eq!(canvas.pixel(3, 2), crop.pixel(0, 0));
        assert_eq!(canvas.pixel(2, 2), [9; 3]);
        canvas.paste(&crop, 9, 9);
    }
}
