//! Which vector instructions the kernels use: found out once, at run time.
//!
//! A binary built for a plain `x86-64` or `aarch64` target runs the widest path that the processor
//! offers. Every kernel has a form `name(…)` that takes the active path and a form
//! `name_on(simd, …)` that is told one, so that tests hold each path against the portable one.

use std::sync::OnceLock;

/// A family of vector instructions that a kernel is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Simd {
    /// Plain Rust, whatever the compiler makes of it. Runs everywhere.
    Portable,
    /// AVX2 with fused multiply-add: eight `f32` at once.
    Avx2,
    /// AVX-512 F, BW, DQ and VL: sixteen `f32` at once.
    Avx512,
    /// NEON, part of every 64-bit Arm processor: four `f32` at once.
    Neon,
}

impl Simd {
    /// The widest path this processor can run. Detected once.
    pub fn active() -> Self {
        static ACTIVE: OnceLock<Simd> = OnceLock::new();
        *ACTIVE.get_or_init(|| {
            *Self::available()
                .last()
                .expect("the portable path is always there")
        })
    }

    /// Every path this processor can run, narrowest first.
    pub fn available() -> Vec<Self> {
        let mut paths = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                paths.push(Self::Avx2);
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    paths.push(Self::Avx512);
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        paths.push(Self::Neon);
        paths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portable_is_first_and_active_is_last() {
        let paths = Simd::available();
        assert_eq!(paths[0], Simd::Portable);
        assert_eq!(*paths.last().unwrap(), Simd::active());
    }
}
