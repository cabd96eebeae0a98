//! Images as sequences of patches, and back.
//!
//! Patches stand row by row; inside one the order is channel, row, column, the column fastest.

use burn::tensor::Tensor;

/// `[batch, 3, height, width]` to `[batch, patches, 3·size²]`.
///
/// # Panics
/// When `size` does not divide both sides.
pub(super) fn to_patches(images: Tensor<4>, size: usize) -> Tensor<3> {
    let [batch, channels, height, width] = images.dims();
    assert!(
        height.is_multiple_of(size) && width.is_multiple_of(size),
        "images of {width}x{height} pixels cannot be cut into patches of {size}x{size}"
    );
    let (rows, columns) = (height / size, width / size);
    images
        .reshape([batch, channels, rows, size, columns, size])
        .permute([0, 2, 4, 1, 3, 5])
        .reshape([batch, rows * columns, channels * size * size])
}

/// The inverse of [`to_patches`], for `rows` by `columns` patches.
pub(super) fn from_patches(
    patches: Tensor<3>,
    [rows, columns]: [usize; 2],
    size: usize,
) -> Tensor<4> {
    let [batch, _, elements] = patches.dims();
    let channels = elements / (size * size);
    patches
        .reshape([batch, rows, columns, channels, size, size])
        .permute([0, 3, 1, 4, 2, 5])
        .reshape([batch, channels, rows * size, columns * size])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};
    use smalti_nn::Noise;
    use smalti_nn::state::host_values;

    #[test]
    fn a_patch_lists_channel_row_column() {
        // Two channels of a 2x4 image: 0..8 and 10..18.
        let values = (0..8).chain(10..18).map(|v| v as f32).collect::<Vec<_>>();
        let image = Tensor::<4>::from_data(TensorData::new(values, [1, 2, 2, 4]), &Device::flex());
        let patches = to_patches(image, 2);
        assert_eq!(patches.dims(), [1, 2, 8]);
        assert_eq!(
            host_values(patches),
            [
                0., 1., 4., 5., 10., 11., 14., 15., 2., 3., 6., 7., 12., 13., 16., 17.
            ]
        );
    }

    #[test]
    fn both_ways_undo_each_other() {
        let image = Noise::from_seed(1).standard_normal([2, 3, 6, 9], &Device::flex());
        let back = from_patches(to_patches(image.clone(), 3), [2, 3], 3);
        assert_eq!(host_values(back), host_values(image));
    }

    #[test]
    #[should_panic(expected = "images of 9x6 pixels cannot be cut into patches of 4x4")]
    fn sides_must_divide() {
        to_patches(Tensor::zeros([1, 3, 6, 9], &Device::flex()), 4);
    }
}
