//! A data set as a configuration names it: `data = {kind = "folder", path = "photos"}`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    Atlas, Check, Cifar, CifarPart, DataError, Dataset, DecodeLimits, Folder, ImageSource,
    LoadReport, Shards, bundled, scan,
};

/// Where images come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum DatasetConfig {
    /// Pictures in a folder; sub-folders are classes. See [`Folder`].
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// Tar archives in WebDataset layout. See [`Shards`].
    Shards {
        /// An archive, or a folder of archives.
        path: PathBuf,
        /// Names of the classes of numbered labels.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        classes: Vec<String>,
    },
    /// CIFAR-10 or CIFAR-100, binary. See [`Cifar`].
    Cifar {
        /// The folder or the archive.
        path: PathBuf,
        /// Which images.
        part: CifarPart,
    },
    /// Tiles in one PNG with a JSON beside it. See [`Atlas`].
    Atlas {
        /// The PNG.
        path: PathBuf,
    },
    /// The emoji inside the program.
    Emoji {},
    /// The photographs inside the program.
    Photographs {},
}

/// How a data set is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OpenOptions {
    /// Broken files are an error instead of being skipped.
    pub strict: bool,
    /// How closely to look for broken files.
    pub check: Check,
    /// How large an image may be.
    pub limits: DecodeLimits,
}

impl DatasetConfig {
    /// Opens the data set and looks for broken files; they are skipped and reported, or refused
    /// with `strict`.
    pub fn open(&self, options: &OpenOptions) -> Result<(Dataset, LoadReport), DataError> {
        let (dataset, mut report) = self.list(options.limits)?;
        let dataset = scan(&dataset, options.check, &mut report);
        if options.strict {
            report.refuse_broken()?;
        }
        if dataset.is_empty() {
            // Nothing but broken files: say what is wrong with the first.
            report.refuse_broken()?;
            return Err(DataError::layout(&report.path, "there are no images"));
        }
        Ok((dataset, report))
    }

    fn list(&self, limits: DecodeLimits) -> Result<(Dataset, LoadReport), DataError> {
        fn set(opened: (impl ImageSource + 'static, LoadReport)) -> (Dataset, LoadReport) {
            (Dataset::new(opened.0), opened.1)
        }
        // Sources that are whole or an error.
        fn whole(source: impl ImageSource + 'static, path: &Path) -> (Dataset, LoadReport) {
            let mut report = LoadReport::new(path);
            report.found = source.len();
            (Dataset::new(source), report)
        }
        Ok(match self {
            Self::Folder { path } => set(Folder::open(path, limits)?),
            Self::Shards { path, classes } => set(Shards::open(path, classes, limits)?),
            Self::Cifar { path, part } => set(Cifar::open(path, *part)?),
            Self::Atlas { path } => whole(Atlas::open(path)?, path),
            Self::Emoji {} => whole(bundled::emoji(), Path::new("the bundled emoji")),
            Self::Photographs {} => {
                whole(bundled::photographs(), Path::new("the bundled photographs"))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Image, Split};

    #[test]
    fn bundled_emoji_split_by_name() {
        let (emoji, report) = DatasetConfig::Emoji {}
            .open(&OpenOptions::default())
            .unwrap();
        assert_eq!(
            (emoji.len(), report.found, report.broken.len()),
            (1906, 1906, 0)
        );
        let part = |name: &str| {
            Split::Named {
                name: name.to_owned(),
            }
            .of(&emoji)
            .unwrap()
            .len()
        };
        assert_eq!((part("train"), part("validation")), (1809, 97));
        assert_eq!(
            DatasetConfig::Photographs {}
                .open(&OpenOptions::default())
                .unwrap()
                .0
                .len(),
            5
        );
    }

    #[test]
    fn broken_files_are_skipped_or_refused() {
        let root = tempfile::tempdir().unwrap();
        Image::filled(2, 2, [1; 3])
            .unwrap()
            .save_png(&root.path().join("a.png"))
            .unwrap();
        std::fs::write(root.path().join("b.jpg"), "").unwrap();
        let config = DatasetConfig::Folder {
            path: root.path().to_owned(),
        };
        let (dataset, report) = config.open(&OpenOptions::default()).unwrap();
        assert_eq!(
            (dataset.len(), report.found, report.broken[0].name.as_str()),
            (1, 2, "b.jpg")
        );
        let strict = OpenOptions {
            strict: true,
            ..Default::default()
        };
        assert!(matches!(
            config.open(&strict),
            Err(DataError::Broken {
                broken: 1,
                found: 2,
                ..
            })
        ));
        let unchecked = OpenOptions {
            strict: true,
            check: Check::None,
            ..Default::default()
        };
        assert_eq!(config.open(&unchecked).unwrap().0.len(), 2);
        std::fs::remove_file(root.path().join("a.png")).unwrap();
        let error = config
            .open(&OpenOptions::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("1 of 1 files") && error.contains("0 bytes"),
            "{error}"
        );
    }

    #[test]
    fn an_atlas_is_opened_with_its_description() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("tiles.png");
        Image::filled(4, 2, [3; 3])
            .unwrap()
            .save_png(&path)
            .unwrap();
        let config = DatasetConfig::Atlas { path: path.clone() };
        assert!(
            config
                .open(&OpenOptions::default())
                .unwrap_err()
                .to_string()
                .contains("tiles.json")
        );
        std::fs::write(
            root.path().join("tiles.json"),
            r#"{"tile":2,"columns":2,"tiles":[{"name":"x"},{"name":"y"}]}"#,
        )
        .unwrap();
        assert_eq!(config.open(&OpenOptions::default()).unwrap().0.len(), 2);
    }

    #[test]
    fn configurations_round_trip_and_refuse_what_they_do_not_know() {
        for text in [
            r#"{"kind":"folder","path":"x"}"#,
            r#"{"kind":"cifar","path":"x","part":"train"}"#,
            r#"{"kind":"emoji"}"#,
        ] {
            let config: DatasetConfig = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&config).unwrap(), text);
        }
        for text in [
            r#"{"kind":"emoji","path":"x"}"#,
            r#"{"kind":"folder","path":"x","recursive":true}"#,
            r#"{"kind":"zip"}"#,
        ] {
            assert!(
                serde_json::from_str::<DatasetConfig>(text).is_err(),
                "{text}"
            );
        }
        assert!(serde_json::from_str::<OpenOptions>(r#"{"strickt":true}"#).is_err());
        assert_eq!(
            serde_json::from_str::<OpenOptions>("{}").unwrap(),
            OpenOptions::default()
        );
    }
}
