//! Preprocessing: a list of steps from any image to one of a fixed size, for training (random) or
//! evaluation (not).
//!
//! Steps follow torchvision and Pillow where they have the same name: the long side of a resize is
//! truncated, an odd margin of a centre crop is rounded half to even, random resized crops try ten
//! times and then fall back to a centre crop, crops are cut before they are resized. Unlike
//! torchvision, a crop larger than the image is an error and not a black border.
//!
//! Random draws come from the generator passed in, in the order of the steps; a step draws the same
//! number of values for images of the same size.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::resample::{Filter, resize};
use crate::{DataError, Image};

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// To exactly this size, the aspect distorted if need be.
    Resize {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// The filter.
        filter: Filter,
    },
    /// The shorter side to `size`, the aspect kept.
    ResizeShorter {
        /// The shorter side in pixels.
        size: usize,
        /// The filter.
        filter: Filter,
    },
    /// The middle square.
    CenterCrop {
        /// Side in pixels.
        size: usize,
    },
    /// A square anywhere.
    RandomCrop {
        /// Side in pixels.
        size: usize,
    },
    /// A rectangle of random area, aspect and place, resized to a square.
    RandomResizedCrop {
        /// Side in pixels of the result.
        size: usize,
        /// Smallest and largest share of the area.
        scale: [f64; 2],
        /// Smallest and largest width / height.
        ratio: [f64; 2],
        /// The filter.
        filter: Filter,
    },
    /// Left and right exchanged with this probability.
    HorizontalFlip {
        /// 0 never, 1 always.
        probability: f64,
    },
    /// The centre crop of the guided-diffusion code base: halvings by box filter, then bicubic,
    /// then the middle square.
    AdmCenterCrop {
        /// Side in pixels.
        size: usize,
    },
}

/// Steps in their order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Preprocess {
    /// The steps.
    pub steps: Vec<Step>,
}

/// Preprocessing of a training: random for the images learned from, fixed for the images measured
/// on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreprocessPair {
    /// For training.
    pub train: Preprocess,
    /// For evaluation; must not be random.
    pub eval: Preprocess,
}

impl PreprocessPair {
    /// The ImageNet recipe of RQ-VAE and VQGAN: shorter side to `size`, random crop and flip;
    /// centre crop to evaluate.
    pub fn crops(size: usize) -> Self {
        let shorter = Step::ResizeShorter {
            size,
            filter: Filter::Bilinear,
        };
        let flip = Step::HorizontalFlip { probability: 0.5 };
        Self {
            train: Preprocess {
                steps: vec![shorter.clone(), Step::RandomCrop { size }, flip],
            },
            eval: Preprocess {
                steps: vec![shorter, Step::CenterCrop { size }],
            },
        }
    }

    /// Every problem of both, and that they end in the same size.
    pub fn validate(&self) -> Result<(), DataError> {
        let mut problems = prefixed("train", self.train.problems());
        problems.extend(prefixed("eval", self.eval.problems()));
        if self.eval.is_random() {
            problems.push(
                "eval: has a random step; measuring needs the same images every time".to_owned(),
            );
        }
        if self.train.output_size() != self.eval.output_size() {
            let size = |steps: &Preprocess| match steps.output_size() {
                Some((width, height)) => format!("images of {width} x {height}"),
                None => "images of any size".to_owned(),
            };
            problems.push(format!(
                "train gives {}, eval {}; both must end in the same size",
                size(&self.train),
                size(&self.eval)
            ));
        }
        refuse(problems)
    }
}

impl Preprocess {
    /// Every problem of the steps.
    pub fn validate(&self) -> Result<(), DataError> {
        refuse(self.problems())
    }

    /// Whether a step draws random numbers.
    pub fn is_random(&self) -> bool {
        self.steps.iter().any(Step::is_random)
    }

