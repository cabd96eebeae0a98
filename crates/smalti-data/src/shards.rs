//! Tar archives in WebDataset layout: `0001.jpg` with `0001.cls` (a number) or `0001.txt` (the name of a class) beside it.
//!
//! A path is one archive, or a folder of them (`.tar`, `.tar.gz`, `.tgz`, sorted by name). Members of one sample share everything before the
//! first dot of the file name, folders included. An archive that is not compressed is indexed once and read from disk by offset; a compressed
//! one is inflated once and stays in memory. With both `.cls` and `.txt`, the number is the label and the text the name of its class.
//!
//! Broken, and so skipped or refused: a picture that is cut off, a label that is no number, a picture without a label where others have one,
//! two pictures in one sample. Members of other kinds are ignored. An archive cut exactly between two members cannot be told from a whole one
//! with fewer members.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::folder::is_picture;
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
struct Archive {
    path: PathBuf,
    /// All of it, where it was compressed.
    inflated: Option<Arc<[u8]>>,
}

#[derive(Debug)]
struct Member {
    archive: usize,
    name: String,
    offset: u64,
    size: u64,
    label: Option<u32>,
}

/// What stands beside a picture.
#[derive(Debug, Default)]
struct Described {
    pictures: Vec<(String, u64, u64)>,
    number: Option<Result<u32, String>>,
    text: Option<String>,
}

/// The longest label that makes sense; more is some other file.
const LONGEST_LABEL: u64 = 4096;

impl Shards {
    /// Indexes the archives. `classes` names the classes of numbered labels; empty means that texts, or the numbers themselves, name them.
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
        report.found = samples
            .iter()
            .filter(|(_, (_, described))| !described.pictures.is_empty())
            .count()
            + report.broken.len();
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
        let archive = &self.archives[member.archive];
        archive
            .read(member.offset, member.size)
            .map_err(DataError::io("read", archive.path.join(&member.name)))
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

impl Archive {
    fn open(path: PathBuf) -> Result<Self, DataError> {
        let mut file = File::open(&path).map_err(DataError::io("read", &path))?;
        let mut magic = [0; 2];
        let compressed = file.read_exact(&mut magic).is_ok() && magic == [0x1F, 0x8B];
        if !compressed {
            return Ok(Self {
                path,
                inflated: None,
            });
        }
        file.seek(SeekFrom::Start(0))
            .map_err(DataError::io("read", &path))?;
        let mut bytes = Vec::new();
        // What comes before a cut is used: the index finds the member that is not whole.
        match flate2::read::MultiGzDecoder::new(file).read_to_end(&mut bytes) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                Err(DataError::io("inflate", &path)(error))
            }
            _ => Ok(Self {
                path,
                inflated: Some(bytes.into()),
            }),
        }
    }

    fn read(&self, offset: u64, size: u64) -> io::Result<Vec<u8>> {
        if let Some(bytes) = &self.inflated {
            let range = offset as usize..(offset + size) as usize;
            return bytes
                .get(range)
                .map(<[u8]>::to_vec)
                .ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
        }
        // One handle a read: reads come from many threads, and opening costs little beside decoding.
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = vec![0; size as usize];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn index(&self, report: &mut LoadReport) -> Result<Vec<(String, Described)>, DataError> {
        match &self.inflated {
            Some(bytes) => self.index_of(Cursor::new(bytes), bytes.len() as u64, report),
            None => {
                let file = File::open(&self.path).map_err(DataError::io("read", &self.path))?;
                let len = file
                    .metadata()
                    .map_err(DataError::io("read", &self.path))?
                    .len();
                self.index_of(io::BufReader::new(file), len, report)
            }
        }
    }

    /// Samples in the order of their first member.
    fn index_of(
        &self,
        reader: impl Read + Seek,
        len: u64,
        report: &mut LoadReport,
    ) -> Result<Vec<(String, Described)>, DataError> {
        let mut samples: Vec<(String, Described)> = Vec::new();
        let mut places = HashMap::new();
        let mut archive = tar::Archive::new(reader);
        let entries = archive
            .entries_with_seek()
            .map_err(DataError::io("read", &self.path))?;
        for entry in entries {
            let mut entry = match entry {
                Ok(entry) => entry,
                Err(error) if samples.is_empty() => {
                    return Err(DataError::layout(
                        &self.path,
                        format!("this is not a tar archive: {error}"),
                    ));
                }
                Err(error) => {
                    report.add_broken(
                        self.label(""),
                        format!(
                            "the archive cannot be read beyond {} samples: {error}",
                            samples.len()
                        ),
                    );
                    break;
                }
            };
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let (offset, size) = (entry.raw_file_position(), entry.size());
            if offset.checked_add(size).is_none_or(|end| end > len) {
                let there = len.saturating_sub(offset);
                report.add_broken(
                    self.label(&name),
                    format!(
                        "the archive is cut off: {there} of the {size} bytes of {name} are there"
                    ),
                );
                break;
            }
            let (key, extension) = key_and_extension(&name);
            let kind = extension.to_ascii_lowercase();
            if !is_picture(&name) && kind != "cls" && kind != "txt" {
                report.ignored += 1;
                continue;
            }
            let place = *places.entry(key.to_owned()).or_insert_with(|| {
                samples.push((key.to_owned(), Described::default()));
                samples.len() - 1
            });
            let sample = &mut samples[place].1;
            if is_picture(&name) {
                sample.pictures.push((name, offset, size));
                continue;
            }
            let mut text = String::new();
            let readable = size <= LONGEST_LABEL && entry.read_to_string(&mut text).is_ok();
            let text = text.trim().to_owned();
            if kind == "txt" {
                sample.text = readable.then_some(text);
            } else {
                let number = text
                    .parse()
                    .map_err(|_| format!("{name} holds {text:?}, expected the number of a class"));
                sample.number = Some(if readable {
                    number
                } else {
                    Err(format!(
                        "{name} is not a text of at most {LONGEST_LABEL} bytes"
                    ))
                });
            }
        }
        Ok(samples)
    }

    fn label(&self, member: &str) -> String {
        let archive = self.path.file_name().unwrap_or_default().to_string_lossy();
        if member.is_empty() {
            archive.into_owned()
        } else {
            format!("{archive}:{member}")
        }
    }
}

