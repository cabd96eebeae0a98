//! Positions for a grid of another size: the table of a square grid, resized like an image.
//!
//! Bicubic (Keys 1981, a = −3/4), pixel centres at halves, places over the edge taken at the edge, no smoothing when the grid
//! shrinks: what PyTorch's `interpolate(mode = "bicubic")` does, with which DINOv2 was published.

use burn::tensor::{Device, Tensor, TensorData};

/// `[side², width]` row by row as `[rows·columns, width]`.
pub(super) fn interpolated(
    table: Tensor<2>,
    side: usize,
    [rows, columns]: [usize; 2],
) -> Tensor<2> {
    let [_, width] = table.dims();
    let device = table.device();
    let by_row = weights(side, rows, &device).matmul(table.reshape([side, side * width]));
    let by_column = by_row
        .reshape([rows, side, width])
        .swap_dims(0, 1)
        .reshape([side, rows * width]);
    weights(side, columns, &device)
        .matmul(by_column)
        .reshape([columns, rows, width])
        .swap_dims(0, 1)
        .reshape([rows * columns, width])
}

/// How much each of `from` places counts at each of `to` places, `[to, from]`.
fn weights(from: usize, to: usize, device: &Device) -> Tensor<2> {
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
    use smalti_nn::state::host_values;

    #[test]
    fn every_place_is_an_average() {
        for (from, to) in [(5, 16), (16, 5), (4, 4)] {
            let rows = host_values(weights(from, to, &Device::flex()));
            for (i, row) in rows.chunks(from).enumerate() {
                let sum: f32 = row.iter().sum();
                assert!((sum - 1.0).abs() < 1e-5, "{from} to {to}, {i}: {sum}");
                assert!(from != to || row[i] == 1.0, "{row:?}");
            }
        }
    }
}
