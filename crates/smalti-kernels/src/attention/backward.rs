//! The way back for one head: blocks of keys outside, blocks of queries inside.

use super::blocks::{Size, copy_out, copy_padded, dot, multiply, padded, transpose};
use super::{Attention, BLOCK, Gradients, Inputs, Results};
use crate::lanes::{Kernel, Lanes};
use crate::math::exp;
use crate::tile::Left;
use std::ops::Range;

pub(super) struct Backward<'a> {
    pub(super) shape: &'a Attention,
    pub(super) inputs: Inputs<'a>,
    pub(super) results: Results<'a>,
    pub(super) gradients: Gradients<'a>,
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self {
            shape,
            inputs,
            results,
            gradients,
        } = self;
        let width = shape.head_dim;
        let stride = padded(width);
        let rows = results
            .grad_output
            .chunks_exact(width)
            .zip(results.output.chunks_exact(width));
        let deltas: Vec<f32> = rows.map(|(grad, output)| dot::<V>(grad, output)).collect();
        let mut queries = vec![0.0; shape.queries * stride];
        copy_padded(inputs.q, width, &mut queries);
        let mut grad_output = vec![0.0; shape.queries * stride];
        copy_padded(results.grad_output, width, &mut grad_output);
        let mut grad_queries = vec![0.0; shape.queries * stride];
        let mut work = Work::new(width);
        for start in (0..shape.keys).step_by(BLOCK) {
            let keys = start..(start + BLOCK).min(shape.keys);
            work.take_keys::<V>(inputs, keys.clone(), width);
            for first in (0..shape.queries).step_by(BLOCK) {
                let rows = first..(first + BLOCK).min(shape.queries);
                if shape.visible(rows.end - 1) <= start {
                    continue;
                }
                let place = first * stride..rows.end * stride;
                let block = Queries {
                    rows,
                    queries: &queries[place.clone()],
                    grad_output: &grad_output[place.clone()],
                    log_sums: results.log_sums,
                    deltas: &deltas,
                };
                work.step::<V>(shape, &keys, &block, &mut grad_queries[place]);
            }
            let place = start * width..keys.end * width;
            copy_out(&work.grad_keys, width, &mut gradients.k[place.clone()]);
            copy_out(&work.grad_values, width, &mut gradients.v[place]);
        }
        copy_out(&grad_queries, width, gradients.q);
    }
}

/// A block of queries; log sums and deltas are those of the whole head.
struct Queries<'a> {
    rows: Range<usize>,
    queries: &'a [f32],
    grad_output: &'a [f32],
    log_sums: &'a [f32],
    deltas: &'a [f32],
}

/// A block of keys, its gradients, and room for one block of scores.
struct Work {
    /// `[64, padded head_dim]`
    keys: Vec<f32>,
    /// `[head_dim, 64]`
    keys_turned: Vec<f32>,
    /// `[head_dim, 64]`
    values_turned: Vec<f32>,
    /// `[64, padded head_dim]`
    grad_keys: Vec<f32>,
    /// `[64, padded head_dim]`
    grad_values: Vec<f32>,
    /// `[64 queries, 64 keys]`: scores, then weights.
    weights: Vec<f32>,
    /// `[64 queries, 64 keys]`: gradients of the weights, then of the scores.
    grad_scores: Vec<f32>,
}

impl Work {
    fn new(width: usize) -> Self {
        let rows = || vec![0.0; BLOCK * padded(width)];
        let turned = || vec![0.0; width * BLOCK];
        let square = || vec![0.0; BLOCK * BLOCK];
        Self {
            keys: rows(),
            keys_turned: turned(),
            values_turned: turned(),
            grad_keys: rows(),
            grad_values: rows(),
            weights: square(),
            grad_scores: square(),
        }
    }

    #[inline(always)]
    fn take_keys<V: Lanes>(&mut self, inputs: Inputs<'_>, keys: Range<usize>, width: usize) {
        let place = keys.start * width..keys.end * width;
        copy_padded(&inputs.k[place.clone()], width, &mut self.keys);
        transpose::<V>(
            &inputs.k[place.clone()],
            width,
            &mut self.keys_turned,
            BLOCK,
        );
        transpose::<V>(&inputs.v[place], width, &mut self.values_turned, BLOCK);
        self.grad_keys.fill(0.0);
        self.grad_values.fill(0.0);
    }

    #[inline(always)]
    fn step<V: Lanes>(
        &mut self,
        shape: &Attention,
        keys: &Range<usize>,
        block: &Queries<'_>,
        grad_queries: &mut [f32],
    ) {
        let (width, rows) = (shape.head_dim, block.rows.len());
        let stride = padded(width);
        let queries = Left {
            data: block.queries,
            row_stride: stride,
            k_stride: 1,
        };
        let grad_output = Left {
            data: block.grad_output,
            ..queries
        };
        let size = Size {
            rows,
            depth: width,
            stride: BLOCK,
        };
        multiply::<V>(size, queries, &self.keys_turned, &mut self.weights, false);
        multiply::<V>(
            size,
            grad_output,
            &self.values_turned,
            &mut self.grad_scores,
            false,
        );
        for (i, row) in block.rows.clone().enumerate() {
            let seen = shape.visible(row).min(keys.end).saturating_sub(keys.start);
            let weights = &mut self.weights[i * BLOCK..][..BLOCK];
            let grad = &mut self.grad_scores[i * BLOCK..][..BLOCK];
            row_gradient::<V>(
                shape.scale,
                [block.log_sums[row], block.deltas[row]],
                weights,
                grad,
            );
            weights[seen..].fill(0.0);
            grad[seen..].fill(0.0);
        }
        // Turned by their strides: rows are keys, the depth runs over queries.
        let turned = |data| Left {
            data,
            row_stride: 1,
            k_stride: BLOCK,
        };
        let size = Size {
            rows: keys.len(),
            depth: rows,
            stride,
        };
        multiply::<V>(
            size,
            turned(&self.weights),
            block.grad_output,
            &mut self.grad_values,
            true,
        );
        multiply::<V>(
            size,
            turned(&self.grad_scores),
            block.queries,
            &mut self.grad_keys,
            true,
        );
        let left = Left {
            data: &self.grad_scores,
            row_stride: BLOCK,
            k_stride: 1,
        };
        let size = Size {
            rows,
            depth: keys.len(),
            stride,
        };
        multiply::<V>(size, left, &self.keys, grad_queries, true);
    }
}

/// Scores become weights, gradients of weights become gradients of scores.
#[inline(always)]
fn row_gradient<V: Lanes>(
    scale: f32,
    [log_sum, delta]: [f32; 2],
    weights: &mut [f32],
    grad: &mut [f32],
) {
    let (scale, log_sum, delta) = (V::splat(scale), V::splat(log_sum), V::splat(delta));
    for (weight, grad) in weights
        .chunks_exact_mut(V::N)
        .zip(grad.chunks_exact_mut(V::N))
    {
        let p = exp(V::load(weight).mul_add(scale, -log_sum));
        p.store(weight);
        (p * (V::load(grad) - delta) * scale).store(grad);
    }
}
