//! The gradient of the kernels: for every point a product over tiles, block after block.
//!
//! `dU[p] = Σ_blocks dM[p] V[p]ᵀ` with `dM = A dY Aᵀ` `[36][output][lane]` and V `[36][input][lane]`, then
//! `dg = Gᵀ dU G`. Blocks follow each other; inside one, all threads share the transforms, then the 36
//! products. The sums therefore do not depend on the number of threads.

use rayon::prelude::*;

use super::correlation::transform_input;
use super::strips::{Planes, Strips};
use super::tiles::{Block, SIDE, Tiling};
use super::transforms::{of_gradient, to_kernel};
use super::{POINTS, input_planes};
use crate::Simd;
use crate::conv::shape::ConvShape;
use crate::gemm::dispatch::{self, Job};
use crate::gemm::scratch::{Shared, with_scratch};
use crate::gemm::vector::Vector;
use crate::gemm::{Batch, Matrix, MatrixMut, Product, gemm_batched_on};

/// Values of V and dM in a block, about: four megabytes.
const BLOCK_VALUES: usize = 1 << 20;
/// Fewest and most tiles in a block: with fewer, reading and writing dU takes longer than the
/// products; more save nothing.
const BLOCK_TILES: [usize; 2] = [96, 256];

/// The gradient of the weight of a shape that [`applies_to_weight`](super::applies_to_weight).
pub(in crate::conv) fn backward_weight(
    simd: Simd,
    shape: &ConvShape,
    [input, grad_output]: [&[f32]; 2],
    grad_weight: &mut [f32],
) {
    let (inputs, outputs) = (shape.in_channels, shape.out_channels);
    let size = [shape.out_height(), shape.out_width()];
    let wanted = BLOCK_VALUES / (POINTS * (inputs + outputs));
    let wanted = wanted.clamp(BLOCK_TILES[0], BLOCK_TILES[1]);
    let tiling = Tiling::new(simd, shape.batch, size, wanted);
    let gradient = Planes {
        data: grad_output,
        channels: outputs,
        height: size[0],
        width: size[1],
        top: 0,
        left: 0,
    };
    let plan = Plan {
        simd,
        input: input_planes(shape, input),
        gradient,
        tiling,
    };
    let lanes = plan.tiling.lanes;
    let [v_len, dm_len, du_len] =
        [inputs * lanes, outputs * lanes, inputs * outputs].map(|n| n * POINTS);
    with_scratch(v_len + dm_len + du_len, |scratch| {
        let (v, rest) = scratch.split_at_mut(v_len);
        let (dm, du) = rest.split_at_mut(dm_len);
        du.fill(0.0);
        for index in 0..plan.tiling.blocks {
            let block = plan.tiling.block(index);
            plan.transform(block, Shared::new(v), Shared::new(dm));
            plan.accumulate(v, dm, du);
        }
        write(du, grad_weight);
    });
}

struct Plan<'a> {
    simd: Simd,
    input: Planes<'a>,
    gradient: Planes<'a>,
    tiling: Tiling,
}

impl Plan<'_> {
    /// V of all input channels and dM of all output channels of a block.
    fn transform(&self, block: Block, v: Shared, dm: Shared) {
        let inputs = self.input.channels;
        (0..inputs + self.gradient.channels)
            .into_par_iter()
            .for_each(|channel| match channel.checked_sub(inputs) {
                None => transform_input(self.simd, (&self.tiling, block), (self.input, channel), v),
                Some(channel) => self.transform_gradient(block, channel, dm),
            });
    }

    fn transform_gradient(&self, block: Block, channel: usize, dm: Shared) {
        let lanes = self.tiling.lanes;
        let layout = Strips::of_output(&self.tiling, block);
        with_scratch(layout.len(), |strips| {
            layout.fill((&self.tiling, block), (self.gradient, channel), strips);
            let job = TransformGradient {
                strips: strips.as_ptr(),
                dm: dm.at(channel * lanes),
                point: self.gradient.channels * lanes,
                lanes,
            };
            // SAFETY: the strips hold four values for every lane; dM has this channel's lanes at
            // every point, and they are this task's alone; the path was checked on entry.
            unsafe { dispatch::run(self.simd, job) };
        });
    }

    /// Adds a block's products to `du`, `[36][output][input]`.
    fn accumulate(&self, v: &[f32], dm: &[f32], du: &mut [f32]) {
        let (lanes, inputs, outputs) = (
            self.tiling.lanes,
            self.input.channels,
            self.gradient.channels,
        );
        let product = Product::new(
            Matrix::new(dm, outputs, lanes),
            Matrix::new(v, inputs, lanes).transposed(),
        );
        let batch = Batch {
            count: POINTS,
            a_step: outputs * lanes,
            b_step: inputs * lanes,
            c_step: outputs * inputs,
        };
        let to = MatrixMut::new(du, outputs, inputs);
        gemm_batched_on(self.simd, &product.with_beta(1.0), batch, to);
    }
}

/// `dg = Gᵀ dU G` for every output and input channel.
fn write(du: &[f32], grad_weight: &mut [f32]) {
    let pairs = du.len() / POINTS;
    grad_weight
        .par_chunks_mut(9 << 8)
        .enumerate()
        .for_each(|(chunk, grads)| {
            for (i, grad) in grads.as_chunks_mut::<9>().0.iter_mut().enumerate() {
                let pair = (chunk << 8) + i;
                let mut lines = [[0.0; 6]; 3];
                for j in 0..6 {
                    let column = std::array::from_fn(|i| du[(6 * i + j) * pairs + pair]);
                    for (line, value) in lines.iter_mut().zip(to_kernel(column)) {
                        line[j] = value;
                    }
                }
                for (to, line) in grad.as_chunks_mut::<3>().0.iter_mut().zip(lines) {
                    *to = to_kernel(line);
                }
            }
        });
}

/// `dM = A dY Aᵀ` of one channel of a block. Valid pointers: `strips` for four strips of `4 · lanes`
/// values, `dm + point · p` for `lanes` values of every point p.
struct TransformGradient {
    strips: *const f32,
    dm: *mut f32,
    point: usize,
    lanes: usize,
}

impl Job for TransformGradient {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        // SAFETY: as documented on the struct.
        unsafe {
            for lane in (0..self.lanes).step_by(V::LANES) {
                let mut columns = [[V::zero(); SIDE]; SIDE];
                for line in 0..SIDE {
                    let values = V::load4(self.strips.add(SIDE * (line * self.lanes + lane)));
                    for (column, value) in columns.iter_mut().zip(values) {
                        column[line] = value;
                    }
                }
                let mut lines = [[V::zero(); SIDE]; 6];
                for (j, column) in columns.iter().enumerate() {
                    for (line, value) in lines.iter_mut().zip(of_gradient(*column)) {
                        line[j] = value;
                    }
                }
                for (i, line) in lines.iter().enumerate() {
                    for (j, value) in of_gradient(*line).iter().enumerate() {
                        value.store(self.dm.add((6 * i + j) * self.point + lane));
                    }
                }
            }
        }
    }
}
