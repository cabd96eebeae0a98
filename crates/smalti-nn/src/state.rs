//! The parameters of a module as plain named arrays: read, write, load strictly.
//!
//! [`Weights`] holds host arrays by name. It is filled from a module ([`Weights::of`]), a safetensors
//! file or a PyTorch file (whose pickle is parsed, never executed), and put into a module by
//! [`Weights::load_into`], which refuses missing names, unexpected names and other shapes, and lists
//! every one of them. Half-precision and double-precision numbers are read as `f32`.

mod partial;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use burn::backend::DispatchDevice;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Shape, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};

/// One named array.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Its dimensions; empty for a single number.
    pub shape: Vec<usize>,
    /// Its elements, row-major.
    pub values: Vec<f32>,
}

/// Named arrays, ordered by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights(pub BTreeMap<String, Array>);

/// Why weights could not be read or loaded.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file could not be opened or read.
    #[error("cannot read weights from {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not what its name promises, or is damaged.
    #[error("{path} is not a readable {format} file: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What it was read as.
        format: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Names or shapes differ from the module's.
    #[error("the weights do not fit the model:{}", list(.0))]
    Mismatch(Vec<String>),
}

fn list(problems: &[String]) -> String {
    const SHOWN: usize = 12;
    let mut text: String = problems
        .iter()
        .take(SHOWN)
        .map(|p| format!("\n  {p}"))
        .collect();
    if problems.len() > SHOWN {
        text.push_str(&format!("\n  … and {} more", problems.len() - SHOWN));
    }
    text
}

impl Weights {
    /// The parameters of `module`, by the path of their fields.
    pub fn of(module: &impl Module) -> Self {
        let mut collector = Collector::default();
        module.visit(&mut collector);
        Self(collector.arrays)
    }

    /// Puts these arrays into `module`, which keeps its device and what it trains.
    ///
    /// # Errors
    /// When a name is missing or unexpected, or a shape differs; all such are listed.
    pub fn load_into<M: Module>(mut self, module: M) -> Result<M, WeightsError> {
        let mut loader = Loader {
            arrays: &mut self.0,
            path: ParameterPath::default(),
            problems: Vec::new(),
        };
        let module = module.map(&mut loader);
        let mut problems = loader.problems;
        problems.extend(
            self.0
                .iter()
                .map(|(name, a)| format!("unexpected: {name} {:?}", a.shape)),
        );
        if problems.is_empty() {
            Ok(module)
        } else {
            Err(WeightsError::Mismatch(problems))
        }
    }

    /// Reads a safetensors file.
    ///
    /// # Errors
    /// When the file cannot be read, is malformed or holds integers.
    pub fn read_safetensors(path: &Path) -> Result<Self, WeightsError> {
        let bytes = read(path)?;
        Self::from_safetensors(&bytes).map_err(|reason| format_error(path, "safetensors", reason))
    }

