//! The token cache: codes of a whole data set, read by the training of a generator.
//!
//! A safetensors file with
//! - `codes`, U32 `[images, depth, height, width]`;
//! - `labels`, U32 `[images]`, where images have classes;
//! - `latents`, F32 `[images, code_dim, height, width]`, where codes are drawn anew at every visit
//!   (stochastic codes);
//!
//! and the description `{"format": "token_cache", "version": 1, "tokenizer", "codebook_sizes",
//! "classes"}`, with `"views"` where each image has several entries, one behind the other. Codes and labels are held in memory. Latents, which are larger by far, stay in the
//! file, are written as they come and read by image.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::container::{Container, TensorPlan, header, write_values};
use crate::tokens::{check_codes, check_layout, require_tokenizer};
use crate::{AtomicFile, DataError, TokenFileError, Views};

const FORMAT: &str = "token_cache";
const VERSION: u32 = 1;
const CODES: &str = "codes";
const LABELS: &str = "labels";
const LATENTS: &str = "latents";

/// What a cache holds, known before its first image.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenCacheSpec {
    /// Fingerprint of the tokenizer.
    pub tokenizer: String,
    /// Size of the codebook at each depth.
    pub codebook_sizes: Vec<u32>,
    /// `[images, depth, height, width]`.
    pub shape: [usize; 4],
    /// Names of the classes; empty when images have no labels.
    pub classes: Vec<String>,
    /// Width of the latents at each position, if they are kept.
    pub code_dim: Option<usize>,
    /// The views of each image; every one is an entry like an image of its own.
    pub views: Views,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    format: String,
    version: u32,
    tokenizer: String,
    codebook_sizes: Vec<u32>,
    classes: Vec<String>,
    #[serde(default, skip_serializing_if = "Views::is_one")]
    views: Views,
}

impl TokenCacheSpec {
    fn check(&self, path: &Path) -> Result<(), TokenFileError> {
        check_layout(path, &self.tokenizer, &self.codebook_sizes, self.shape)?;
        if self.code_dim == Some(0) {
            return Err(inconsistent(
                path,
                "latents of no values are described".to_owned(),
            ));
        }
        let (entries, views) = (self.shape[0], self.views.count());
        if !entries.is_multiple_of(views) {
            let reason = format!("{entries} entries are no images with {views} views each");
            return Err(inconsistent(path, reason));
        }
        Ok(())
    }

    /// Codes of one image.
    fn codes_per_image(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// Latent values of one image.
    fn latents_per_image(&self) -> usize {
        self.code_dim.unwrap_or(0) * self.shape[2] * self.shape[3]
    }

    fn tensors(&self) -> Vec<TensorPlan> {
        let [images, _, height, width] = self.shape;
        let mut tensors = Vec::new();
        // First, because they are written while the rest is not yet known.
        if let Some(code_dim) = self.code_dim {
            tensors.push(TensorPlan::new(
                LATENTS,
                Dtype::F32,
                &[images, code_dim, height, width],
            ));
        }
        tensors.push(TensorPlan::new(CODES, Dtype::U32, &self.shape));
        if !self.classes.is_empty() {
            tensors.push(TensorPlan::new(LABELS, Dtype::U32, &[images]));
        }
        tensors
    }
}

fn inconsistent(path: &Path, reason: String) -> TokenFileError {
    TokenFileError::Inconsistent {
        path: path.to_owned(),
        reason,
    }
}

/// Writes a cache image by image. Nothing appears at its path before [`TokenCacheWriter::finish`].
#[derive(Debug)]
pub struct TokenCacheWriter {
    path: PathBuf,
    spec: TokenCacheSpec,
    file: AtomicFile,
    codes: Vec<u32>,
    labels: Vec<u32>,
    written: usize,
}

impl TokenCacheWriter {
    /// Begins a cache.
    pub fn create(path: &Path, spec: TokenCacheSpec) -> Result<Self, TokenFileError> {
        spec.check(path)?;
        let description = Description {
            format: FORMAT.to_owned(),
            version: VERSION,
            tokenizer: spec.tokenizer.clone(),
            codebook_sizes: spec.codebook_sizes.clone(),
            classes: spec.classes.clone(),
            views: spec.views,
        };
        let mut file = AtomicFile::create(path)?;
        file.write_all(&header(&description, &spec.tensors()))
            .map_err(DataError::io("write", path))?;
        let codes = Vec::with_capacity(spec.shape.iter().product());
        Ok(Self {
            path: path.to_owned(),
            spec,
            file,
            codes,
            labels: Vec::new(),
            written: 0,
        })
    }

