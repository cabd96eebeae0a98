//! What a data set is: a number of images by index, decoded on demand, with names and perhaps
//! labels.

use std::borrow::Cow;
use std::sync::Arc;

use crate::{DataError, Image};

/// One image of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The decoded picture.
    pub image: Image,
    /// Index into the classes of the source.
    pub label: Option<u32>,
    /// Where it comes from, unique in the source.
    pub name: String,
}

/// Images by index. Reading the same index twice gives the same sample; threads may read at once.
pub trait ImageSource: Send + Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name of an image, unique in the source, without reading the image.
    fn name(&self, index: usize) -> Cow<'_, str>;

    /// Class of an image, without reading it.
    fn label(&self, index: usize) -> Option<u32>;

    /// The split that the source itself assigns an image to.
    fn split(&self, _index: usize) -> Option<&str> {
        None
    }

    /// Names of the classes, in the order of labels; empty when images have no labels.
    fn classes(&self) -> &[String];

    /// Reads and decodes the picture. Panics when there is no such index.
    fn image(&self, index: usize) -> Result<Image, DataError>;

    /// Width and height of the picture, where possible without decoding it.
    fn size(&self, index: usize) -> Result<(usize, usize), DataError> {
        let image = self.image(index)?;
        Ok((image.width(), image.height()))
    }

    /// Picture, label and name.
    fn get(&self, index: usize) -> Result<Sample, DataError> {
        Ok(Sample {
            image: self.image(index)?,
            label: self.label(index),
            name: self.name(index).into_owned(),
        })
    }
}

/// Any source, or a part of one. Cheap to clone: the source is shared.
#[derive(Clone)]
pub struct Dataset {
    source: Arc<dyn ImageSource>,
    /// Indices into the source.
    chosen: Arc<[usize]>,
}

impl Dataset {
    /// All of a source.
    pub fn new(source: impl ImageSource + 'static) -> Self {
        let chosen = (0..source.len()).collect();
        Self {
            source: Arc::new(source),
            chosen,
        }
    }

    /// Some images of this data set, by index into it, in the order given. Panics when there is no
    /// such index.
    pub fn select(&self, indices: impl IntoIterator<Item = usize>) -> Self {
        let chosen = indices
            .into_iter()
            .map(|index| self.chosen[index])
            .collect();
        Self {
            source: Arc::clone(&self.source),
            chosen,
        }
    }

    /// Class of every image, when every image has one.
    pub fn labels(&self) -> Option<Vec<u32>> {
        (0..self.len()).map(|index| self.label(index)).collect()
    }
}

impl ImageSource for Dataset {
    fn len(&self) -> usize {
        self.chosen.len()
    }

    fn name(&self, index: usize) -> Cow<'_, str> {
        self.source.name(self.chosen[index])
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.source.label(self.chosen[index])
    }

    fn split(&self, index: usize) -> Option<&str> {
        self.source.split(self.chosen[index])
    }

    fn classes(&self) -> &[String] {
        self.source.classes()
    }

    fn size(&self, index: usize) -> Result<(usize, usize), DataError> {
        self.source.size(self.chosen[index])
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        self.source.image(self.chosen[index])
    }
}

impl std::fmt::Debug for Dataset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Dataset({} of {} images, {} classes)",
            self.len(),
            self.source.len(),
            self.classes().len()
        )
    }
}

/// Images in memory: tests, small sets, and what a cache holds.
#[derive(Debug, Clone, Default)]
pub struct MemorySource {
    /// The images.
    pub samples: Vec<Sample>,
    /// Names of their classes.
    pub classes: Vec<String>,
    /// The split of each image, or nothing.
    pub splits: Vec<Option<String>>,
}

impl ImageSource for MemorySource {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn name(&self, index: usize) -> Cow<'_, str> {
        Cow::Borrowed(&self.samples[index].name)
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.samples[index].label
    }

    fn split(&self, index: usize) -> Option<&str> {
        self.splits.get(index)?.as_deref()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        Ok(self.samples[index].image.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_of_a_selection_reads_the_right_images() {
        let sample = |i: u8| Sample {
            image: Image::filled(1, 1, [i; 3]).unwrap(),
            label: Some(u32::from(i)),
            name: i.to_string(),
        };
        let all = Dataset::new(MemorySource {
            samples: (0..10).map(sample).collect(),
            ..Default::default()
        });
        let part = all.select([9, 4, 6, 2]).select([2, 0]);
        assert_eq!(part.len(), 2);
        assert_eq!(part.get(0).unwrap(), sample(6));
        assert_eq!(part.get(1).unwrap(), sample(9));
        assert_eq!(part.labels(), Some(vec![6, 9]));
        assert!(!part.is_empty() && all.select([]).is_empty());
    }
}
