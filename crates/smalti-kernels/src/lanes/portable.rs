//! Eight lanes in a plain array: what runs where no wider path is known.

use super::Lanes;
use std::array::from_fn;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// Lanes kept in an array; the compiler maps it to whatever the base target has.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 8]);

macro_rules! operator {
    ($trait:ident, $method:ident) => {
        impl $trait for Portable {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self(from_fn(|i| self.0[i].$method(other.0[i])))
            }
        }
    };
}
operator!(Add, add);
operator!(Sub, sub);
operator!(Mul, mul);
operator!(Div, div);

impl Neg for Portable {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Self(self.0.map(|x| -x))
    }
}

impl Lanes for Portable {
    const N: usize = 8;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; 8])
    }

    #[inline(always)]
    unsafe fn read(source: *const f32) -> Self {
        // SAFETY: the caller vouches for eight numbers; the read asks for no alignment.
        Self(unsafe { source.cast::<[f32; 8]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn write(self, target: *mut f32) {
        // SAFETY: the caller vouches for room for eight numbers; no alignment is asked for.
        unsafe { target.cast::<[f32; 8]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // A base x86-64 has no fused instruction, and the library call that stands in is slow.
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            Self(from_fn(|i| self.0[i].mul_add(factor.0[i], addend.0[i])))
        } else {
            self * factor + addend
        }
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(from_fn(|i| {
            if self.0[i] < other.0[i] {
                self.0[i]
            } else {
                other.0[i]
            }
        }))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(from_fn(|i| {
            if self.0[i] > other.0[i] {
                self.0[i]
            } else {
                other.0[i]
            }
        }))
    }

    #[inline(always)]
    fn round(self) -> Self {
        Self(self.0.map(f32::round_ties_even))
    }

    #[inline(always)]
    fn scale(self, exponent: Self) -> Self {
        // 2^128 has no representation: one factor of two is taken by the sum.
        Self(from_fn(|i| {
            let bits = ((exponent.0[i] as i32 + 126) << 23) as u32;
            (self.0[i] + self.0[i]) * f32::from_bits(bits)
        }))
    }

    #[inline(always)]
    fn recip(self) -> Self {
        Self(self.0.map(|x| 1.0 / x))
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(self.0.map(f32::sqrt))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(self.0.map(f32::abs))
    }

    #[inline(always)]
    fn select_less(a: Self, b: Self, yes: Self, no: Self) -> Self {
        Self(from_fn(
            |i| if a.0[i] < b.0[i] { yes.0[i] } else { no.0[i] },
        ))
    }

    #[inline(always)]
    fn less_or_equal(self, other: Self) -> u32 {
        let mut bits = 0;
        for i in 0..8 {
            bits |= u32::from(self.0[i] <= other.0[i]) << i;
        }
        bits
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        let x = self.0;
        ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]))
    }

    #[inline(always)]
    fn minimum(self) -> f32 {
        self.0.into_iter().fold(f32::INFINITY, f32::min)
    }
}
