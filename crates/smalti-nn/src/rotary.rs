//! Rotary positions of a grid: how the rows and columns of an image enter attention.
//!
//! Su et al. 2021, arXiv 2104.09864, section 3.4.2, with the positions of LlamaGen (Sun et al. 2024,
//! arXiv 2406.06525, section 3.2): the first half of a head's elements turns with the row, the second with
//! the column. With `c` the width of a head and `f_j = base^(−2j/(c/2))`, `j = 0 … c/4−1`, cell
//! `(row, column)` has the angles `[row·f_0 …, column·f_0 …]`, one for each of the `c/2` pairs of
//! *neighbouring* elements: `(x₀, x₁) → (x₀·cos − x₁·sin, x₁·cos + x₀·sin)`.
//!
//! A sequence begins with tokens that have no place in the grid (a class, a text). As in the published
//! code their rows of the table are zeros, cosine and sine alike: their queries and keys *vanish*
//! rather than stay as they are. So every query gives them the score 0, and they see one another
//! evenly.
//!
//! State: none; a [`Rotations`] is a table on the host that is made when it is needed.

use std::sync::Arc;

use burn::tensor::{Shape, Tensor, TensorData};
use rayon::prelude::*;

use crate::hook::{self, CpuOp, CpuTensor, cpu_tensor, dims, elements};

/// Numbers that a task should at least move.
const TASK: usize = 16 << 10;

/// The frequencies' base in LLaMA and LlamaGen.
pub const BASE: f64 = 10_000.0;

/// Cosines and sines of every position of a sequence, `[rows, head width / 2, 2]`.
#[derive(Clone, Debug)]
pub struct Rotations {
    table: Arc<[f32]>,
    head_width: usize,
}

impl Rotations {
    /// `prefix` rows of zeros, then the cells of a grid in raster order.
    ///
    /// # Panics
    /// When the width of a head is no multiple of 4.
    pub fn grid(prefix: usize, [height, width]: [usize; 2], head_width: usize) -> Self {
        assert!(
            head_width.is_multiple_of(4),
            "rotary positions: {head_width} elements of a head are no multiple of 4"
        );
        let each = head_width / 4;
        let frequency = |j: usize| BASE.powf(-(2.0 * j as f64) / (2 * each) as f64);
        let mut table = vec![0.0; prefix * head_width];
        table.reserve(height * width * head_width);
        for cell in 0..height * width {
            for place in [cell / width, cell % width] {
                for (sine, cosine) in (0..each).map(|j| (place as f64 * frequency(j)).sin_cos()) {
                    table.extend([cosine as f32, sine as f32]);
                }
            }
        }
        Self {
            table: table.into(),
            head_width,
        }
    }

    /// Positions in the table.
    pub fn rows(&self) -> usize {
        self.table.len() / self.head_width
    }

    /// `[rows, head width / 2, 2]`: cosine and sine of every pair.
    pub fn values(&self) -> &[f32] {
        &self.table
    }
}

/// Turns heads `[batch, heads, length, head width]` that stand at the rows from `start` on.
pub fn rotate(input: Tensor<4>, rotations: &Rotations, start: usize) -> Tensor<4> {
    let [_, _, length, width] = input.dims();
    assert!(
        width == rotations.head_width && start + length <= rotations.rows(),
        "rotary positions: rows {start} to {} of heads of {width}, the table has {} of {}",
        start + length,
        rotations.rows(),
        rotations.head_width
    );
    let op = Rotate {
        table: rotations.table.clone(),
        start,
    };
    match hook::call(op, [input.into_dispatch()]) {
        Ok(output) => output,
        Err([input]) => composed(Tensor::from_dispatch(input), rotations, start),
    }
}

/// [`rotate`] made of burn's own operations.
fn composed(input: Tensor<4>, rotations: &Rotations, start: usize) -> Tensor<4> {
    let shape @ [batch, heads, length, width] = input.dims();
    let rows = &rotations.table[start * width..(start + length) * width];
    let part = |offset: usize| {
        let values: Vec<f32> = rows[offset..].iter().copied().step_by(2).collect();
        let shape = Shape::from([1, 1, length, width / 2, 1]);
        Tensor::<5>::from_data(TensorData::new(values, shape), &input.device())
    };
    let (cosine, sine) = (part(0), part(1));
    let pairs = input.reshape([batch, heads, length, width / 2, 2]);
    let (first, second) = (pairs.clone().narrow(4, 0, 1), pairs.narrow(4, 1, 1));
    let turned = [
        first.clone() * cosine.clone() - second.clone() * sine.clone(),
        second * cosine + first * sine,
    ];
    Tensor::cat(turned.to_vec(), 4).reshape(shape)
}

