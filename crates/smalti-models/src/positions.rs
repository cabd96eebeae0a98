//! Learned positions of a grid's cells, for grids of any size.
//!
//! A table of `side²` vectors, row by row. A grid of another size sees the table resized like an image,
//! pixel centres at halves: vector `i` of `n` lies at `(i + ½)·side/n − ½`, and places over the edge are taken
//! at the edge. Two kernels:
//!
//! * bilinear, for the autoencoders, whose published code refuses other sizes;
//! * bicubic (Keys 1981, a = −3/4) without smoothing when the grid shrinks, which is PyTorch's
//!   `interpolate(mode = "bicubic")` and what DINOv2 was published with.

use burn::tensor::{Device, Tensor, TensorData};

/// The weights of `from` places at `to` places on that device.
type Kernel = fn(usize, usize, &Device) -> Tensor<2>;

/// The positions of `rows` by `columns` patches, `[rows·columns, width]`, from `table [side², width]`,
/// bilinearly.
pub(crate) fn positions(table: Tensor<2>, side: usize, grid: [usize; 2]) -> Tensor<2> {
    match grid == [side, side] {
        true => table,
        false => resized(table, side, grid, bilinear),
    }
}

/// The same, bicubically.
pub(crate) fn bicubic_positions(table: Tensor<2>, side: usize, grid: [usize; 2]) -> Tensor<2> {
    resized(table, side, grid, bicubic)
}

fn resized(
    table: Tensor<2>,
    side: usize,
    [rows, columns]: [usize; 2],
    kernel: Kernel,
) -> Tensor<2> {
    let [_, width] = table.dims();
    let device = table.device();
    let by_row = kernel(side, rows, &device).matmul(table.reshape([side, side * width]));
    let by_column = by_row
        .reshape([rows, side, width])
        .swap_dims(0, 1)
        .reshape([side, rows * width]);
    kernel(side, columns, &device)
        .matmul(by_column)
        .reshape([columns, rows, width])
        .swap_dims(0, 1)
        .reshape([rows * columns, width])
}

/// How much each of `from` places counts at each of `to` places, `[to, from]`; rows sum to one.
fn bilinear(from: usize, to: usize, device: &Device) -> Tensor<2> {
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

/// How much each of `from` places counts at each of `to` places, `[to, from]`.
fn bicubic(from: usize, to: usize, device: &Device) -> Tensor<2> {
    let mut values = vec![0.0f32; to * from];
    for (i, row) in values.chunks_exact_mut(from).enumerate() {
        let place = (i as f64 + 0.5) * from as f64 / to as f64 - 0.5;
        let (first, part) = (place.floor() as isize - 1, place - place.floor());
        for (tap, distance) in [1.0 + part, part, 1.0 - part, 2.0 - part]
            .into_iter()
            .enumerate()
        {
            let at = (first + tap as isize).clamp(0, from as isize - 1);
            row[at as usize] += cubic(distance) as f32;
        }
    }
    Tensor::from_data(TensorData::new(values, [to, from]), device)
}

/// Keys's kernel at a distance of 0 to 2.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.75;
    if x <= 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else {
        A * (((x - 5.0) * x + 8.0) * x - 4.0)
    }
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

    #[test]
    fn every_place_is_an_average() {
        for (from, to) in [(5, 16), (16, 5), (4, 4)] {
            let rows = host_values(bicubic(from, to, &Device::flex()));
            for (i, row) in rows.chunks(from).enumerate() {
                let sum: f32 = row.iter().sum();
                assert!((sum - 1.0).abs() < 1e-5, "{from} to {to}, {i}: {sum}");
                assert!(from != to || row[i] == 1.0, "{row:?}");
            }
        }
    }
}
