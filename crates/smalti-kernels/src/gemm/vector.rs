//! One vector of `f32` lanes: what the tile kernels ask of a processor.
//!
//! The kernels are written once over [`Vector`] and compiled once for each instruction set: the
//! methods are inlined into functions that carry the matching `#[target_feature]`. The portable
//! vector multiplies and adds in two roundings, the others fuse, so paths agree to rounding only.

/// A vector of `f32` lanes.
///
/// # Safety
/// Every method needs a processor with the instructions of the implementing type; the ones that
/// take a pointer need it valid for the lanes they name (all of them for `load` and `store`).
#[allow(clippy::missing_safety_doc)] // said once, above
pub(crate) trait Vector: Copy {
    /// Number of lanes.
    const LANES: usize;
    /// All lanes zero.
    unsafe fn zero() -> Self;
    /// All lanes `value`.
    unsafe fn splat(value: f32) -> Self;
    /// Reads all lanes, at any alignment.
    unsafe fn load(from: *const f32) -> Self;
    /// Reads the first `lanes` lanes; the rest are zero and their memory is not touched.
    unsafe fn load_first(from: *const f32, lanes: usize) -> Self;
    /// Asks for the line of memory at `from`, which need not be valid, ahead of its use.
    #[inline(always)]
    unsafe fn prefetch(_from: *const f32) {}
    /// Writes all lanes, at any alignment.
    unsafe fn store(self, to: *mut f32);
    /// Writes the first `lanes` lanes.
    unsafe fn store_first(self, to: *mut f32, lanes: usize);
    /// Lane by lane `self + other`.
    unsafe fn add(self, other: Self) -> Self;
    /// Lane by lane `self · other`.
    unsafe fn mul(self, other: Self) -> Self;
    /// Lane by lane `self + a · b`.
    unsafe fn mul_add(self, a: Self, b: Self) -> Self;
    /// The lanes of `self` whose bits of `mask` are set, zero elsewhere (each lane of `mask` is
    /// all ones or all zeros).
    unsafe fn keep(self, mask: *const u32) -> Self;
    /// Reads `4 · LANES` values; vector j gets the values at 4t + j.
    unsafe fn load4(from: *const f32) -> [Self; 4];
    /// Writes `4 · LANES` values, undoing [`load4`](Self::load4).
    unsafe fn store4(of: [Self; 4], to: *mut f32);
    /// The sum over the lanes of each of four vectors.
    unsafe fn sums(of: [Self; 4]) -> [f32; 4];
    /// `to[k · to_stride + r] = from[r · from_stride + k]` for `LANES` values of `k` and `rows ≤
    /// LANES` values of `r`. May write zeros up to lane `LANES` of every row of `to`, rows in
    /// ascending order, so that the next row repairs it.
    unsafe fn transpose(
        from: *const f32,
        from_stride: usize,
        rows: usize,
        to: *mut f32,
        to_stride: usize,
    );
}

/// Four lanes of plain Rust: what every processor can do.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; 4]);