/// The rotation of the CPU.
#[derive(Clone, Debug)]
struct Rotate {
    table: Arc<[f32]>,
    start: usize,
}

impl Rotate {
    /// The rotation, or its transpose with `direction` −1.
    fn turned(&self, input: &CpuTensor, direction: f32) -> CpuTensor {
        let shape @ [_, _, length, width] = dims(input);
        let values = elements(input);
        let rows = &self.table[self.start * width..][..length * width];
        let mut output = hook::output(values.len());
        let head = (length * width).max(1);
        output
            .par_chunks_mut(head)
            .with_min_len((TASK / head).max(1))
            .zip(values.par_chunks(head))
            .for_each(|(to, from)| {
                let pairs = from.as_chunks::<2>().0.iter().zip(rows.as_chunks::<2>().0);
                for (to, ([x, y], [cosine, sine])) in
                    to.as_chunks_mut::<2>().0.iter_mut().zip(pairs)
                {
                    let sine = direction * sine;
                    *to = [x * cosine - y * sine, y * cosine + x * sine];
                }
            });
        cpu_tensor(output, shape)
    }
}

impl CpuOp<1> for Rotate {
    type Saved = ();
    const CHEAP: bool = true;

    fn forward(&self, [input]: &[CpuTensor; 1]) -> (CpuTensor, ()) {
        (self.turned(input, 1.0), ())
    }

    fn backward(
        &self,
        _: &[CpuTensor; 1],
        _: (),
        grad: CpuTensor,
        _: [bool; 1],
    ) -> [Option<CpuTensor>; 1] {
        [Some(self.turned(&grad, -1.0))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Noise;
    use crate::hook::agreement::{Inputs, assert_agree, assert_slopes};
    use burn::tensor::Device;

    #[test]
    fn kernel_and_composition_agree() {
        let rotations = Rotations::grid(2, [2, 3], 8);
        for (length, start) in [(8, 0), (3, 1), (1, 7)] {
            let shape = [2, 3, length, 8];
            let shapes: [&[usize]; 1] = [&shape];
            let own = |i: &Inputs| rotate(i.get(0), &rotations, start);
            let other = |i: &Inputs| composed(i.get(0), &rotations, start);
            assert_agree(&shapes, 1e-6, own, other);
            assert_slopes(&shapes, own);
        }
    }

    /// The published numbers for heads of 64 and a grid of 16×16 behind a class.
    #[test]
    fn the_table_is_the_published_one() {
        let rotations = Rotations::grid(1, [16, 16], 64);
        assert_eq!(rotations.rows(), 257);
        let row = |row: usize| {
            let values = &rotations.values()[row * 64..][..64];
            values.as_chunks::<2>().0.to_vec()
        };
        assert!(row(0).iter().all(|pair| *pair == [0.0, 0.0]));
        assert!(row(1).iter().all(|pair| *pair == [1.0, 0.0]));
        let one = [1f32.cos(), 1f32.sin()];
        let close = |a: [f32; 2], b: [f32; 2]| (a[0] - b[0]).abs() + (a[1] - b[1]).abs() < 1e-6;
        // The cell (0, 1): only the column turns; the cell (1, 0): only the row.
        let second = row(2);
        assert!(second[..16].iter().all(|pair| *pair == [1.0, 0.0]) && close(second[16], one));
        let below = row(17);
        assert!(below[16..].iter().all(|pair| *pair == [1.0, 0.0]) && close(below[0], one));
        assert!(close(
            below[1],
            [0.562_341_3f32.cos(), 0.562_341_3f32.sin()]
        ));
        assert!(close(below[15], [1.0, 1.778_279_4e-4]));
    }

    #[test]
    fn scores_depend_on_the_distance_within_the_grid() {
        let rotations = Rotations::grid(1, [4, 4], 8);
        let mut noise = Noise::from_seed(3);
        let [query, key] = [(); 2].map(|()| noise.standard_normal([1, 1, 1, 8], &Device::flex()));
        let at = |x: &Tensor<4>, row, column| rotate(x.clone(), &rotations, 1 + 4 * row + column);
        let score = |q: (usize, usize), k: (usize, usize)| {
            let product = at(&query, q.0, q.1) * at(&key, k.0, k.1);
            product.sum().into_scalar::<f32>()
        };
        let (near, far) = (score((1, 2), (0, 1)), score((3, 3), (2, 2)));
        assert!((near - far).abs() < 1e-5, "{near} {far}");
        assert!((near - score((3, 3), (2, 1))).abs() > 1e-3);
        let vanished = rotate(query.clone(), &rotations, 0).abs().sum();
        assert_eq!(vanished.into_scalar::<f32>(), 0.0);
    }
}
