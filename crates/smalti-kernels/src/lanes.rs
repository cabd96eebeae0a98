//! Vector registers as values, and the one place that picks a vector width.
//!
//! A kernel is a struct of borrowed arguments that implements [`Kernel`]; its `run` is written once,
//! generic over [`Lanes`], and [`dispatch`] compiles it for every instruction set. All of `run` and
//! what it calls must be `#[inline(always)]`: only then does the code land inside the function that
//! has the instructions switched on. For the same reason closures are avoided there.
//!
//! On `aarch64` vectors are part of the base target, so the portable path, which keeps its lanes in
//! plain arrays, is compiled to NEON and serves both [`Simd::Portable`] and [`Simd::Neon`].

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::Simd;
use std::ops::{Add, Div, Mul, Neg, Sub};

pub(crate) use portable::Portable;
#[cfg(target_arch = "x86_64")]
use x86::{Avx2, Avx512};

/// `N` numbers that one instruction works on.
///
/// Types other than [`Portable`] may only be named by code that [`dispatch`] runs, because it has
/// checked that the processor knows their instructions.
pub(crate) trait Lanes:
    Copy
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// Numbers in one register; never more than [`MAX_LANES`].
    const N: usize;

    /// The same number in every lane.
    fn splat(value: f32) -> Self;

    /// Reads `N` numbers.
    ///
    /// # Safety
    /// `N` numbers must be readable at `source`. No alignment is asked for.
    unsafe fn read(source: *const f32) -> Self;

    /// Writes `N` numbers.
    ///
    /// # Safety
    /// `N` numbers must be writable at `target`. No alignment is asked for.
    unsafe fn write(self, target: *mut f32);

    /// `self * factor + addend`; rounded once where the processor can.
    fn mul_add(self, factor: Self, addend: Self) -> Self;

    /// Lane by lane `if self < other { self } else { other }`: a NaN in `other` stays.
    fn min(self, other: Self) -> Self;

    /// Lane by lane `if self > other { self } else { other }`: a NaN in `other` stays.
    fn max(self, other: Self) -> Self;

    /// Nearest whole number, ties to even.
    fn round(self) -> Self;

    /// `self · 2ⁿ` for lanes of `exponent` that hold whole numbers in -126..=128. Results below the
    /// smallest normal number may become zero.
    fn scale(self, exponent: Self) -> Self;

    /// `1 / self` to within two units in the last place, for normal numbers below 2¹²⁶.
    fn recip(self) -> Self;

    /// Square root.
    fn sqrt(self) -> Self;

    /// Absolute value.
    fn abs(self) -> Self;

    /// Lane by lane `if a < b { yes } else { no }`.
    fn select_less(a: Self, b: Self, yes: Self, no: Self) -> Self;

    /// Bit `i` is set where `self[i] <= other[i]`.
    fn less_or_equal(self, other: Self) -> u32;

    /// Sum of the lanes, in an order that depends on `N` only.
    fn sum(self) -> f32;

    /// Smallest lane, where no lane is NaN.
    fn minimum(self) -> f32;

    /// Writes eight rows of eight numbers, `from_stride` apart, as columns `to_stride` apart.
    #[inline(always)]
    fn transpose_8x8(from: &[f32], from_stride: usize, to: &mut [f32], to_stride: usize) {
        for row in 0..8 {
            for (column, value) in from[row * from_stride..][..8].iter().enumerate() {
                to[column * to_stride + row] = *value;
            }
        }
    }

    /// Reads the first `N` numbers of a slice.
    #[inline(always)]
    fn load(source: &[f32]) -> Self {
        assert!(source.len() >= Self::N);
        // SAFETY: the slice holds at least N numbers.
        unsafe { Self::read(source.as_ptr()) }
    }

    /// Writes the first `N` numbers of a slice.
    #[inline(always)]
    fn store(self, target: &mut [f32]) {
        assert!(target.len() >= Self::N);
        // SAFETY: the slice holds at least N numbers.
        unsafe { self.write(target.as_mut_ptr()) }
    }

    /// Reads a whole slice of at most `N` numbers; lanes past its end hold `fill`.
    #[inline(always)]
    fn load_part(source: &[f32], fill: f32) -> Self {
        if source.len() == Self::N {
            return Self::load(source);
        }
        let mut lanes = [fill; MAX_LANES];
        lanes[..source.len()].copy_from_slice(source);
        Self::load(&lanes)
    }

    /// Writes a whole slice of at most `N` numbers; further lanes are dropped.
    #[inline(always)]
    fn store_part(self, target: &mut [f32]) {
        if target.len() == Self::N {
            return self.store(target);
        }
        let mut lanes = [0.0; MAX_LANES];
        self.store(&mut lanes);
        let length = target.len();
        target.copy_from_slice(&lanes[..length]);
    }
}

/// The widest register of any path.
pub(crate) const MAX_LANES: usize = 16;

/// Work written once for every vector width.
pub(crate) trait Kernel {
    /// What the work returns.
    type Output;
    /// Does the work. Implementations are `#[inline(always)]`.
    fn run<V: Lanes>(self) -> Self::Output;
}

