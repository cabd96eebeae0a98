//! Batch normalisation with the statistics of the batch at hand.
//!
//! For each channel `c` of `[batch, channels, spatial]`: `y = γ_c·(x − μ_c)/√(σ²_c + ε) + β_c`, with mean and
//! population variance over the batch and all positions; Ioffe & Szegedy 2015, arXiv 1502.03167, algorithm 1.
//! Backward, with `n = batch·spatial`, `x̂ = (x − μ)/√(σ² + ε)`:
//! `dx = γ/√(σ² + ε)·(dy − Σdy/n − x̂·Σ(dy·x̂)/n)`, `dγ = Σ dy·x̂`, `dβ = Σ dy`.
//!
//! Sums run over one plane (an image's channel) at a time and are joined in f64 in the order of the batch,
//! so that results do not depend on the number of threads.

use rayon::prelude::*;

use crate::Simd;
use crate::lanes::{Kernel, Lanes, dispatch};
use crate::moments::spread;

/// Mean and spread of a channel over a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ChannelMoments {
    /// Mean of the values.
    pub mean: f32,
    /// Mean of their squared distances from it.
    pub variance: f32,
}

/// The normalisation of `[batch, channels, spatial]`, channels as many as there are `gamma`.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm<'a> {
    /// Numbers of a plane.
    pub spatial: usize,
    /// Added to the variance.
    pub eps: f32,
    /// Scale of each channel.
    pub gamma: &'a [f32],
    /// Shift of each channel.
    pub beta: &'a [f32],
}

/// Gradients of scale and shift.
#[derive(Clone, Debug, PartialEq)]
pub struct AffineGradients {
    /// Of the scale.
    pub gamma: Vec<f32>,
    /// Of the shift.
    pub beta: Vec<f32>,
}

/// Mean and variance of each of `channels` channels of `[batch, channels, spatial]`.
///
/// # Panics
/// When the numbers do not fill whole images.
pub fn channel_moments(input: &[f32], channels: usize, spatial: usize) -> Vec<ChannelMoments> {
    assert!(
        spatial > 0 && input.len().is_multiple_of(channels * spatial) && !input.is_empty(),
        "batch norm: {} numbers do not fill images of {channels} channels and {spatial} positions",
        input.len()
    );
    let simd = Simd::active();
    let planes: Vec<(f64, f64)> = input
        .par_chunks(spatial)
        .map(|plane| dispatch(simd, Spread(plane)))
        .collect();
    let length = spatial as f64;
    let of_channel = |channel: usize| {
        let (mut mean, mut squares, mut count) = (0.0, 0.0, 0.0);
        for (plane_mean, plane_squares) in planes.iter().skip(channel).step_by(channels) {
            let step = plane_mean - mean;
            squares += plane_squares + step * step * count * length / (count + length);
            mean += step * length / (count + length);
            count += length;
        }
        ChannelMoments {
            mean: mean as f32,
            variance: (squares / count) as f32,
        }
    };
    (0..channels).map(of_channel).collect()
}

