//! Images of any size for networks that want multiples of their reduction factor: padded at the
//! right and at the bottom by repeating the last column and row, and cut back afterwards. The
//! picture's own corner stays at the origin, so that codes do not shift with the size.

use crate::{DataError, Image};

/// What padding did to one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Padding {
    /// Width of the image.
    pub width: usize,
    /// Height of the image.
    pub height: usize,
    /// Width with padding.
    pub padded_width: usize,
    /// Height with padding.
    pub padded_height: usize,
}

impl Padding {
    /// Padding of an image of this size to multiples of `factor`.
    pub fn to_multiple(width: usize, height: usize, factor: usize) -> Result<Self, DataError> {
        let padded = |side: usize| side.checked_next_multiple_of(factor);
        match (padded(width), padded(height)) {
            (Some(padded_width), Some(padded_height)) => Ok(Self {
                width,
                height,
                padded_width,
                padded_height,
            }),
            _ => Err(DataError::Config {
                what: "padding",
                problems: vec![format!(
                    "cannot pad {width} x {height} to a multiple of {factor}"
                )],
            }),
        }
    }

    /// The image with its border repeated.
    pub fn pad(&self, image: &Image) -> Result<Image, DataError> {
        self.expect(image, self.width, self.height)?;
        let mut pixels = Vec::with_capacity(self.padded_width * self.padded_height * 3);
        for row in image.rows() {
            pixels.extend_from_slice(row);
            pixels.extend_from_slice(&row[row.len() - 3..].repeat(self.padded_width - self.width));
        }
        let last = pixels[pixels.len() - self.padded_width * 3..].to_vec();
        pixels.extend(last.repeat(self.padded_height - self.height));
        Image::new(self.padded_width, self.padded_height, pixels)
    }

    /// The image without what [`Padding::pad`] added.
    pub fn unpad(&self, image: &Image) -> Result<Image, DataError> {
        self.expect(image, self.padded_width, self.padded_height)?;
        image.crop(0, 0, self.width, self.height)
    }

    fn expect(&self, image: &Image, width: usize, height: usize) -> Result<(), DataError> {
        if (image.width(), image.height()) != (width, height) {
            let problem = format!(
                "expected an image of {width} x {height}, got {} x {}",
                image.width(),
                image.height()
            );
            return Err(DataError::Config {
                what: "padding",
                problems: vec![problem],
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_border_is_repeated() {
        let image = Image::new(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap();
        let padding = Padding::to_multiple(2, 1, 3).unwrap();
        let row = [1, 2, 3, 4, 5, 6, 4, 5, 6];
        assert_eq!(padding.pad(&image).unwrap().pixels(), row.repeat(3));
        assert!(padding.pad(&padding.pad(&image).unwrap()).is_err());
        assert!(padding.unpad(&image).is_err());
        assert!(Padding::to_multiple(2, 1, 0).is_err());
        assert!(Padding::to_multiple(usize::MAX, 1, 2).is_err());
    }

    proptest! {
        #[test]
        fn padding_is_undone(width in 1usize..40, height in 1usize..40, factor in 1usize..20) {
            let pixels = (0..width * height * 3).map(|i| i as u8).collect();
            let image = Image::new(width, height, pixels).unwrap();
            let padding = Padding::to_multiple(width, height, factor).unwrap();
            let padded = padding.pad(&image).unwrap();
            prop_assert!(padded.width().is_multiple_of(factor) && padded.width() < width + factor);
            prop_assert!(padded.height().is_multiple_of(factor));
            prop_assert!(padded.height() < height + factor);
            prop_assert_eq!(padding.unpad(&padded).unwrap(), image);
        }
    }
}
