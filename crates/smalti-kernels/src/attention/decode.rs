//! One query for each head against a cache: the step of generation.
//!
//! The work is reading the cache once; keys are multiplied as they lie there.

use super::blocks::{dot, weighted_sum};
use crate::Simd;
use crate::lanes::{Kernel, Lanes, dispatch};
use crate::softmax::{exponentials, largest, scale};
use rayon::prelude::*;

/// Shape of a cache and of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecodeShape {
    /// Batch times heads.
    pub heads: usize,
    /// Rows that the cache has room for in each head.
    pub capacity: usize,
    /// Rows that are filled, the one of this step included.
    pub length: usize,
    /// Width of a row.
    pub head_dim: usize,
    /// Factor of the scores.
    pub scale: f32,
}

/// Attends from `query` `[heads, head_dim]` to the first `length` rows of `keys` and `values`, both
/// `[heads, capacity, head_dim]`, and writes `output` `[heads, head_dim]`.
///
/// # Panics
/// When lengths do not fit the shape, or nothing is filled.
pub fn decode(
    shape: &DecodeShape,
    query: &[f32],
    keys: &[f32],
    values: &[f32],
    output: &mut [f32],
) {
    decode_on(Simd::active(), shape, query, [keys, values], output);
}

/// [`decode()`] with the instructions of `simd`, keys and values in one argument.
///
/// # Panics
/// As [`decode()`].
pub fn decode_on(
    simd: Simd,
    shape: &DecodeShape,
    query: &[f32],
    [keys, values]: [&[f32]; 2],
    output: &mut [f32],
) {
    let &DecodeShape {
        heads,
        capacity,
        length,
        head_dim,
        ..
    } = shape;
    assert!(
        head_dim > 0 && length > 0 && length <= capacity,
        "decode: nothing to see in {shape:?}"
    );
    let lengths = [query.len(), output.len(), keys.len(), values.len()];
    let (rows, cache) = (heads * head_dim, heads * capacity * head_dim);
    assert_eq!(
        lengths,
        [rows, rows, cache, cache],
        "decode: lengths of query, output, keys, values"
    );
    // Short caches: several heads a task.
    let task = (8192 / (length * head_dim)).max(1);
    output
        .par_chunks_mut(task * head_dim)
        .enumerate()
        .for_each(|(i, output)| {
            dispatch(
                simd,
                Heads {
                    shape,
                    first: i * task,
                    query,
                    keys,
                    values,
                    output,
                },
            );
        });
}

struct Heads<'a> {
    shape: &'a DecodeShape,
    first: usize,
    query: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
    output: &'a mut [f32],
}

impl Kernel for Heads<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let &DecodeShape {
            capacity,
            length,
            head_dim,
            scale: factor,
            ..
        } = self.shape;
        let mut scores = vec![0.0; length];
        let mut weights = vec![0.0; length];
        for (i, output) in self.output.chunks_exact_mut(head_dim).enumerate() {
            let head = self.first + i;
            let query = &self.query[head * head_dim..][..head_dim];
            let cache = head * capacity * head_dim..(head * capacity + length) * head_dim;
            let keys = self.keys[cache.clone()].chunks_exact(head_dim);
            for (score, key) in scores.iter_mut().zip(keys) {
                *score = dot::<V>(query, key) * factor;
            }
            let total = exponentials::<V>(&scores, largest::<V>(&scores), &mut weights);
            scale::<V>(&mut weights, 1.0 / total);
            weighted_sum::<V>(&weights, &self.values[cache], output);
        }
    }
}
