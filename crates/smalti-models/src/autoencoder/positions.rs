//! Learned positions of a grid's cells, for grids of any size.
//!
//! A table of `side²` vectors, row by row. A grid of another size sees the table interpolated
//! bilinearly, pixel centres as in image resizing (the published code refuses other sizes): vector
//! `i` of `n` lies at `(i + ½)·side/n − ½`, kept inside the table.

use burn::tensor::{Device, Tensor, TensorData};

/// The positions of `rows` by `columns` patches, `[rows·columns, width]`, from `table [side², width]`.
pub(super) fn positions(table: Tensor<2>, side: usize, [rows, columns]: [usize; 2]) -> Tensor<2> {
    if rows == side && columns == side {
        return table;
    }
    let [_, width] = table.dims();
    let device = table.device();
    let by_row = table.reshape([side, side * width]);
    let by_column = weights(side, rows, &device)
        .matmul(by_row)
        .reshape([rows, side, width])
        .swap_dims(0, 1)
        .reshape([side, rows * width]);
    weights(side, columns, &device)
        .matmul(by_column)
        .reshape([columns, rows, width])
        .swap_dims(0, 1)
        .reshape([rows * columns, width])
}

/// How much each of `from` places counts at each of `to` places, `[to, from]`; rows sum to one.
fn weights(from: usize, to: usize, device: &Device) -> Tensor<2> {
    let mut values = vec![0.0f32; to * from];
    for (i, row) in values.chunks_exact_mut(from).enumerate() {
        let place = (i as f64 + 0.5) * from as f64 / to as f64 - 0.5;
        let place = place.clamp(0.0, (from - 1) as f64);
        let (first, part) = (place.floor() as usize, place.fract() as f32);
        row[first] += 1.0 - part;
        row[(first + 1).min(from - 1)] += part;
    }
    Tensor::from_data(TensorData::new(values, [to, from]), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use smalti_nn::Noise;
    use smalti_nn::state::host_values;

    #[test]
    fn the_trained_size_sees_the_table_itself() {
        let table = Noise::from_seed(1).standard_normal([9, 4], &Device::flex());
        assert_eq!(
            host_values(positions(table.clone(), 3, [3, 3])),
            host_values(table)
        );
    }

    #[test]
    fn other_sizes_lie_between_their_neighbours() {
        // Row and column number of a 2x2 table, at 4 rows and 2 columns.
        let table = Tensor::<2>::from_data(
            [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]],
            &Device::flex(),
        );
        let got = host_values(positions(table, 2, [4, 2]));
        let rows = [0.0, 0.25, 0.75, 1.0];
        let expected = rows.iter().flat_map(|&r| [r, 0.0, r, 1.0]);
        for (got, want) in got.iter().zip(expected) {
            assert!((got - want).abs() < 1e-6, "{got} for {want}");
        }
    }

    #[test]
    fn fewer_places_than_the_table_has_work_as_well() {
        let table = Tensor::<2>::from_data([[0.0], [1.0], [2.0], [3.0]], &Device::flex());
        let one = host_values(positions(table, 2, [1, 1]));
        assert_eq!(one, [1.5]);
    }
}
