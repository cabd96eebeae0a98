//! The inputs that both sides share: `inputs.safetensors`, floats and 64-bit ids by name.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};

/// A file of inputs in memory.
pub(crate) struct Inputs {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Inputs {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        SafeTensors::deserialize(&bytes)
            .with_context(|| format!("{} is no safetensors file", path.display()))?;
        Ok(Self {
            path: path.into(),
            bytes,
        })
    }

    /// A tensor of `f32`.
    pub(crate) fn floats<const D: usize>(
        &self,
        name: &str,
        device: &Device,
    ) -> anyhow::Result<Tensor<D>> {
        let (shape, values) =
            self.values(name, Dtype::F32, |bytes: [u8; 4]| f32::from_le_bytes(bytes))?;
        if shape.len() != D {
            bail!(
                "{}: expected {name} to have {D} dimensions, got {shape:?}",
                self.path.display()
            );
        }
        Ok(Tensor::from_data(TensorData::new(values, shape), device))
    }

    /// A row of ids.
    pub(crate) fn ids(&self, name: &str) -> anyhow::Result<Vec<u32>> {
        let (_, values) =
            self.values(name, Dtype::I64, |bytes: [u8; 8]| i64::from_le_bytes(bytes))?;
        let ids = values
            .into_iter()
            .map(u32::try_from)
            .collect::<Result<_, _>>();
        ids.with_context(|| {
            format!(
                "{}: {name} holds numbers that are no ids",
                self.path.display()
            )
        })
    }

    fn values<T, const N: usize>(
        &self,
        name: &str,
        dtype: Dtype,
        convert: impl Fn([u8; N]) -> T,
    ) -> anyhow::Result<(Vec<usize>, Vec<T>)> {
        let file = SafeTensors::deserialize(&self.bytes).expect("deserialised when it was read");
        let view = file
            .tensor(name)
            .with_context(|| format!("{} has no {name}", self.path.display()))?;
        if view.dtype() != dtype {
            bail!(
                "{}: expected {name} to be of type {dtype:?}, got {:?}",
                self.path.display(),
                view.dtype()
            );
        }
        let values = view
            .data()
            .as_chunks::<N>()
            .0
            .iter()
            .map(|&bytes| convert(bytes))
            .collect();
        Ok((view.shape().to_vec(), values))
    }
}
