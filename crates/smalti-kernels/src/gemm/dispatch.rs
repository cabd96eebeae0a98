//! Runs a generic body with the vector type of a [`Simd`] path.

use super::vector::{Plain, Vector};
use crate::Simd;

/// A piece of work written over [`Vector`]. Mark `run` and all that it calls `#[inline(always)]`:
/// only then is the body compiled with the path's instructions.
pub(crate) trait Job {
    /// What the work returns.
    type Output;
    /// Does the work.
    ///
    /// # Safety
    /// The processor has the instructions of `V`, and the job's pointers are valid as it documents.
    unsafe fn run<V: Vector>(self) -> Self::Output;
}

/// Runs `job` on the path `simd`.
///
/// # Safety
/// The processor offers `simd`, and the job's pointers are valid as it documents.
#[inline]
pub(crate) unsafe fn run<J: Job>(simd: Simd, job: J) -> J::Output {
    // SAFETY: passed on to the caller, who vouches for the instructions and the pointers.
    unsafe {
        match simd {
            #[cfg(target_arch = "x86_64")]
            Simd::Avx512 => run_avx512(job),
            #[cfg(target_arch = "x86_64")]
            Simd::Avx2 => run_avx2(job),
            #[cfg(target_arch = "aarch64")]
            Simd::Neon => run_neon(job),
            _ => run_plain(job),
        }
    }
}

/// Number of lanes on the path `simd`.
pub(crate) fn lanes(simd: Simd) -> usize {
    match simd {
        Simd::Avx512 => 16,
        Simd::Avx2 => 8,
        Simd::Neon | Simd::Portable => 4,
    }
}

/// Refuses a path that this processor does not have: the check behind every safe entry.
///
/// # Panics
/// When `simd` is not among [`Simd::available`].
pub(crate) fn assert_available(simd: Simd) {
    assert!(
        simd == Simd::Portable || simd == Simd::active() || Simd::available().contains(&simd),
        "{simd:?} kernels were asked for on a processor without these instructions"
    );
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn run_avx512<J: Job>(job: J) -> J::Output {
    // SAFETY: `run`'s caller vouches for both.
    unsafe { job.run::<super::vector_x86::Avx512>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2<J: Job>(job: J) -> J::Output {
    // SAFETY: `run`'s caller vouches for both.
    unsafe { job.run::<super::vector_x86::Avx2>() }
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn run_neon<J: Job>(job: J) -> J::Output {
    // SAFETY: `run`'s caller vouches for both.
    unsafe { job.run::<super::vector_neon::Neon>() }
}

unsafe fn run_plain<J: Job>(job: J) -> J::Output {
    // SAFETY: `run`'s caller vouches for the pointers; plain Rust needs no instructions.
    unsafe { job.run::<Plain>() }
}
