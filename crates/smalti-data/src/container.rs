//! The frame that token files share: a safetensors file with u32 and f32 tensors, and a JSON
//! description in its header.
//!
//! ```text
//! 8 bytes    length of the header, little endian
//! header     {"__metadata__": {"smalti": "<description as JSON>"},
//!             "<tensor>": {"dtype", "shape", "data_offsets"}, ...}, padded by spaces
//! data       the tensors, one after another in the order of their offsets, without gaps
//! ```
//!
//! Any safetensors library reads such a file. Written here so that large tensors are streamed
//! instead of held in memory twice; the header is parsed by the safetensors crate. The description
//! is one string, because the order of several would not be the same in every run.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::TokenFileError;

const DESCRIPTION: &str = "smalti";

/// The largest header that is read: 100 MB, the limit of the format's own library.
const LARGEST_HEADER: u64 = 100_000_000;

/// The tensor in question, before its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorPlan {
    pub(crate) name: &'static str,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
}

impl TensorPlan {
    pub(crate) fn new(name: &'static str, dtype: Dtype, shape: &[usize]) -> Self {
        Self {
            name,
            dtype,
            shape: shape.to_vec(),
        }
    }
}

/// The first part of a file; the data of the tensors must follow in the same order.
pub(crate) fn header(description: &impl Serialize, tensors: &[TensorPlan]) -> Vec<u8> {
    let text = serde_json::to_string(description).expect("a description is plain data");
    let mut end = 0;
    let infos = tensors.iter().map(|plan| {
        let start = end;
        end += plan.shape.iter().product::<usize>() * 4;
        (
            plan.name.to_owned(),
            TensorInfo {
                dtype: plan.dtype,
                shape: plan.shape.clone(),
                data_offsets: (start, end),
            },
        )
    });
    let metadata = Metadata::new(
        Some(HashMap::from([(DESCRIPTION.to_owned(), text)])),
        infos.collect(),
    )
    .expect("offsets without gaps");
    let mut json = serde_json::to_vec(&metadata).expect("a header is plain data");
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut json);
    bytes
}

/// Writes values little endian, a piece at a time.
pub(crate) fn write_values<T: Copy>(
    file: &mut (impl Write + ?Sized),
    values: &[T],
    bytes: impl Fn(T) -> [u8; 4],
) -> io::Result<()> {
    let mut piece = Vec::with_capacity(1 << 14);
    for values in values.chunks(1 << 12) {
        piece.clear();
        piece.extend(values.iter().flat_map(|&value| bytes(value)));
        file.write_all(&piece)?;
    }
    Ok(())
}

/// An opened file whose header is understood and whose length is right.
#[derive(Debug)]
pub(crate) struct Container {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    data_start: u64,
}