    /// Reads the arrays of a safetensors file's bytes.
    ///
    /// # Errors
    /// A description of what is malformed.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self, String> {
        let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
        let mut arrays = BTreeMap::new();
        for (name, view) in file.tensors() {
            let values = floats(view.dtype(), view.data()).ok_or_else(|| {
                format!(
                    "tensor {name} has the type {:?}, expected a float",
                    view.dtype()
                )
            })?;
            arrays.insert(
                name,
                Array {
                    shape: view.shape().to_vec(),
                    values,
                },
            );
        }
        Ok(Self(arrays))
    }

    /// The bytes of a safetensors file of these arrays, with `metadata` in its header.
    ///
    /// Equal arrays and metadata give equal bytes: the header is written here, in name order,
    /// because the reference writer keeps metadata in a hash map.
    pub fn to_safetensors(&self, metadata: &BTreeMap<String, String>) -> Vec<u8> {
        let mut header = serde_json::Map::new();
        if !metadata.is_empty() {
            header.insert("__metadata__".into(), serde_json::json!(metadata));
        }
        let mut offset = 0;
        for (name, array) in &self.0 {
            let end = offset + 4 * array.values.len();
            let entry = serde_json::json!({"dtype": "F32", "shape": array.shape, "data_offsets": [offset, end]});
            header.insert(name.clone(), entry);
            offset = end;
        }
        let mut header = serde_json::to_vec(&header).expect("strings and numbers always serialise");
        // The format asks for data that start on a multiple of eight bytes.
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut bytes = Vec::with_capacity(8 + header.len() + offset);
        bytes.extend((header.len() as u64).to_le_bytes());
        bytes.extend(header);
        for value in self.0.values().flat_map(|array| &array.values) {
            bytes.extend(value.to_le_bytes());
        }
        bytes
    }

    /// Reads a `.pt`, `.pth` or `.ckpt` file; the arrays may stand under `state_dict` or at its top.
    ///
    /// Integer tensors (counters of batch normalisation and the like) are left out.
    ///
    /// # Errors
    /// When the file cannot be read or is malformed.
    pub fn read_pytorch(path: &Path) -> Result<Self, WeightsError> {
        Self::read_pytorch_where(path, &["state_dict"], |_| true)
    }

    /// Renames every array; `None` drops it. Two arrays that get one name must be equal.
    ///
    /// # Errors
    /// When two different arrays get the same name.
    pub fn rename(self, rule: impl Fn(&str) -> Option<String>) -> Result<Self, WeightsError> {
        let mut renamed = BTreeMap::new();
        for (old, array) in self.0 {
            let Some(new) = rule(&old) else { continue };
            match renamed.entry(new) {
                Entry::Vacant(place) => {
                    place.insert(array);
                }
                Entry::Occupied(other) if *other.get() == array => {}
                Entry::Occupied(other) => {
                    return Err(WeightsError::Mismatch(vec![format!(
                        "{old} differs from another copy of {}",
                        other.key()
                    )]));
                }
            }
        }
        Ok(Self(renamed))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, WeightsError> {
    std::fs::read(path).map_err(|source| WeightsError::Read {
        path: path.into(),
        source,
    })
}

fn format_error(path: &Path, format: &'static str, reason: String) -> WeightsError {
    WeightsError::Format {
        path: path.into(),
        format,
        reason,
    }
}

fn pytorch_dtype(dtype: pytorch_reader::DType) -> Option<Dtype> {
    match dtype {
        pytorch_reader::DType::F64 => Some(Dtype::F64),
        pytorch_reader::DType::F32 => Some(Dtype::F32),
        pytorch_reader::DType::F16 => Some(Dtype::F16),
        pytorch_reader::DType::BF16 => Some(Dtype::BF16),
        _ => None,
    }
}

/// Little-endian floats of any width as `f32`; `None` for other types.
fn floats(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    fn each<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        bytes
            .as_chunks::<N>()
            .0
            .iter()
            .map(|&chunk| convert(chunk))
            .collect()
    }
    match dtype {
        Dtype::F32 => Some(each(bytes, f32::from_le_bytes)),
        Dtype::F64 => Some(each(bytes, |b| f64::from_le_bytes(b) as f32)),
        Dtype::F16 => Some(each(bytes, |b| half::f16::from_le_bytes(b).to_f32())),
        Dtype::BF16 => Some(each(bytes, |b| half::bf16::from_le_bytes(b).to_f32())),
        _ => None,
    }
}

/// The dotted name of the parameter that a visitor or mapper is at.
///
/// The variant of an enum is left out: `quantizer.codebooks.0.weight`, whatever the quantizer.
#[derive(Debug, Default)]
pub struct ParameterPath(Vec<Option<String>>);

impl ParameterPath {
    /// To be called in `enter_module`.
    pub fn enter(&mut self, name: &str, container: &str) {
        self.0
            .push((!container.starts_with("Enum:")).then(|| name.to_owned()));
    }

    /// To be called in `exit_module`.
    pub fn exit(&mut self) {
        self.0.pop();
    }

    /// The name.
    pub fn name(&self) -> String {
        self.0
            .iter()
            .flatten()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(".")
    }
}

