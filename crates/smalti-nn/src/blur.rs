//! Smoothing of images by a small filter, perhaps only at every other place.
//!
//! `y[n,c,i,j] = Σ_{u,v} f_u·f_v·x[n,c,i·s+u−before,j·s+v−before]`: the same filter for rows, columns and all
//! channels (Zhang 2019, arXiv 1904.11486, section 3). Over the edge an image is zero, or its reflection
//! (`x₋₁ = x₁`). `[batch, channels, height, width]` to
//! `[batch, channels, height', width']`, `height' = (height + before + after − taps)/s + 1`.
//!
//! Along one side this is a product with a band matrix that knows edge and stride, and so is its gradient:
//! two products, on every device, whose zeros cost less than the layers around them do.

use burn::tensor::{Device, Tensor, TensorData};

use crate::linear;

/// What lies over the edge of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Zeros.
    Zero,
    /// The image's reflection in its outermost row.
    Reflect,
}

/// A separable filter.
#[derive(Clone, Debug)]
pub struct Blur {
    taps: Vec<f32>,
    stride: usize,
    padding: [usize; 2],
    edge: Edge,
}

impl Blur {
    /// A filter of `taps`, scaled to the sum one, that moves by `stride`, with `padding` rows before and after.
    ///
    /// # Panics
    /// When the taps sum to zero or the stride is zero.
    pub fn binomial(taps: &[f32], stride: usize, padding: [usize; 2], edge: Edge) -> Self {
        let sum: f32 = taps.iter().sum();
        assert!(
            sum != 0.0 && stride > 0,
            "blur: taps {taps:?} and stride {stride} are no filter"
        );
        Self {
            taps: taps.iter().map(|tap| tap / sum).collect(),
            stride,
            padding,
            edge,
        }
    }

    /// Filters both directions.
    ///
    /// # Panics
    /// When the image is too small for the filter or for its reflection.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let [batch, channels, height, width] = input.dims();
        let device = input.device();
        let across = linear(input, self.matrix(width, &device), None);
        let narrow = across.dims()[3];
        let down = self.matrix(height, &device);
        let [short, _] = down.dims();
        let planes = across.reshape([batch * channels, height, narrow]);
        down.unsqueeze::<3>()
            .matmul(planes)
            .reshape([batch, channels, short, narrow])
    }

    /// How much each of `side` places counts at each place of the result, `[result, side]`.
    fn matrix(&self, side: usize, device: &Device) -> Tensor<2> {
        let [before, after] = self.padding;
        let padded = side + before + after;
        assert!(
            padded >= self.taps.len(),
            "blur: {side} rows are fewer than the filter's {}",
            self.taps.len()
        );
        assert!(
            self.edge == Edge::Zero || before.max(after) < side,
            "blur: {side} rows have no reflection of {}",
            before.max(after)
        );
        let result = (padded - self.taps.len()) / self.stride + 1;
        let mut values = vec![0.0; result * side];
        for (i, row) in values.chunks_exact_mut(side).enumerate() {
            for (tap, weight) in self.taps.iter().enumerate() {
                let place = (i * self.stride + tap) as isize - before as isize;
                let inside = (0..side as isize).contains(&place);
                if inside || self.edge == Edge::Reflect {
                    row[reflected(place, side)] += weight;
                }
            }
        }
        Tensor::from_data(TensorData::new(values, [result, side]), device)
    }
}

/// The place inside whose number stands at `place`.
fn reflected(place: isize, side: usize) -> usize {
    let last = side as isize - 1;
    let place = place.abs();
    (if place > last {
        2 * last - place
    } else {
        place
    }) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::agreement::assert_slopes;
    use crate::state::host_values;

    fn row(values: &[f32]) -> Tensor<4> {
        let data = TensorData::new(values.to_vec(), [1, 1, 1, values.len()]);
        Tensor::from_data(data, &Device::flex())
    }

    /// A blur along one row: a filter of one tap in the other direction would be another filter.
    fn along(blur: &Blur, values: &[f32]) -> Vec<f32> {
        let device = Device::flex();
        host_values(linear(
            row(values),
            blur.matrix(values.len(), &device),
            None,
        ))
    }

    #[test]
    fn edges_are_reflected_or_zero() {
        let values = [1.0, 2.0, 4.0, 8.0];
        let reflect = Blur::binomial(&[1.0, 2.0, 1.0], 2, [2, 2], Edge::Reflect);
        // Reflected: 4 2 | 1 2 4 8 | 4 2.
        assert_eq!(along(&reflect, &values), [2.25, 2.25, 6.0]);
        let zero = Blur::binomial(&[1.0, 3.0, 3.0, 1.0], 2, [1, 1], Edge::Zero);
        // 0 | 1 2 4 8 | 0.
        assert_eq!(along(&zero, &values), [13.0 / 8.0, 38.0 / 8.0]);
    }

    #[test]
    fn both_directions_are_filtered_and_have_gradients() {
        let blur = Blur::binomial(&[1.0, 2.0, 1.0], 2, [1, 1], Edge::Reflect);
        let constant = Tensor::<4>::ones([2, 3, 6, 5], &Device::flex()) * 7.0;
        let output = blur.forward(constant);
        assert_eq!(output.dims(), [2, 3, 3, 3]);
        assert!(host_values(output).iter().all(|v| (v - 7.0).abs() < 1e-5));
        let shapes: [&[usize]; 1] = [&[2, 2, 6, 5]];
        assert_slopes(&shapes, |i| blur.forward(i.get(0)));
        let impulse = row(&[0.0, 0.0, 1.0, 0.0, 0.0]);
        let column = impulse.clone().swap_dims(2, 3);
        let wide = Blur::binomial(&[1.0, 2.0, 1.0], 1, [1, 1], Edge::Zero);
        let [a, b] = [wide.forward(impulse), wide.forward(column).swap_dims(2, 3)];
        assert_eq!(host_values(a.clone()), [0.0, 0.125, 0.25, 0.125, 0.0]);
        assert_eq!(host_values(a), host_values(b));
    }

    #[test]
    #[should_panic(expected = "2 rows have no reflection of 2")]
    fn an_image_too_small_to_reflect_is_refused() {
        let blur = Blur::binomial(&[1.0, 2.0, 1.0], 2, [2, 2], Edge::Reflect);
        blur.forward(Tensor::zeros([1, 1, 2, 8], &Device::flex()));
    }
}
