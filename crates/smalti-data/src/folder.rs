//! A folder of pictures: the class is the first sub-folder (sorted by name), or there are no
//! classes when pictures lie in the folder itself.
//!
//! Sub-folders are searched to any depth, symbolic links are followed, hidden files and folders are
//! left alone. Only names ending in `.png`, `.jpg`, `.jpeg` or `.webp` count as pictures, whatever
//! the case; what is inside decides how they are decoded.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{DataError, DecodeLimits, Image, ImageSource, LoadReport, decode, dimensions};

/// Pictures in a folder.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    /// Path below the root, and class.
    files: Vec<(PathBuf, Option<u32>)>,
    classes: Vec<String>,
    limits: DecodeLimits,
}

pub(crate) fn is_picture(name: &str) -> bool {
    let extension = name
        .rsplit_once('.')
        .map_or("", |(_, extension)| extension)
        .to_ascii_lowercase();
    matches!(extension.as_str(), "png" | "jpg" | "jpeg" | "webp")
}

impl Folder {
    /// Lists the pictures; none is read yet.
    pub fn open(root: &Path, limits: DecodeLimits) -> Result<(Self, LoadReport), DataError> {
        let mut report = LoadReport::new(root);
        let mut listing = Listing {
            root,
            seen: HashSet::new(),
            pictures: Vec::new(),
            ignored: 0,
        };
        listing.visit(Path::new(""))?;
        listing.pictures.sort();
        if listing.pictures.is_empty() {
            let problem =
                "there are no pictures here (.png, .jpg, .jpeg, .webp), directly or in sub-folders";
            return Err(DataError::layout(root, problem));
        }
        let (labels, names) = classes_of(root, &listing.pictures)?;
        report.found = listing.pictures.len();
        report.ignored = listing.ignored;
        let files = listing.pictures.into_iter().zip(labels).collect();
        let classes = names
            .iter()
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        Ok((
            Self {
                root: root.to_owned(),
                files,
                classes,
                limits,
            },
            report,
        ))
    }

    fn read(&self, index: usize) -> Result<(String, Vec<u8>), DataError> {
        let path = self.root.join(&self.files[index].0);
        let bytes = fs::read(&path).map_err(DataError::io("read", &path))?;
        Ok((path.display().to_string(), bytes))
    }
}

/// The class of every picture, if it is in a sub-folder, and the classes' names. Sorted pictures
/// give sorted names.
fn classes_of(
    root: &Path,
    pictures: &[PathBuf],
) -> Result<(Vec<Option<u32>>, Vec<OsString>), DataError> {
    let mut names: Vec<OsString> = Vec::new();
    let mut labels = Vec::with_capacity(pictures.len());
    for path in pictures {
        let mut components = path.components();
        let class = components
            .next()
            .filter(|_| components.next().is_some())
            .map(|first| first.as_os_str());
        if let Some(class) = class
            && names.last().is_none_or(|last| last != class)
        {
            names.push(class.to_owned());
        }
        labels.push(class.map(|_| names.len() as u32 - 1));
    }
    let loose = labels.iter().filter(|label| label.is_none()).count();
    if loose > 0 && loose < labels.len() {
        let below = labels.len() - loose;
        let problem = format!(
            "expected pictures in class folders or pictures alone, got {below} in sub-folders and {loose} beside them"
        );
        return Err(DataError::layout(root, problem));
    }
    Ok((labels, names))
}

struct Listing<'a> {
    root: &'a Path,
    /// Folders already visited by their true path: symbolic links can run in circles.
    seen: HashSet<PathBuf>,
    pictures: Vec<PathBuf>,
    ignored: usize,
}

impl Listing<'_> {
    fn visit(&mut self, below: &Path) -> Result<(), DataError> {
        let folder = self.root.join(below);
        let list = |error| DataError::io("list", &folder)(error);
        if !self.seen.insert(folder.canonicalize().map_err(list)?) {
            return Ok(());
        }
        for entry in fs::read_dir(&folder).map_err(list)? {
            let name = entry.map_err(list)?.file_name();
            let path = below.join(&name);
            let name = name.to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            // A link that leads nowhere counts as a file: reading it reports it by name.
            let is_folder =
                fs::metadata(folder.join(&*name)).is_ok_and(|metadata| metadata.is_dir());
            if is_folder {
                self.visit(&path)?;
            } else if is_picture(&name) {
                self.pictures.push(path);
            } else {
                self.ignored += 1;
            }
        }
        Ok(())
    }
}

