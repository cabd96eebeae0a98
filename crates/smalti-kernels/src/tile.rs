//! A small matrix product that stays in registers: the inner loop of code search and of attention.

use crate::lanes::Lanes;

/// The left factor: element (row, k) is `data[row * row_stride + k * k_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Left<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) row_stride: usize,
    pub(crate) k_stride: usize,
}

/// Adds `Σₖ left[row, k] · right[k * right_stride + column]` to `R` rows of `W` registers.
///
/// `k` runs in order, so that the result does not depend on how the work around it is split.
#[inline(always)]
pub(crate) fn accumulate<V: Lanes, const R: usize, const W: usize>(
    left: Left<'_>,
    right: &[f32],
    right_stride: usize,
    depth: usize,
    mut sums: [[V; W]; R],
) -> [[V; W]; R] {
    if depth == 0 {
        return sums;
    }
    let last = (R - 1) * left.row_stride + (depth - 1) * left.k_stride;
    assert!(left.data.len() > last, "left factor too short");
    assert!(
        right.len() >= (depth - 1) * right_stride + W * V::N,
        "right factor too short"
    );
    let (left_start, right_start) = (left.data.as_ptr(), right.as_ptr());
    for k in 0..depth {
        // SAFETY: k < depth, so this is within `right` by the assertion above.
        let columns: [V; W] = std::array::from_fn(|w| unsafe {
            V::read(right_start.add(k * right_stride + w * V::N))
        });
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: r < R and k < depth, so this is at most `last`.
            let factor = unsafe { *left_start.add(r * left.row_stride + k * left.k_stride) };
            let factor = V::splat(factor);
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = factor.mul_add(column, *sum);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Simd;
    use crate::lanes::{Kernel, dispatch};

    struct Product<'a>(Left<'a>, &'a [f32], usize);

    impl Kernel for Product<'_> {
        type Output = Vec<f32>;
        #[inline(always)]
        fn run<V: Lanes>(self) -> Vec<f32> {
            let sums = [[V::splat(0.5); 2]; 3];
            let sums = accumulate::<V, 3, 2>(self.0, self.1, 32, self.2, sums);
            let mut out = vec![0.0; 3 * 2 * V::N];
            for (row, target) in sums.iter().zip(out.chunks_exact_mut(2 * V::N)) {
                row[0].store(target);
                row[1].store(&mut target[V::N..]);
            }
            out
        }
    }

    #[test]
    fn agrees_with_three_loops() {
        let left: Vec<f32> = (0..40).map(|i| (i % 7) as f32 - 3.0).collect();
        let right: Vec<f32> = (0..32 * 5).map(|i| (i % 11) as f32 - 5.0).collect();
        let factor = Left {
            data: &left,
            row_stride: 2,
            k_stride: 7,
        };
        for simd in Simd::available() {
            for depth in [0, 1, 5] {
                let got = dispatch(simd, Product(factor, &right, depth));
                let width = got.len() / 3;
                for (i, value) in got.iter().enumerate() {
                    let (row, column) = (i / width, i % width);
                    let term = |k: usize| left[row * 2 + k * 7] * right[k * 32 + column];
                    let want: f32 = 0.5 + (0..depth).map(term).sum::<f32>();
                    assert_eq!(*value, want, "{simd:?}, depth {depth}, ({row}, {column})");
                }
            }
        }
    }
}