impl BatchNorm<'_> {
    /// Normalises `input` by the moments of its channels.
    ///
    /// # Panics
    /// When lengths do not agree.
    pub fn forward(&self, moments: &[ChannelMoments], input: &[f32], output: &mut [f32]) {
        self.check(moments, &[input.len(), output.len()]);
        let simd = Simd::active();
        output
            .par_chunks_mut(self.spatial)
            .zip(input.par_chunks(self.spatial))
            .enumerate()
            .for_each(|(plane, (output, input))| {
                let channel = plane % self.gamma.len();
                let scale = self.gamma[channel] * self.rstd(moments[channel]);
                let (mean, shift) = (moments[channel].mean, self.beta[channel]);
                let line = Line { mean, scale, shift };
                dispatch(simd, Forward(line, input, output));
            });
    }

    /// Writes the gradient of the input over `grad`, that of the output; `moments` are those of `input`,
    /// and the gradient takes account of how they depend on it.
    ///
    /// # Panics
    /// When lengths do not agree.
    pub fn backward(
        &self,
        moments: &[ChannelMoments],
        input: &[f32],
        grad: &mut [f32],
    ) -> AffineGradients {
        self.check(moments, &[input.len(), grad.len()]);
        let (simd, channels) = (Simd::active(), self.gamma.len());
        let planes: Vec<(f32, f32)> = grad
            .par_chunks(self.spatial)
            .zip(input.par_chunks(self.spatial))
            .enumerate()
            .map(|(plane, (grad, input))| {
                let mean = moments[plane % channels].mean;
                dispatch(simd, Sums { mean, input, grad })
            })
            .collect();
        let mut sums = vec![(0.0f64, 0.0f64); channels];
        for (plane, (grads, products)) in planes.into_iter().enumerate() {
            let sum = &mut sums[plane % channels];
            sum.0 += f64::from(grads);
            sum.1 += f64::from(products);
        }
        let count = (input.len() / channels) as f64;
        grad.par_chunks_mut(self.spatial)
            .zip(input.par_chunks(self.spatial))
            .enumerate()
            .for_each(|(plane, (grad, input))| {
                let channel = plane % channels;
                let rstd = f64::from(self.rstd(moments[channel]));
                let (grads, products) = sums[channel];
                let slope = Slope {
                    mean: moments[channel].mean,
                    scale: self.gamma[channel] * rstd as f32,
                    of_mean: (grads / count) as f32,
                    of_spread: (rstd * rstd * products / count) as f32,
                };
                dispatch(simd, Backward(slope, input, grad));
            });
        let gamma = sums
            .iter()
            .zip(moments)
            .map(|(sum, &moments)| (sum.1 * f64::from(self.rstd(moments))) as f32);
        AffineGradients {
            gamma: gamma.collect(),
            beta: sums.iter().map(|sum| sum.0 as f32).collect(),
        }
    }

    fn rstd(&self, moments: ChannelMoments) -> f32 {
        1.0 / (moments.variance + self.eps).sqrt()
    }

    fn check(&self, moments: &[ChannelMoments], lengths: &[usize]) {
        let channels = self.gamma.len();
        assert_eq!(
            [self.beta.len(), moments.len()],
            [channels; 2],
            "batch norm: scales, shifts and moments differ in number"
        );
        let image = channels * self.spatial;
        assert!(
            lengths
                .iter()
                .all(|&l| l == lengths[0] && l.is_multiple_of(image.max(1))),
            "batch norm: {lengths:?} numbers are not the same whole images of {image}"
        );
    }
}

struct Spread<'a>(&'a [f32]);

impl Kernel for Spread<'_> {
    type Output = (f64, f64);
    #[inline(always)]
    fn run<V: Lanes>(self) -> (f64, f64) {
        spread::<V>(self.0)
    }
}

struct Line {
    mean: f32,
    scale: f32,
    shift: f32,
}

struct Forward<'a>(Line, &'a [f32], &'a mut [f32]);

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Line { mean, scale, shift } = self.0;
        for (y, &x) in self.2.iter_mut().zip(self.1) {
            *y = (x - mean) * scale + shift;
        }
    }
}

/// `Σ dy` and `Σ dy·(x − mean)` of a plane.
struct Sums<'a> {
    mean: f32,
    input: &'a [f32],
    grad: &'a [f32],
}

impl Kernel for Sums<'_> {
    type Output = (f32, f32);
    #[inline(always)]
    fn run<V: Lanes>(self) -> (f32, f32) {
        let mean = V::splat(self.mean);
        let (mut grads, mut products) = ([V::splat(0.0); 2], [V::splat(0.0); 2]);
        let parts = self.grad.chunks(V::N).zip(self.input.chunks(V::N));
        for (i, (grad, input)) in parts.enumerate() {
            let grad = V::load_part(grad, 0.0);
            let centred = V::load_part(input, self.mean) - mean;
            grads[i % 2] = grads[i % 2] + grad;
            products[i % 2] = grad.mul_add(centred, products[i % 2]);
        }
        let total = |v: [V; 2]| (v[0] + v[1]).sum();
        (total(grads), total(products))
    }
}

struct Slope {
    mean: f32,
    scale: f32,
    of_mean: f32,
    of_spread: f32,
}

