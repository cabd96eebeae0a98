//! Reading `goldens/CASE/tensors.safetensors`, for tests.

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

pub(crate) struct Golden {
    tensors: SafeTensors<'static>,
}

impl Golden {
    pub(crate) fn open(case: &str) -> Self {
        let path = format!(
            "{}/../../goldens/{case}/tensors.safetensors",
            env!("CARGO_MANIFEST_DIR")
        );
        // A test reads a golden once and ends.
        let bytes = Box::leak(
            std::fs::read(path)
                .expect("the golden is in the repository")
                .into_boxed_slice(),
        );
        Self {
            tensors: SafeTensors::deserialize(bytes).expect("the golden file is whole"),
        }
    }

    pub(crate) fn view(&self, name: &str) -> TensorView<'static> {
        self.tensors
            .tensor(name)
            .expect("the golden has the tensor")
    }

    pub(crate) fn bytes(&self, name: &str) -> &'static [u8] {
        self.view(name).data()
    }

    pub(crate) fn f32(&self, name: &str) -> Vec<f32> {
        self.bytes(name)
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four bytes")))
            .collect()
    }

    /// An image `[height, width, 3]`.
    pub(crate) fn image(&self, name: &str) -> crate::Image {
        let view = self.view(name);
        crate::Image::new(view.shape()[1], view.shape()[0], view.data().to_vec())
            .expect("a whole image")
    }
}
