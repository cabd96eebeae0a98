//! Matrix products: `C = alpha · A · B + beta · C + bias`, single or in batches.
//!
//! A is `[m, k]`, B is `[k, n]`, both with any strides, so a transpose costs nothing to say; C is
//! `[m, n]` with contiguous rows. The bias has one value a column, as in a linear layer.
//!
//! Two ways of going about it, chosen by shape alone:
//!
//! - **Blocks.** Panels of A and B are packed for a cache-sized block and multiplied by the
//!   outer-product tile (the scheme of Goto and van de Geijn, "Anatomy of High-Performance Matrix
//!   Multiplication", 2008). Each task packs for itself: blocks are large enough that packing twice
//!   costs less than waiting for each other.
//! - **Rows.** Up to [`FEW_ROWS`] rows against a B whose columns are contiguous (a linear layer on a
//!   few tokens): bound by reading B, so B is read once, in place, by the inner-product tile.
//!
//! Results do not depend on the number of threads. With up to [`FEW_ROWS`] rows, a row's result does
//! not depend on the other rows or how many there are; the same holds for all larger counts among
//! themselves, but the two ways round differently.

mod blocks;
pub(crate) mod dispatch;
pub(crate) mod dot;
mod matrix;
pub(crate) mod outer;
pub(crate) mod pack;
mod rows;
pub(crate) mod scratch;
pub(crate) mod vector;
#[cfg(target_arch = "aarch64")]
mod vector_neon;
#[cfg(target_arch = "x86_64")]
mod vector_x86;

use rayon::prelude::*;

pub use matrix::{Matrix, MatrixMut};

use crate::Simd;

/// The most rows of A for which B is streamed instead of packed.
pub const FEW_ROWS: usize = 16;

/// Products of fewer multiply-adds than this are not worth waking a second thread for.
pub(crate) const PARALLEL_FROM: usize = 1 << 18;

/// What to compute: `alpha · A · B + beta · C + bias`.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// The left factor, `[m, k]`.
    pub a: Matrix<'a>,
    /// The right factor, `[k, n]`.
    pub b: Matrix<'a>,
    /// Multiplies the product.
    pub alpha: f32,
    /// Multiplies what C held before; at 0, C is not read.
    pub beta: f32,
    /// One value for each of the n columns.
    pub bias: Option<&'a [f32]>,
}

impl<'a> Product<'a> {
    /// `A · B`: alpha 1, beta 0, no bias.
    pub fn new(a: Matrix<'a>, b: Matrix<'a>) -> Self {
        Self {
            a,
            b,
            alpha: 1.0,
            beta: 0.0,
            bias: None,
        }
    }

    /// The same with a bias for each column.
    pub fn with_bias(self, bias: Option<&'a [f32]>) -> Self {
        Self { bias, ..self }
    }

    /// The same multiplied by `alpha`.
    pub fn with_alpha(self, alpha: f32) -> Self {
        Self { alpha, ..self }
    }

    /// The same added to `beta · C`.
    pub fn with_beta(self, beta: f32) -> Self {
        Self { beta, ..self }
    }

    fn check(&self, rows: usize, cols: usize) {
        let (a, b) = (&self.a, &self.b);
        assert_eq!(
            a.cols, b.rows,
            "A is {}x{}, B is {}x{}: the inner sizes differ",
            a.rows, a.cols, b.rows, b.cols
        );
        assert_eq!(
            (rows, cols),
            (a.rows, b.cols),
            "C is {rows}x{cols}, A·B is {}x{}",
            a.rows,
            b.cols
        );
        if let Some(bias) = self.bias {
            assert_eq!(
                bias.len(),
                cols,
                "the bias has {} values for {cols} columns",
                bias.len()
            );
        }
    }

    fn multiply_adds(&self) -> usize {
        self.a.rows * self.a.cols * self.b.cols
    }
}

/// Many products of one shape: product i uses A, B and C moved by i times their steps (in values).
/// A step of 0 for A or B shares that factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Number of products.
    pub count: usize,
    /// From one A to the next.
    pub a_step: usize,
    /// From one B to the next.
    pub b_step: usize,
    /// From one C to the next; at least what one C spans, unless there is one product only.
    pub c_step: usize,
}

/// Computes a product into `c` on the widest path of this processor.
///
/// # Panics
/// When the shapes do not fit each other.
pub fn gemm(product: &Product, c: MatrixMut) {
    gemm_on(Simd::active(), product, c);
}

/// [`gemm`] on a given path.
///
/// # Panics
/// When the shapes do not fit each other, or the processor does not have the path.
pub fn gemm_on(simd: Simd, product: &Product, mut c: MatrixMut) {
    dispatch::assert_available(simd);
    product.check(c.rows, c.cols);
    let c_stride = c.row_stride;
    multiply(simd, product, scratch::Shared::new(c.data_mut()), c_stride);
}

/// Computes a batch of products on the widest path of this processor. `product` and `c` describe the
/// first; their data reach to the end of the last.
///
/// # Panics
/// When the shapes do not fit each other or the data end before the last product.
pub fn gemm_batched(product: &Product, batch: Batch, c: MatrixMut) {
    gemm_batched_on(Simd::active(), product, batch, c);
}

/// [`gemm_batched`] on a given path.
///
/// # Panics
/// As [`gemm_batched`], or when the processor does not have the path.
pub fn gemm_batched_on(simd: Simd, product: &Product, batch: Batch, mut c: MatrixMut) {
    dispatch::assert_available(simd);
    product.check(c.rows, c.cols);
    if batch.count == 0 || c.rows == 0 || c.cols == 0 {
        return;
    }
    let (span, c_stride) = (c.span(), c.row_stride);
    let last = batch.count - 1;
    assert!(
        last == 0 || batch.c_step >= span,
        "results {} apart overlap: one spans {span}",
        batch.c_step
    );
    let data = scratch::Shared::new(c.data_mut());
    let one = |i: usize| {
        let a = product.a.moved(i * batch.a_step);
        let b = product.b.moved(i * batch.b_step);
        // SAFETY: results do not overlap (asserted), so this part is this product's alone.
        let part = unsafe { data.slice(i * batch.c_step, span) };
        multiply(
            simd,
            &Product { a, b, ..*product },
            scratch::Shared::new(part),
            c_stride,
        );
    };
    let parallel = last > 0 && product.multiply_adds() * batch.count >= PARALLEL_FROM;
    if parallel {
        (0..batch.count).into_par_iter().for_each(one)
    } else {
        (0..batch.count).for_each(one)
    }
}

/// One product whose shapes are known to fit.
fn multiply(simd: Simd, product: &Product, c: scratch::Shared, c_stride: usize) {
    let (m, n) = (product.a.rows, product.b.cols);
    if m == 0 || n == 0 {
        return;
    }
    let few = m <= FEW_ROWS && product.a.col_stride == 1 && product.b.row_stride == 1;
    if few {
        rows::multiply(simd, product, c, c_stride)
    } else {
        blocks::multiply(simd, product, c, c_stride)
    }
}

#[cfg(test)]
pub(crate) mod tests;
