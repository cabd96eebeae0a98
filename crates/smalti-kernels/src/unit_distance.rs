//! The distance of feature maps whose vectors are scaled to length one, as LPIPS takes it.
//!
//! For `a`, `b` of `[batch, channels, positions]` and a weight for each channel:
//! `d = mean over positions of Σ_c w_c·(a_c/(|a| + ε) − b_c/(|b| + ε))²`, `|·|` over channels, ε = 1e-10;
//! Zhang et al., CVPR 2018, arXiv 1801.03924, equation 1, with the weights' squares written as weights.
//! Backward with `u = a/(|a| + ε)`, `g_c = 2·w_c·(u_c − v_c)/positions`:
//! `∂d/∂a_c = (g_c − a_c·(Σ_k g_k·u_k)/|a|)/(|a| + ε)`, and without the second term where `a = 0`: the limit,
//! where the reference's square root has an infinite slope and gives NaN.
//!
//! A block of positions at a time, channel after channel: memory is read along its rows, and nothing of
//! the size of a feature map is written on the way there. Sums of blocks are joined in f64 in their order.

use rayon::prelude::*;

use crate::Simd;
use crate::lanes::{Kernel, Lanes, dispatch};

/// What is added to a vector's length.
pub const EPSILON: f32 = 1e-10;
/// Positions of a block: a few rows of them stay in the first-level cache.
const BLOCK: usize = 1024;

/// The distance of maps of `weights.len()` channels.
#[derive(Clone, Copy, Debug)]
pub struct UnitDistance<'a> {
    /// Positions of a map.
    pub positions: usize,
    /// How much each channel counts.
    pub weights: &'a [f32],
}

/// Lengths of the vectors, `[batch, positions]` each.
#[derive(Clone, Debug, Default)]
pub struct Lengths {
    /// Of the first maps.
    pub a: Vec<f32>,
    /// Of the second maps.
    pub b: Vec<f32>,
}

impl UnitDistance<'_> {
    /// The distance of each pair of maps, and what [`backward`](Self::backward) needs.
    ///
    /// # Panics
    /// When lengths differ or are no whole maps.
    pub fn forward(&self, a: &[f32], b: &[f32]) -> (Vec<f32>, Lengths) {
        let batch = self.batch(a.len(), b.len());
        let simd = Simd::active();
        let blocks = self.blocks(batch, |maps| {
            let maps = maps.of(a, b);
            dispatch(simd, Forward { of: self, maps })
        });
        let (mut sums, mut lengths) = (vec![0.0f64; batch], Lengths::default());
        let each = self.positions.div_ceil(BLOCK);
        for (i, (sum, of_a, of_b)) in blocks.into_iter().enumerate() {
            sums[i / each] += sum;
            lengths.a.extend(of_a);
            lengths.b.extend(of_b);
        }
        let mean = |sum: f64| (sum / self.positions as f64) as f32;
        (sums.into_iter().map(mean).collect(), lengths)
    }

    /// Writes the gradient of the first maps to `grad_a`, given those of the distances.
    ///
    /// The distance is symmetric: for that of the second maps exchange `maps` and `lengths`.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn backward(
        &self,
        [a, b]: [&[f32]; 2],
        [of_a, of_b]: [&[f32]; 2],
        grad: &[f32],
        grad_a: &mut [f32],
    ) {
        let batch = self.batch(a.len(), b.len());
        let (channels, positions) = (self.weights.len(), self.positions);
        assert_eq!(
            [of_a.len(), of_b.len(), grad.len() * positions, grad_a.len()],
            [
                batch * positions,
                batch * positions,
                batch * positions,
                a.len()
            ],
            "unit distance: lengths, gradients and maps do not belong together"
        );
        let simd = Simd::active();
        let inverse = |lengths: &[f32]| lengths.iter().map(|l| 1.0 / (l + EPSILON)).collect();
        let (inverse_a, inverse_b): (Vec<f32>, Vec<f32>) = (inverse(of_a), inverse(of_b));
        let blocks = self.blocks(batch, |maps| {
            let start = maps.image * positions + maps.start;
            let place = start..start + maps.count;
            let inverse = [&inverse_a[place.clone()], &inverse_b[place]];
            let maps = maps.of(a, b);
            dispatch(
                simd,
                Pull {
                    of: self,
                    maps,
                    inverse,
                },
            )
        });
        let mut pull: Vec<f32> = blocks.into_iter().flatten().collect();
        for (pull, (length, inverse)) in pull.iter_mut().zip(of_a.iter().zip(&inverse_a)) {
            *pull = if *length > 0.0 {
                *pull * inverse / length
            } else {
                0.0
            };
        }
        grad_a
            .par_chunks_mut(positions)
            .zip(a.par_chunks(positions).zip(b.par_chunks(positions)))
            .enumerate()
            .for_each(|(plane, (to, (a, b)))| {
                let (image, channel) = (plane / channels, plane % channels);
                let place = image * positions..(image + 1) * positions;
                let spread = Spread {
                    scale: 2.0 * grad[image] / positions as f32,
                    weight: self.weights[channel],
                    maps: [a, b],
                    inverse: [&inverse_a[place.clone()], &inverse_b[place.clone()]],
                    pull: &pull[place],
                    to,
                };
                dispatch(simd, spread);
            });
    }

    /// Runs `work` on every block of every map; results in the order of maps, then of positions.
    fn blocks<T: Send>(&self, batch: usize, work: impl Fn(Block) -> T + Sync) -> Vec<T> {
        let each = self.positions.div_ceil(BLOCK);
        (0..batch * each)
            .into_par_iter()
            .map(|i| {
                let start = i % each * BLOCK;
                work(Block {
                    image: i / each,
                    channels: self.weights.len(),
                    positions: self.positions,
                    start,
                    count: BLOCK.min(self.positions - start),
                })
            })
            .collect()
    }

    fn batch(&self, a: usize, b: usize) -> usize {
        let map = self.weights.len() * self.positions;
        assert!(
            a == b && map > 0 && a.is_multiple_of(map),
            "unit distance: {a} and {b} numbers are not as many maps of {map}"
        );
        a / map
    }
}

