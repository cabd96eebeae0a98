//! CIFAR-10 and CIFAR-100 in their binary form: a folder or a `.tar.gz` with `data_batch_1.bin` ...
//! `data_batch_5.bin`, `test_batch.bin`, `batches.meta.txt`, or `train.bin`, `test.bin`,
//! `fine_label_names.txt`.
//!
//! A record is one label byte (CIFAR-100: coarse, then fine; the fine one is used) and 32 x 32
//! bytes each of red, green and blue.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{DataError, Image, ImageSource, LoadReport};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;

/// Which images of CIFAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CifarPart {
    /// 50,000 images.
    Train,
    /// 10,000 images.
    Test,
}

/// CIFAR in memory, as bytes of its files.
#[derive(Debug)]
pub struct Cifar {
    files: Vec<(String, Vec<u8>)>,
    /// File, and place of the record in it.
    records: Vec<(usize, usize)>,
    label_bytes: usize,
    classes: Vec<String>,
}

impl Cifar {
    /// Reads one part. A file that ends inside a record, and a label beyond the classes, are
    /// broken.
    pub fn open(path: &Path, part: CifarPart) -> Result<(Self, LoadReport), DataError> {
        let mut found = if fs::metadata(path)
            .map_err(DataError::io("read", path))?
            .is_dir()
        {
            read_folder(path)?
        } else {
            read_archive(path)?
        };
        let is_hundred = found.contains_key("train.bin") || found.contains_key("test.bin");
        let (prefix, names_file, class_count) = match (is_hundred, part) {
            (false, CifarPart::Train) => ("data_batch_", "batches.meta.txt", 10),
            (false, CifarPart::Test) => ("test_batch", "batches.meta.txt", 10),
            (true, CifarPart::Train) => ("train.", "fine_label_names.txt", 100),
            (true, CifarPart::Test) => ("test.", "fine_label_names.txt", 100),
        };
        let classes = class_names(found.remove(names_file), class_count);
        let files: Vec<_> = found
            .into_iter()
            .filter(|(name, _)| name.starts_with(prefix) && name.ends_with(".bin"))
            .collect();
        if files.is_empty() {
            return Err(DataError::layout(
                path,
                format!("expected CIFAR's {prefix}*.bin here or in a .tar.gz, there is none"),
            ));
        }
        let mut report = LoadReport::new(path);
        let mut cifar = Self {
            files,
            records: Vec::new(),
            label_bytes: 1 + usize::from(is_hundred),
            classes,
        };
        cifar.index(&mut report);
        Ok((cifar, report))
    }

    fn index(&mut self, report: &mut LoadReport) {
        let record = self.label_bytes + 3 * PLANE;
        for (file, (name, bytes)) in self.files.iter().enumerate() {
            for at in 0..bytes.len() / record {
                let label = bytes[at * record + self.label_bytes - 1];
                if usize::from(label) < self.classes.len() {
                    self.records.push((file, at));
                } else {
                    let reason = format!(
                        "its class is {label}, but there are {} classes",
                        self.classes.len()
                    );
                    report.add_broken(format!("{name}:{at:05}"), reason);
                }
            }
            if bytes.len() % record != 0 {
                let reason = format!(
                    "the file is cut off: {} bytes are not a multiple of {record}",
                    bytes.len()
                );
                report.add_broken(name.clone(), reason);
            }
        }
        report.found = self.records.len() + report.broken.len();
    }

    fn record(&self, index: usize) -> &[u8] {
        let (file, at) = self.records[index];
        let size = self.label_bytes + 3 * PLANE;
        &self.files[file].1[at * size..][..size]
    }
}

fn wanted(name: &str) -> bool {
    name.ends_with(".bin") || name == "batches.meta.txt" || name == "fine_label_names.txt"
}

fn read_folder(path: &Path) -> Result<BTreeMap<String, Vec<u8>>, DataError> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(path).map_err(DataError::io("list", path))? {
        let file = entry.map_err(DataError::io("list", path))?.path();
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if wanted(&name) {
            found.insert(name, fs::read(&file).map_err(DataError::io("read", &file))?);
        }
    }
    Ok(found)
}

fn read_archive(path: &Path) -> Result<BTreeMap<String, Vec<u8>>, DataError> {
    let read = |path: &Path| -> io::Result<BTreeMap<String, Vec<u8>>> {
        let mut found = BTreeMap::new();
        let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(io::BufReader::new(
            File::open(path)?,
        )));
        for entry in archive.entries()? {
            let mut entry = entry?;
            let name = entry
                .path()?
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if wanted(&name) {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                found.insert(name, bytes);
            }
        }
        Ok(found)
    };
    read(path).map_err(DataError::io("read the CIFAR archive", path))
}

