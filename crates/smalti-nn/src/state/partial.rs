//! A part of a large file: the arrays whose names are asked for, the rest stays on the disk.
//!
//! An autoencoder of 300 MB is often published inside a file of several gigabytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use pytorch_reader::PytorchReader;
use safetensors::tensor::{Metadata, TensorInfo};

use super::{Array, Weights, WeightsError, floats, format_error, pytorch_dtype};

/// Bytes of the number that says how long a safetensors header is.
const LENGTH: u64 = 8;
/// The longest header the format allows.
const LONGEST_HEADER: u64 = 100_000_000;

impl Weights {
    /// The arrays of a safetensors file whose names are `wanted`.
    ///
    /// # Errors
    /// When the file cannot be read, is malformed, or a wanted array holds integers.
    pub fn read_safetensors_where(
        path: &Path,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Self, WeightsError> {
        let system = |source| WeightsError::Read {
            path: path.into(),
            source,
        };
        let malformed = |reason: String| format_error(path, "safetensors", reason);
        let mut file = File::open(path).map_err(system)?;
        let length = file.metadata().map_err(system)?.len();
        let (data_start, header) = read_header(&mut file, length).map_err(malformed)?;
        let mut arrays = BTreeMap::new();
        for (name, info) in header.tensors() {
            if wanted(&name) {
                let array = read_tensor(&mut file, data_start, length, info)
                    .map_err(|reason| malformed(format!("tensor {name}: {reason}")))?;
                arrays.insert(name, array);
            }
        }
        Ok(Self(arrays))
    }

    /// The arrays of a PyTorch file whose names are `wanted`; they may stand under one of `keys`, of
    /// which the first that the file has is taken, or at its top. Names begin below that key.
    ///
    /// Integer tensors (counters of batch normalisation and the like) are left out.
    ///
    /// # Errors
    /// When the file cannot be read or is malformed.
    pub fn read_pytorch_where(
        path: &Path,
        keys: &[&str],
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Self, WeightsError> {
        let system = |source| WeightsError::Read {
            path: path.into(),
            source,
        };
        File::open(path).map_err(system)?;
        let reader = keys
            .iter()
            .find_map(|key| PytorchReader::with_top_level_key(path, key).ok())
            .map_or_else(|| PytorchReader::new(path), Ok)
            .map_err(|e| format_error(path, "PyTorch", e.to_string()))?;
        let mut arrays = BTreeMap::new();
        for (name, tensor) in reader.tensors() {
            let Some(dtype) = pytorch_dtype(tensor.dtype()).filter(|_| wanted(name)) else {
                continue;
            };
            let bytes = tensor.read().map_err(system)?;
            if let Some(values) = floats(dtype, &bytes) {
                let shape = tensor.shape().to_vec();
                arrays.insert(name.clone(), Array { shape, values });
            }
        }
        Ok(Self(arrays))
    }
}

/// Where the data begin, and what the header says of them.
fn read_header(file: &mut File, length: u64) -> Result<(u64, Metadata), String> {
    let mut bytes = [0; LENGTH as usize];
    file.read_exact(&mut bytes)
        .map_err(|_| "it is shorter than a header's length".to_owned())?;
    let size = u64::from_le_bytes(bytes);
    if size > LONGEST_HEADER || LENGTH + size > length {
        return Err(format!(
            "it claims a header of {size} bytes, in a file of {length}"
        ));
    }
    let mut header = vec![0; size as usize];
    file.read_exact(&mut header).map_err(|e| e.to_string())?;
    let metadata = serde_json::from_slice(&header).map_err(|e| format!("its header: {e}"))?;
    Ok((LENGTH + size, metadata))
}

fn read_tensor(
    file: &mut File,
    data_start: u64,
    length: u64,
    info: &TensorInfo,
) -> Result<Array, String> {
    let (start, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
    let elements = info.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    if start > end || data_start.checked_add(end).is_none_or(|end| end > length) {
        return Err(format!("its place {start}..{end} is outside the file"));
    }
    let mut bytes = vec![0; (end - start) as usize];
    file.seek(SeekFrom::Start(data_start + start))
        .and_then(|_| file.read_exact(&mut bytes))
        .map_err(|e| e.to_string())?;
    let values = floats(info.dtype, &bytes)
        .ok_or_else(|| format!("it has the type {:?}, expected a float", info.dtype))?;
    if elements != Some(values.len()) {
        return Err(format!(
            "{} numbers do not fill the shape {:?}",
            values.len(),
            info.shape
        ));
    }
    Ok(Array {
        shape: info.shape.clone(),
        values,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights() -> Weights {
        let array = |values: &[f32]| Array {
            shape: vec![values.len()],
            values: values.to_vec(),
        };
        Weights(BTreeMap::from([
            ("a.weight".into(), array(&[1.0, 2.0])),
            ("b.weight".into(), array(&[3.0])),
            ("c".into(), array(&[4.0, 5.0, 6.0])),
        ]))
    }

    #[test]
    fn a_part_is_what_the_whole_holds_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("all.safetensors");
        std::fs::write(&path, weights().to_safetensors(&BTreeMap::new())).unwrap();
        let part = Weights::read_safetensors_where(&path, |name| name.ends_with("weight")).unwrap();
        assert_eq!(part.0.len(), 2);
        for (name, array) in &part.0 {
            assert_eq!(array, &weights().0[name]);
        }
        let all = Weights::read_safetensors_where(&path, |_| true).unwrap();
        assert_eq!(all, weights());
    }

    #[test]
    fn a_pytorch_file_is_read_under_the_first_key_it_has() {
        let goldens = concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens");
        let path = Path::new(goldens).join("bsqvit_official/checkpoint.pt");
        let wanted = |name: &str| name.ends_with("ln_pre.bias");
        let read = |keys: &[&str]| Weights::read_pytorch_where(&path, keys, wanted).unwrap();
        let names = |weights: &Weights| weights.0.keys().cloned().collect::<Vec<_>>();
        let found = read(&["ema_state_dict", "state_dict"]);
        assert_eq!(
            names(&found),
            ["module.decoder.ln_pre.bias", "module.encoder.ln_pre.bias"]
        );
        assert!(found.0.values().all(|array| array.shape == [32]));
        // Without a key the names begin at the top of the file.
        assert!(
            names(&read(&["ema_state_dict"]))
                .iter()
                .all(|name| name.starts_with("state_dict."))
        );
    }

    #[test]
    fn damage_to_what_is_wanted_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.safetensors");
        let bytes = weights().to_safetensors(&BTreeMap::new());
        let read = |bytes: &[u8], name: &str| {
            std::fs::write(&path, bytes).unwrap();
            Weights::read_safetensors_where(&path, |n| n == name).map_err(|e| e.to_string())
        };
        let cut = &bytes[..bytes.len() - 3];
        assert!(read(cut, "a.weight").is_ok());
        let message = read(cut, "c").unwrap_err();
        assert!(
            message.contains("cut.safetensors") && message.contains("tensor c"),
            "{message}"
        );
        assert!(read(&bytes[..5], "c").unwrap_err().contains("shorter"));
        let mut long = bytes.clone();
        long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(read(&long, "c").unwrap_err().contains("claims a header"));
    }
}
