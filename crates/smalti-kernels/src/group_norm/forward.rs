//! The way forward for some groups: moments, then one sweep.

use super::{GroupNorm, Moments};
use crate::Simd;
use crate::lanes::{Kernel, Lanes, dispatch};
use crate::math::sigmoid;
use crate::moments::moments;

/// Normalises the groups from number `first` on.
pub(super) fn run(
    simd: Simd,
    norm: &GroupNorm<'_>,
    first: usize,
    input: &[f32],
    output: &mut [f32],
    found: &mut [Moments],
) {
    if norm.silu {
        dispatch(
            simd,
            Forward::<true> {
                norm,
                first,
                input,
                output,
                found,
            },
        );
    } else {
        dispatch(
            simd,
            Forward::<false> {
                norm,
                first,
                input,
                output,
                found,
            },
        );
    }
}

struct Forward<'a, const SILU: bool> {
    norm: &'a GroupNorm<'a>,
    first: usize,
    input: &'a [f32],
    output: &'a mut [f32],
    found: &'a mut [Moments],
}

impl<const SILU: bool> Kernel for Forward<'_, SILU> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let length = self.input.len() / self.found.len();
        let spatial = self.norm.spatial;
        let groups = self
            .input
            .chunks_exact(length)
            .zip(self.output.chunks_exact_mut(length));
        for (i, ((input, output), found)) in groups.zip(self.found).enumerate() {
            *found = moments::<V>(input, self.norm.eps);
            let channels = input
                .chunks_exact(spatial)
                .zip(output.chunks_exact_mut(spatial));
            for ((input, output), (gamma, beta)) in channels.zip(self.norm.affine(self.first + i)) {
                let factor = gamma * found.rstd;
                channel::<V, SILU>(input, output, [found.mean, factor, beta]);
            }
        }
    }
}

/// `y = f((x - mean) · factor + offset)` for one channel.
#[inline(always)]
fn channel<V: Lanes, const SILU: bool>(input: &[f32], output: &mut [f32], constants: [f32; 3]) {
    let [mean, factor, offset] = constants.map(V::splat);
    let mut from = input.chunks_exact(V::N);
    let mut to = output.chunks_exact_mut(V::N);
    for (input, output) in (&mut from).zip(&mut to) {
        let z = (V::load(input) - mean).mul_add(factor, offset);
        activate::<V, SILU>(z).store(output);
    }
    if !from.remainder().is_empty() {
        let z = (V::load_part(from.remainder(), 0.0) - mean).mul_add(factor, offset);
        activate::<V, SILU>(z).store_part(to.into_remainder());
    }
}

#[inline(always)]
fn activate<V: Lanes, const SILU: bool>(z: V) -> V {
    if SILU { z * sigmoid(z) } else { z }
}