    /// Width and height of every result; `None` when they depend on the image.
    pub fn output_size(&self) -> Option<(usize, usize)> {
        self.steps.iter().fold(None, |size, step| match *step {
            Step::Resize { width, height, .. } => Some((width, height)),
            Step::ResizeShorter { .. } => {
                size.and_then(|(width, height)| (width == height).then_some(step.square()))
            }
            Step::HorizontalFlip { .. } => size,
            _ => Some(step.square()),
        })
    }

    /// All steps. Name the image with [`DataError`]'s context where it has a name: errors here only
    /// know sizes.
    pub fn apply(&self, image: &Image, rng: &mut impl Rng) -> Result<Image, DataError> {
        let mut image = std::borrow::Cow::Borrowed(image);
        for step in &self.steps {
            if let Some(changed) = step.apply(&image, rng)? {
                image = std::borrow::Cow::Owned(changed);
            }
        }
        Ok(image.into_owned())
    }

    /// All steps of a pipeline that is not random; an error if it is.
    pub fn apply_fixed(&self, image: &Image) -> Result<Image, DataError> {
        if self.is_random() {
            return refuse(vec![
                "a random step stands where the same image is expected every time".to_owned(),
            ])
            .map(|()| image.clone());
        }
        // Never drawn from.
        self.apply(
            image,
            &mut <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(0),
        )
    }

    fn problems(&self) -> Vec<String> {
        self.steps
            .iter()
            .enumerate()
            .flat_map(|(i, step)| prefixed(&format!("step {}", i + 1), step.problems()))
            .collect()
    }
}

fn prefixed(prefix: &str, problems: Vec<String>) -> Vec<String> {
    problems
        .into_iter()
        .map(|problem| format!("{prefix}: {problem}"))
        .collect()
}

fn refuse(problems: Vec<String>) -> Result<(), DataError> {
    if problems.is_empty() {
        Ok(())
    } else {
        Err(DataError::Config {
            what: "preprocessing",
            problems,
        })
    }
}

impl Step {
    fn is_random(&self) -> bool {
        match *self {
            Self::RandomCrop { .. } | Self::RandomResizedCrop { .. } => true,
            Self::HorizontalFlip { probability } => probability > 0.0 && probability < 1.0,
            _ => false,
        }
    }

