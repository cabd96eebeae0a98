//! Exponential, logistic and normal distribution functions on vector registers.
//!
//! The polynomials are minimax fits (Remez exchange in 40 digits) made for this file.
//!
//! | function | largest relative error | remark |
//! |---|---|---|
//! | [`exp`] | 1.5e-7 | zero below -87, infinite above 88.73, NaN stays |
//! | [`sigmoid`] | 3e-7 | for arguments above -80 |
//! | [`normal`], distribution | 4.5e-7 for x >= -1, 6e-7 for x >= -3, 3e-6 for x >= -9 | the left tail keeps its digits |

use crate::lanes::Lanes;

/// `eˣ`.
///
/// x = n·ln 2 + r, |r| <= ln 2 / 2, eˣ = 2ⁿ·(1 + r + r²·p(r)). Results below the smallest normal
/// number are zero.
#[inline(always)]
pub(crate) fn exp<V: Lanes>(x: V) -> V {
    let x = V::splat(89.0).min(V::splat(-87.3).max(x));
    let n = (x * V::splat(std::f32::consts::LOG2_E)).round();
    // ln 2 in two parts: the first has few enough bits that n times it is exact.
    let r = n.mul_add(V::splat(-0.693_359_4), x);
    let r = n.mul_add(V::splat(2.121_944_4e-4), r);
    let p = V::splat(0.001_381_446_6);
    let p = p.mul_add(r, V::splat(0.008_368_78));
    let p = p.mul_add(r, V::splat(0.041_668_393));
    let p = p.mul_add(r, V::splat(0.166_665_2));
    let p = p.mul_add(r, V::splat(0.499_999_93));
    let y = (p * r).mul_add(r, r) + V::splat(1.0);
    let floor = V::splat(-87.0);
    V::select_less(x, floor, V::splat(0.0), y.scale(n))
}

/// `1 / (1 + e⁻ˣ)`. Below -80 it stays at e⁻⁸⁰ (1.8e-35), which keeps the reciprocal normal.
#[inline(always)]
pub(crate) fn sigmoid<V: Lanes>(x: V) -> V {
    let x = V::splat(-80.0).max(x);
    (exp(-x) + V::splat(1.0)).recip()
}

/// Distribution `Φ(x)` and density `φ(x)` of the standard normal distribution.
///
/// Φ(-u) = e^(-u²/2)·t·p(t) with t = 1/(1 + 0.3 u) for u >= 0, and Φ(u) = 1 - Φ(-u): no
/// difference of nearly equal numbers on either side. `Φ(x) = (1 + erf(x/√2)) / 2`.
#[inline(always)]
pub(crate) fn normal<V: Lanes>(x: V) -> (V, V) {
    let u = V::splat(14.0).min(x.abs());
    let t = u.mul_add(V::splat(0.3), V::splat(1.0)).recip();
    let p = V::splat(0.037_236_223);
    let p = p.mul_add(t, V::splat(-0.163_632_92));
    let p = p.mul_add(t, V::splat(0.217_285_93));
    let p = p.mul_add(t, V::splat(-0.063_591_27));
    let p = p.mul_add(t, V::splat(0.133_706_98));
    let p = p.mul_add(t, V::splat(0.098_389_424));
    let p = p.mul_add(t, V::splat(0.120_991_28));
    let p = p.mul_add(t, V::splat(0.119_614_36));
    let bell = exp(u * u * V::splat(-0.5));
    let tail = bell * t * p;
    let zero = V::splat(0.0);
    let distribution = V::select_less(x, zero, tail, V::splat(1.0) - tail);
    // 1 / sqrt(2 pi)
    (distribution, bell * V::splat(0.398_942_3))
}

