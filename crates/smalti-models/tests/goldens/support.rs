//! Reading golden tensors.

use std::path::PathBuf;

use burn::tensor::{Device, Shape, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};
use smalti_nn::state::host_values;
use smalti_quantize::Codes;

/// One case: its folder, and its tensors.
pub(crate) struct Golden {
    pub(crate) folder: PathBuf,
    bytes: Vec<u8>,
}

impl Golden {
    pub(crate) fn open(case: &str) -> Self {
        let folder =
            PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens")).join(case);
        let bytes = std::fs::read(folder.join("tensors.safetensors")).unwrap();
        Self { folder, bytes }
    }

    pub(crate) fn floats(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).unwrap();
        assert_eq!(view.dtype(), Dtype::F32, "{name}");
        let values = view
            .data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect();
        (view.shape().to_vec(), values)
    }

    /// Ids of any rank.
    pub(crate) fn ids(&self, name: &str) -> (Vec<usize>, Vec<u32>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).unwrap();
        assert_eq!(view.dtype(), Dtype::I64, "{name}");
        let chunks = view.data().as_chunks::<8>().0.iter();
        let ids = chunks.map(|b| u32::try_from(i64::from_le_bytes(*b)).unwrap());
        (view.shape().to_vec(), ids.collect())
    }

    /// `(batch, h, w)` ids of several branches as `[batch, depth, h, w]`.
    pub(crate) fn branch_codes(&self, names: &[&str]) -> Codes {
        let depths = names.iter().map(|name| {
            let (shape, ids) = self.ids(name);
            let [batch, height, width] = shape.try_into().unwrap();
            let codes = Codes::from_values(&ids, [batch, 1, height, width], &Device::flex());
            codes.tensor()
        });
        Codes::new(Tensor::cat(depths.collect(), 1))
    }

    /// `(batch, h, w, depth)` ids as `[batch, depth, h, w]`.
    pub(crate) fn codes(&self, name: &str) -> Codes {
        let (shape, ids) = self.ids(name);
        let shape = shape.try_into().unwrap();
        let codes = Codes::from_values(&ids, shape, &Device::flex());
        Codes::new(codes.tensor().permute([0, 3, 1, 2]))
    }

    pub(crate) fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        let (shape, values) = self.floats(name);
        Tensor::from_data(TensorData::new(values, Shape::from(shape)), &Device::flex())
    }

    /// A channels-last tensor as `[batch, channels, height, width]`.
    pub(crate) fn map(&self, name: &str) -> Tensor<4> {
        self.tensor::<4>(name).permute([0, 3, 1, 2])
    }

    /// `(batch, positions, channels)` of a square grid as `[batch, channels, side, side]`.
    pub(crate) fn grid(&self, name: &str) -> Tensor<4> {
        let sequence: Tensor<3> = self.tensor(name);
        let [batch, positions, channels] = sequence.dims();
        let side = positions.isqrt();
        sequence
            .swap_dims(1, 2)
            .reshape([batch, channels, side, side])
    }

    pub(crate) fn number(&self, name: &str) -> f32 {
        self.floats(name).1[0]
    }
}

/// Absolute 2e-5 + relative 1e-4: what the order of float32 sums makes.
#[track_caller]
pub(crate) fn close<const D: usize>(got: Tensor<D>, expected: Tensor<D>, what: &str) {
    assert_eq!(got.dims(), expected.dims(), "{what}");
    for (i, (g, e)) in host_values(got)
        .iter()
        .zip(host_values(expected))
        .enumerate()
    {
        assert!(
            (g - e).abs() <= 2e-5 + 1e-4 * e.abs(),
            "{what}[{i}]: got {g}, expected {e}"
        );
    }
}

/// Codes differ only where the reference's best and second-best were within `noise`.
#[track_caller]
pub(crate) fn same_codes(got: &[u32], expected: &[u32], margins: &[f32], noise: f32) {
    assert_eq!((got.len(), margins.len()), (expected.len(), expected.len()));
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!(
            g == e || margins[i] < noise,
            "code {i}: got {g}, expected {e}, which was best by {}",
            margins[i]
        );
    }
}
