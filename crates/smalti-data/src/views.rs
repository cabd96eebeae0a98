//! Several views of every image, to be tokenized once and visited in turn.
//!
//! The training of a generator reads codes, not images, so it cannot crop anew at every visit. Instead
//! the codes of a few fixed views are kept, and a visit sees one of them at random
//! ([`chosen_view`](crate::chosen_view)). Ten crops are what LlamaGen and FAR are trained on: the centre crop
//! of a slightly larger image, of that the four corners and the middle, and their mirror images.

use serde::{Deserialize, Serialize};

use crate::{DataError, Image, Preprocess, Step};

/// Which views are kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Views {
    /// The preprocessed image.
    One {},
    /// The preprocessed image and its mirror image.
    Flip {},
    /// Corners and middle of the image cropped as guided diffusion does to `size · enlarge` pixels,
    /// then their mirror images; other preprocessing is not applied.
    TenCrop {
        /// Side of the views in pixels.
        size: usize,
        /// Side of what they are cut out of, as a multiple of theirs.
        #[serde(default = "published")]
        enlarge: f64,
    },
}

fn published() -> f64 {
    1.1
}

impl Default for Views {
    fn default() -> Self {
        Self::One {}
    }
}

impl Views {
    /// How many there are of each image.
    pub fn count(&self) -> usize {
        match self {
            Self::One {} => 1,
            Self::Flip {} => 2,
            Self::TenCrop { .. } => 10,
        }
    }

    /// Whether there is a single one.
    pub fn is_one(&self) -> bool {
        self.count() == 1
    }

    /// Everything that is wrong with the settings.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Self::TenCrop { size, enlarge } = *self {
            if size == 0 {
                problems.push("size must be at least 1, got 0".to_owned());
            }
            if !(1.0..=4.0).contains(&enlarge) {
                problems.push(format!("enlarge must lie between 1 and 4, got {enlarge}"));
            }
        }
        problems
    }

    /// The views of an image, in a fixed order.
    ///
    /// # Errors
    /// When the image is too small for a step of `preprocess`.
    pub fn of(&self, image: &Image, preprocess: &Preprocess) -> Result<Vec<Image>, DataError> {
        let mut views = match *self {
            Self::One {} => return Ok(vec![preprocess.apply_fixed(image)?]),
            Self::Flip {} => vec![preprocess.apply_fixed(image)?],
            Self::TenCrop { size, enlarge } => five_crops(image, size, enlarge)?,
        };
        views.extend(views.clone().iter().map(Image::flip_horizontal));
        Ok(views)
    }
}

/// Top left, top right, bottom left, bottom right, middle.
fn five_crops(image: &Image, size: usize, enlarge: f64) -> Result<Vec<Image>, DataError> {
    let whole = (size as f64 * enlarge) as usize;
    let fixed = |step| Preprocess { steps: vec![step] };
    let image = fixed(Step::AdmCenterCrop { size: whole }).apply_fixed(image)?;
    let end = whole - size;
    let corners = [(0, 0), (end, 0), (0, end), (end, end)];
    let mut crops = corners
        .into_iter()
        .map(|(left, top)| image.crop(left, top, size, size))
        .collect::<Result<Vec<_>, _>>()?;
    crops.push(fixed(Step::CenterCrop { size }).apply_fixed(&image)?);
    Ok(crops)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red counts columns, green counts rows.
    fn ramp(width: usize, height: usize) -> Image {
        let pixel = |i: usize| [(i % width) as u8, (i / width) as u8, 7];
        Image::new(width, height, (0..width * height).flat_map(pixel).collect()).unwrap()
    }

    fn corner(image: &Image) -> [u8; 2] {
        [image.pixels()[0], image.pixels()[1]]
    }

    #[test]
    fn ten_crops_are_corners_middle_and_their_mirror_images() {
        let views = Views::TenCrop {
            size: 20,
            enlarge: 1.2,
        };
        // An image of the enlarged size is not resized: what is cut can be read off.
        let crops = views.of(&ramp(24, 24), &Preprocess::default()).unwrap();
        assert_eq!(crops.len(), views.count());
        let corners: Vec<_> = crops[..5].iter().map(corner).collect();
        assert_eq!(corners, [[0, 0], [4, 0], [0, 4], [4, 4], [2, 2]]);
        for (crop, mirror) in crops[..5].iter().zip(&crops[5..]) {
            assert_eq!((crop.width(), crop.height()), (20, 20));
            assert_eq!(*mirror, crop.flip_horizontal());
        }
        assert_eq!(corner(&crops[5]), [19, 0]);
    }

    #[test]
    fn other_views_are_preprocessed() {
        let crop = Preprocess {
            steps: vec![Step::CenterCrop { size: 4 }],
        };
        let one = Views::One {}.of(&ramp(8, 6), &crop).unwrap();
        assert_eq!((one.len(), corner(&one[0])), (1, [2, 1]));
        let both = Views::Flip {}.of(&ramp(8, 6), &crop).unwrap();
        assert_eq!(both[0], one[0]);
        assert_eq!(corner(&both[1]), [5, 1]);
        assert!(Views::One {}.of(&ramp(3, 6), &crop).is_err());
    }

    #[test]
    fn settings_are_read_and_checked() {
        let read = |text: &str| serde_json::from_str::<Views>(text);
        let ten = read(r#"{"kind": "ten_crop", "size": 32}"#).unwrap();
        assert_eq!(
            ten,
            Views::TenCrop {
                size: 32,
                enlarge: 1.1
            }
        );
        assert!(ten.problems().is_empty() && !ten.is_one());
        assert!(read(r#"{"kind": "flip", "size": 32}"#).is_err());
        let wrong = Views::TenCrop {
            size: 0,
            enlarge: 0.9,
        };
        assert_eq!(wrong.problems().len(), 2);
    }
}
