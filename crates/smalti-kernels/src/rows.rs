//! What the norms over rows share: how rows are dealt to threads and how a row is walked.
//!
//! Sums over rows are taken in f32 within pieces of fixed size and in f64 over the pieces, in order:
//! results do not depend on the number of threads.

use std::ops::Range;

use rayon::prelude::*;

use crate::lanes::Lanes;

/// Numbers that a task should at least have.
const TASK: usize = 16 << 10;

/// Calls `run` with tasks of whole rows: what is found of each row, input, output.
pub(crate) fn each_task<M: Send>(
    width: usize,
    found: &mut [M],
    (input, output): (&[f32], &mut [f32]),
    run: impl Fn(&mut [M], &[f32], &mut [f32]) + Sync,
) {
    let task = TASK.div_ceil(width);
    found
        .par_chunks_mut(task)
        .zip(input.par_chunks(task * width))
        .zip(output.par_chunks_mut(task * width))
        .for_each(|((found, input), output)| run(found, input, output));
}

/// Calls `run` with pieces of whole rows, the rows' numbers and their part of `target`, and adds up the
/// `count` sums that it returns.
pub(crate) fn summed(
    (width, count): (usize, usize),
    target: &mut [f32],
    run: impl Fn(Range<usize>, &mut [f32]) -> Vec<f32> + Sync,
) -> Vec<f32> {
    let rows = target.len() / width;
    // At most 64 pieces, so that their sums stay small beside the data.
    let task = TASK.div_ceil(width).max(rows.div_ceil(64));
    let sums: Vec<Vec<f32>> = target
        .par_chunks_mut(task * width)
        .enumerate()
        .map(|(i, target)| run(i * task..i * task + target.len() / width, target))
        .collect();
    let total = |i: usize| sums.iter().map(|sum| f64::from(sum[i])).sum::<f64>() as f32;
    (0..count).map(total).collect()
}

/// Registers of a slice, the last one possibly in part: `(place, whole)`.
#[inline(always)]
pub(crate) fn places<V: Lanes>(
    width: usize,
) -> impl Iterator<Item = (std::ops::Range<usize>, bool)> {
    (0..width).step_by(V::N).map(move |start| {
        let end = (start + V::N).min(width);
        (start..end, end - start == V::N)
    })
}

#[inline(always)]
pub(crate) fn load<V: Lanes>(values: &[f32], (place, whole): &(std::ops::Range<usize>, bool)) -> V {
    let part = &values[place.clone()];
    if *whole {
        V::load(part)
    } else {
        V::load_part(part, 0.0)
    }
}

#[inline(always)]
pub(crate) fn store<V: Lanes>(
    value: V,
    target: &mut [f32],
    (place, whole): &(std::ops::Range<usize>, bool),
) {
    let part = &mut target[place.clone()];
    if *whole {
        value.store(part)
    } else {
        value.store_part(part)
    }
}