/// A block of positions of one image.
#[derive(Clone, Copy)]
struct Block {
    image: usize,
    channels: usize,
    positions: usize,
    start: usize,
    count: usize,
}

impl Block {
    fn of<'a>(self, a: &'a [f32], b: &'a [f32]) -> Maps<'a> {
        Maps { block: self, a, b }
    }
}

/// Both maps, seen through a block.
struct Maps<'a> {
    block: Block,
    a: &'a [f32],
    b: &'a [f32],
}

impl Maps<'_> {
    /// The block's positions in a channel of both maps.
    #[inline(always)]
    fn channel(&self, channel: usize) -> (&[f32], &[f32]) {
        let Block {
            image,
            channels,
            positions,
            start,
            count,
        } = self.block;
        let first = (image * channels + channel) * positions + start;
        let place = first..first + count;
        (&self.a[place.clone()], &self.b[place])
    }
}

/// The sum of distances of a block, and the vectors' lengths.
struct Forward<'a> {
    of: &'a UnitDistance<'a>,
    maps: Maps<'a>,
}

impl Kernel for Forward<'_> {
    type Output = (f64, Vec<f32>, Vec<f32>);
    #[inline(always)]
    fn run<V: Lanes>(self) -> Self::Output {
        let count = self.maps.block.count;
        let (mut of_a, mut of_b) = (vec![0.0f32; count], vec![0.0f32; count]);
        for channel in 0..self.of.weights.len() {
            let (a, b) = self.maps.channel(channel);
            for (sum, x) in of_a.iter_mut().zip(a) {
                *sum += x * x;
            }
            for (sum, x) in of_b.iter_mut().zip(b) {
                *sum += x * x;
            }
        }
        of_a.iter_mut().for_each(|x| *x = x.sqrt());
        of_b.iter_mut().for_each(|x| *x = x.sqrt());
        let inverse_a: Vec<f32> = of_a.iter().map(|x| 1.0 / (x + EPSILON)).collect();
        let inverse_b: Vec<f32> = of_b.iter().map(|x| 1.0 / (x + EPSILON)).collect();
        let mut distances = vec![0.0f32; count];
        for (channel, &weight) in self.of.weights.iter().enumerate() {
            let (a, b) = self.maps.channel(channel);
            let units = a.iter().zip(&inverse_a).zip(b.iter().zip(&inverse_b));
            for (sum, ((a, ia), (b, ib))) in distances.iter_mut().zip(units) {
                let step = a * ia - b * ib;
                *sum += weight * step * step;
            }
        }
        let sum = distances.iter().map(|&d| f64::from(d)).sum();
        (sum, of_a, of_b)
    }
}

/// `Σ_k w_k·(u_k − v_k)·u_k` at each position of a block.
struct Pull<'a> {
    of: &'a UnitDistance<'a>,
    maps: Maps<'a>,
    inverse: [&'a [f32]; 2],
}

