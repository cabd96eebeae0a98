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
        return Err(QuantizeError::Fold {
            height,
            width,
            fold,
        });
    }
    let (rows, columns) = (height / fold, width / fold);
    let blocks = latents
        .reshape([batch, channels, rows, fold, columns, fold])
        .permute([0, 3, 5, 1, 2, 4]);
    Ok(blocks.reshape([batch, fold * fold * channels, rows, columns]))
}

/// The inverse of [`fold()`].
pub fn unfold(folded: Tensor<4>, fold: usize) -> Tensor<4> {
    let [batch, wide, rows, columns] = folded.dims();
    if fold == 1 {
        return folded;
    }
    let channels = wide / (fold * fold);
    let blocks = folded
        .reshape([batch, fold, fold, channels, rows, columns])
        .permute([0, 3, 4, 1, 5, 2]);
    blocks.reshape([batch, channels, rows * fold, columns * fold])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};
    use proptest::prelude::*;
    use smalti_nn::Noise;
    use smalti_nn::state::host_values;

    #[test]
    fn channels_are_ordered_by_block_row_block_column_channel() {
        // Two channels of a 2x2 grid: 0..4 and 10..14.
        let values = vec![0.0f32, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0];
        let map = Tensor::<4>::from_data(TensorData::new(values, [1, 2, 2, 2]), &Device::flex());
        let folded = fold(map, 2).unwrap();
        assert_eq!(folded.dims(), [1, 8, 1, 1]);
        assert_eq!(
            host_values(folded),
            [0.0, 10.0, 1.0, 11.0, 2.0, 12.0, 3.0, 13.0]
        );
    }

    #[test]
    fn a_grid_that_does_not_divide_is_refused() {
        let map = Tensor::<4>::zeros([2, 3, 4, 6], &Device::flex());
        let error = fold(map.clone(), 4).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a latent grid of 4x6 cannot be folded by 4"
        );
        assert!(fold(map, 0).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn unfolding_undoes_folding(
            fold_by in 1usize..4, rows in 1usize..4, columns in 1usize..4, channels in 1usize..4, seed: u64,
        ) {
            let shape = [2, channels, rows * fold_by, columns * fold_by];
            let map: Tensor<4> = Noise::from_seed(seed).uniform(shape, &Device::flex());
            let folded = fold(map.clone(), fold_by).unwrap();
            prop_assert_eq!(folded.dims(), [2, channels * fold_by * fold_by, rows, columns]);
            prop_assert_eq!(host_values(unfold(folded, fold_by)), host_values(map));
        }
    }
}