/// Runs a kernel with the registers of `simd`.
///
/// # Panics
/// When this processor does not have them.
#[inline]
pub(crate) fn dispatch<K: Kernel>(simd: Simd, kernel: K) -> K::Output {
    match simd {
        #[cfg(target_arch = "x86_64")]
        Simd::Avx512 => {
            let here = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            assert!(here, "this processor has no AVX-512");
            // SAFETY: the line above.
            unsafe { run_avx512(kernel) }
        }
        #[cfg(target_arch = "x86_64")]
        Simd::Avx2 => {
            let here = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            assert!(here, "this processor has no AVX2 with FMA");
            // SAFETY: the line above.
            unsafe { run_avx2(kernel) }
        }
        #[cfg(target_arch = "aarch64")]
        Simd::Neon => kernel.run::<Portable>(),
        Simd::Portable => kernel.run::<Portable>(),
        #[allow(unreachable_patterns)]
        other => panic!("this processor has no {other:?}"),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx512>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx2>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs every operation on one register and writes the results one after the other.
    struct Everything<'a> {
        a: &'a [f32],
        b: &'a [f32],
        out: &'a mut Vec<Vec<f32>>,
    }

    impl Kernel for Everything<'_> {
        type Output = ();
        #[inline(always)]
        fn run<V: Lanes>(self) {
            let (a, b) = (V::load(self.a), V::load(self.b));
            let whole = a.round();
            let values = [
                a + b,
                a - b,
                a * b,
                a / b,
                -a,
                a.mul_add(b, a),
                a.min(b),
                a.max(b),
                whole,
                b.scale(whole),
                b.recip(),
                b.sqrt(),
                a.abs(),
                V::select_less(a, b, V::splat(1.0), V::splat(2.0)),
                V::load_part(&self.a[..3], 9.0),
            ];
            for value in values {
                let mut lanes = vec![0.0; V::N];
                value.store(&mut lanes);
                self.out.push(lanes);
            }
            let mut part = [7.0; 5];
            a.store_part(&mut part[..3]);
            self.out.push(part.to_vec());
            let bits = a.less_or_equal(b);
            self.out
                .push((0..V::N).map(|i| ((bits >> i) & 1) as f32).collect());
            self.out.push(vec![a.sum(), a.minimum()]);
            let from: Vec<f32> = (0..80).map(|i| i as f32).collect();
            let mut to = vec![-1.0; 7 * 9 + 8];
            V::transpose_8x8(&from, 10, &mut to, 9);
            self.out.push(to);
        }
    }

    fn expected(a: &[f32], b: &[f32], n: usize) -> Vec<Vec<f32>> {
        type Pair = fn(f32, f32) -> f32;
        let pairs: [Pair; 14] = [
            |a, b| a + b,
            |a, b| a - b,
            |a, b| a * b,
            |a, b| a / b,
            |a, _| -a,
            |a, b| a * b + a,
            |a, b| if a < b { a } else { b },
            |a, b| if a > b { a } else { b },
            |a, _| a.round_ties_even(),
            |a, b| b * a.round_ties_even().exp2(),
            |_, b| 1.0 / b,
            |_, b| b.sqrt(),
            |a, _| a.abs(),
            |a, b| if a < b { 1.0 } else { 2.0 },
        ];
        let mut rows: Vec<Vec<f32>> = pairs
            .iter()
            .map(|f| (0..n).map(|i| f(a[i], b[i])).collect())
            .collect();
        rows.push((0..n).map(|i| if i < 3 { a[i] } else { 9.0 }).collect());
        rows.push(vec![a[0], a[1], a[2], 7.0, 7.0]);
        rows.push((0..n).map(|i| f32::from(a[i] <= b[i])).collect());
        let minimum = a[..n].iter().copied().fold(f32::INFINITY, f32::min);
        rows.push(vec![a[..n].iter().sum(), minimum]);
        let turned = |i: usize| {
            if i % 9 < 8 {
                (i % 9 * 10 + i / 9) as f32
            } else {
                -1.0
            }
        };
        rows.push((0..7 * 9 + 8).map(turned).collect());
        rows
    }

    #[test]
    fn every_path_computes_the_same() {
        let a: Vec<f32> = (0..16).map(|i| (i as f32 - 6.5) * 1.25).collect();
        let b: Vec<f32> = (0..16).map(|i| 0.1 + ((i * 7) % 16) as f32 * 0.5).collect();
        for simd in Simd::available() {
            let mut out = Vec::new();
            dispatch(
                simd,
                Everything {
                    a: &a,
                    b: &b,
                    out: &mut out,
                },
            );
            let want = expected(&a, &b, out[0].len());
            assert_eq!(out.len(), want.len());
            for (row, (got, want)) in out.iter().zip(&want).enumerate() {
                assert_eq!(got.len(), want.len());
                for (g, w) in got.iter().zip(want) {
                    let close = (g - w).abs() <= 3e-7 * w.abs().max(1e-3);
                    assert!(close, "{simd:?}, operation {row}: {got:?} for {want:?}");
                }
            }
        }
    }

    #[test]
    fn a_nan_on_the_right_survives_min_and_max() {
        let (a, b) = ([1.0; 16], [f32::NAN; 16]);
        for simd in Simd::available() {
            let mut out = Vec::new();
            dispatch(
                simd,
                Everything {
                    a: &a,
                    b: &b,
                    out: &mut out,
                },
            );
            assert!(out[6][0].is_nan() && out[7][0].is_nan(), "{simd:?}");
            let mut out = Vec::new();
            dispatch(
                simd,
                Everything {
                    a: &b,
                    b: &a,
                    out: &mut out,
                },
            );
            assert_eq!((out[6][0], out[7][0]), (1.0, 1.0), "{simd:?}");
        }
    }

    #[test]
    #[should_panic(expected = "this processor has no")]
    fn a_missing_path_is_refused() {
        let missing = [Simd::Neon, Simd::Avx512, Simd::Avx2]
            .into_iter()
            .find(|simd| !Simd::available().contains(simd))
            .expect("no processor has all of them");
        dispatch(
            missing,
            Everything {
                a: &[0.0; 16],
                b: &[0.0; 16],
                out: &mut Vec::new(),
            },
        );
    }
}
