//! Space to depth: a block of neighbouring latents quantized as one wider vector.
//!
//! Channel order after folding: block row, block column, channel, the channel fastest, as in the
//! published RQ-VAE code (its published models all use a fold of 1).

use burn::tensor::Tensor;

use crate::QuantizeError;

/// `[batch, c, h, w]` to `[batch, fold² · c, h / fold, w / fold]`.
///
/// # Errors
/// When `fold` does not divide the grid.
pub fn fold(latents: Tensor<4>, fold: usize) -> Result<Tensor<4>, QuantizeError> {
    let [batch, channels, height, width] = latents.dims();
    if fold == 1 {
        return Ok(latents);
    }
    if !height.is_multiple_of(fold) || !width.is_multiple_of(fold) {
        return Err(QuantizeError::Fold { height, width, fold });
    }
    let (rows, columns) = (height / fold, width / fold);
    let blocks = latents.reshape([batch, channels, rows, fold, columns, fold]).permute([0, 3, 5, 1, 2, 4]);
    Ok(blocks.reshape([batch, fold * fold * channels, rows, columns]))
}

/// The inverse of [`fold()`].
pub fn unfold(folded: Tensor<4>, fold: usize) -> Tensor<4> {
    let [batch, wide, rows, columns] = folded.dims();
    if fold == 1 {
        return folded;
    }
    let channels = wide / (fold * fold);
    let blocks = folded.reshape([batch, fold, fold, channels, rows, columns]).permute([0, 3, 4, 1, 5, 2]);
    blocks.reshape([batch, channels, rows * fold, columns * fold])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use smalti_nn::Noise;

    #[test]
    fn unfolding_undoes_folding() {
        let map = Noise::from_seed(3).uniform([2, 3, 4, 6], &Device::flex());
        let folded = fold(map.clone(), 2).unwrap();
        assert_eq!(folded.dims(), [2, 12, 2, 3]);
        let difference = (unfold(folded, 2) - map.clone()).abs().max().into_scalar::<f32>();
        assert_eq!(difference, 0.0);
        assert!(matches!(fold(map, 4), Err(QuantizeError::Fold { width: 6, .. })));
    }
}