#[derive(Default)]
struct Collector {
    arrays: BTreeMap<String, Array>,
    path: ParameterPath,
}

impl ModuleVisitor for Collector {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        let shape = tensor.dims().to_vec();
        let values = host_values(tensor);
        self.arrays
            .insert(self.path.name(), Array { shape, values });
    }

    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }
}

/// The elements of a tensor of `f32`, on the host.
pub fn host_values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .into_data()
        .convert::<f32>()
        .try_into_vec()
        .expect("converted to f32 just now")
}

/// Whether a tensor is on the CPU backend, where its numbers can be worked on as a slice.
pub fn on_cpu<const D: usize>(tensor: &Tensor<D>) -> bool {
    is_cpu(&tensor.device())
}

/// Whether a device is the CPU backend, tracked or not.
pub fn is_cpu(device: &Device) -> bool {
    matches!(
        device.clone().inner().as_dispatch(),
        DispatchDevice::Flex(_)
    )
}

struct Loader<'a> {
    arrays: &'a mut BTreeMap<String, Array>,
    path: ParameterPath,
    problems: Vec<String>,
}

impl ModuleMapper for Loader<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.name();
        let expected = param.val().dims();
        match self.arrays.remove(&name) {
            None => self.problems.push(format!("missing: {name} {expected:?}")),
            Some(array) if array.shape != expected => {
                self.problems.push(format!(
                    "shape of {name}: expected {expected:?}, got {:?}",
                    array.shape
                ));
            }
            Some(array) => {
                let data = TensorData::new(array.values, Shape::from(expected));
                return replace(param, data);
            }
        }
        param
    }

    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }
}

/// The same parameter with other values: device, identity and gradient tracking stay.
pub fn replace<const D: usize>(param: Param<Tensor<D>>, data: TensorData) -> Param<Tensor<D>> {
    param.map(|old| {
        let tracked = old.is_require_grad();
        let new = Tensor::from_data(data, &old.device());
        if tracked { new.require_grad() } else { new }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Conv2d, Conv2dConfig, Init};
    use burn::tensor::Device;

    fn layer(seed: u64) -> Conv2d {
        Conv2dConfig::same(2, 3, 3).init(&mut Init::new(&Device::flex(), seed))
    }

    #[test]
    fn weights_survive_a_round_trip_through_safetensors() {
        let weights = Weights::of(&layer(1));
        let metadata = BTreeMap::from([("made by".to_owned(), "a test".to_owned())]);
        let bytes = weights.to_safetensors(&metadata);
        assert_eq!(Weights::from_safetensors(&bytes).unwrap(), weights);
        let loaded = weights.clone().load_into(layer(2)).unwrap();
        assert_eq!(Weights::of(&loaded), weights);
    }

    #[test]
    fn loading_lists_every_difference() {
        let mut weights = Weights::of(&layer(1));
        weights.0.remove("bias");
        weights.0.get_mut("weight").unwrap().shape = vec![3, 18];
        weights.0.insert(
            "scale".into(),
            Array {
                shape: vec![1],
                values: vec![1.0],
            },
        );
        let message = weights.load_into(layer(1)).unwrap_err().to_string();
        for part in [
            "missing: bias [3]",
            "shape of weight: expected [3, 2, 3, 3], got [3, 18]",
            "unexpected: scale [1]",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.safetensors");
        let bytes = Weights::of(&layer(1)).to_safetensors(&BTreeMap::new());
        std::fs::write(&path, &bytes[..bytes.len() - 7]).unwrap();
        assert!(
            Weights::read_safetensors(&path)
                .unwrap_err()
                .to_string()
                .contains("cut.safetensors")
        );
        assert!(
            Weights::read_pytorch(&path)
                .unwrap_err()
                .to_string()
                .contains("cut.safetensors")
        );
        let absent = folder.path().join("absent.pt");
        assert!(
            Weights::read_pytorch(&absent)
                .unwrap_err()
                .to_string()
                .contains("absent.pt")
        );
    }
}
