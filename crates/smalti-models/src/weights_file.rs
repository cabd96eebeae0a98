//! Reading the wanted part of a file of weights, whatever its container.

use std::path::Path;

use smalti_nn::state::{Weights, WeightsError};

/// The wanted arrays of a safetensors file, or of a PyTorch file under the first of `keys` it has.
///
/// A file is taken for safetensors by its extension; everything else is tried as what `torch.save`
/// wrote, in its old and its new form.
pub(crate) fn read_weights(
    path: &Path,
    keys: &[&str],
    wanted: impl Fn(&str) -> bool,
) -> Result<Weights, WeightsError> {
    match path.extension() {
        Some(extension) if extension == "safetensors" => {
            Weights::read_safetensors_where(path, wanted)
        }
        _ => Weights::read_pytorch_where(path, keys, wanted),
    }
}