    /// Adds some images: codes `[n, depth, height, width]`, latents `[n, code_dim, height, width]`
    /// if the cache keeps them (else nothing), and a label each if there are classes (else
    /// nothing).
    pub fn push(
        &mut self,
        codes: &[u32],
        latents: &[f32],
        labels: &[u32],
    ) -> Result<(), TokenFileError> {
        let Self { path, spec, .. } = self;
        let images = codes.len() / spec.codes_per_image();
        let [total, depth, height, width] = spec.shape;
        check_codes(
            path,
            codes,
            [images, depth, height, width],
            &spec.codebook_sizes,
        )?;
        let expected_labels = if spec.classes.is_empty() { 0 } else { images };
        if latents.len() != images * spec.latents_per_image() || labels.len() != expected_labels {
            let (per_image, latents, labels) =
                (spec.latents_per_image(), latents.len(), labels.len());
            let reason = format!(
                "{images} images need {per_image} latent values each and {expected_labels} labels, got {latents} values and {labels} labels"
            );
            return Err(inconsistent(path, reason));
        }
        check_labels(path, labels, &spec.classes)?;
        if self.written + images > total {
            return Err(inconsistent(
                path,
                format!("the cache was begun for {total} images, got more"),
            ));
        }
        write_values(&mut self.file, latents, f32::to_le_bytes)
            .map_err(DataError::io("write", path.as_path()))?;
        self.codes.extend_from_slice(codes);
        self.labels.extend_from_slice(labels);
        self.written += images;
        Ok(())
    }

    /// Completes the file; an error when images are missing.
    pub fn finish(mut self) -> Result<(), TokenFileError> {
        if self.written != self.spec.shape[0] {
            let reason = format!(
                "the cache was begun for {} images, got {}",
                self.spec.shape[0], self.written
            );
            return Err(inconsistent(&self.path, reason));
        }
        write_values(&mut self.file, &self.codes, u32::to_le_bytes)
            .and_then(|()| write_values(&mut self.file, &self.labels, u32::to_le_bytes))
            .map_err(DataError::io("write", &self.path))?;
        Ok(self.file.commit()?)
    }
}

fn check_labels(path: &Path, labels: &[u32], classes: &[String]) -> Result<(), TokenFileError> {
    match labels
        .iter()
        .find(|&&label| label as usize >= classes.len())
    {
        Some(label) => Err(inconsistent(
            path,
            format!(
                "there is a label {label}, but there are {} classes",
                classes.len()
            ),
        )),
        None => Ok(()),
    }
}

/// A cache opened for reading.
#[derive(Debug)]
pub struct TokenCache {
    path: PathBuf,
    spec: TokenCacheSpec,
    codes: Vec<u32>,
    labels: Option<Vec<u32>>,
    /// Reads move the position of the one file handle.
    container: Mutex<Container>,
}

impl TokenCache {
    /// Reads codes and labels, strictly; latents stay in the file.
    pub fn open(path: &Path) -> Result<Self, TokenFileError> {
        let container = Container::open(path)?;
        let Description {
            tokenizer,
            codebook_sizes,
            classes,
            views,
            ..
        } = container.description(FORMAT, VERSION)?;
        container.expect_only(&[CODES, LABELS, LATENTS])?;
        let shape: [usize; 4] = container.shape(CODES, Dtype::U32)?;
        let [images, _, height, width] = shape;
        let code_dim = match container.has(LATENTS) {
            false => None,
            true => {
                let latents: [usize; 4] = container.shape(LATENTS, Dtype::F32)?;
                if [latents[0], latents[2], latents[3]] != [images, height, width] {
                    let expected =
                        format!("the shape [{images}, code_dim, {height}, {width}] of its codes");
                    return Err(TokenFileError::WrongShape {
                        path: path.to_owned(),
                        name: LATENTS,
                        expected,
                        got: latents.to_vec(),
                    });
                }
                Some(latents[1])
            }
        };
        let spec = TokenCacheSpec {
            tokenizer,
            codebook_sizes,
            shape,
            classes,
            code_dim,
            views,
        };
        spec.check(path)?;
        let codes = container.values(CODES, 0, shape.iter().product(), u32::from_le_bytes)?;
        check_codes(path, &codes, shape, &spec.codebook_sizes)?;
        let labels = read_labels(path, &container, &spec)?;
        Ok(Self {
            path: path.to_owned(),
            spec,
            codes,
            labels,
            container: Mutex::new(container),
        })
    }

