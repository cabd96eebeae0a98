//! Which images of a data set are used: by place, by share, by a hash of the name, or as the data
//! set itself says.
//!
//! Train and validation are two splits of one data set; pairs that leave nothing out and share
//! nothing: `all_but_last` and `last`, `fraction` 0 to 0.9 and 0.9 to 1, `name_hash` with
//! `held_out` false and true, `named` train and validation.

use serde::{Deserialize, Serialize};

use crate::{DataError, Dataset, ImageSource};

/// A part of a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Split {
    /// Everything.
    All {},
    /// The first `count`.
    First {
        /// Number of images.
        count: usize,
    },
    /// The last `count`.
    Last {
        /// Number of images.
        count: usize,
    },
    /// All but the first `count`.
    AllButFirst {
        /// Number of images left out.
        count: usize,
    },
    /// All but the last `count`.
    AllButLast {
        /// Number of images left out.
        count: usize,
    },
    /// `start..end`, the end excluded.
    Range {
        /// First index.
        start: usize,
        /// One past the last index.
        end: usize,
    },
    /// From one share of the length to another, both rounded down.
    Fraction {
        /// 0 is the beginning.
        from: f64,
        /// 1 is the end.
        to: f64,
    },
    /// One in `one_in` images is held out, by a hash of its name: stays the same when images are
    /// added.
    NameHash {
        /// How many images there are for one held out.
        one_in: u64,
        /// The held-out ones, or all the others.
        held_out: bool,
    },
    /// The images that the data set assigns to a split of this name.
    Named {
        /// Such as `train`.
        name: String,
    },
}

impl Split {
    /// The part of the data set. An empty part is an error: nothing could be learned from it or
    /// measured on it.
    pub fn of(&self, dataset: &Dataset) -> Result<Dataset, DataError> {
        let len = dataset.len();
        let chosen: Vec<usize> = match self {
            Self::NameHash { one_in: 0, .. } => {
                return Err(wrong("one_in must be at least 1, got 0".to_owned()));
            }
            Self::NameHash { one_in, held_out } => (0..len)
                .filter(|&i| name_hash(&dataset.name(i)).is_multiple_of(*one_in) == *held_out)
                .collect(),
            Self::Named { name } => (0..len)
                .filter(|&i| dataset.split(i) == Some(name))
                .collect(),
            _ => self.range(len)?.collect(),
        };
        if chosen.is_empty() {
            let split = serde_json::to_string(self).expect("a split is made of names and numbers");
            return Err(wrong(format!("{split} holds none of the {len} images")));
        }
        Ok(dataset.select(chosen))
    }

    /// For the splits by place.
    fn range(&self, len: usize) -> Result<std::ops::Range<usize>, DataError> {
        let (start, end) = match *self {
            Self::First { count } => (0, count),
            Self::Last { count } if count <= len => (len - count, len),
            Self::AllButFirst { count } => (count, len),
            Self::AllButLast { count } if count <= len => (0, len - count),
            Self::Range { start, end } => (start, end),
            Self::Fraction { from, to } if 0.0 <= from && from < to && to <= 1.0 => {
                ((len as f64 * from) as usize, (len as f64 * to) as usize)
            }
            Self::Fraction { from, to } => {
                return Err(wrong(format!(
                    "a fraction needs 0 <= from < to <= 1, got {from} to {to}"
                )));
            }
            _ => (0, len),
        };
        let counts_too_many =
            matches!(*self, Self::Last { count } | Self::AllButLast { count } if count > len);
        if counts_too_many || start > end || end > len {
            return Err(wrong(format!(
                "there are only {len} images, {self:?} needs more"
            )));
        }
        Ok(start..end)
    }
}

fn wrong(problem: String) -> DataError {
    DataError::Config {
        what: "the split",
        problems: vec![problem],
    }
}

