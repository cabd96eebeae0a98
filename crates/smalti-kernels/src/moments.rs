//! Mean and spread of a slice: the statistics that the norms divide by.
//!
//! One pass over memory: pieces that fit the first-level cache are summed twice (mean, then squared
//! deviations from it), and pieces are combined in f64 by Chan's formula. Nothing is lost where the
//! mean is large against the deviation, unlike with `E[x²] - E[x]²`.

use crate::lanes::Lanes;

/// What a norm subtracts and multiplies by.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    /// Mean of the values.
    pub mean: f32,
    /// `1 / sqrt(variance + eps)`, the variance being that of the whole population.
    pub rstd: f32,
}

/// Numbers in a piece: 8 KiB.
const PIECE: usize = 2048;

/// Mean and reciprocal deviation of all values.
#[inline(always)]
pub(crate) fn moments<V: Lanes>(values: &[f32], eps: f32) -> Moments {
    let (mean, squares) = spread::<V>(values);
    let variance = (squares / values.len() as f64) as f32;
    Moments {
        mean: mean as f32,
        rstd: 1.0 / (variance + eps).sqrt(),
    }
}

/// Mean, and sum of squared deviations from it.
#[inline(always)]
pub(crate) fn spread<V: Lanes>(values: &[f32]) -> (f64, f64) {
    let (mut mean, mut squares) = piece::<V>(&values[..values.len().min(PIECE)]);
    // Small groups are many: they are spared the divisions below.
    for start in (PIECE..values.len()).step_by(PIECE) {
        let part = &values[start..(start + PIECE).min(values.len())];
        let (part_mean, part_squares) = piece::<V>(part);
        let (count, length) = (start as f64, part.len() as f64);
        let step = part_mean - mean;
        mean += step * length / (count + length);
        squares += part_squares + step * step * count * length / (count + length);
    }
    (mean, squares)
}

/// Mean and sum of squared deviations of a piece.
#[inline(always)]
fn piece<V: Lanes>(values: &[f32]) -> (f64, f64) {
    let share = 1.0 / values.len() as f64;
    let centre = (f64::from(sum::<V>(values)) * share) as f32;
    // What the f32 centre misses of the mean comes out as the sum of the deviations.
    let (rest, deviations) = deviations::<V>(values, centre);
    let (rest, deviations) = (f64::from(rest), f64::from(deviations));
    (
        f64::from(centre) + rest * share,
        deviations - rest * rest * share,
    )
}

/// Sum of a slice in four chains.
#[inline(always)]
pub(crate) fn sum<V: Lanes>(values: &[f32]) -> f32 {
    let mut sums = [V::splat(0.0); 4];
    let mut blocks = values.chunks_exact(4 * V::N);
    for block in &mut blocks {
        for (sum, part) in sums.iter_mut().zip(block.chunks_exact(V::N)) {
            *sum = *sum + V::load(part);
        }
    }
    for part in blocks.remainder().chunks(V::N) {
        sums[0] = sums[0] + V::load_part(part, 0.0);
    }
    ((sums[0] + sums[1]) + (sums[2] + sums[3])).sum()
}

/// `Σ (x - centre)` and `Σ (x - centre)²`.
#[inline(always)]
fn deviations<V: Lanes>(values: &[f32], centre: f32) -> (f32, f32) {
    let middle = V::splat(centre);
    let (mut sums, mut squares) = ([V::splat(0.0); 4], [V::splat(0.0); 4]);
    let mut blocks = values.chunks_exact(4 * V::N);
    for block in &mut blocks {
        for (i, part) in block.chunks_exact(V::N).enumerate() {
            let x = V::load(part) - middle;
            sums[i] = sums[i] + x;
            squares[i] = x.mul_add(x, squares[i]);
        }
    }
    for part in blocks.remainder().chunks(V::N) {
        let x = V::load_part(part, centre) - middle;
        sums[0] = sums[0] + x;
        squares[0] = x.mul_add(x, squares[0]);
    }
    let total = |v: [V; 4]| ((v[0] + v[1]) + (v[2] + v[3])).sum();
    (total(sums), total(squares))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Simd;
    use crate::lanes::{Kernel, dispatch};

    struct Measure<'a>(&'a [f32]);

    impl Kernel for Measure<'_> {
        type Output = Moments;
        #[inline(always)]
        fn run<V: Lanes>(self) -> Moments {
            moments::<V>(self.0, 1e-6)
        }
    }

    #[test]
    fn agrees_with_f64_far_from_zero_and_for_odd_lengths() {
        for (length, shift) in [
            (1, 3.0),
            (7, 0.0),
            (65, -2.0),
            (4097, 1000.0),
            (10_000, -30_000.0),
        ] {
            let values: Vec<f32> = (0..length)
                .map(|i| ((i * 37 % 101) as f32 - 50.0) / 30.0 + shift)
                .collect();
            let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / length as f64;
            let variance = values
                .iter()
                .map(|x| (f64::from(*x) - mean).powi(2))
                .sum::<f64>()
                / length as f64;
            let rstd = 1.0 / (variance + 1e-6).sqrt();
            for simd in Simd::available() {
                let got = dispatch(simd, Measure(&values));
                let close = |a: f32, b: f64| (f64::from(a) - b).abs() <= 3e-7 * b.abs().max(1e-3);
                assert!(
                    close(got.mean, mean),
                    "{simd:?} {length}: {got:?} for {mean}"
                );
                assert!(
                    close(got.rstd, rstd),
                    "{simd:?} {length}: {got:?} for {rstd}"
                );
            }
        }
    }
}
