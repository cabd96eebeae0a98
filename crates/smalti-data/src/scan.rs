//! Broken files: found before a training starts, named, and skipped or refused; and decoding
//! everything once into memory.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{DataError, Dataset, Image, ImageSource, MemorySource, Preprocess, Sample};

/// What was found in a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadReport {
    /// The data set.
    pub path: PathBuf,
    /// Files that should have been images, broken ones included.
    pub found: usize,
    /// Those that cannot be used.
    pub broken: Vec<BrokenFile>,
    /// Files of other kinds, left alone.
    pub ignored: usize,
}

/// A file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenFile {
    /// The file, or the member of an archive.
    pub name: String,
    /// Why, as a sentence that names the file.
    pub reason: String,
}

/// How closely images are looked at when a data set is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// Every image is decoded: finds everything, costs one pass over the data.
    #[default]
    Full,
    /// The size of every image is read: finds missing, empty and foreign files, and JPEGs without
    /// an end.
    Headers,
    /// Nothing is read: for data sets known to be good. A broken image is an error when it is its
    /// turn.
    None,
}

impl LoadReport {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            found: 0,
            broken: Vec::new(),
            ignored: 0,
        }
    }

    pub(crate) fn add_broken(&mut self, name: impl Into<String>, reason: impl Into<String>) {
        self.broken.push(BrokenFile {
            name: name.into(),
            reason: reason.into(),
        });
    }

    /// An error if anything is broken.
    pub fn refuse_broken(&self) -> Result<(), DataError> {
        let Some(first) = self.broken.first() else {
            return Ok(());
        };
        Err(DataError::Broken {
            path: self.path.clone(),
            broken: self.broken.len(),
            found: self.found,
            first: format!("{}: {}", first.name, first.reason),
        })
    }
}

/// Looks at every image, in parallel; the good ones stay in the data set, the others go into the
/// report.
pub fn scan(dataset: &Dataset, check: Check, report: &mut LoadReport) -> Dataset {
    let look = |index: usize| match check {
        Check::None => Ok(()),
        Check::Headers => dataset.size(index).map(drop),
        Check::Full => dataset.image(index).map(drop),
    };
    if check == Check::None {
        return dataset.clone();
    }
    let results: Vec<Result<(), DataError>> =
        (0..dataset.len()).into_par_iter().map(look).collect();
    keep_good(dataset, results, report).0
}

/// Decodes every image, applies preprocessing that is not random, and keeps the results in memory:
/// small images are then read from disk and decoded once instead of once an epoch. Broken images go
/// into the report. More than `max_bytes` of pixels is an error.
pub fn cache(
    dataset: &Dataset,
    preprocess: &Preprocess,
    max_bytes: usize,
    report: &mut LoadReport,
) -> Result<Dataset, DataError> {
    preprocess.validate()?;
    let used = AtomicUsize::new(0);
    let results: Vec<Result<Option<Image>, DataError>> = (0..dataset.len())
        .into_par_iter()
        .map(|index| {
            if used.load(Ordering::Relaxed) > max_bytes {
                return Ok(None);
            }
            let image = preprocess.apply_fixed(&dataset.image(index)?)?;
            used.fetch_add(image.pixels().len(), Ordering::Relaxed);
            Ok(Some(image))
        })
        .collect();
    if used.into_inner() > max_bytes {
        let problem = format!(
            "the {} images need more than the {max_bytes} bytes allowed; allow more, make them smaller, or do not cache",
            dataset.len()
        );
        return Err(DataError::Config {
            what: "the cache",
            problems: vec![problem],
        });
    }
    let (good, images) = keep_good(dataset, results, report);
    let samples = images.into_iter().flatten().enumerate();
    let samples = samples
        .map(|(i, image)| Sample {
            image,
            label: good.label(i),
            name: good.name(i).into_owned(),
        })
        .collect();
    let splits = (0..good.len())
        .map(|i| good.split(i).map(str::to_owned))
        .collect();
    Ok(Dataset::new(MemorySource {
        samples,
        splits,
        classes: good.classes().to_vec(),
    }))
}