/// FNV-1a of 64 bits, its bits mixed by the finaliser of MurmurHash3 so that remainders by small
/// numbers are even.
fn name_hash(name: &str) -> u64 {
    let mut hash = name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    for factor in [0xFF51_AFD7_ED55_8CCD, 0xC4CE_B9FE_1A85_EC53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Image, MemorySource, Sample};
    use std::collections::HashSet;

    fn dataset(len: usize) -> Dataset {
        let image = Image::filled(1, 1, [0; 3]).unwrap();
        let samples = (0..len)
            .map(|i| Sample {
                image: image.clone(),
                label: None,
                name: format!("{i:04}.png"),
            })
            .collect();
        let splits = (0..len)
            .map(|i| (i != 3).then(|| if i % 4 == 0 { "validation" } else { "train" }.to_owned()))
            .collect();
        Dataset::new(MemorySource {
            samples,
            splits,
            ..Default::default()
        })
    }

    fn names(split: &Split, dataset: &Dataset) -> Vec<String> {
        let part = split.of(dataset).unwrap();
        (0..part.len()).map(|i| part.name(i).into_owned()).collect()
    }

    #[test]
    fn pairs_of_splits_leave_nothing_out_and_share_nothing() {
        let all = dataset(1000);
        for (left, right, right_len) in [
            (
                Split::AllButLast { count: 100 },
                Split::Last { count: 100 },
                100,
            ),
            (
                Split::First { count: 7 },
                Split::AllButFirst { count: 7 },
                993,
            ),
            (
                Split::Range { start: 0, end: 9 },
                Split::Range {
                    start: 9,
                    end: 1000,
                },
                991,
            ),
            (
                Split::Fraction {
                    from: 0.0,
                    to: 0.95,
                },
                Split::Fraction {
                    from: 0.95,
                    to: 1.0,
                },
                50,
            ),
        ] {
            let (mut left, right) = (names(&left, &all), names(&right, &all));
            assert_eq!(right.len(), right_len);
            left.extend(right);
            assert_eq!(left, names(&Split::All {}, &all));
        }
    }

    #[test]
    fn hashes_hold_out_about_one_in_n_and_keep_to_it_when_images_come() {
        let held_out = Split::NameHash {
            one_in: 20,
            held_out: true,
        };
        let rest = Split::NameHash {
            one_in: 20,
            held_out: false,
        };
        let (few, many) = (
            names(&held_out, &dataset(500)),
            names(&held_out, &dataset(1000)),
        );
        assert!((30..70).contains(&many.len()), "{}", many.len());
        assert!(few.iter().all(|name| many.contains(name)));
        let others: HashSet<String> = names(&rest, &dataset(1000)).into_iter().collect();
        assert_eq!(others.len() + many.len(), 1000);
        assert!(many.iter().all(|name| !others.contains(name)));
        assert_eq!(name_hash("0000.png"), name_hash("0000.png"));
        assert_ne!(name_hash("0000.png"), name_hash("0001.png"));
    }

    #[test]
    fn named_splits_are_those_of_the_source() {
        assert_eq!(
            names(
                &Split::Named {
                    name: "validation".to_owned()
                },
                &dataset(9)
            ),
            ["0000.png", "0004.png", "0008.png"]
        );
        assert_eq!(
            names(
                &Split::Named {
                    name: "train".to_owned()
                },
                &dataset(6)
            ),
            ["0001.png", "0002.png", "0005.png"]
        );
    }

    #[test]
    fn impossible_and_empty_splits_are_errors() {
        let all = dataset(10);
        for split in [
            Split::First { count: 11 },
            Split::Last { count: 11 },
            Split::AllButFirst { count: 11 },
            Split::AllButLast { count: 11 },
            Split::AllButLast { count: 10 },
            Split::Range { start: 5, end: 5 },
            Split::Range { start: 6, end: 5 },
            Split::Fraction { from: 0.5, to: 1.1 },
            Split::Fraction {
                from: f64::NAN,
                to: 1.0,
            },
            Split::NameHash {
                one_in: 0,
                held_out: true,
            },
            Split::Named {
                name: "test".to_owned(),
            },
        ] {
            assert!(
                matches!(split.of(&all), Err(DataError::Config { .. })),
                "{split:?}"
            );
        }
    }

    #[test]
    fn unknown_fields_are_refused() {
        assert_eq!(
            serde_json::from_str::<Split>(r#"{"kind":"last","count":100}"#).unwrap(),
            Split::Last { count: 100 }
        );
        assert!(serde_json::from_str::<Split>(r#"{"kind":"all","count":100}"#).is_err());
    }
}
