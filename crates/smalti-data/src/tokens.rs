//! The token file: codes of one or a few images, with what is needed to turn them back into
//! pictures of the right size.
//!
//! A safetensors file with one tensor `codes`, U32 `[batch, depth, height, width]`, and this
//! description (entry `smalti` of the header):
//!
//! ```json
//! {"format": "tokens", "version": 1, "tokenizer": "<fingerprint>", "codebook_sizes": [512, 512],
//!  "images": [{"name": "cat.png", "width": 451, "height": 300,
//!              "padded_width": 456, "padded_height": 304, "crop": [0, 0, 451, 300]}]}
//! ```
//!
//! `width` and `height` are the source's; the network saw `padded_width` x `padded_height` pixels,
//! of which `crop` (left, top, width, height) is picture. Equal content gives equal bytes. Reading
//! is strict: unknown fields, other tensors and codes out of range are errors.

use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::container::{Container, TensorPlan, header, write_values};
use crate::{AtomicFile, Padding, TokenFileError};

const FORMAT: &str = "tokens";
const VERSION: u32 = 1;
const CODES: &str = "codes";

/// Codes of some images. Fields may be set freely; [`TokenFile::write`] refuses what does not fit
/// together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFile {
    /// Fingerprint of the tokenizer that made them.
    pub tokenizer: String,
    /// Size of the codebook at each depth.
    pub codebook_sizes: Vec<u32>,
    /// `[batch, depth, height, width]`.
    pub codes: Vec<u32>,
    /// `[batch, depth, height, width]`.
    pub shape: [usize; 4],
    /// One for each image of the batch.
    pub images: Vec<ImageRecord>,
}

/// Where an image came from and what it must become again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRecord {
    /// Name of the source, for people.
    pub name: String,
    /// Width of the source in pixels.
    pub width: usize,
    /// Height of the source in pixels.
    pub height: usize,
    /// Width the network saw.
    pub padded_width: usize,
    /// Height the network saw.
    pub padded_height: usize,
    /// Left, top, width and height of the picture in what the network saw.
    pub crop: [usize; 4],
}

impl ImageRecord {
    /// The record of an image that was only padded.
    pub fn padded(name: impl Into<String>, padding: &Padding) -> Self {
        let Padding {
            width,
            height,
            padded_width,
            padded_height,
        } = *padding;
        Self {
            name: name.into(),
            width,
            height,
            padded_width,
            padded_height,
            crop: [0, 0, width, height],
        }
    }

