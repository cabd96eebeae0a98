//! One tar archive: its samples by name, and its members' bytes by offset.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use crate::folder::is_picture;
use crate::{DataError, LoadReport};

/// An archive on disk, or inflated in memory.
#[derive(Debug)]
pub(crate) struct Archive {
    path: PathBuf,
    /// All of it, where it was compressed.
    inflated: Option<Arc<[u8]>>,
}

/// Members that share a name up to the first dot.
#[derive(Debug, Default)]
pub(crate) struct ArchiveSample {
    /// The shared part of the name.
    pub(crate) key: String,
    pub(crate) pictures: Vec<ArchivePicture>,
    /// What `.cls` holds, or what is wrong with it.
    pub(crate) number: Option<Result<u32, String>>,
    /// What `.txt` holds.
    pub(crate) text: Option<String>,
}

/// Where a picture lies.
#[derive(Debug, Clone)]
pub(crate) struct ArchivePicture {
    pub(crate) name: String,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

/// The longest label that makes sense; more is some other file.
const LONGEST_LABEL: u64 = 4096;

impl Archive {
    /// Inflates the archive if it is compressed.
    pub(crate) fn open(path: PathBuf) -> Result<Self, DataError> {
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

    /// The bytes of a member.
    pub(crate) fn read(&self, offset: u64, size: u64) -> io::Result<Vec<u8>> {
        if let Some(bytes) = &self.inflated {
            let range = offset as usize..(offset + size) as usize;
            return bytes
                .get(range)
                .map(<[u8]>::to_vec)
                .ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
        }
        // One handle a read: reads come from many threads, and opening costs little beside
        // decoding.
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = vec![0; size as usize];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// All samples; members that cannot be read go into the report.
    pub(crate) fn index(&self, report: &mut LoadReport) -> Result<Vec<ArchiveSample>, DataError> {
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
    ) -> Result<Vec<ArchiveSample>, DataError> {
        let mut index = Index::default();
        let mut archive = tar::Archive::new(reader);
        for entry in archive
            .entries_with_seek()
            .map_err(DataError::io("read", &self.path))?
        {
            let mut entry = match entry {
                Ok(entry) => entry,
                Err(error) if index.samples.is_empty() => {
                    return Err(DataError::layout(
                        &self.path,
                        format!("this is not a tar archive: {error}"),
                    ));
                }
                Err(error) => {
                    let reason = format!(
                        "the archive cannot be read beyond {} samples: {error}",
                        index.samples.len()
                    );
                    report.add_broken(self.label(""), reason);
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
                let reason = format!(
                    "the archive is cut off: {there} of the {size} bytes of {name} are there"
                );
                report.add_broken(self.label(&name), reason);
                break;
            }
            index.add(ArchivePicture { name, offset, size }, &mut entry);
        }
        report.ignored += index.ignored;
        Ok(index.samples)
    }

    /// Archive and member, for people.
    pub(crate) fn label(&self, member: &str) -> String {
        let archive = self.path.file_name().unwrap_or_default().to_string_lossy();
        if member.is_empty() {
            archive.into_owned()
        } else {
            format!("{archive}:{member}")
        }
    }
}

#[derive(Default)]
struct Index {
    samples: Vec<ArchiveSample>,
    places: HashMap<String, usize>,
    ignored: usize,
}

impl Index {
    /// Adds a member, whose `content` is read if it is a label.
    fn add(&mut self, member: ArchivePicture, content: &mut impl Read) {
        let (key, extension) = key_and_extension(&member.name);
        let kind = extension.to_ascii_lowercase();
        let picture = is_picture(&member.name);
        if !picture && kind != "cls" && kind != "txt" {
            self.ignored += 1;
            return;
        }
        let place = *self.places.entry(key.to_owned()).or_insert_with(|| {
            self.samples.push(ArchiveSample {
                key: key.to_owned(),
                ..Default::default()
            });
            self.samples.len() - 1
        });
        let sample = &mut self.samples[place];
        if picture {
            sample.pictures.push(member);
            return;
        }
        let mut text = String::new();
        let readable = member.size <= LONGEST_LABEL && content.read_to_string(&mut text).is_ok();
        let (name, text) = (&member.name, text.trim());
        if kind == "txt" {
            sample.text = readable.then(|| text.to_owned());
        } else if readable {
            let number = text
                .parse()
                .map_err(|_| format!("{name} holds {text:?}, expected the number of a class"));
            sample.number = Some(number);
        } else {
            sample.number = Some(Err(format!(
                "{name} is not a text of at most {LONGEST_LABEL} bytes"
            )));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_end_at_the_first_dot_of_the_file_name() {
        assert_eq!(
            key_and_extension("a/b.c/0001.seg.png"),
            ("a/b.c/0001", "seg.png")
        );
        assert_eq!(key_and_extension("0001"), ("0001", ""));
    }
}
