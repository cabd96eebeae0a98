//! From how far drawn codes lie from the best ones to the factors of a layer's positions.

use burn::tensor::{Tensor, TensorData};
use smalti_nn::state::host_values;

use super::Unmasked;

/// Added to a factor before its logarithm is taken.
const EPSILON: f64 = 1e-8;

/// Positions of a layer that are compared.
pub(super) struct Positions {
    /// Row by row, in any order.
    pub(super) drawn: Vec<usize>,
    /// Rows and columns of the layer.
    pub(super) size: [usize; 2],
}

/// Weights of the positions of a batch's grid, on the host.
pub(super) struct Grid {
    values: Vec<f32>,
    dims: [usize; 3],
}

/// What the positives of a batch are multiplied by, image after image.
pub(super) struct Factors {
    /// `ln f`.
    pub(super) logarithms: Vec<f32>,
    /// Which positions the mean is over; all, where there are none.
    counted: Option<Vec<bool>>,
}

impl Grid {
    /// Of weights `[batch, rows, columns]`.
    pub(super) fn new(weights: Tensor<3>) -> Self {
        Self {
            dims: weights.dims(),
            values: host_values(weights.inner()),
        }
    }

    /// The weights of an image that lie nearest to the positions.
    fn nearest(&self, image: usize, positions: &Positions) -> Vec<f64> {
        let [_, rows, columns] = self.dims;
        let [height, width] = positions.size;
        let weights = &self.values[image * rows * columns..][..rows * columns];
        let weight = |&place: &usize| {
            let (row, column) = (place / width, place % width);
            f64::from(weights[row * rows / height * columns + column * columns / width])
        };
        positions.drawn.iter().map(weight).collect()
    }

    /// The factors of a layer's positions.
    pub(super) fn factors(&self, positions: &Positions, unmasked: Unmasked) -> Factors {
        let [batch, ..] = self.dims;
        let (mut logarithms, mut counted) = (Vec::new(), Vec::new());
        for image in 0..batch {
            let weights = self.nearest(image, positions);
            let sum: f64 = weights.iter().sum();
            for &weight in &weights {
                let (factor, counts) = match unmasked {
                    // Nothing was drawn that differs: the plain loss.
                    _ if sum == 0.0 => (1.0, true),
                    _ if weight > 0.0 => (weights.len() as f64 * weight / sum, true),
                    Unmasked::Floor => (0.0, true),
                    Unmasked::Neutral => (1.0, true),
                    Unmasked::MaskedOnly => (1.0, false),
                };
                logarithms.push((factor + EPSILON).ln() as f32);
                counted.push(counts);
            }
        }
        Factors {
            logarithms,
            counted: counted.contains(&false).then_some(counted),
        }
    }
}

impl Factors {
    /// Of equal weights.
    pub(super) fn equal(count: usize) -> Self {
        Self {
            logarithms: vec![0.0; count],
            counted: None,
        }
    }

    /// The mean of losses over the positions that count, `[1]`.
    pub(super) fn mean(&self, losses: Tensor<1>) -> Tensor<1> {
        let Some(counted) = &self.counted else {
            return losses.mean();
        };
        let count = counted.iter().filter(|counts| **counts).count();
        let share = |&counts: &bool| if counts { 1.0 / count as f32 } else { 0.0 };
        let shares: Vec<f32> = counted.iter().map(share).collect();
        let data = TensorData::new(shares, [counted.len()]);
        let shares = Tensor::from_data(data, &losses.device());
        (losses * shares).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn grid(values: Vec<f32>, dims: [usize; 3]) -> Grid {
        Grid { values, dims }
    }

    fn factors(grid: &Grid, positions: &Positions, unmasked: Unmasked) -> Vec<f64> {
        let logarithms = grid.factors(positions, unmasked).logarithms;
        logarithms.iter().map(|l| f64::from(*l).exp()).collect()
    }

    fn assert_near(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() < 1e-6, "{found:?} {expected:?}");
        }
    }

    #[test]
    fn layers_take_the_weights_of_the_nearest_positions() {
        let grid = grid((1..=6).map(|v| v as f32).collect(), [1, 2, 3]);
        let fine = Positions {
            drawn: vec![0, 5, 6, 23],
            size: [4, 6],
        };
        assert_eq!(grid.nearest(0, &fine), [1.0, 3.0, 1.0, 6.0]);
        let coarse = Positions {
            drawn: vec![0, 1],
            size: [1, 2],
        };
        assert_eq!(grid.nearest(0, &coarse), [1.0, 2.0]);
    }

    #[test]
    fn positions_without_a_draw_count_as_configured() {
        // The second image has no draws at all.
        let grid = grid(vec![3.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0], [2, 2, 2]);
        let all = Positions {
            drawn: vec![0, 1, 2, 3],
            size: [2, 2],
        };
        let plain = [1.0; 4];
        for (unmasked, expected) in [
            (Unmasked::Floor, [3.0, 1e-8, 1.0, 1e-8]),
            (Unmasked::Neutral, [3.0, 1.0, 1.0, 1.0]),
            (Unmasked::MaskedOnly, [3.0, 1.0, 1.0, 1.0]),
        ] {
            let found = factors(&grid, &all, unmasked);
            assert_near(&found, &[expected, plain].concat());
        }
        let losses =
            Tensor::<1>::from_data([2.0, 9.0, 4.0, 9.0, 1.0, 1.0, 1.0, 1.0], &Device::flex());
        let mean = |unmasked| {
            let factors = grid.factors(&all, unmasked);
            factors.mean(losses.clone()).into_scalar::<f32>()
        };
        assert!((mean(Unmasked::Floor) - 3.5).abs() < 1e-6);
        assert!((mean(Unmasked::MaskedOnly) - 10.0 / 6.0).abs() < 1e-6);
    }
}