/// `a/b.c/0001.seg.png` is `a/b.c/0001` and `seg.png`.
fn key_and_extension(name: &str) -> (&str, &str) {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[file..].find('.') {
        Some(dot) => (&name[..file + dot], &name[file + dot + 1..]),
        None => (name, ""),
    }
}

/// How labels of one kind or the other become numbers.
struct Labels {
    names: Vec<String>,
    by_text: Option<BTreeMap<String, u32>>,
    expected: bool,
}

impl Labels {
    fn of(samples: &[(usize, (String, Described))], names: &[String]) -> Self {
        let described = || {
            samples
                .iter()
                .map(|(_, (_, described))| described)
                .filter(|described| !described.pictures.is_empty())
        };
        if described().any(|sample| sample.number.is_some()) {
            return Self {
                names: Self::of_numbers(described(), names),
                by_text: None,
                expected: true,
            };
        }
        let texts: BTreeSet<&String> = described()
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
        described: impl Iterator<Item = &'a Described>,
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

    fn label(&self, described: &Described) -> Result<Option<u32>, String> {
        if !self.expected {
            return Ok(None);
        }
        if let Some(by_text) = &self.by_text {
            let text = described
                .text
                .as_ref()
                .ok_or("it has no readable .txt beside it, but others do")?;
            return Ok(by_text.get(text).copied());
        }
        let number = described
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
    samples: Vec<(usize, (String, Described))>,
    archives: &[Archive],
    labels: &Labels,
    report: &mut LoadReport,
) -> Vec<Member> {
    let mut members = Vec::new();
    for (archive, (key, described)) in samples {
        let name_of = |member: &str| archives[archive].label(member);
        match &described.pictures[..] {
            [] => report.ignored += 1,
            [(name, offset, size)] => match labels.label(&described) {
                Ok(label) => members.push(Member {
                    archive,
                    name: name_of(name),
                    offset: *offset,
                    size: *size,
                    label,
                }),
                Err(reason) => report.add_broken(name_of(name), reason),
            },
            several => report.add_broken(
                name_of(&key),
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