    /// What it holds.
    pub fn spec(&self) -> &TokenCacheSpec {
        &self.spec
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.spec.shape[0]
    }

    /// Never: a cache of no images is refused.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All codes, `[images, depth, height, width]`.
    pub fn codes(&self) -> &[u32] {
        &self.codes
    }

    /// Codes of some images, `[n, depth, height, width]`. Panics when there is no such image.
    pub fn codes_of(&self, images: &[usize]) -> Vec<u32> {
        let size = self.spec.codes_per_image();
        images
            .iter()
            .flat_map(|&image| &self.codes[image * size..][..size])
            .copied()
            .collect()
    }

    /// Class of every image, if they have classes.
    pub fn labels(&self) -> Option<&[u32]> {
        self.labels.as_deref()
    }

    /// Latents of some images, `[n, code_dim, height, width]`, read from the file. Panics when
    /// there is no such image.
    pub fn latents_of(&self, images: &[usize]) -> Result<Vec<f32>, TokenFileError> {
        if self.spec.code_dim.is_none() {
            return Err(TokenFileError::MissingTensor {
                path: self.path.clone(),
                name: LATENTS,
            });
        }
        let size = self.spec.latents_per_image();
        let container = self
            .container
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut latents = Vec::with_capacity(images.len() * size);
        for &image in images {
            assert!(image < self.len(), "image {image} of {}", self.len());
            latents.extend(container.values(LATENTS, image * size, size, f32::from_le_bytes)?);
        }
        Ok(latents)
    }

    /// Refuses codes of another tokenizer.
    pub fn require_tokenizer(&self, fingerprint: &str) -> Result<(), TokenFileError> {
        require_tokenizer(&self.path, &self.spec.tokenizer, fingerprint)
    }
}

fn read_labels(
    path: &Path,
    container: &Container,
    spec: &TokenCacheSpec,
) -> Result<Option<Vec<u32>>, TokenFileError> {
    if container.has(LABELS) == spec.classes.is_empty() {
        return Err(inconsistent(
            path,
            "labels and the names of classes must both be there or both be missing".to_owned(),
        ));
    }
    if spec.classes.is_empty() {
        return Ok(None);
    }
    let [count]: [usize; 1] = container.shape(LABELS, Dtype::U32)?;
    if count != spec.shape[0] {
        let expected = format!("one label for each of {} images", spec.shape[0]);
        return Err(TokenFileError::WrongShape {
            path: path.to_owned(),
            name: LABELS,
            expected,
            got: vec![count],
        });
    }
    let labels = container.values(LABELS, 0, count, u32::from_le_bytes)?;
    check_labels(path, &labels, &spec.classes)?;
    Ok(Some(labels))
}

#[cfg(test)]
#[path = "token_cache_tests.rs"]
mod tests;