/// One name a line; numbers where there is no such file.
fn class_names(text: Option<Vec<u8>>, count: usize) -> Vec<String> {
    let text = text
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let names: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    if names.len() == count {
        names
    } else {
        (0..count).map(|label| label.to_string()).collect()
    }
}

impl ImageSource for Cifar {
    fn len(&self) -> usize {
        self.records.len()
    }

    fn name(&self, index: usize) -> Cow<'_, str> {
        let (file, at) = self.records[index];
        Cow::Owned(format!("{}:{at:05}", self.files[file].0))
    }

    fn label(&self, index: usize) -> Option<u32> {
        Some(u32::from(self.record(index)[self.label_bytes - 1]))
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn size(&self, _index: usize) -> Result<(usize, usize), DataError> {
        Ok((SIDE, SIDE))
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        let planes = &self.record(index)[self.label_bytes..];
        let pixels = (0..PLANE)
            .flat_map(|i| [planes[i], planes[PLANE + i], planes[2 * PLANE + i]])
            .collect();
        Image::new(SIDE, SIDE, pixels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(labels: &[u8], colour: [u8; 3]) -> Vec<u8> {
        let mut bytes = labels.to_vec();
        for value in colour {
            bytes.extend([value; PLANE]);
        }
        bytes
    }

    fn check_ten(path: &Path) {
        let (train, report) = Cifar::open(path, CifarPart::Train).unwrap();
        assert_eq!((train.len(), report.found, report.broken.len()), (3, 3, 0));
        assert_eq!(
            (train.label(2), train.name(2).as_ref()),
            (Some(9), "data_batch_2.bin:00000")
        );
        assert_eq!(
            train.image(1).unwrap(),
            Image::filled(32, 32, [4, 5, 6]).unwrap()
        );
        assert_eq!(train.classes()[1], "automobile");
        let (test, _) = Cifar::open(path, CifarPart::Test).unwrap();
        assert_eq!((test.len(), test.label(0)), (1, Some(7)));
    }

    fn write_ten(root: &Path) {
        fs::write(
            root.join("data_batch_1.bin"),
            [record(&[0], [1, 2, 3]), record(&[1], [4, 5, 6])].concat(),
        )
        .unwrap();
        fs::write(root.join("data_batch_2.bin"), record(&[9], [7, 8, 9])).unwrap();
        fs::write(root.join("test_batch.bin"), record(&[7], [0; 3])).unwrap();
        fs::write(
            root.join("batches.meta.txt"),
            "airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n",
        )
        .unwrap();
    }

    #[test]
    fn cifar_10_as_folder_and_archive() {
        let root = tempfile::tempdir().unwrap();
        write_ten(root.path());
        check_ten(root.path());
        let archive = tempfile::tempdir().unwrap();
        let path = archive.path().join("cifar-10-binary.tar.gz");
        let packer = flate2::write::GzEncoder::new(
            File::create(&path).unwrap(),
            flate2::Compression::fast(),
        );
        let mut builder = tar::Builder::new(packer);
        builder
            .append_dir_all("cifar-10-batches-bin", root.path())
            .unwrap();
        builder.into_inner().unwrap().finish().unwrap();
        check_ten(&path);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(
            Cifar::open(&path, CifarPart::Train)
                .unwrap_err()
                .to_string()
                .contains("cifar-10-binary")
        );
    }

    #[test]
    fn cifar_100_uses_the_fine_label() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("train.bin"), record(&[3, 99], [1; 3])).unwrap();
        let (train, _) = Cifar::open(root.path(), CifarPart::Train).unwrap();
        assert_eq!((train.label(0), train.classes().len()), (Some(99), 100));
        assert!(Cifar::open(root.path(), CifarPart::Test).is_err());
    }

    #[test]
    fn cut_files_and_wrong_labels_are_broken() {
        let root = tempfile::tempdir().unwrap();
        let bytes = [
            record(&[0], [1; 3]),
            record(&[10], [2; 3]),
            record(&[1], [3; 3]),
        ]
        .concat();
        fs::write(
            root.path().join("test_batch.bin"),
            &bytes[..bytes.len() - 1],
        )
        .unwrap();
        let (test, report) = Cifar::open(root.path(), CifarPart::Test).unwrap();
        assert_eq!((test.len(), report.found), (1, 3));
        assert!(
            report.broken[0].reason.contains("class is 10")
                && report.broken[1].reason.contains("cut off")
        );
    }
}
