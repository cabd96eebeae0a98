//! A feature map as a list of vectors, and back.

use burn::tensor::Tensor;

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

/// The value of `quantized` with the gradient of `latents` (straight-through estimator).
pub fn straight_through(latents: Tensor<4>, quantized: Tensor<4>) -> Tensor<4> {
    let step = (quantized - latents.clone()).detach();
    latents + step
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