impl Kernel for Pull<'_> {
    type Output = Vec<f32>;
    #[inline(always)]
    fn run<V: Lanes>(self) -> Vec<f32> {
        let [inverse_a, inverse_b] = self.inverse;
        let mut sums = vec![0.0f32; self.maps.block.count];
        for (channel, &weight) in self.of.weights.iter().enumerate() {
            let (a, b) = self.maps.channel(channel);
            let units = a.iter().zip(inverse_a).zip(b.iter().zip(inverse_b));
            for (sum, ((a, ia), (b, ib))) in sums.iter_mut().zip(units) {
                let unit = a * ia;
                *sum += weight * (unit - b * ib) * unit;
            }
        }
        sums
    }
}

/// The gradient of one plane.
struct Spread<'a> {
    scale: f32,
    weight: f32,
    maps: [&'a [f32]; 2],
    inverse: [&'a [f32]; 2],
    /// The sums of [`Pull`], over `|a|·(|a| + ε)`.
    pull: &'a [f32],
    to: &'a mut [f32],
}

impl Kernel for Spread<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let ([a, b], [inverse_a, inverse_b]) = (self.maps, self.inverse);
        let (scale, weight) = (self.scale, self.weight);
        let units = a.iter().zip(inverse_a).zip(b.iter().zip(inverse_b));
        for ((to, pull), ((a, ia), (b, ib))) in self.to.iter_mut().zip(self.pull).zip(units) {
            let step = a * ia - b * ib;
            *to = scale * (weight * step * ia - a * pull);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: usize = 2;
    const WEIGHTS: [f32; 3] = [0.5, 0.0, 2.0];

    fn maps(positions: usize, seed: usize) -> Vec<f32> {
        (0..BATCH * WEIGHTS.len() * positions)
            .map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1000.0 - 0.5)
            .collect()
    }

    /// The distance of image `image` in f64.
    fn truth(positions: usize, image: usize, a: &[f64], b: &[f64]) -> f64 {
        let channels = WEIGHTS.len();
        let at =
            |values: &[f64], c: usize, p: usize| values[(image * channels + c) * positions + p];
        let unit = |values: &[f64], c: usize, p: usize| {
            let length = (0..channels)
                .map(|k| at(values, k, p).powi(2))
                .sum::<f64>()
                .sqrt();
            at(values, c, p) / (length + 1e-10)
        };
        let mut sum = 0.0;
        for p in 0..positions {
            for (c, &weight) in WEIGHTS.iter().enumerate() {
                sum += f64::from(weight) * (unit(a, c, p) - unit(b, c, p)).powi(2);
            }
        }
        sum / positions as f64
    }

    fn wide(values: &[f32]) -> Vec<f64> {
        values.iter().map(|&v| f64::from(v)).collect()
    }

    #[test]
    fn distances_and_gradients_agree_with_f64() {
        for positions in [1, 5, BLOCK + 3] {
            let (a, b) = (maps(positions, 1), maps(positions, 2));
            let distance = UnitDistance {
                positions,
                weights: &WEIGHTS,
            };
            let (got, lengths) = distance.forward(&a, &b);
            let mut grad = vec![f32::NAN; a.len()];
            let of = [&lengths.a[..], &lengths.b[..]];
            distance.backward([&a, &b], of, &[1.0, -3.0], &mut grad);
            for (image, factor) in [(0, 1.0), (1, -3.0)] {
                let want = truth(positions, image, &wide(&a), &wide(&b));
                assert!(
                    (f64::from(got[image]) - want).abs() < 1e-6 * want.max(1.0),
                    "{got:?} {want}"
                );
                for i in (0..3 * positions).step_by(positions.div_ceil(3)) {
                    let i = image * 3 * positions + i;
                    let moved = |step: f64| {
                        let mut a = wide(&a);
                        a[i] += step;
                        truth(positions, image, &a, &wide(&b))
                    };
                    let slope = factor * (moved(1e-5) - moved(-1e-5)) / 2e-5;
                    let scale = 1.0 / positions as f64;
                    let error = (f64::from(grad[i]) - slope).abs();
                    assert!(
                        error < 1e-4 * scale.max(slope.abs()),
                        "{i}: {} for {slope}",
                        grad[i]
                    );
                }
            }
        }
    }

    #[test]
    fn vectors_of_zeros_have_finite_gradients() {
        let distance = UnitDistance {
            positions: 2,
            weights: &[1.0, 1.0],
        };
        // The first position of a is zero, the second one of both.
        let (a, b) = ([0.0f32; 4], [1.0, 0.0, 0.0, 0.0]);
        let (got, lengths) = distance.forward(&a, &b);
        assert_eq!(got, [0.5]);
        let mut grad = [f32::NAN; 4];
        distance.backward([&a, &b], [&lengths.a, &lengths.b], &[1.0], &mut grad);
        assert!(grad.iter().all(|g| g.is_finite()), "{grad:?}");
    }
}
