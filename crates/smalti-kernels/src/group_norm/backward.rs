//! The way back for some groups.
//!
//! With `dz = dy · f'(z)`: dβ = Σ dz and dγ = Σ dz·x̂ by channel, and
//! `dx = rstd · (γ·dz - mean(γ·dz) - x̂ · mean(γ·dz·x̂))`, the means over the group. The first sweep
//! writes dz where dx will be and takes the sums, the second makes dx of it while the group is still
//! in the cache.

use super::{GroupNorm, Moments};
use crate::Simd;
use crate::lanes::{Kernel, Lanes, dispatch};
use crate::math::sigmoid;

/// Numbers that are summed in f32 before the sum goes on in f64.
const PIECE: usize = 4096;

/// Some groups of the batch, from number `first` on.
pub(super) struct Part<'a> {
    pub(super) norm: &'a GroupNorm<'a>,
    pub(super) first: usize,
    pub(super) input: &'a [f32],
    pub(super) moments: &'a [Moments],
    /// Absent where the gradient to start from lies in the place of the result.
    pub(super) grad_output: Option<&'a [f32]>,
}

/// Writes the gradient of the input, and for each channel `[Σ dz, Σ dz·x̂]`.
pub(super) fn run(simd: Simd, part: Part<'_>, grad_input: &mut [f32], sums: &mut [[f64; 2]]) {
    if part.norm.silu {
        dispatch(
            simd,
            Backward::<true> {
                part,
                grad_input,
                sums,
            },
        );
    } else {
        dispatch(
            simd,
            Backward::<false> {
                part,
                grad_input,
                sums,
            },
        );
    }
}

struct Backward<'a, const SILU: bool> {
    part: Part<'a>,
    grad_input: &'a mut [f32],
    sums: &'a mut [[f64; 2]],
}

impl<const SILU: bool> Kernel for Backward<'_, SILU> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Part {
            norm,
            first,
            input,
            moments,
            grad_output,
        } = self.part;
        let (spatial, count) = (norm.spatial, moments.len());
        let (length, width) = (input.len() / count, self.sums.len() / count);
        for (i, moments) in moments.iter().enumerate() {
            let range = i * length..(i + 1) * length;
            let input = &input[range.clone()];
            let grad = &mut self.grad_input[range.clone()];
            let given = grad_output.map(|given| &given[range]);
            let sums = &mut self.sums[i * width..][..width];
            let mut means = [0.0_f64; 2];
            for (c, (gamma, beta)) in norm.affine(first + i).enumerate() {
                let place = c * spatial..(c + 1) * spatial;
                let channel = Channel {
                    moments: *moments,
                    gamma,
                    beta,
                };
                let given = given.map(|given| &given[place.clone()]);
                sums[c] = channel.first::<V, SILU>(&input[place.clone()], given, &mut grad[place]);
                means[0] += f64::from(gamma) * sums[c][0] / length as f64;
                means[1] += f64::from(gamma) * sums[c][1] / length as f64;
            }
            for (c, (gamma, beta)) in norm.affine(first + i).enumerate() {
                let place = c * spatial..(c + 1) * spatial;
                let channel = Channel {
                    moments: *moments,
                    gamma,
                    beta,
                };
                channel.second::<V>(&input[place.clone()], &mut grad[place], means);
            }
        }
    }
}

/// What the two sweeps know of a channel.
struct Channel {
    moments: Moments,
    gamma: f32,
    beta: f32,
}

impl Channel {
    /// Writes dz; returns `[Σ dz, Σ dz·x̂]`.
    #[inline(always)]
    fn first<V: Lanes, const SILU: bool>(
        &self,
        input: &[f32],
        given: Option<&[f32]>,
        grad: &mut [f32],
    ) -> [f64; 2] {
        let mut total = [0.0_f64; 2];
        for start in (0..input.len()).step_by(PIECE) {
            let range = start..(start + PIECE).min(input.len());
            let given = given.map(|given| &given[range.clone()]);
            let piece = self.first_piece::<V, SILU>(&input[range.clone()], given, &mut grad[range]);
            total[0] += f64::from(piece[0]);
            total[1] += f64::from(piece[1]);
        }
        total
    }

    #[inline(always)]
    fn first_piece<V: Lanes, const SILU: bool>(
        &self,
        input: &[f32],
        given: Option<&[f32]>,
        grad: &mut [f32],
    ) -> [f32; 2] {
        let mut sums = [[V::splat(0.0); 2]; 2];
        let whole = input.len() / V::N * V::N;
        for (i, start) in (0..whole).step_by(V::N).enumerate() {
            let source = if let Some(given) = given {
                &given[start..]
            } else {
                &grad[start..]
            };
            let (x, dy) = (V::load(&input[start..]), V::load(source));
            let dz = self.step::<V, SILU>(x, dy, &mut sums[i % 2]);
            dz.store(&mut grad[start..]);
        }
        if whole < input.len() {
            let source = if let Some(given) = given {
                &given[whole..]
            } else {
                &grad[whole..]
            };
            let (x, dy) = (
                V::load_part(&input[whole..], 0.0),
                V::load_part(source, 0.0),
            );
            let dz = self.step::<V, SILU>(x, dy, &mut sums[0]);
            dz.store_part(&mut grad[whole..]);
        }
        [
            (sums[0][0] + sums[1][0]).sum(),
            (sums[0][1] + sums[1][1]).sum(),
        ]
    }

    #[inline(always)]
    fn step<V: Lanes, const SILU: bool>(&self, x: V, dy: V, sums: &mut [V; 2]) -> V {
        let normalised = (x - V::splat(self.moments.mean)) * V::splat(self.moments.rstd);
        let dz = if SILU {
            let z = normalised.mul_add(V::splat(self.gamma), V::splat(self.beta));
            let s = sigmoid(z);
            // d/dz z·σ(z) = σ(z)·(1 + z·(1 - σ(z)))
            dy * s * (z - z * s + V::splat(1.0))
        } else {
            dy
        };
        sums[0] = sums[0] + dz;
        sums[1] = dz.mul_add(normalised, sums[1]);
        dz
    }

    /// Makes dx of dz.
    #[inline(always)]
    fn second<V: Lanes>(&self, input: &[f32], grad: &mut [f32], means: [f64; 2]) {
        let Moments { mean, rstd } = self.moments;
        let factor = V::splat(self.gamma * rstd);
        let slope = -means[1] * f64::from(rstd) * f64::from(rstd);
        let (offset, slope) = (
            V::splat((-means[0] * f64::from(rstd)) as f32),
            V::splat(slope as f32),
        );
        let mean = V::splat(mean);
        let mut from = input.chunks_exact(V::N);
        let mut to = grad.chunks_exact_mut(V::N);
        for (x, grad) in (&mut from).zip(&mut to) {
            let rest = (V::load(x) - mean).mul_add(slope, offset);
            V::load(grad).mul_add(factor, rest).store(grad);
        }
        if !from.remainder().is_empty() {
            let grad = to.into_remainder();
            let rest = (V::load_part(from.remainder(), 0.0) - mean).mul_add(slope, offset);
            V::load_part(grad, 0.0)
                .mul_add(factor, rest)
                .store_part(grad);
        }
    }
}