    /// The side of steps that have one.
    fn square(&self) -> (usize, usize) {
        match *self {
            Self::ResizeShorter { size, .. }
            | Self::CenterCrop { size }
            | Self::RandomCrop { size }
            | Self::RandomResizedCrop { size, .. }
            | Self::AdmCenterCrop { size } => (size, size),
            Self::Resize { width, height, .. } => (width, height),
            Self::HorizontalFlip { .. } => (1, 1),
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let (width, height) = self.square();
        if width == 0 || height == 0 {
            problems.push(format!("a size must be at least 1, got {width} x {height}"));
        }
        match *self {
            Self::HorizontalFlip { probability } if !(0.0..=1.0).contains(&probability) => {
                problems.push(format!(
                    "probability must be between 0 and 1, got {probability}"
                ));
            }
            Self::RandomResizedCrop { scale, ratio, .. } => {
                if !(scale[0] > 0.0 && scale[0] <= scale[1] && scale[1] <= 1.0) {
                    problems.push(format!(
                        "scale must be 0 < smallest <= largest <= 1, got {scale:?}"
                    ));
                }
                if !(ratio[0] > 0.0 && ratio[0] <= ratio[1] && ratio[1].is_finite()) {
                    problems.push(format!(
                        "ratio must be 0 < smallest <= largest, got {ratio:?}"
                    ));
                }
            }
            _ => {}
        }
        problems
    }

    /// The image after this step; `None` when it stays as it is.
    fn apply(&self, image: &Image, rng: &mut impl Rng) -> Result<Option<Image>, DataError> {
        let (width, height) = (image.width(), image.height());
        match *self {
            Self::Resize {
                width,
                height,
                filter,
            } => resize(image, width, height, filter),
            Self::ResizeShorter { size, filter } => {
                let (new_width, new_height) = shorter_side(width, height, size);
                resize(image, new_width, new_height, filter)
            }
            Self::CenterCrop { size } => center_crop(image, size),
            Self::RandomCrop { size } => {
                fits(image, size)?;
                let top = rng.random_range(0..=height - size);
                let left = rng.random_range(0..=width - size);
                image.crop(left, top, size, size)
            }
            Self::RandomResizedCrop {
                size,
                scale,
                ratio,
                filter,
            } => {
                let [left, top, crop_width, crop_height] =
                    random_rectangle(width, height, scale, ratio, rng);
                resize(
                    &image.crop(left, top, crop_width, crop_height)?,
                    size,
                    size,
                    filter,
                )
            }
            Self::HorizontalFlip { probability } => {
                if !rng.random_bool(probability) {
                    return Ok(None);
                }
                Ok(image.flip_horizontal())
            }
            Self::AdmCenterCrop { size } => adm_center_crop(image, size),
        }
        .map(Some)
    }
}

fn fits(image: &Image, size: usize) -> Result<(), DataError> {
    if size > image.width() || size > image.height() {
        let (width, height) = (image.width(), image.height());
        return Err(DataError::CropTooLarge {
            crop_width: size,
            crop_height: size,
            width,
            height,
        });
    }
    Ok(())
}

fn shorter_side(width: usize, height: usize, size: usize) -> (usize, usize) {
    // In integers, what the reference computes as int(size * long / short).
    if width <= height {
        (size, size * height / width)
    } else {
        (size * width / height, size)
    }
}

fn center_crop(image: &Image, size: usize) -> Result<Image, DataError> {
    fits(image, size)?;
    let margin = |side: usize| ((side - size) as f64 / 2.0).round_ties_even() as usize;
    image.crop(margin(image.width()), margin(image.height()), size, size)
}

/// `[left, top, width, height]`.
fn random_rectangle(
    width: usize,
    height: usize,
    scale: [f64; 2],
    ratio: [f64; 2],
    rng: &mut impl Rng,
) -> [usize; 4] {
    let area = (width * height) as f64;
    for _ in 0..10 {
        let target = area * rng.random_range(scale[0]..=scale[1]);
        let aspect = rng.random_range(ratio[0].ln()..=ratio[1].ln()).exp();
        let crop_width = (target * aspect).sqrt().round_ties_even() as usize;
        let crop_height = (target / aspect).sqrt().round_ties_even() as usize;
        if (1..=width).contains(&crop_width) && (1..=height).contains(&crop_height) {
            let top = rng.random_range(0..=height - crop_height);
            let left = rng.random_range(0..=width - crop_width);
            return [left, top, crop_width, crop_height];
        }
    }
    // No rectangle fitted: the largest in the middle whose aspect is allowed.
    let aspect = width as f64 / height as f64;
    let (crop_width, crop_height) = if aspect < ratio[0] {
        (
            width,
            ((width as f64 / ratio[0]).round_ties_even() as usize).clamp(1, height),
        )
    } else if aspect > ratio[1] {
        (
            ((height as f64 * ratio[1]).round_ties_even() as usize).clamp(1, width),
            height,
        )
    } else {
        (width, height)
    };
    [
        (width - crop_width) / 2,
        (height - crop_height) / 2,
        crop_width,
        crop_height,
    ]
}

fn adm_center_crop(image: &Image, size: usize) -> Result<Image, DataError> {
    let mut image = std::borrow::Cow::Borrowed(image);
    while image.width().min(image.height()) >= 2 * size {
        let halved = resize(&image, image.width() / 2, image.height() / 2, Filter::Box)?;
        image = std::borrow::Cow::Owned(halved);
    }
    let scale = size as f64 / image.width().min(image.height()) as f64;
    let scaled = |side: usize| (side as f64 * scale).round_ties_even() as usize;
    let image = resize(
        &image,
        scaled(image.width()),
        scaled(image.height()),
        Filter::Bicubic,
    )?;
    image.crop(
        (image.width() - size) / 2,
        (image.height() - size) / 2,
        size,
        size,
    )
}

#[cfg(test)]
#[path = "preprocess_tests.rs"]
mod tests;
