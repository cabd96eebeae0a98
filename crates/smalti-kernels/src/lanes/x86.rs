//! The AVX2 and AVX-512 registers.

use super::Lanes;
use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// Eight lanes, AVX2 with fused multiply-add.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256);

/// Sixteen lanes, AVX-512.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

/// An expression of intrinsics.
macro_rules! vector {
    ($intrinsics:expr) => {
        // SAFETY: a register type is only named under `dispatch`, which has checked the processor.
        unsafe { $intrinsics }
    };
}

macro_rules! operator {
    ($type:ident, $trait:ident, $method:ident, $intrinsic:ident) => {
        impl $trait for $type {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self(vector!($intrinsic(self.0, other.0)))
            }
        }
    };
}
operator!(Avx2, Add, add, _mm256_add_ps);
operator!(Avx2, Sub, sub, _mm256_sub_ps);
operator!(Avx2, Mul, mul, _mm256_mul_ps);
operator!(Avx2, Div, div, _mm256_div_ps);
operator!(Avx512, Add, add, _mm512_add_ps);
operator!(Avx512, Sub, sub, _mm512_sub_ps);
operator!(Avx512, Mul, mul, _mm512_mul_ps);
operator!(Avx512, Div, div, _mm512_div_ps);

impl Neg for Avx2 {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Self(vector!(_mm256_xor_ps(self.0, _mm256_set1_ps(-0.0))))
    }
}

impl Neg for Avx512 {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Self(vector!(_mm512_xor_ps(self.0, _mm512_set1_ps(-0.0))))
    }
}

