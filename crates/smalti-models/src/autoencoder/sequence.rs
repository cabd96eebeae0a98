//! Feature maps as sequences of positions, row by row, and back.

use burn::tensor::Tensor;

/// `[batch, rows·columns, channels]` to `[batch, channels, rows, columns]`.
pub(super) fn to_map(sequence: Tensor<3>, [rows, columns]: [usize; 2]) -> Tensor<4> {
    let [batch, _, channels] = sequence.dims();
    sequence
        .swap_dims(1, 2)
        .reshape([batch, channels, rows, columns])
}

/// The inverse of [`to_map`].
pub(super) fn from_map(map: Tensor<4>) -> Tensor<3> {
    let [batch, channels, rows, columns] = map.dims();
    map.reshape([batch, channels, rows * columns])
        .swap_dims(1, 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use smalti_nn::Noise;
    use smalti_nn::state::host_values;

    #[test]
    fn both_ways_undo_each_other_and_positions_stand_row_by_row() {
        let map = Noise::from_seed(1).standard_normal([2, 3, 6, 9], &Device::flex());
        let sequence = from_map(map.clone());
        let (values, list) = (host_values(map.clone()), host_values(sequence.clone()));
        // Second image, third channel, row 4, column 5.
        assert_eq!(
            list[(54 + 4 * 9 + 5) * 3 + 2],
            values[((3 + 2) * 6 + 4) * 9 + 5]
        );
        assert_eq!(host_values(to_map(sequence, [6, 9])), values);
    }
}