impl Vector for Plain {
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; 4])
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for four readable values; an unaligned read asks no more.
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, lanes: usize) -> Self {
        let mut lane = [0.0; 4];
        // SAFETY: the caller vouches for `lanes ≤ 4` readable values.
        unsafe { std::ptr::copy_nonoverlapping(from, lane.as_mut_ptr(), lanes) };
        Self(lane)
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for four writable values.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, lanes: usize) {
        // SAFETY: the caller vouches for `lanes ≤ 4` writable values.
        unsafe { std::ptr::copy_nonoverlapping(self.0.as_ptr(), to, lanes) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * other.0[i]))
    }
    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        // Not `f32::mul_add`: without the instruction that is a library call.
        Self(std::array::from_fn(|i| self.0[i] + a.0[i] * b.0[i]))
    }
    #[inline(always)]
    unsafe fn keep(self, mask: *const u32) -> Self {
        // SAFETY: the caller vouches for four readable mask words.
        let mask = unsafe { mask.cast::<[u32; 4]>().read_unaligned() };
        Self(std::array::from_fn(|i| {
            f32::from_bits(self.0[i].to_bits() & mask[i])
        }))
    }
    #[inline(always)]
    unsafe fn load4(from: *const f32) -> [Self; 4] {
        // SAFETY: the caller vouches for sixteen readable values.
        let all = unsafe { from.cast::<[[f32; 4]; 4]>().read_unaligned() };
        std::array::from_fn(|j| Self(std::array::from_fn(|t| all[t][j])))
    }
    #[inline(always)]
    unsafe fn store4(of: [Self; 4], to: *mut f32) {
        let all: [[f32; 4]; 4] = std::array::from_fn(|t| std::array::from_fn(|j| of[j].0[t]));
        // SAFETY: the caller vouches for sixteen writable values.
        unsafe { to.cast::<[[f32; 4]; 4]>().write_unaligned(all) }
    }
    #[inline(always)]
    unsafe fn sums(of: [Self; 4]) -> [f32; 4] {
        of.map(|v| (v.0[0] + v.0[2]) + (v.0[1] + v.0[3]))
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
                // SAFETY: both indices lie inside the blocks that the caller vouches for.
                unsafe { *to.add(k * to_stride + r) = *from.add(r * from_stride + k) };
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Every method of a vector type against its definition.
    ///
    /// # Safety
    /// The processor has the instructions of `V`.
    pub(crate) unsafe fn check<V: Vector>() {
        let n = V::LANES;
        let x: Vec<f32> = (0..n).map(|i| i as f32 * 0.5 - 1.0).collect();
        let y: Vec<f32> = (0..n).map(|i| 3.0 - i as f32).collect();
        let mut out = vec![0.0; n];
        // SAFETY: the caller vouches for the instructions; every pointer spans `n` values.
        unsafe {
            let (a, b) = (V::load(x.as_ptr()), V::load(y.as_ptr()));
            a.mul_add(V::splat(2.0), b).store(out.as_mut_ptr());
            assert!((0..n).all(|i| out[i] == x[i] + 2.0 * y[i]));
            a.add(b).mul(a).store(out.as_mut_ptr());
            assert!((0..n).all(|i| out[i] == (x[i] + y[i]) * x[i]));
            for lanes in 0..=n {
                V::load_first(y.as_ptr(), lanes).store(out.as_mut_ptr());
                assert!((0..n).all(|i| out[i] == if i < lanes { y[i] } else { 0.0 }));
                V::zero().store(out.as_mut_ptr());
                a.store_first(out.as_mut_ptr(), lanes);
                assert!((0..n).all(|i| out[i] == if i < lanes { x[i] } else { 0.0 }));
            }
            let mask: Vec<u32> = (0..n)
                .map(|i| if i % 3 == 0 { 0 } else { u32::MAX })
                .collect();
            V::splat(f32::NAN)
                .keep(mask.as_ptr())
                .store(out.as_mut_ptr());
            assert!((0..n).all(|i| if i % 3 == 0 {
                out[i] == 0.0
            } else {
                out[i].is_nan()
            }));
            let sums = V::sums([a, b, V::splat(1.0), V::zero()]);
            assert_eq!(sums, [x.iter().sum(), y.iter().sum(), n as f32, 0.0]);
            check_transpose::<V>();
            check_fours::<V>();
        }
    }

    /// # Safety
    /// The processor has the instructions of `V`.
    unsafe fn check_fours<V: Vector>() {
        let n = V::LANES;
        let from: Vec<f32> = (0..4 * n).map(|i| i as f32).collect();
        let (mut lanes, mut back) = (vec![0.0; n], vec![0.0; 4 * n]);
        // SAFETY: `from` and `back` hold four vectors, `lanes` one.
        unsafe {
            let fours = V::load4(from.as_ptr());
            for (j, four) in fours.iter().enumerate() {
                four.store(lanes.as_mut_ptr());
                assert!(
                    (0..n).all(|t| lanes[t] == (4 * t + j) as f32),
                    "{j}: {lanes:?}"
                );
            }
            V::store4(fours, back.as_mut_ptr());
        }
        assert_eq!(back, from);
    }

    /// # Safety
    /// The processor has the instructions of `V`.
    unsafe fn check_transpose<V: Vector>() {
        let n = V::LANES;
        for rows in 1..=n {
            let from: Vec<f32> = (0..rows * (n + 3)).map(|i| i as f32).collect();
            let mut to = vec![-1.0; n * rows + n];
            // SAFETY: `from` holds `rows` rows of `n + 3`, `to` holds `n` rows and a spare vector.
            unsafe { V::transpose(from.as_ptr(), n + 3, rows, to.as_mut_ptr(), rows) };
            for k in 0..n {
                for r in 0..rows {
                    assert_eq!(
                        to[k * rows + r],
                        from[r * (n + 3) + k],
                        "rows {rows} k {k} r {r}"
                    );
                }
            }
        }
    }

    #[test]
    fn plain_vector_does_what_it_says() {
        // SAFETY: plain Rust.
        unsafe { check::<Plain>() }
    }
}
