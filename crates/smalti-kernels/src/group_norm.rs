//! Group normalisation with an optional SiLU behind it (Wu & He 2018, equations 1 to 7).
//!
//! `x̂ = (x - mean) · rstd` over each group of channels of each image, `z = γ·x̂ + β` by channel, and
//! `y = z` or `y = z·σ(z)`. Data are `[batch, channels, spatial]`, contiguous; `spatial` is
//! height × width or whatever follows the channels.
//!
//! Nothing but the moments of each group is kept for the way back: x̂, z and σ(z) are computed again
//! from the input, which costs less than reading them from memory.
//!
//! Work is split by groups, and sums over the batch run in its order in f64: results do not depend
//! on the number of threads.

mod backward;
mod forward;
#[cfg(test)]
mod tests;

use crate::Simd;
pub use crate::moments::Moments;
use rayon::prelude::*;

/// Numbers that a task should at least have, so that giving it out costs little against doing it.
const TASK: usize = 16 << 10;

/// A group norm with its parameters.
#[derive(Clone, Copy, Debug)]
pub struct GroupNorm<'a> {
    /// Groups that the channels are divided into.
    pub groups: usize,
    /// Positions in one channel.
    pub spatial: usize,
    /// Added to the variance.
    pub eps: f32,
    /// Whether `z·σ(z)` follows.
    pub silu: bool,
    /// Factor of each channel.
    pub gamma: &'a [f32],
    /// Offset of each channel.
    pub beta: &'a [f32],
}

/// Gradients of the parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct AffineGradients {
    /// Gradient of the factors.
    pub gamma: Vec<f32>,
    /// Gradient of the offsets.
    pub beta: Vec<f32>,
}

impl GroupNorm<'_> {
    /// Normalises `input` into `output`; returns the moments of each (image, group).
    ///
    /// # Panics
    /// When lengths do not fit together.
    pub fn forward(&self, input: &[f32], output: &mut [f32]) -> Vec<Moments> {
        self.forward_on(Simd::active(), input, output)
    }

    /// [`forward`](Self::forward) with the instructions of `simd`.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_on(&self, simd: Simd, input: &[f32], output: &mut [f32]) -> Vec<Moments> {
        let length = self.group_length(input.len());
        assert_eq!(
            output.len(),
            input.len(),
            "group norm: output and input differ in length"
        );
        let mut moments = vec![Moments::default(); input.len() / length];
        let task = self.groups_per_task(length);
        moments
            .par_chunks_mut(task)
            .zip(input.par_chunks(task * length))
            .zip(output.par_chunks_mut(task * length))
            .enumerate()
            .for_each(|(i, ((moments, input), output))| {
                forward::run(simd, self, i * task, input, output, moments);
            });
        moments
    }

    /// Writes the gradient of the input to `grad_input` and returns those of the parameters.
    ///
    /// # Panics
    /// When lengths do not fit together.
    pub fn backward(
        &self,
        input: &[f32],
        moments: &[Moments],
        grad_output: &[f32],
        grad_input: &mut [f32],
    ) -> AffineGradients {
        assert_eq!(
            grad_output.len(),
            input.len(),
            "group norm: gradient and input differ in length"
        );
        self.backward_on(
            Simd::active(),
            input,
            moments,
            Some(grad_output),
            grad_input,
        )
    }

    /// [`backward`](Self::backward) where `grad` holds the gradient of the output before and that of
    /// the input after.
    ///
    /// # Panics
    /// When lengths do not fit together.
    pub fn backward_in_place(
        &self,
        input: &[f32],
        moments: &[Moments],
        grad: &mut [f32],
    ) -> AffineGradients {
        self.backward_on(Simd::active(), input, moments, None, grad)
    }

    /// [`backward`](Self::backward), or without `grad_output`
    /// [`backward_in_place`](Self::backward_in_place), with the instructions of `simd`.
    ///
    /// # Panics
    /// When lengths do not fit together.
    pub fn backward_on(
        &self,
        simd: Simd,
        input: &[f32],
        moments: &[Moments],
        grad_output: Option<&[f32]>,
        grad_input: &mut [f32],
    ) -> AffineGradients {
        let length = self.group_length(input.len());
        assert_eq!(
            grad_input.len(),
            input.len(),
            "group norm: gradient and input differ in length"
        );
        assert_eq!(
            moments.len(),
            input.len() / length,
            "group norm: one pair of moments a group"
        );
        let channels = self.gamma.len();
        let mut sums = vec![[0.0_f64; 2]; input.len() / self.spatial];
        let task = self.groups_per_task(length);
        let group_channels = channels / self.groups;
        grad_input
            .par_chunks_mut(task * length)
            .zip(sums.par_chunks_mut(task * group_channels))
            .enumerate()
            .for_each(|(i, (grad_input, sums))| {
                let range = i * task * length..i * task * length + grad_input.len();
                let part = backward::Part {
                    norm: self,
                    first: i * task,
                    input: &input[range.clone()],
                    moments: &moments[i * task..][..range.len() / length],
                    grad_output: grad_output.map(|grad| &grad[range]),
                };
                backward::run(simd, part, grad_input, sums);
            });
        sum_over_batch(&sums, channels)
    }

    /// Numbers in a group.
    fn group_length(&self, total: usize) -> usize {
        let channels = self.gamma.len();
        assert_eq!(
            self.beta.len(),
            channels,
            "group norm: one beta for each gamma"
        );
        assert!(
            self.groups > 0 && channels > 0 && channels.is_multiple_of(self.groups),
            "group norm: {channels} channels do not divide into {} groups",
            self.groups
        );
        let image = channels * self.spatial;
        assert!(
            image > 0 && total.is_multiple_of(image),
            "group norm: {total} numbers are no images of {channels} channels of {}",
            self.spatial
        );
        image / self.groups
    }

    fn groups_per_task(&self, length: usize) -> usize {
        TASK.div_ceil(length)
    }

    /// Factor and offset of each channel of a group, counted over the batch.
    #[inline(always)]
    fn affine(&self, group: usize) -> impl Iterator<Item = (f32, f32)> {
        let width = self.gamma.len() / self.groups;
        let first = group % self.groups * width;
        let gamma = self.gamma[first..][..width].iter().copied();
        gamma.zip(self.beta[first..][..width].iter().copied())
    }
}

/// Adds the sums of each (image, channel) over the images.
fn sum_over_batch(sums: &[[f64; 2]], channels: usize) -> AffineGradients {
    let mut total = vec![[0.0_f64; 2]; channels];
    for image in sums.chunks_exact(channels) {
        for (total, sum) in total.iter_mut().zip(image) {
            total[0] += sum[0];
            total[1] += sum[1];
        }
    }
    AffineGradients {
        gamma: total.iter().map(|sum| sum[1] as f32).collect(),
        beta: total.iter().map(|sum| sum[0] as f32).collect(),
    }
}