struct Backward<'a>(Slope, &'a [f32], &'a mut [f32]);

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Slope {
            mean,
            scale,
            of_mean,
            of_spread,
        } = self.0;
        for (g, &x) in self.2.iter_mut().zip(self.1) {
            *g = scale * (*g - of_mean - (x - mean) * of_spread);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: [usize; 3] = [3, 5, 77];

    fn numbers(seed: usize) -> Vec<f32> {
        let count = SHAPE.iter().product::<usize>();
        (0..count)
            .map(|i| {
                ((i * 7919 + seed * 104_729) % 2003) as f32 / 500.0 + (i / 77 % 5) as f32 * 10.0
            })
            .collect()
    }

    /// Channel `c` of `[batch, channels, spatial]` in f64.
    fn channel(values: &[f32], c: usize) -> Vec<f64> {
        let [_, channels, spatial] = SHAPE;
        let planes = values.chunks(spatial).skip(c).step_by(channels);
        planes.flatten().map(|&v| f64::from(v)).collect()
    }

    #[test]
    fn values_and_gradients_agree_with_f64() {
        let [_, channels, spatial] = SHAPE;
        let (input, dy) = (numbers(1), numbers(2));
        let gamma: Vec<f32> = (0..channels).map(|c| c as f32 - 1.5).collect();
        let beta: Vec<f32> = (0..channels).map(|c| 0.5 * c as f32).collect();
        let norm = BatchNorm {
            spatial,
            eps: 1e-5,
            gamma: &gamma,
            beta: &beta,
        };
        let moments = channel_moments(&input, channels, spatial);
        let (mut output, mut grad) = (vec![f32::NAN; input.len()], dy.clone());
        norm.forward(&moments, &input, &mut output);
        let affine = norm.backward(&moments, &input, &mut grad);
        for c in 0..channels {
            let (x, dy) = (channel(&input, c), channel(&dy, c));
            let count = x.len() as f64;
            let mean = x.iter().sum::<f64>() / count;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
            let rstd = 1.0 / (variance + 1e-5).sqrt();
            let close = |got: f32, want: f64, what: &str| {
                let error = (f64::from(got) - want).abs();
                // Inputs and gradients reach 44, and the mean of either is subtracted.
                assert!(error <= 5e-4, "{what} {c}: {got} for {want}");
            };
            close(moments[c].mean, mean, "mean");
            close(moments[c].variance, variance, "variance");
            let hat: Vec<f64> = x.iter().map(|x| (x - mean) * rstd).collect();
            let (sum, dot) = (
                dy.iter().sum::<f64>(),
                dy.iter().zip(&hat).map(|(d, h)| d * h).sum::<f64>(),
            );
            close(affine.beta[c], sum, "beta");
            // What rounding the mean leaves out counts once for every number.
            let size: f64 = dy.iter().map(|d| d.abs()).sum();
            let error = (f64::from(affine.gamma[c]) - dot).abs();
            assert!(
                error <= 1e-6 * size,
                "gamma {c}: {} for {dot}",
                affine.gamma[c]
            );
            let (scale, shift) = (f64::from(gamma[c]), f64::from(beta[c]));
            let (y, dx) = (channel(&output, c), channel(&grad, c));
            for i in 0..x.len() {
                close(y[i] as f32, scale * hat[i] + shift, "value");
                let want = scale * rstd * (dy[i] - sum / count - hat[i] * dot / count);
                close(dx[i] as f32, want, "gradient");
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let [_, channels, spatial] = SHAPE;
        let (input, gamma) = (numbers(3), vec![1.0; channels]);
        let norm = BatchNorm {
            spatial,
            eps: 1e-5,
            gamma: &gamma,
            beta: &gamma,
        };
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(|| {
                let moments = channel_moments(&input, channels, spatial);
                let mut grad = numbers(4);
                let affine = norm.backward(&moments, &input, &mut grad);
                (moments, grad, affine)
            })
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    #[should_panic(expected = "7 numbers do not fill images of 2 channels and 3 positions")]
    fn broken_images_are_refused() {
        channel_moments(&[0.0; 7], 2, 3);
    }
}
