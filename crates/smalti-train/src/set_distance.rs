//! How far a set of images is from another: generated ones from real ones.
//!
//! A network makes a vector of each image; the vectors' Fréchet distance, kernel distance, precision and recall
//! are those of `smalti-metrics`. The kernel distance is the mean over drawn subsets, as published, where the sets are
//! larger than those. With a network other than Inception-v3 none of these numbers is a FID or KID, and each
//! compares only with numbers by the same network, of as many images that were prepared alike.

use std::ops::ControlFlow;

use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use smalti_data::{DataError, Image};
pub use smalti_metrics::Features;
use smalti_metrics::{
    FeatureStatistics, frechet_distance, kernel_distance, kernel_distances, precision_recall,
};

use crate::error::TrainError;
use crate::feature_extractor::FeatureExtractor;

/// How sets are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetDistanceConfig {
    /// Neighbours that the balls of precision and recall reach to.
    pub neighbours: usize,
    /// Subsets that the kernel distance is taken of.
    pub subsets: usize,
    /// Images in each.
    pub subset_size: usize,
    /// Determines the subsets.
    pub seed: u64,
}

/// As published.
impl Default for SetDistanceConfig {
    fn default() -> Self {
        Self {
            neighbours: 3,
            subsets: 100,
            subset_size: 1000,
            seed: 0,
        }
    }
}

/// A mean over subsets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelDistance {
    /// About 0 for sets of one distribution.
    pub mean: f64,
    /// Deviation over the subsets; `None` where all images were taken at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deviation: Option<f64>,
}

/// What the comparison of two sets says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetDistance {
    /// The network and its vector.
    pub network: String,
    /// Numbers of a vector.
    pub width: usize,
    /// Images of the reference.
    pub reference: usize,
    /// Images held against it.
    pub generated: usize,
    /// Squared, as always.
    pub frechet_distance: f64,
    /// With the cubic kernel, unbiased.
    pub kernel_distance: KernelDistance,
    /// Share of the generated images near the reference.
    pub precision: f64,
    /// Share of the reference near generated images.
    pub recall: f64,
}

impl SetDistance {
    /// Images that a set should have more of than there are: with no more than numbers in a vector its
    /// covariance is singular, and the Fréchet distance too large.
    pub fn too_few(&self) -> Vec<(&'static str, usize)> {
        let sets = [("reference", self.reference), ("generated", self.generated)];
        sets.into_iter()
            .filter(|(_, count)| *count <= self.width)
            .collect()
    }
}

/// Vectors of images that must all be of one size, across sets.
#[derive(Debug)]
pub struct Gathering<'a> {
    extractor: &'a FeatureExtractor,
    /// The first image's name and size.
    first: Option<(String, [usize; 2])>,
}

impl<'a> Gathering<'a> {
    /// Nothing seen yet.
    pub fn new(extractor: &'a FeatureExtractor) -> Self {
        Self {
            extractor,
            first: None,
        }
    }

