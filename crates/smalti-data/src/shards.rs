//! Tar archives in WebDataset layout: `0001.jpg` with `0001.cls` (a number) or `0001.txt` (the name
//! of a class) beside it.
//!
//! A path is one archive, or a folder of them (`.tar`, `.tar.gz`, `.tgz`, sorted by name). Members
//! of one sample share everything before the first dot of the file name, folders included. An
//! archive that is not compressed is indexed once and read from disk by offset; a compressed one is
//! inflated once and stays in memory. With both `.cls` and `.txt`, the number is the label and the
//! text the name of its class.
//!
//! Broken, and so skipped or refused: a picture that is cut off, a label that is no number, a
//! picture without a label where others have one, two pictures in one sample. Members of other
//! kinds are ignored. An archive cut exactly between two members cannot be told from a whole one
//! with fewer members.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::shard_archive::{Archive, ArchivePicture, ArchiveSample};
use crate::{DataError, DecodeLimits, Image, ImageSource, LoadReport, decode, dimensions};

/// Pictures in tar archives.
#[derive(Debug)]
pub struct Shards {
    archives: Vec<Archive>,
    members: Vec<Member>,
    classes: Vec<String>,
    limits: DecodeLimits,
}

#[derive(Debug)]
struct Member {
    archive: usize,
    /// Archive and member, for people.
    name: String,
    picture: ArchivePicture,
    label: Option<u32>,
}

impl Shards {
    /// Indexes the archives. `classes` names the classes of numbered labels; empty means that
    /// texts, or the numbers themselves, name them.
    pub fn open(
        path: &Path,
        classes: &[String],
        limits: DecodeLimits,
    ) -> Result<(Self, LoadReport), DataError> {
        let mut report = LoadReport::new(path);
        let mut archives = Vec::new();
        let mut samples = Vec::new();
        for path in archive_paths(path)? {
            let archive = Archive::open(path)?;
            let described = archive.index(&mut report)?;
            samples.extend(described.into_iter().map(|sample| (archives.len(), sample)));
            archives.push(archive);
        }
        let with_picture = samples
            .iter()
            .filter(|(_, sample)| !sample.pictures.is_empty())
            .count();
        report.found = with_picture + report.broken.len();
        let labels = Labels::of(&samples, classes);
        let members = members(samples, &archives, &labels, &mut report);
        if members.is_empty() && report.broken.is_empty() {
            return Err(DataError::layout(
                path,
                "there are no pictures in the archive; expected members such as 0001.jpg and 0001.cls",
            ));
        }
        Ok((
            Self {
                archives,
                members,
                classes: labels.names,
                limits,
            },
            report,
        ))
    }

    fn read(&self, index: usize) -> Result<Vec<u8>, DataError> {
        let member = &self.members[index];
        let ArchivePicture { offset, size, .. } = member.picture;
        self.archives[member.archive]
            .read(offset, size)
            .map_err(DataError::io("read", &member.name))
    }
}

fn archive_paths(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    if !fs::metadata(path)
        .map_err(DataError::io("read", path))?
        .is_dir()
    {
        return Ok(vec![path.to_owned()]);
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(path).map_err(DataError::io("list", path))? {
        let entry = entry.map_err(DataError::io("list", path))?.path();
        let name = entry
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_ascii_lowercase();
        if [".tar", ".tar.gz", ".tgz"]
            .iter()
            .any(|ending| name.ends_with(ending))
        {
            paths.push(entry);
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Err(DataError::layout(
            path,
            "there are no archives here; expected .tar, .tar.gz or .tgz",
        ));
    }
    Ok(paths)
}

/// How labels of one kind or the other become numbers.
struct Labels {
    names: Vec<String>,
    by_text: Option<BTreeMap<String, u32>>,
    expected: bool,
}

impl Labels {
    fn of(samples: &[(usize, ArchiveSample)], names: &[String]) -> Self {
        let pictured = || {
            samples
                .iter()
                .map(|(_, sample)| sample)
                .filter(|sample| !sample.pictures.is_empty())
        };
        if pictured().any(|sample| sample.number.is_some()) {
            return Self {
                names: Self::of_numbers(pictured(), names),
                by_text: None,
                expected: true,
            };
        }
        let texts: BTreeSet<&String> = pictured()
            .filter_map(|sample| sample.text.as_ref())
            .collect();
        let by_text = texts
            .iter()
            .enumerate()
            .map(|(label, &text)| (text.clone(), label as u32))
            .collect();
        let expected = !texts.is_empty();
        Self {
            names: texts.into_iter().cloned().collect(),
            by_text: Some(by_text),
            expected,
        }
    }

    fn of_numbers<'a>(
        described: impl Iterator<Item = &'a ArchiveSample>,
        names: &[String],
    ) -> Vec<String> {
        if !names.is_empty() {
            return names.to_vec();
        }
        let mut texts: BTreeMap<u32, Option<&String>> = BTreeMap::new();
        for sample in described {
            if let Some(Ok(number)) = sample.number {
                let text = texts.entry(number).or_default();
                *text = text.or(sample.text.as_ref());
            }
        }
        let count = texts
            .keys()
            .next_back()
            .map_or(0, |&largest| largest as usize + 1)
            .min(MOST_CLASSES);
        (0..count)
            .map(|number| {
                texts
                    .get(&(number as u32))
                    .copied()
                    .flatten()
                    .cloned()
                    .unwrap_or_else(|| number.to_string())
            })
            .collect()
    }

    fn label(&self, sample: &ArchiveSample) -> Result<Option<u32>, String> {
        if !self.expected {
            return Ok(None);
        }
        if let Some(by_text) = &self.by_text {
            let text = sample
                .text
                .as_ref()
                .ok_or("it has no readable .txt beside it, but others do")?;
            return Ok(by_text.get(text).copied());
        }
        let number = sample
            .number
            .clone()
            .ok_or("it has no .cls beside it, but others do")??;
        if number as usize >= self.names.len() {
            return Err(format!(
                "its class is {number}, but there are {} classes",
                self.names.len()
            ));
        }
        Ok(Some(number))
    }
}

/// A larger number in a `.cls` is a mistake, and must not make a list of four billion names.
const MOST_CLASSES: usize = 1 << 20;

fn members(
    samples: Vec<(usize, ArchiveSample)>,
    archives: &[Archive],
    labels: &Labels,
    report: &mut LoadReport,
) -> Vec<Member> {
    let mut members = Vec::new();
    for (archive, sample) in samples {
        let name_of = |member: &str| archives[archive].label(member);
        match &sample.pictures[..] {
            [] => report.ignored += 1,
            [picture] => match labels.label(&sample) {
                Ok(label) => members.push(Member {
                    archive,
                    name: name_of(&picture.name),
                    picture: picture.clone(),
                    label,
                }),
                Err(reason) => report.add_broken(name_of(&picture.name), reason),
            },
            several => report.add_broken(
                name_of(&sample.key),
                format!("one sample has {} pictures", several.len()),
            ),
        }
    }
    members
}

impl ImageSource for Shards {
    fn len(&self) -> usize {
        self.members.len()
    }

    fn name(&self, index: usize) -> Cow<'_, str> {
        Cow::Borrowed(&self.members[index].name)
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.members[index].label
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn size(&self, index: usize) -> Result<(usize, usize), DataError> {
        dimensions(&self.members[index].name, &self.read(index)?, self.limits)
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        decode(&self.members[index].name, &self.read(index)?, self.limits)
    }
}

#[cfg(test)]
#[path = "shards_tests.rs"]
mod tests;
