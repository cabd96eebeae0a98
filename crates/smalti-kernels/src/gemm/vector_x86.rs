//! The vectors of x86-64: eight lanes with AVX2 and FMA, sixteen with AVX-512.

use std::arch::x86_64::*;

use super::vector::Vector;

/// Eight lanes: AVX2 with fused multiply-add.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256);

/// Sixteen lanes: AVX-512 F, BW, DQ, VL.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

// SAFETY (of every block in the two impls): the trait's caller vouches for the instructions and for
// the memory behind each pointer; loads and stores are the unaligned or masked forms, and a masked
// form touches no lane whose mask is clear.
#[allow(clippy::undocumented_unsafe_blocks)] // one reason for all, above
impl Vector for Avx2 {
    const LANES: usize = 8;
    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { Self(_mm256_setzero_ps()) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { Self(_mm256_set1_ps(value)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Self(_mm256_loadu_ps(from)) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, lanes: usize) -> Self {
        unsafe { Self(_mm256_maskload_ps(from, first_lanes(lanes))) }
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm256_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, lanes: usize) {
        unsafe { _mm256_maskstore_ps(to, first_lanes(lanes), self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { Self(_mm256_add_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe { Self(_mm256_mul_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        unsafe { Self(_mm256_fmadd_ps(a.0, b.0, self.0)) }
    }
    #[inline(always)]
    unsafe fn keep(self, mask: *const u32) -> Self {
        unsafe { Self(_mm256_and_ps(self.0, _mm256_loadu_ps(mask.cast()))) }
    }
    #[inline(always)]
    unsafe fn load4(from: *const f32) -> [Self; 4] {
        unsafe {
            let a = _mm256_loadu_ps(from);
            let b = _mm256_loadu_ps(from.add(8));
            let c = _mm256_loadu_ps(from.add(16));
            let d = _mm256_loadu_ps(from.add(24));
            let of = transposed_parts([
                _mm256_permute2f128_ps::<0x20>(a, c),
                _mm256_permute2f128_ps::<0x31>(a, c),
                _mm256_permute2f128_ps::<0x20>(b, d),
                _mm256_permute2f128_ps::<0x31>(b, d),
            ]);
            [Self(of[0]), Self(of[1]), Self(of[2]), Self(of[3])]
        }
    }
    #[inline(always)]
    unsafe fn store4(of: [Self; 4], to: *mut f32) {
        unsafe {
            let of = transposed_parts([of[0].0, of[1].0, of[2].0, of[3].0]);
            _mm256_storeu_ps(to, _mm256_permute2f128_ps::<0x20>(of[0], of[1]));
            _mm256_storeu_ps(to.add(8), _mm256_permute2f128_ps::<0x20>(of[2], of[3]));
            _mm256_storeu_ps(to.add(16), _mm256_permute2f128_ps::<0x31>(of[0], of[1]));
            _mm256_storeu_ps(to.add(24), _mm256_permute2f128_ps::<0x31>(of[2], of[3]));
        }
    }
    #[inline(always)]
    unsafe fn sums(of: [Self; 4]) -> [f32; 4] {
        unsafe { sums_of_eight([of[0].0, of[1].0, of[2].0, of[3].0]) }
    }
    #[inline(always)]
    unsafe fn transpose(
        from: *const f32,
        from_stride: usize,
        rows: usize,
        to: *mut f32,
        to_stride: usize,
    ) {
        unsafe {
            let mut v = [_mm256_setzero_ps(); 8];
            for (r, v) in v.iter_mut().enumerate() {
                if r < rows {
                    *v = _mm256_loadu_ps(from.add(r * from_stride));
                }
            }
            let mut u = v;
            for i in 0..4 {
                u[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
                u[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
            }
            for h in 0..2 {
                for i in 0..2 {
                    let (a, b) = (u[4 * h + i], u[4 * h + 2 + i]);
                    v[4 * h + 2 * i] = _mm256_shuffle_ps::<0x44>(a, b);
                    v[4 * h + 2 * i + 1] = _mm256_shuffle_ps::<0xEE>(a, b);
                }
            }
            for k in 0..4 {
                _mm256_storeu_ps(
                    to.add(k * to_stride),
                    _mm256_permute2f128_ps::<0x20>(v[k], v[k + 4]),
                );
            }
            for k in 0..4 {
                _mm256_storeu_ps(
                    to.add((k + 4) * to_stride),
                    _mm256_permute2f128_ps::<0x31>(v[k], v[k + 4]),
                );
            }
        }
    }
}

#[allow(clippy::undocumented_unsafe_blocks)] // one reason for all, above
impl Vector for Avx512 {
    const LANES: usize = 16;
    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { Self(_mm512_setzero_ps()) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { Self(_mm512_set1_ps(value)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Self(_mm512_loadu_ps(from)) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, lanes: usize) -> Self {
        unsafe { Self(_mm512_maskz_loadu_ps(((1u32 << lanes) - 1) as u16, from)) }
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, lanes: usize) {
        unsafe { _mm512_mask_storeu_ps(to, ((1u32 << lanes) - 1) as u16, self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { Self(_mm512_add_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe { Self(_mm512_mul_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        unsafe { Self(_mm512_fmadd_ps(a.0, b.0, self.0)) }
    }
    #[inline(always)]
    unsafe fn keep(self, mask: *const u32) -> Self {
        unsafe { Self(_mm512_and_ps(self.0, _mm512_loadu_ps(mask.cast()))) }
    }
    #[inline(always)]
    unsafe fn load4(from: *const f32) -> [Self; 4] {
        unsafe {
            let a = _mm512_loadu_ps(from);
            let b = _mm512_loadu_ps(from.add(16));
            let c = _mm512_loadu_ps(from.add(32));
            let d = _mm512_loadu_ps(from.add(48));
            // The values at 4t and 4t + 1 of two vectors, and those at 4t + 2 and 4t + 3.
            let first = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
            let second =
                _mm512_setr_epi32(2, 6, 10, 14, 18, 22, 26, 30, 3, 7, 11, 15, 19, 23, 27, 31);
            let (ab, cd) = (
                _mm512_permutex2var_ps(a, first, b),
                _mm512_permutex2var_ps(c, first, d),
            );
            let (ab2, cd2) = (
                _mm512_permutex2var_ps(a, second, b),
                _mm512_permutex2var_ps(c, second, d),
            );
            [
                Self(_mm512_shuffle_f32x4::<0x44>(ab, cd)),
                Self(_mm512_shuffle_f32x4::<0xEE>(ab, cd)),
                Self(_mm512_shuffle_f32x4::<0x44>(ab2, cd2)),
                Self(_mm512_shuffle_f32x4::<0xEE>(ab2, cd2)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn store4(of: [Self; 4], to: *mut f32) {
        unsafe {
            let (ab, cd) = (
                _mm512_unpacklo_ps(of[0].0, of[1].0),
                _mm512_unpacklo_ps(of[2].0, of[3].0),
            );
            let (ef, gh) = (
                _mm512_unpackhi_ps(of[0].0, of[1].0),
                _mm512_unpackhi_ps(of[2].0, of[3].0),
            );
            // Part p of v[k] holds the four values of place 4p + k.
            let v = [
                _mm512_shuffle_ps::<0x44>(ab, cd),
                _mm512_shuffle_ps::<0xEE>(ab, cd),
                _mm512_shuffle_ps::<0x44>(ef, gh),
                _mm512_shuffle_ps::<0xEE>(ef, gh),
            ];
            let low = _mm512_shuffle_f32x4::<0x44>(v[0], v[1]);
            let high = _mm512_shuffle_f32x4::<0xEE>(v[0], v[1]);
            let low2 = _mm512_shuffle_f32x4::<0x44>(v[2], v[3]);
            let high2 = _mm512_shuffle_f32x4::<0xEE>(v[2], v[3]);
            _mm512_storeu_ps(to, _mm512_shuffle_f32x4::<0x88>(low, low2));
            _mm512_storeu_ps(to.add(16), _mm512_shuffle_f32x4::<0xDD>(low, low2));
            _mm512_storeu_ps(to.add(32), _mm512_shuffle_f32x4::<0x88>(high, high2));
            _mm512_storeu_ps(to.add(48), _mm512_shuffle_f32x4::<0xDD>(high, high2));
        }
    }
    #[inline(always)]
    unsafe fn sums(of: [Self; 4]) -> [f32; 4] {
        unsafe {
            // No closures here: they would not inherit the instructions.
            let mut halves = [_mm256_setzero_ps(); 4];
            for (half, v) in halves.iter_mut().zip(of) {
                let high = _mm512_extractf32x8_ps::<1>(v.0);
                *half = _mm256_add_ps(_mm512_castps512_ps256(v.0), high);
            }
            sums_of_eight(halves)
        }
    }
    #[inline(always)]
    unsafe fn transpose(
        from: *const f32,
        from_stride: usize,
        rows: usize,
        to: *mut f32,
        to_stride: usize,
    ) {
        unsafe {
            let mut v = [_mm512_setzero_ps(); 16];
            for (r, v) in v.iter_mut().enumerate() {
                if r < rows {
                    *v = _mm512_loadu_ps(from.add(r * from_stride));
                }
            }
            // Columns 4i..4i+4 of four rows at a time, inside each 128-bit part.
            let mut u = v;
            for q in 0..4 {
                let (a, b, c, d) = (v[4 * q], v[4 * q + 1], v[4 * q + 2], v[4 * q + 3]);
                let (ab, cd) = (_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d));
                let (ef, gh) = (_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d));
                u[4 * q] = _mm512_shuffle_ps::<0x44>(ab, cd);
                u[4 * q + 1] = _mm512_shuffle_ps::<0xEE>(ab, cd);
                u[4 * q + 2] = _mm512_shuffle_ps::<0x44>(ef, gh);
                u[4 * q + 3] = _mm512_shuffle_ps::<0xEE>(ef, gh);
            }
            // u[4q + j] holds, in part p, rows 4q..4q+4 of column 4p + j: gather the parts.
            for j in 0..4 {
                let low = _mm512_shuffle_f32x4::<0x44>(u[j], u[4 + j]);
                let high = _mm512_shuffle_f32x4::<0xEE>(u[j], u[4 + j]);
                let low2 = _mm512_shuffle_f32x4::<0x44>(u[8 + j], u[12 + j]);
                let high2 = _mm512_shuffle_f32x4::<0xEE>(u[8 + j], u[12 + j]);
                v[j] = _mm512_shuffle_f32x4::<0x88>(low, low2);
                v[4 + j] = _mm512_shuffle_f32x4::<0xDD>(low, low2);
                v[8 + j] = _mm512_shuffle_f32x4::<0x88>(high, high2);
                v[12 + j] = _mm512_shuffle_f32x4::<0xDD>(high, high2);
            }
            for (k, v) in v.iter().enumerate() {
                _mm512_storeu_ps(to.add(k * to_stride), *v);
            }
        }
    }
}

/// The 4×4 matrices in the low and in the high halves of four vectors, transposed.
#[inline(always)]
unsafe fn transposed_parts(of: [__m256; 4]) -> [__m256; 4] {
    // SAFETY: the caller runs on a processor with AVX2.
    unsafe {
        let (ab, cd) = (
            _mm256_unpacklo_ps(of[0], of[1]),
            _mm256_unpacklo_ps(of[2], of[3]),
        );
        let (ef, gh) = (
            _mm256_unpackhi_ps(of[0], of[1]),
            _mm256_unpackhi_ps(of[2], of[3]),
        );
        [
            _mm256_shuffle_ps::<0x44>(ab, cd),
            _mm256_shuffle_ps::<0xEE>(ab, cd),
            _mm256_shuffle_ps::<0x44>(ef, gh),
            _mm256_shuffle_ps::<0xEE>(ef, gh),
        ]
    }
}

/// A mask of the first `lanes` of eight lanes.
#[inline(always)]
unsafe fn first_lanes(lanes: usize) -> __m256i {
    // SAFETY: the caller runs on a processor with AVX2.
    unsafe {
        _mm256_cmpgt_epi32(
            _mm256_set1_epi32(lanes as i32),
            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
        )
    }
}

/// The sums of four vectors of eight lanes.
#[inline(always)]
unsafe fn sums_of_eight(v: [__m256; 4]) -> [f32; 4] {
    // SAFETY: the caller runs on a processor with AVX2; `out` holds the four lanes written.
    unsafe {
        let pairs = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
        let all = _mm_add_ps(
            _mm256_castps256_ps128(pairs),
            _mm256_extractf128_ps::<1>(pairs),
        );
        let mut out = [0.0; 4];
        _mm_storeu_ps(out.as_mut_ptr(), all);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Simd;
    use crate::gemm::vector::tests::check;

    #[test]
    fn avx2_does_what_it_says() {
        if Simd::available().contains(&Simd::Avx2) {
            // SAFETY: the processor has AVX2 and FMA.
            unsafe { check::<Avx2>() }
        }
    }

    #[test]
    fn avx512_does_what_it_says() {
        if Simd::available().contains(&Simd::Avx512) {
            // SAFETY: the processor has AVX-512 F, BW, DQ and VL.
            unsafe { check::<Avx512>() }
        }
    }
}
