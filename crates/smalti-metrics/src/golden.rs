//! Reference values for tests: `goldens/metrics_quality`, image pairs and what scikit-image and
//! pytorch-msssim say of them; `goldens/metrics_distribution`, sets of vectors and what pytorch-fid,
//! torch-fidelity and the formulas of ADM's evaluator say of them.

use crate::{Features, Planes};
use safetensors::SafeTensors;

/// Everything is computed in f64 on both sides; what is left is the order of summation.
const TOLERANCE: f64 = 1e-9;

pub(crate) struct Golden {
    tensors: SafeTensors<'static>,
}

impl Golden {
    pub(crate) fn open() -> Self {
        let bytes = include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../goldens/metrics_quality/tensors.safetensors"
        ));
        Self {
            tensors: SafeTensors::deserialize(bytes).expect("the golden file is whole"),
        }
    }

    /// Sets of vectors.
    pub(crate) fn sets() -> Self {
        let bytes = include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../goldens/metrics_distribution/tensors.safetensors"
        ));
        Self {
            tensors: SafeTensors::deserialize(bytes).expect("the golden file is whole"),
        }
    }

    /// An `f32` matrix as vectors.
    pub(crate) fn features(&self, name: &str) -> Features {
        let view = self
            .tensors
            .tensor(name)
            .expect("the golden has the tensor");
        let mut features = Features::new(view.shape()[1]);
        features.extend(&self.floats(name)).expect("whole vectors");
        features
    }

    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        let (values, _) = self.bytes(name).as_chunks();
        values.iter().copied().map(f32::from_le_bytes).collect()
    }

    pub(crate) fn numbers(&self, name: &str) -> Vec<f64> {
        let (values, _) = self.bytes(name).as_chunks();
        values.iter().copied().map(f64::from_le_bytes).collect()
    }

    pub(crate) fn integers(&self, name: &str) -> Vec<i64> {
        let (values, _) = self.bytes(name).as_chunks();
        values.iter().copied().map(i64::from_le_bytes).collect()
    }

    pub(crate) fn bytes(&self, name: &str) -> &'static [u8] {
        self.tensors
            .tensor(name)
            .expect("the golden has the tensor")
            .data()
    }

    pub(crate) fn pair(&self, case: &str) -> (Planes, Planes) {
        let image = |suffix: &str| {
            let view = self
                .tensors
                .tensor(&format!("{case}.{suffix}"))
                .expect("the golden has the tensor");
            let &[height, width, channels] = view.shape() else {
                panic!("{case}.{suffix} is not [height, width, channels]")
            };
            Planes::from_u8_interleaved(view.data(), height, width, channels)
                .expect("a whole image")
        };
        (image("a"), image("b"))
    }

    pub(crate) fn close(&self, name: &str, got: f64) {
        self.close_to(name, got, TOLERANCE);
    }

    pub(crate) fn close_to(&self, name: &str, got: f64, tolerance: f64) {
        let expected = f64::from_le_bytes(self.bytes(name).try_into().expect("a scalar"));
        assert!(
            (got - expected).abs() <= tolerance,
            "{name}: expected {expected}, got {got}"
        );
    }
}