    /// The vectors of a set; `images` are names and images, `watch` is told how many are done and may stop.
    ///
    /// # Errors
    /// When an image cannot be read, is of another size than those before or too small, or the network gives
    /// NaN.
    pub fn set(
        &mut self,
        images: impl Iterator<Item = Result<(String, Image), DataError>>,
        mut watch: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Features, TrainError> {
        let mut features = Features::new(self.extractor.width());
        let mut batch: Vec<Image> = Vec::new();
        for next in images {
            let (name, image) = next?;
            self.require_alike(&name, &image)?;
            let full = self.extractor.batch_size(&image);
            batch.push(image);
            if batch.len() == full {
                features.extend(&self.extractor.vectors(&batch))?;
                batch.clear();
                if watch(features.len()).is_break() {
                    return Err(TrainError::Interrupted);
                }
            }
        }
        features.extend(&self.extractor.vectors(&batch))?;
        Ok(features)
    }

    /// Refuses an image of another size than the first one's; the first must be large enough.
    ///
    /// # Errors
    /// Names both.
    pub fn require_alike(&mut self, name: &str, image: &Image) -> Result<(), TrainError> {
        let size = [image.width(), image.height()];
        let (first, expected) = match &self.first {
            Some((first, expected)) => (first, *expected),
            None => {
                self.extractor.require_size(name, image)?;
                self.first = Some((name.to_owned(), size));
                return Ok(());
            }
        };
        if size == expected {
            return Ok(());
        }
        let ([width, height], [w, h]) = (size, expected);
        Err(TrainError::Request(format!(
            "sets are compared by images of one size: {name} has {width}x{height} pixels, {first} {w}x{h}"
        )))
    }
}

/// The comparison of two sets by vectors of `network` (its title).
///
/// # Errors
/// When a set has no more than `config.neighbours` images.
pub fn set_distance(
    network: &str,
    (reference, generated): (&Features, &Features),
    config: &SetDistanceConfig,
) -> Result<SetDistance, TrainError> {
    let shares = precision_recall(reference, generated, config.neighbours)?;
    let statistics = [reference, generated].map(FeatureStatistics::of);
    let [first, second] = statistics;
    Ok(SetDistance {
        network: network.into(),
        width: reference.width(),
        reference: reference.len(),
        generated: generated.len(),
        frechet_distance: frechet_distance(&first?, &second?)?,
        kernel_distance: kernel(reference, generated, config)?,
        precision: shares.precision,
        recall: shares.recall,
    })
}

/// Of all images where there are few, else of drawn subsets.
fn kernel(
    reference: &Features,
    generated: &Features,
    config: &SetDistanceConfig,
) -> Result<KernelDistance, TrainError> {
    let counts = [reference.len(), generated.len()];
    if counts.iter().all(|count| *count <= config.subset_size) {
        return Ok(KernelDistance {
            mean: kernel_distance(reference, generated)?,
            deviation: None,
        });
    }
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let mut draw = |count: usize| {
        let size = config.subset_size.min(count);
        index::sample(&mut rng, count, size).into_vec()
    };
    let subsets: Vec<[Vec<usize>; 2]> =
        (0..config.subsets).map(|_| counts.map(&mut draw)).collect();
    let pairs = subsets.iter().map(|[a, b]| (&a[..], &b[..]));
    let distances = kernel_distances(reference, generated, pairs)?;
    let count = distances.len() as f64;
    let mean = distances.iter().sum::<f64>() / count;
    let squares: f64 = distances.iter().map(|d| (d - mean).powi(2)).sum();
    Ok(KernelDistance {
        mean,
        deviation: Some((squares / count).sqrt()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    use burn::tensor::Device;
    use smalti_models::features::FeatureConfig;

    fn extractor() -> FeatureExtractor {
        let file = "/../../goldens/st_lpips/alex_shift_tolerant_narrow.pth";
        let file = PathBuf::from(format!("{}{file}", env!("CARGO_MANIFEST_DIR")));
        FeatureExtractor::load(&FeatureConfig::StLpips { file }, &Device::flex()).unwrap()
    }

    /// Images of one colour and a slope.
    fn images(count: usize, side: usize, slope: u8) -> Vec<Image> {
        let image = |number: usize| {
            let mut image = Image::filled(side, side, [(number * 13) as u8, 80, 160]).unwrap();
            let patch =
                Image::filled(side / 2, side / 2, [slope, (number * 31) as u8, 20]).unwrap();
            image.paste(&patch, number % (side / 2), 3);
            image
        };
        (0..count).map(image).collect()
    }

    fn named(images: Vec<Image>) -> impl Iterator<Item = Result<(String, Image), DataError>> {
        let named = images.into_iter().enumerate();
        named.map(|(number, image)| Ok((format!("{number}.png"), image)))
    }

    fn watch(_: usize) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    #[test]
    fn a_set_is_at_no_distance_from_itself_and_far_from_others() {
        let extractor = extractor();
        let mut gathering = Gathering::new(&extractor);
        let set = gathering.set(named(images(40, 48, 200)), watch).unwrap();
        assert_eq!((set.len(), set.width()), (40, extractor.width()));
        let other = gathering.set(named(images(30, 48, 10)), watch).unwrap();
        let config = SetDistanceConfig::default();
        let measure = |a, b| set_distance(extractor.title(), (a, b), &config).unwrap();
        let same = measure(&set, &set);
        assert!(same.frechet_distance < 1e-6, "{same:?}");
        assert_eq!((same.precision, same.recall), (1.0, 1.0));
        let apart = measure(&set, &other);
        assert!(
            apart.frechet_distance > 100.0 * same.frechet_distance,
            "{apart:?}"
        );
        assert!(
            apart.kernel_distance.mean > same.kernel_distance.mean,
            "{apart:?}"
        );
        assert!(apart.precision < 1.0);
        assert_eq!((apart.reference, apart.generated), (40, 30));
        // As many vectors as batches hold, and some more, are the vectors of images by themselves.
        let one = extractor.vectors(&images(40, 48, 200)[39..]);
        for (a, b) in one.iter().zip(set.row(39)) {
            assert!((a - b).abs() < 1e-4 * (1.0 + b.abs()), "{a} {b}");
        }
    }

    #[test]
    fn subsets_are_those_of_the_seed() {
        let mut set = Features::new(2);
        let mut other = set.clone();
        let value = |i: usize| (i as f32 * 0.7).sin();
        set.extend(&(0..80).map(value).collect::<Vec<_>>()).unwrap();
        other
            .extend(&(9..69).map(value).collect::<Vec<_>>())
            .unwrap();
        let config = SetDistanceConfig {
            subsets: 7,
            subset_size: 35,
            ..SetDistanceConfig::default()
        };
        let of = |seed| set_distance("", (&set, &other), &SetDistanceConfig { seed, ..config });
        let (a, b) = (
            of(1).unwrap().kernel_distance,
            of(2).unwrap().kernel_distance,
        );
        assert_eq!(a, of(1).unwrap().kernel_distance);
        assert_ne!(a.mean, b.mean);
        let whole = kernel_distance(&set, &other).unwrap();
        let deviation = a.deviation.unwrap();
        assert!(deviation > 0.0 && (a.mean - whole).abs() < 3.0 * deviation + 1e-3);
    }

    #[test]
    fn too_few_images_are_told_and_still_measured() {
        let mut set = Features::new(5);
        set.extend(&[0.5; 25]).unwrap();
        let mut other = Features::new(5);
        let values = (0..30).map(|i| (i as f32).cos());
        other.extend(&values.collect::<Vec<_>>()).unwrap();
        let distance = set_distance("", (&set, &other), &SetDistanceConfig::default()).unwrap();
        assert_eq!(distance.too_few(), [("reference", 5)]);
        let config = SetDistanceConfig {
            neighbours: 5,
            ..SetDistanceConfig::default()
        };
        let message = set_distance("", (&set, &other), &config).unwrap_err();
        assert!(
            message.to_string().contains("at least 6 images"),
            "{message}"
        );
    }

    #[test]
    fn images_must_be_of_one_size_and_large_enough() {
        let extractor = extractor();
        let mut gathering = Gathering::new(&extractor);
        gathering.set(named(images(2, 48, 200)), watch).unwrap();
        let other = gathering.set(named(images(2, 40, 200)), watch);
        let message = other.unwrap_err().to_string();
        assert!(
            message.contains("0.png has 40x40 pixels, 0.png 48x48"),
            "{message}"
        );
        let small = Gathering::new(&extractor).set(named(images(2, 4, 200)), watch);
        let message = small.unwrap_err().to_string();
        assert!(
            message.contains("0.png has 4x4") && message.contains("ST-LPIPS"),
            "{message}"
        );
        let stop =
            Gathering::new(&extractor).set(named(images(200, 32, 200)), |_| ControlFlow::Break(()));
        assert!(matches!(stop, Err(TrainError::Interrupted)));
    }
}
