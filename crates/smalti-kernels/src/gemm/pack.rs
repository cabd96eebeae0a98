//! Packing: copies a strip of a matrix into the order in which a tile reads it.
//!
//! `to[k · stride + i] = from[i · item_stride + k · step_stride]` for `items` values of i (rows of A
//! or columns of B) and `depth` steps k; items from `items` to `stride` are zero where `stride` is
//! larger.

use super::dispatch::Job;
use super::vector::Vector;

/// A strip to pack. Valid pointers: `from` for every element named, `to` for `depth · stride` values
/// and [`SLACK`] beyond them.
pub(crate) struct Pack {
    pub(crate) from: *const f32,
    pub(crate) item_stride: usize,
    pub(crate) step_stride: usize,
    pub(crate) items: usize,
    pub(crate) depth: usize,
    pub(crate) to: *mut f32,
    pub(crate) stride: usize,
}

/// Values beyond the end of a packed strip that packing may overwrite.
pub(crate) const SLACK: usize = 16;

impl Job for Pack {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        // SAFETY: the caller vouches for the pointers as documented on the struct.
        unsafe {
            if self.items < self.stride {
                // Before the values: transposing may or may not write zeros beyond the items.
                for k in 0..self.depth {
                    std::slice::from_raw_parts_mut(self.to.add(k * self.stride), self.stride)
                        .fill(0.0);
                }
            }
            if self.item_stride == 1 {
                self.copy_rows::<V>();
            } else if self.step_stride == 1
                && (self.stride == self.items
                    || self.stride >= self.items.next_multiple_of(V::LANES))
            {
                self.transpose::<V>();
            } else {
                self.pick(0);
            }
        }
    }
}

impl Pack {
    /// Items lie side by side: every step is one copy.
    #[inline(always)]
    unsafe fn copy_rows<V: Vector>(&self) {
        let whole = self.items - self.items % V::LANES;
        // SAFETY: reads and writes only elements named in the struct's contract.
        unsafe {
            for k in 0..self.depth {
                let (from, to) = (
                    self.from.add(k * self.step_stride),
                    self.to.add(k * self.stride),
                );
                let mut i = 0;
                while i < whole {
                    V::load(from.add(i)).store(to.add(i));
                    i += V::LANES;
                }
                if i < self.items {
                    V::load_first(from.add(i), self.items - i)
                        .store_first(to.add(i), self.items - i);
                }
            }
        }
    }

    /// Steps lie side by side: blocks of `LANES` steps are transposed in registers. The block that
    /// spills over an item's end is repaired by the next step, or lands in the slack: so the last
    /// group of items comes first. Where a step has room for the spill, it is zeros.
    #[inline(always)]
    unsafe fn transpose<V: Vector>(&self) {
        let blocks = self.depth / V::LANES;
        let groups = self.items.div_ceil(V::LANES);
        // SAFETY: whole blocks stay inside `depth` steps; what spills over is written again by
        // the step after it, and the last step's spill lies in the slack.
        unsafe {
            for block in 0..blocks {
                for group in (0..groups).rev() {
                    let i = group * V::LANES;
                    let rows = (self.items - i).min(V::LANES);
                    let k = block * V::LANES;
                    let from = self.from.add(i * self.item_stride + k);
                    V::transpose(
                        from,
                        self.item_stride,
                        rows,
                        self.to.add(k * self.stride + i),
                        self.stride,
                    );
                }
            }
            self.pick(blocks * V::LANES);
        }
    }

    /// Any strides, one element at a time, from step `first` on.
    #[inline(always)]
    unsafe fn pick(&self, first: usize) {
        for k in first..self.depth {
            for i in 0..self.items {
                // SAFETY: both elements are named in the struct's contract.
                unsafe {
                    *self.to.add(k * self.stride + i) =
                        *self.from.add(i * self.item_stride + k * self.step_stride);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Simd;
    use crate::gemm::dispatch;

    #[test]
    fn every_layout_is_packed_and_padded() {
        for simd in Simd::available() {
            for (items, stride) in [(1, 1), (5, 5), (13, 13), (32, 32), (20, 32), (16, 48)] {
                for depth in [1, 15, 16, 37] {
                    check(simd, [items, stride, depth], [depth + 2, 1]);
                    check(simd, [items, stride, depth], [1, items + 3]);
                    check(simd, [items, stride, depth], [2, 2 * items + 1]);
                }
            }
        }
    }

    fn check(
        simd: Simd,
        [items, stride, depth]: [usize; 3],
        [item_stride, step_stride]: [usize; 2],
    ) {
        let last = (items - 1) * item_stride + (depth - 1) * step_stride;
        let from: Vec<f32> = (0..=last).map(|i| i as f32 + 1.0).collect();
        let mut to = vec![f32::NAN; depth * stride + SLACK];
        let (from_at, to_at) = (from.as_ptr(), to.as_mut_ptr());
        let pack = Pack {
            from: from_at,
            item_stride,
            step_stride,
            items,
            depth,
            to: to_at,
            stride,
        };
        // SAFETY: `from` holds every element named, `to` has the slack; the path is available.
        unsafe { dispatch::run(simd, pack) };
        for (at, got) in to[..depth * stride].iter().enumerate() {
            let (k, i) = (at / stride, at % stride);
            let expected = if i < items {
                from[i * item_stride + k * step_stride]
            } else {
                0.0
            };
            assert_eq!(
                *got, expected,
                "{simd:?} {items} items of {stride}, step {k}, item {i}"
            );
        }
    }
}