impl ImageSource for Folder {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn name(&self, index: usize) -> Cow<'_, str> {
        self.files[index].0.to_string_lossy()
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.files[index].1
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn size(&self, index: usize) -> Result<(usize, usize), DataError> {
        let (name, bytes) = self.read(index)?;
        dimensions(&name, &bytes, self.limits)
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        let (name, bytes) = self.read(index)?;
        decode(&name, &bytes, self.limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(root: &Path, name: &str, colour: u8) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        Image::filled(2, 2, [colour; 3])
            .unwrap()
            .save_png(&path)
            .unwrap();
    }

    #[test]
    fn classes_are_the_sorted_first_sub_folders() {
        let root = tempfile::tempdir().unwrap();
        picture(root.path(), "dog/b.png", 1);
        picture(root.path(), "cat/deep/er/a.PNG", 2);
        picture(root.path(), "cat/z.png", 3);
        picture(root.path(), ".hidden/a.png", 4);
        fs::write(root.path().join("cat/notes.txt"), "x").unwrap();
        let (folder, report) = Folder::open(root.path(), DecodeLimits::default()).unwrap();
        assert_eq!(folder.classes(), ["cat", "dog"]);
        let found: Vec<_> = (0..folder.len())
            .map(|i| {
                (
                    folder.name(i).into_owned(),
                    folder.label(i),
                    folder.image(i).unwrap().pixels()[0],
                )
            })
            .collect();
        let expected = [
            ("cat/deep/er/a.PNG", 0, 2),
            ("cat/z.png", 0, 3),
            ("dog/b.png", 1, 1),
        ];
        assert_eq!(
            found,
            expected.map(|(name, label, colour)| (name.to_owned(), Some(label), colour))
        );
        assert_eq!(
            (report.found, report.ignored, report.broken.len()),
            (3, 1, 0)
        );
        assert_eq!(folder.size(0).unwrap(), (2, 2));
    }

    #[test]
    fn a_flat_folder_has_no_classes() {
        let root = tempfile::tempdir().unwrap();
        picture(root.path(), "b.png", 1);
        picture(root.path(), "a.png", 2);
        let (folder, _) = Folder::open(root.path(), DecodeLimits::default()).unwrap();
        assert_eq!(
            (
                folder.name(0).as_ref(),
                folder.label(0),
                folder.classes().len()
            ),
            ("a.png", None, 0)
        );
    }

    #[test]
    fn missing_empty_and_mixed_folders_are_errors() {
        let root = tempfile::tempdir().unwrap();
        let open = |path: &Path| {
            Folder::open(path, DecodeLimits::default())
                .map(drop)
                .unwrap_err()
                .to_string()
        };
        assert!(open(&root.path().join("missing")).contains("missing"));
        assert!(open(root.path()).contains("no pictures"));
        picture(root.path(), "a.png", 1);
        picture(root.path(), "cat/b.png", 1);
        assert!(open(root.path()).contains("1 in sub-folders and 1 beside"));
    }

    #[cfg(unix)]
    #[test]
    fn links_in_a_circle_end_and_dangling_ones_are_named() {
        let root = tempfile::tempdir().unwrap();
        picture(root.path(), "cat/a.png", 1);
        std::os::unix::fs::symlink(root.path(), root.path().join("cat/loop")).unwrap();
        std::os::unix::fs::symlink("/nowhere", root.path().join("cat/b.png")).unwrap();
        let (folder, _) = Folder::open(root.path(), DecodeLimits::default()).unwrap();
        assert_eq!(folder.len(), 2);
        assert!(
            folder
                .image(1)
                .unwrap_err()
                .to_string()
                .contains("cat/b.png")
        );
    }
}
