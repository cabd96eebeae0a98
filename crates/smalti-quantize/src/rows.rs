//! A feature map as a list of vectors, and back.

use burn::tensor::{DType, Tensor};

/// `[batch, channels, height, width]` to rows `[batch · height · width, channels]`.
pub fn to_rows(map: Tensor<4>) -> Tensor<2> {
    let [batch, channels, height, width] = map.dims();
    map.permute([0, 2, 3, 1])
        .reshape([batch * height * width, channels])
}

/// Rows `[batch · height · width, channels]` to `[batch, channels, height, width]`.
pub fn from_rows(rows: Tensor<2>, [batch, height, width]: [usize; 3]) -> Tensor<4> {
    let [_, channels] = rows.dims();
    rows.reshape([batch, height, width, channels])
        .permute([0, 3, 1, 2])
}

/// Exactly the value of `quantized`, with the gradient of `through`: the straight-through estimator
/// when those are the latents.
///
/// The reference codes write `x + sg(q − x)`, which rounds: for |x| far above |q| it is not a code.
pub fn straight_through<const D: usize>(through: Tensor<D>, quantized: Tensor<D>) -> Tensor<D> {
    let nothing = through.clone() - through.detach();
    quantized.detach() + nothing
}

/// Every row scaled to length one.
pub(crate) fn unit_rows(rows: Tensor<2>) -> Tensor<2> {
    // Clamped before the root, whose gradient at zero is infinite.
    let length = rows.clone().square().sum_dim(1).clamp_min(1e-24).sqrt();
    rows / length
}

/// In `f32`, whatever the precision of training.
pub(crate) fn single<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    if tensor.dtype() == DType::F32 {
        tensor
    } else {
        tensor.cast(DType::F32)
    }
}

/// `tensor` where arithmetic with `other` is possible: tracked by autodiff if and only if `other`
/// is.
///
/// A frozen tokenizer lives without autodiff while the latents carry gradients, and a tokenizer in
/// training is evaluated on latents without.
pub(crate) fn beside<const D: usize, const E: usize>(
    tensor: Tensor<D>,
    other: &Tensor<E>,
) -> Tensor<D> {
    match (tensor.device().is_autodiff(), other.device().is_autodiff()) {
        (false, true) => Tensor::from_inner(tensor),
        (true, false) => tensor.inner(),
        _ => tensor,
    }
}