/// Distribution and density of the standard normal distribution in f64, for tests: a series near zero,
/// a continued fraction in the tails.
#[cfg(test)]
pub(crate) fn normal_f64(x: f64) -> (f64, f64) {
    let u = x.abs();
    let density = (-u * u / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let tail = if u < 3.0 {
        let (mut term, mut sum) = (u, u);
        for k in 1..200 {
            term *= u * u / f64::from(2 * k + 1);
            sum += term;
        }
        0.5 - density * sum
    } else {
        let mut fraction = 0.0;
        for k in (1..400).rev() {
            fraction = f64::from(k) / (u + fraction);
        }
        density / (u + fraction)
    };
    (if x < 0.0 { tail } else { 1.0 - tail }, density)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Simd;
    use crate::lanes::{Kernel, dispatch};

    enum Function {
        Exp,
        Sigmoid,
        Distribution,
        Density,
    }

    struct Apply<'a>(Function, &'a [f32], &'a mut [f32]);

    impl Kernel for Apply<'_> {
        type Output = ();
        #[inline(always)]
        fn run<V: Lanes>(self) {
            for (x, y) in self.1.chunks_exact(V::N).zip(self.2.chunks_exact_mut(V::N)) {
                let x = V::load(x);
                let value = match self.0 {
                    Function::Exp => exp(x),
                    Function::Sigmoid => sigmoid(x),
                    Function::Distribution => normal(x).0,
                    Function::Density => normal(x).1,
                };
                value.store(y);
            }
        }
    }

    fn distribution_f64(x: f64) -> f64 {
        normal_f64(x).0
    }

    fn worst(simd: Simd, f: Function, range: (f32, f32), truth: fn(f64) -> f64) -> f64 {
        let count = 160_000;
        let step = (range.1 - range.0) / count as f32;
        let x: Vec<f32> = (0..count).map(|i| range.0 + i as f32 * step).collect();
        let mut y = vec![0.0; count];
        dispatch(simd, Apply(f, &x, &mut y));
        let error = |(x, y): (&f32, &f32)| {
            let want = truth(f64::from(*x));
            (f64::from(*y) - want).abs() / want.abs()
        };
        x.iter().zip(&y).map(error).fold(0.0, f64::max)
    }

    #[test]
    fn relative_errors_are_as_documented() {
        for simd in Simd::available() {
            let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
            let density = |x: f64| (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let cases = [
                (worst(simd, Function::Exp, (-86.9, 88.7), f64::exp), 1.5e-7),
                (worst(simd, Function::Exp, (-1.0, 1.0), f64::exp), 1.5e-7),
                (worst(simd, Function::Sigmoid, (-79.0, 90.0), sigmoid), 3e-7),
                (
                    worst(simd, Function::Distribution, (-1.0, 20.0), distribution_f64),
                    4.5e-7,
                ),
                (
                    worst(simd, Function::Distribution, (-3.0, -1.0), distribution_f64),
                    6e-7,
                ),
                (
                    worst(simd, Function::Distribution, (-9.0, -3.0), distribution_f64),
                    3e-6,
                ),
                (worst(simd, Function::Density, (-3.0, 3.0), density), 5e-7),
            ];
            for (case, (error, bound)) in cases.iter().enumerate() {
                assert!(
                    error <= bound,
                    "{simd:?}, case {case}: {error:e} over {bound:e}"
                );
            }
        }
    }

    #[test]
    fn ends_of_the_range() {
        let inf = f32::INFINITY;
        for simd in Simd::available() {
            let x = [-inf, -1e30, -88.0, 0.0, 89.5, inf, f32::NAN, 1.0];
            let x = [x, x].concat();
            let mut y = vec![0.0; 16];
            dispatch(simd, Apply(Function::Exp, &x, &mut y));
            assert_eq!(y[..6], [0.0, 0.0, 0.0, 1.0, inf, inf], "{simd:?}");
            assert!(y[6].is_nan());
            dispatch(simd, Apply(Function::Sigmoid, &x, &mut y));
            assert!(y[0] > 0.0 && y[0] < 1e-34 && y[3] == 0.5, "{simd:?}: {y:?}");
            assert!(y[5] == 1.0 && y[6].is_nan());
            dispatch(simd, Apply(Function::Distribution, &x, &mut y));
            assert!(
                y[0] < 1e-36 && (y[3] - 0.5).abs() < 1e-7 && y[5] == 1.0,
                "{simd:?}: {y:?}"
            );
            assert!(y[6].is_nan());
        }
    }
}