fn keep_good<T>(
    dataset: &Dataset,
    results: Vec<Result<T, DataError>>,
    report: &mut LoadReport,
) -> (Dataset, Vec<T>) {
    let (mut good, mut values) = (Vec::new(), Vec::new());
    for (index, result) in results.into_iter().enumerate() {
        match result {
            Ok(value) => {
                good.push(index);
                values.push(value);
            }
            Err(error) => report.add_broken(dataset.name(index), error.to_string()),
        }
    }
    (dataset.select(good), values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Filter, Step};
    use std::borrow::Cow;

    /// Image 2 has a good header and broken pixels, image 5 nothing good.
    struct Faulty;

    impl ImageSource for Faulty {
        fn len(&self) -> usize {
            8
        }

        fn name(&self, index: usize) -> Cow<'_, str> {
            Cow::Owned(format!("image {index}"))
        }

        fn label(&self, index: usize) -> Option<u32> {
            Some(index as u32)
        }

        fn classes(&self) -> &[String] {
            &[]
        }

        fn size(&self, index: usize) -> Result<(usize, usize), DataError> {
            if index == 5 {
                Err(DataError::EmptyImage {
                    name: self.name(index).into_owned(),
                })
            } else {
                Ok((4, 4))
            }
        }

        fn image(&self, index: usize) -> Result<Image, DataError> {
            if [2, 5].contains(&index) {
                return Err(DataError::TruncatedImage {
                    name: self.name(index).into_owned(),
                });
            }
            Image::filled(4, 4, [index as u8; 3])
        }
    }

    #[test]
    fn checks_find_what_they_look_at() {
        for (check, broken) in [
            (Check::None, vec![]),
            (Check::Headers, vec!["image 5"]),
            (Check::Full, vec!["image 2", "image 5"]),
        ] {
            let mut report = LoadReport::new(Path::new("set"));
            report.found = 8;
            let good = scan(&Dataset::new(Faulty), check, &mut report);
            assert_eq!(
                report
                    .broken
                    .iter()
                    .map(|file| &file.name)
                    .collect::<Vec<_>>(),
                broken,
                "{check:?}"
            );
            assert_eq!(good.len() + broken.len(), 8);
            assert_eq!(report.refuse_broken().is_ok(), broken.is_empty());
        }
    }

    #[test]
    fn strict_reading_names_the_first() {
        let mut report = LoadReport::new(Path::new("set"));
        report.found = 8;
        scan(&Dataset::new(Faulty), Check::Full, &mut report);
        let message = report.refuse_broken().unwrap_err().to_string();
        assert!(
            message.starts_with(
                "2 of 8 files of set cannot be used; the first is image 2: image 2 is cut off"
            ),
            "{message}"
        );
    }

    #[test]
    fn a_cache_holds_the_good_images_resized() {
        let mut report = LoadReport::new(Path::new("set"));
        let resize = Preprocess {
            steps: vec![Step::Resize {
                width: 2,
                height: 2,
                filter: Filter::Box,
            }],
        };
        let cached = cache(&Dataset::new(Faulty), &resize, 1000, &mut report).unwrap();
        assert_eq!((cached.len(), report.broken.len()), (6, 2));
        assert_eq!(
            cached.get(2).unwrap(),
            Sample {
                image: Image::filled(2, 2, [3; 3]).unwrap(),
                label: Some(3),
                name: "image 3".to_owned()
            }
        );
        let error = cache(&Dataset::new(Faulty), &resize, 71, &mut report).unwrap_err();
        assert!(error.to_string().contains("71 bytes"), "{error}");
        assert!(cache(&Dataset::new(Faulty), &resize, 72, &mut report).is_ok());
    }
}