    fn problem(&self) -> Option<String> {
        let [left, top, width, height] = self.crop;
        if [self.width, self.height, width, height].contains(&0) {
            return Some(format!("image {:?} has no pixels", self.name));
        }
        let outside = left
            .checked_add(width)
            .is_none_or(|right| right > self.padded_width)
            || top
                .checked_add(height)
                .is_none_or(|bottom| bottom > self.padded_height);
        outside.then(|| {
            format!(
                "the crop {:?} of image {:?} is outside of {} x {}",
                self.crop, self.name, self.padded_width, self.padded_height
            )
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    format: String,
    version: u32,
    tokenizer: String,
    codebook_sizes: Vec<u32>,
    images: Vec<ImageRecord>,
}

impl TokenFile {
    /// Writes the file, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), TokenFileError> {
        self.check(path)?;
        let description = Description {
            format: FORMAT.to_owned(),
            version: VERSION,
            tokenizer: self.tokenizer.clone(),
            codebook_sizes: self.codebook_sizes.clone(),
            images: self.images.clone(),
        };
        let header = header(
            &description,
            &[TensorPlan::new(CODES, Dtype::U32, &self.shape)],
        );
        let mut file = AtomicFile::create(path)?;
        file.write_all(&header)
            .and_then(|()| write_values(&mut file, &self.codes, u32::to_le_bytes))
            .map_err(crate::DataError::io("write", path))?;
        Ok(file.commit()?)
    }

    /// Reads a file, strictly.
    pub fn read(path: &Path) -> Result<Self, TokenFileError> {
        let container = Container::open(path)?;
        let description: Description = container.description(FORMAT, VERSION)?;
        container.expect_only(&[CODES])?;
        let shape: [usize; 4] = container.shape(CODES, Dtype::U32)?;
        let codes = container.values(CODES, 0, shape.iter().product(), u32::from_le_bytes)?;
        let Description {
            tokenizer,
            codebook_sizes,
            images,
            ..
        } = description;
        let file = Self {
            tokenizer,
            codebook_sizes,
            codes,
            shape,
            images,
        };
        file.check(path)?;
        Ok(file)
    }

    /// Refuses codes of another tokenizer.
    pub fn require_tokenizer(&self, path: &Path, fingerprint: &str) -> Result<(), TokenFileError> {
        require_tokenizer(path, &self.tokenizer, fingerprint)
    }

    fn check(&self, path: &Path) -> Result<(), TokenFileError> {
        let inconsistent = |reason: String| {
            Err(TokenFileError::Inconsistent {
                path: path.to_owned(),
                reason,
            })
        };
        check_layout(path, &self.tokenizer, &self.codebook_sizes, self.shape)?;
        check_codes(path, &self.codes, self.shape, &self.codebook_sizes)?;
        if self.images.len() != self.shape[0] {
            return inconsistent(format!(
                "codes of {} images, but {} are described",
                self.shape[0],
                self.images.len()
            ));
        }
        if let Some(problem) = self.images.iter().find_map(ImageRecord::problem) {
            return inconsistent(problem);
        }
        let sizes = |image: &ImageRecord| (image.padded_width, image.padded_height);
        if let Some(other) = self
            .images
            .iter()
            .find(|image| sizes(image) != sizes(&self.images[0]))
        {
            return inconsistent(format!(
                "image {:?} was seen at another size than {:?}, but one grid of codes holds both",
                other.name, self.images[0].name
            ));
        }
        Ok(())
    }
}

pub(crate) fn require_tokenizer(
    path: &Path,
    got: &str,
    expected: &str,
) -> Result<(), TokenFileError> {
    if got == expected {
        return Ok(());
    }
    Err(TokenFileError::WrongTokenizer {
        path: path.to_owned(),
        expected: expected.to_owned(),
        got: got.to_owned(),
    })
}

pub(crate) fn check_layout(
    path: &Path,
    tokenizer: &str,
    codebook_sizes: &[u32],
    shape: [usize; 4],
) -> Result<(), TokenFileError> {
    let inconsistent = |reason: String| {
        Err(TokenFileError::Inconsistent {
            path: path.to_owned(),
            reason,
        })
    };
    if tokenizer.is_empty() {
        return inconsistent("the fingerprint of the tokenizer is missing".to_owned());
    }
    if codebook_sizes.len() != shape[1] {
        return inconsistent(format!(
            "codes of depth {}, but {} codebooks are described",
            shape[1],
            codebook_sizes.len()
        ));
    }
    if codebook_sizes.contains(&0) {
        return inconsistent("a codebook of no codes is described".to_owned());
    }
    if shape.contains(&0) {
        return inconsistent(format!("there are no codes: their shape is {shape:?}"));
    }
    Ok(())
}

/// Length and range. The shape must not contain zeros.
pub(crate) fn check_codes(
    path: &Path,
    codes: &[u32],
    shape: [usize; 4],
    codebook_sizes: &[u32],
) -> Result<(), TokenFileError> {
    let [_, depth, height, width] = shape;
    if shape
        .iter()
        .try_fold(1usize, |product, &side| product.checked_mul(side))
        != Some(codes.len())
    {
        let path = PathBuf::from(path);
        return Err(TokenFileError::WrongShape {
            path,
            name: CODES,
            expected: format!("a shape for {} codes", codes.len()),
            got: shape.to_vec(),
        });
    }
    for (plane, codes) in codes.chunks_exact(height * width).enumerate() {
        let codebook_size = codebook_sizes[plane % depth];
        if let Some(at) = codes.iter().position(|&code| code >= codebook_size) {
            let position = [plane / depth, plane % depth, at / width, at % width];
            return Err(TokenFileError::CodeOutOfRange {
                path: path.to_owned(),
                code: codes[at],
                position,
                codebook_size,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
