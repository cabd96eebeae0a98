//! Bytes of a picture file to 8-bit RGB.
//!
//! What becomes of other pixel formats:
//! - grey is repeated into three channels, palettes are looked up, CMYK and YCCK are converted
//!   without colour profiles;
//! - 16 bits are rounded to 8;
//! - transparency is composited on white: `(a c + (255 - a) 255) / 255`, rounded;
//! - the orientation noted in EXIF data is applied, so that the picture stands upright;
//! - colour profiles are ignored, of animations the first frame is taken.
//!
//! A truncated JPEG, which many decoders silently fill with grey, is an error here. JPEG decoders
//! may differ by a few levels from one another; PNG and WebP (lossless) are exact.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader};

use crate::{DataError, Image};

/// How large an image may be before it is refused unread: a few bytes of a file can announce
/// gigabytes of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodeLimits {
    /// Largest number of pixels.
    pub max_pixels: u64,
}

impl Default for DecodeLimits {
    /// 178,956,970 pixels, half a gigabyte of RGB: where Pillow refuses too.
    fn default() -> Self {
        Self {
            max_pixels: 178_956_970,
        }
    }
}

/// Decodes PNG, JPEG or WebP, recognised by content. `name` stands for the file in errors.
pub fn decode(name: &str, bytes: &[u8], limits: DecodeLimits) -> Result<Image, DataError> {
    let mut decoder = open(name, bytes, limits)?;
    // An unreadable orientation is no reason to refuse the picture.
    let orientation = decoder
        .orientation()
        .unwrap_or(image::metadata::Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| broken(name, error))?;
    picture.apply_orientation(orientation);
    to_rgb(picture)
}

/// Width and height of the picture as it will be decoded, without decoding its pixels.
pub fn dimensions(
    name: &str,
    bytes: &[u8],
    limits: DecodeLimits,
) -> Result<(usize, usize), DataError> {
    use image::metadata::Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    let mut decoder = open(name, bytes, limits)?;
    let (width, height) = decoder.dimensions();
    let turned = matches!(
        decoder.orientation(),
        Ok(Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
    );
    let (width, height) = (width as usize, height as usize);
    Ok(if turned {
        (height, width)
    } else {
        (width, height)
    })
}

fn open<'a>(
    name: &str,
    bytes: &'a [u8],
    limits: DecodeLimits,
) -> Result<impl ImageDecoder + 'a, DataError> {
    if bytes.is_empty() {
        return Err(DataError::EmptyImage {
            name: name.to_owned(),
        });
    }
    let format = match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP)) => format,
        Ok(other) => {
            return Err(DataError::UnknownImageFormat {
                name: name.to_owned(),
                looks_like: format!("{other:?}"),
            });
        }
        Err(_) => {
            return Err(DataError::UnknownImageFormat {
                name: name.to_owned(),
                looks_like: "something else".to_owned(),
            });
        }
    };
    if ends_early(format, bytes) {
        return Err(DataError::TruncatedImage {
            name: name.to_owned(),
        });
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut allocation = image::Limits::no_limits();
    // 16-bit RGBA takes 8 bytes a pixel; the constant leaves room for profiles and the decoder's
    // own buffers.
    allocation.max_alloc = Some(limits.max_pixels.saturating_mul(8).saturating_add(64 << 20));
    reader.limits(allocation);
    let decoder = reader.into_decoder().map_err(|error| broken(name, error))?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > limits.max_pixels {
        return Err(DataError::ImageTooLarge {
            name: name.to_owned(),
            width,
            height,
            max_pixels: limits.max_pixels,
        });
    }
    Ok(decoder)
}

/// Decoders report the end of data in two ways: as an I/O error, or as a decoding error caused by
/// one.
fn broken(name: &str, error: ImageError) -> DataError {
    let ended = |error: &std::io::Error| error.kind() == std::io::ErrorKind::UnexpectedEof;
    let truncated = match &error {
        ImageError::IoError(error) => ended(error),
        other => {
            let first: Option<&(dyn std::error::Error + 'static)> = Some(other);
            std::iter::successors(first, |error| error.source())
                .any(|error| error.downcast_ref::<std::io::Error>().is_some_and(ended))
        }
    };
    let name = name.to_owned();
    if truncated {
        DataError::TruncatedImage { name }
    } else {
        DataError::CorruptImage {
            name,
            source: error,
        }
    }
}

fn to_rgb(picture: DynamicImage) -> Result<Image, DataError> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let pixels = if picture.color().has_alpha() {
        picture
            .into_rgba8()
            .chunks_exact(4)
            .flat_map(|pixel| [0, 1, 2].map(|i| on_white(pixel[i], pixel[3])))
            .collect()
    } else {
        picture.into_rgb8().into_raw()
    };
    Image::new(width, height, pixels)
}

fn on_white(colour: u8, alpha: u8) -> u8 {
    let sum = u32::from(colour) * u32::from(alpha) + 255 * (255 - u32::from(alpha));
    ((sum + 127) / 255) as u8
}

/// Whether data is missing, where decoders would not say so.
fn ends_early(format: ImageFormat, bytes: &[u8]) -> bool {
    match format {
        ImageFormat::Jpeg => !jpeg_reaches_its_end(bytes),
        // A RIFF file says after four bytes how many follow the first eight.
        ImageFormat::WebP => bytes
            .get(4..8)
            .and_then(|size| size.try_into().ok())
            .is_none_or(|size| u64::from(u32::from_le_bytes(size)) + 8 > bytes.len() as u64),
        _ => false,
    }
}

/// Walks the segments of a JPEG to its end-of-image marker.
fn jpeg_reaches_its_end(bytes: &[u8]) -> bool {
    const END_OF_IMAGE: u8 = 0xD9;
    const START_OF_SCAN: u8 = 0xDA;
    let mut at = 2;
    loop {
        // Between segments: a marker, perhaps after fill bytes.
        let Some(offset) = bytes
            .get(at..)
            .and_then(|rest| rest.iter().position(|&byte| byte == 0xFF))
        else {
            return false;
        };
        at += offset + 1;
        let Some(&marker) = bytes.get(at) else {
            return false;
        };
        at += usize::from(marker != 0xFF);
        match marker {
            END_OF_IMAGE => return true,
            // A fill byte, a stuffed zero, and markers without a body.
            0xFF | 0x00 | 0x01 | 0xD0..=0xD8 => continue,
            _ => {}
        }
        let Some(&[high, low]) = bytes.get(at..at + 2) else {
            return false;
        };
        at += usize::from(u16::from_be_bytes([high, low]));
        if marker == START_OF_SCAN {
            // Entropy-coded data: an FF there is followed by a stuffed zero or a restart marker,
            // both passed over above.
            continue;
        }
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
