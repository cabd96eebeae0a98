//! The reference values of `goldens/metrics_quality`, for tests: image pairs and what scikit-image
//! and pytorch-msssim say of them.

use crate::Planes;
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
        let expected = f64::from_le_bytes(self.bytes(name).try_into().expect("a scalar"));
        assert!(
            (got - expected).abs() <= TOLERANCE,
            "{name}: expected {expected}, got {got}"
        );
    }
}
