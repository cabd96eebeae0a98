//! The vector of 64-bit Arm: four lanes of NEON.

use std::arch::aarch64::*;

use super::vector::Vector;

/// Four lanes: NEON, with fused multiply-add.
#[derive(Clone, Copy)]
pub(crate) struct Neon(float32x4_t);

// SAFETY (of every block): NEON is part of every 64-bit Arm processor; the trait's caller vouches
// for the memory behind each pointer.
#[allow(clippy::undocumented_unsafe_blocks)] // one reason for all, above
impl Vector for Neon {
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { Self(vdupq_n_f32(0.0)) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { Self(vdupq_n_f32(value)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Self(vld1q_f32(from)) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, lanes: usize) -> Self {
        let mut lane = [0.0f32; 4];
        unsafe {
            std::ptr::copy_nonoverlapping(from, lane.as_mut_ptr(), lanes);
            Self(vld1q_f32(lane.as_ptr()))
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { vst1q_f32(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, lanes: usize) {
        let mut lane = [0.0f32; 4];
        unsafe {
            vst1q_f32(lane.as_mut_ptr(), self.0);
            std::ptr::copy_nonoverlapping(lane.as_ptr(), to, lanes);
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { Self(vaddq_f32(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe { Self(vmulq_f32(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        unsafe { Self(vfmaq_f32(self.0, a.0, b.0)) }
    }
    #[inline(always)]
    unsafe fn keep(self, mask: *const u32) -> Self {
        unsafe {
            Self(vreinterpretq_f32_u32(vandq_u32(
                vreinterpretq_u32_f32(self.0),
                vld1q_u32(mask),
            )))
        }
    }
    #[inline(always)]
    unsafe fn load4(from: *const f32) -> [Self; 4] {
        unsafe {
            let float32x4x4_t(a, b, c, d) = vld4q_f32(from);
            [Self(a), Self(b), Self(c), Self(d)]
        }
    }
    #[inline(always)]
    unsafe fn store4(of: [Self; 4], to: *mut f32) {
        unsafe { vst4q_f32(to, float32x4x4_t(of[0].0, of[1].0, of[2].0, of[3].0)) }
    }
    #[inline(always)]
    unsafe fn sums(of: [Self; 4]) -> [f32; 4] {
        unsafe { of.map(|v| vaddvq_f32(v.0)) }
    }
    #[inline(always)]
    unsafe fn transpose(
        from: *const f32,
        from_stride: usize,
        rows: usize,
        to: *mut f32,
        to_stride: usize,
    ) {
        for k in 0..4 {
            for r in 0..rows {
                unsafe { *to.add(k * to_stride + r) = *from.add(r * from_stride + k) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::vector::tests::check;

    #[test]
    fn neon_does_what_it_says() {
        // SAFETY: NEON is part of every 64-bit Arm processor.
        unsafe { check::<Neon>() }
    }
}