impl Lanes for Avx2 {
    const N: usize = 8;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self(vector!(_mm256_set1_ps(value)))
    }

    #[inline(always)]
    unsafe fn read(source: *const f32) -> Self {
        Self(vector!(_mm256_loadu_ps(source)))
    }

    #[inline(always)]
    unsafe fn write(self, target: *mut f32) {
        vector!(_mm256_storeu_ps(target, self.0))
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(vector!(_mm256_fmadd_ps(self.0, factor.0, addend.0)))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(vector!(_mm256_min_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(vector!(_mm256_max_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn round(self) -> Self {
        Self(vector!(_mm256_round_ps::<
            { _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC },
        >(self.0)))
    }

    #[inline(always)]
    fn scale(self, exponent: Self) -> Self {
        // 2^128 has no representation: one factor of two is taken by the sum.
        let power = vector!({
            let whole = _mm256_cvtps_epi32(exponent.0);
            let biased = _mm256_add_epi32(whole, _mm256_set1_epi32(126));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        });
        (self + self) * Self(power)
    }

    #[inline(always)]
    fn recip(self) -> Self {
        Self::splat(1.0) / self
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(vector!(_mm256_sqrt_ps(self.0)))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(vector!(_mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0)))
    }

    #[inline(always)]
    fn select_less(a: Self, b: Self, yes: Self, no: Self) -> Self {
        Self(vector!(_mm256_blendv_ps(
            no.0,
            yes.0,
            _mm256_cmp_ps::<_CMP_LT_OQ>(a.0, b.0)
        )))
    }

    #[inline(always)]
    fn less_or_equal(self, other: Self) -> u32 {
        vector!(_mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LE_OQ>(self.0, other.0)) as u32)
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        vector!({
            let half = _mm_add_ps(
                _mm256_castps256_ps128(self.0),
                _mm256_extractf128_ps::<1>(self.0),
            );
            let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
        })
    }

    #[inline(always)]
    fn minimum(self) -> f32 {
        vector!({
            let half = _mm_min_ps(
                _mm256_castps256_ps128(self.0),
                _mm256_extractf128_ps::<1>(self.0),
            );
            let pair = _mm_min_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_min_ss(pair, _mm_movehdup_ps(pair)))
        })
    }

    #[inline(always)]
    fn transpose_8x8(from: &[f32], from_stride: usize, to: &mut [f32], to_stride: usize) {
        vector!(transpose_8x8(from, from_stride, to, to_stride));
    }
}

impl Lanes for Avx512 {
    const N: usize = 16;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self(vector!(_mm512_set1_ps(value)))
    }

    #[inline(always)]
    unsafe fn read(source: *const f32) -> Self {
        Self(vector!(_mm512_loadu_ps(source)))
    }

    #[inline(always)]
    unsafe fn write(self, target: *mut f32) {
        vector!(_mm512_storeu_ps(target, self.0))
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(vector!(_mm512_fmadd_ps(self.0, factor.0, addend.0)))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(vector!(_mm512_min_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(vector!(_mm512_max_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn round(self) -> Self {
        Self(vector!(_mm512_roundscale_ps::<
            { _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC },
        >(self.0)))
    }

    #[inline(always)]
    fn scale(self, exponent: Self) -> Self {
        Self(vector!(_mm512_scalef_ps(self.0, exponent.0)))
    }

    #[inline(always)]
    fn recip(self) -> Self {
        // A 14-bit estimate and one Newton step: a division of sixteen lanes costs three times that.
        let guess = Self(vector!(_mm512_rcp14_ps(self.0)));
        let miss = (-self).mul_add(guess, Self::splat(1.0));
        guess.mul_add(miss, guess)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(vector!(_mm512_sqrt_ps(self.0)))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(vector!(_mm512_abs_ps(self.0)))
    }

    #[inline(always)]
    fn select_less(a: Self, b: Self, yes: Self, no: Self) -> Self {
        let less = vector!(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a.0, b.0));
        Self(vector!(_mm512_mask_blend_ps(less, no.0, yes.0)))
    }

    #[inline(always)]
    fn less_or_equal(self, other: Self) -> u32 {
        u32::from(vector!(_mm512_cmp_ps_mask::<_CMP_LE_OQ>(self.0, other.0)))
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        vector!(_mm512_reduce_add_ps(self.0))
    }

    #[inline(always)]
    fn minimum(self) -> f32 {
        vector!(_mm512_reduce_min_ps(self.0))
    }

    #[inline(always)]
    fn load_part(source: &[f32], fill: f32) -> Self {
        assert!(source.len() <= 16);
        let lanes = ((1_u32 << source.len()) - 1) as __mmask16;
        // Masked lanes are not read, so the end of the slice is respected.
        Self(vector!(_mm512_mask_loadu_ps(
            _mm512_set1_ps(fill),
            lanes,
            source.as_ptr()
        )))
    }

    #[inline(always)]
    fn store_part(self, target: &mut [f32]) {
        assert!(target.len() <= 16);
        let lanes = ((1_u32 << target.len()) - 1) as __mmask16;
        // Masked lanes are not written, so the end of the slice is respected.
        vector!(_mm512_mask_storeu_ps(target.as_mut_ptr(), lanes, self.0))
    }

    #[inline(always)]
    fn transpose_8x8(from: &[f32], from_stride: usize, to: &mut [f32], to_stride: usize) {
        vector!(transpose_8x8(from, from_stride, to, to_stride));
    }
}

/// Three rounds of exchanges: between neighbours, pairs and halves.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose_8x8(from: &[f32], from_stride: usize, to: &mut [f32], to_stride: usize) {
    assert!(from.len() >= 7 * from_stride + 8 && to.len() >= 7 * to_stride + 8);
    let row: [__m256; 8] = std::array::from_fn(|i| {
        // SAFETY: row i < 8 ends at or before the length asserted above.
        unsafe { _mm256_loadu_ps(from.as_ptr().add(i * from_stride)) }
    });
    let mut pair = row;
    for i in 0..4 {
        pair[2 * i] = _mm256_unpacklo_ps(row[2 * i], row[2 * i + 1]);
        pair[2 * i + 1] = _mm256_unpackhi_ps(row[2 * i], row[2 * i + 1]);
    }
    let mut quad = pair;
    for half in [0, 4] {
        quad[half] = _mm256_shuffle_ps::<0x44>(pair[half], pair[half + 2]);
        quad[half + 1] = _mm256_shuffle_ps::<0xEE>(pair[half], pair[half + 2]);
        quad[half + 2] = _mm256_shuffle_ps::<0x44>(pair[half + 1], pair[half + 3]);
        quad[half + 3] = _mm256_shuffle_ps::<0xEE>(pair[half + 1], pair[half + 3]);
    }
    for i in 0..4 {
        let low = _mm256_permute2f128_ps::<0x20>(quad[i], quad[i + 4]);
        let high = _mm256_permute2f128_ps::<0x31>(quad[i], quad[i + 4]);
        // SAFETY: column i + 4 < 8 ends at or before the length asserted above.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr().add(i * to_stride), low);
            _mm256_storeu_ps(to.as_mut_ptr().add((i + 4) * to_stride), high);
        }
    }
}