impl Container {
    pub(crate) fn open(path: &Path) -> Result<Self, TokenFileError> {
        let io = |source| TokenFileError::Io {
            path: path.to_owned(),
            source,
        };
        let foreign = |reason: String| TokenFileError::NotSafetensors {
            path: path.to_owned(),
            reason,
        };
        let mut file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        if len < 8 {
            return Err(foreign(format!(
                "it has {len} bytes, the length of the header alone takes 8"
            )));
        }
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(io)?;
        let header_len = u64::from_le_bytes(length);
        if header_len > LARGEST_HEADER {
            return Err(foreign(format!(
                "its first 8 bytes announce a header of {header_len} bytes, more than {LARGEST_HEADER}"
            )));
        }
        if header_len > len - 8 {
            return Err(TokenFileError::WrongLength {
                path: path.to_owned(),
                expected: 8 + header_len,
                got: len,
            });
        }
        let mut header = vec![0; header_len as usize];
        file.read_exact(&mut header).map_err(io)?;
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|error| foreign(format!("its header is wrong: {error}")))?;
        let data_start = 8 + header_len;
        let expected = check_offsets(path, &metadata)?.checked_add(data_start);
        if expected != Some(len) {
            return Err(TokenFileError::WrongLength {
                path: path.to_owned(),
                expected: expected.unwrap_or(u64::MAX),
                got: len,
            });
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            metadata,
            data_start,
        })
    }

    /// The description, whose fields `format` and `version` are looked at before all others.
    pub(crate) fn description<T: DeserializeOwned>(
        &self,
        format: &'static str,
        version: u32,
    ) -> Result<T, TokenFileError> {
        #[derive(serde::Deserialize)]
        struct Kind {
            format: String,
            version: u32,
        }
        let path = || self.path.clone();
        let text = self
            .metadata
            .metadata()
            .as_ref()
            .and_then(|map| map.get(DESCRIPTION))
            .ok_or_else(|| TokenFileError::Foreign { path: path() })?;
        let wrong = |error: serde_json::Error| TokenFileError::Description {
            path: path(),
            reason: error.to_string(),
        };
        let kind: Kind = serde_json::from_str(text).map_err(wrong)?;
        if kind.format != format {
            return Err(TokenFileError::WrongFormat {
                path: path(),
                expected: format,
                got: kind.format,
            });
        }
        if kind.version != version {
            return Err(TokenFileError::WrongVersion {
                path: path(),
                expected: version,
                got: kind.version,
            });
        }
        serde_json::from_str(text).map_err(wrong)
    }

    /// Refuses tensors of other names.
    pub(crate) fn expect_only(&self, names: &[&'static str]) -> Result<(), TokenFileError> {
        let mut unexpected: Vec<String> = self
            .metadata
            .tensors()
            .into_keys()
            .filter(|name| !names.contains(&name.as_str()))
            .collect();
        unexpected.sort();
        if unexpected.is_empty() {
            Ok(())
        } else {
            Err(TokenFileError::UnexpectedTensors {
                path: self.path.clone(),
                names: unexpected,
            })
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.metadata.info(name).is_some()
    }

    /// Shape of a tensor of this type and number of dimensions.
    pub(crate) fn shape<const DIMENSIONS: usize>(
        &self,
        name: &'static str,
        dtype: Dtype,
    ) -> Result<[usize; DIMENSIONS], TokenFileError> {
        let info = self.info(name)?;
        if info.dtype != dtype {
            return Err(TokenFileError::WrongType {
                path: self.path.clone(),
                name,
                expected: dtype,
                got: info.dtype,
            });
        }
        info.shape
            .as_slice()
            .try_into()
            .map_err(|_| TokenFileError::WrongShape {
                path: self.path.clone(),
                name,
                expected: format!("{DIMENSIONS} dimensions"),
                got: info.shape.clone(),
            })
    }

    /// Values `first .. first + count` of a tensor.
    pub(crate) fn values<T>(
        &self,
        name: &'static str,
        first: usize,
        count: usize,
        value: fn([u8; 4]) -> T,
    ) -> Result<Vec<T>, TokenFileError> {
        let start = self.data_start + self.info(name)?.data_offsets.0 as u64 + first as u64 * 4;
        // Reading through a shared handle moves its position, which every read sets first; see the
        // callers for who holds a lock.
        let read = || -> io::Result<Vec<T>> {
            let mut file = &self.file;
            file.seek(SeekFrom::Start(start))?;
            let mut values = Vec::with_capacity(count);
            let mut piece = vec![0; count.min(1 << 14) * 4];
            while values.len() < count {
                let bytes = (count - values.len()) * 4;
                let piece = &mut piece[..bytes.min(1 << 16)];
                file.read_exact(piece)?;
                values.extend(piece.as_chunks::<4>().0.iter().map(|&bytes| value(bytes)));
            }
            Ok(values)
        };
        read().map_err(|source| TokenFileError::Io {
            path: self.path.clone(),
            source,
        })
    }

    fn info(&self, name: &'static str) -> Result<&TensorInfo, TokenFileError> {
        self.metadata
            .info(name)
            .ok_or_else(|| TokenFileError::MissingTensor {
                path: self.path.clone(),
                name,
            })
    }
}

/// Tensors must lie one after another and be as large as their shapes say; the end of the last one.
fn check_offsets(path: &Path, metadata: &Metadata) -> Result<u64, TokenFileError> {
    let mut infos: Vec<(String, &TensorInfo)> = metadata.tensors().into_iter().collect();
    infos.sort_by_key(|(_, info)| info.data_offsets);
    let mut end: usize = 0;
    for (name, info) in infos {
        let bits = info
            .shape
            .iter()
            .try_fold(info.dtype.bitsize(), |product, &side| {
                product.checked_mul(side)
            });
        let fits = bits.is_some_and(|bits| {
            bits % 8 == 0 && end.checked_add(bits / 8) == Some(info.data_offsets.1)
        });
        if info.data_offsets.0 != end || !fits {
            let reason = format!(
                "{name} of shape {:?} cannot lie at {:?} after {end} bytes",
                info.shape, info.data_offsets
            );
            return Err(TokenFileError::NotSafetensors {
                path: path.to_owned(),
                reason,
            });
        }
        end = info.data_offsets.1;
    }
    Ok(end as u64)
}
