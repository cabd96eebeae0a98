//! Dense matrices of `f64`, row by row, and their products.

/// A matrix.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Matrix {
    rows: usize,
    columns: usize,
    values: Vec<f64>,
}

impl Matrix {
    pub(crate) fn zeros(rows: usize, columns: usize) -> Self {
        Self {
            rows,
            columns,
            values: vec![0.0; rows * columns],
        }
    }

    /// A matrix of so many columns.
    pub(crate) fn from_rows(values: Vec<f64>, columns: usize) -> Self {
        assert!(
            columns > 0 && values.len().is_multiple_of(columns),
            "{} values are no rows of {columns}",
            values.len()
        );
        Self {
            rows: values.len() / columns,
            columns,
            values,
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.columns..][..self.columns]
    }

    pub(crate) fn values(&self) -> &[f64] {
        &self.values
    }

    pub(crate) fn values_mut(&mut self) -> &mut [f64] {
        &mut self.values
    }

    /// The sum of the diagonal.
    pub(crate) fn trace(&self) -> f64 {
        self.values.iter().step_by(self.columns + 1).sum()
    }

    /// `self · other`.
    pub(crate) fn times(&self, other: &Self) -> Self {
        let mut product = Self::zeros(self.rows, other.columns);
        product.add(self.plain(), other.plain());
        product
    }

    /// `selfᵀ · other`.
    pub(crate) fn transposed_times(&self, other: &Self) -> Self {
        let mut product = Self::zeros(self.columns, other.columns);
        product.add(self.transposed(), other.plain());
        product
    }

    /// `self · otherᵀ`.
    pub(crate) fn times_transposed(&self, other: &Self) -> Self {
        let mut product = Self::zeros(self.rows, other.rows);
        product.add(self.plain(), other.transposed());
        product
    }

    /// Adds `otherᵀ · other`.
    pub(crate) fn add_gram(&mut self, other: &Self) {
        self.add(other.transposed(), other.plain());
    }

    fn plain(&self) -> View<'_> {
        View {
            values: &self.values,
            shape: [self.rows, self.columns],
            strides: [self.columns as isize, 1],
        }
    }

    fn transposed(&self) -> View<'_> {
        View {
            values: &self.values,
            shape: [self.columns, self.rows],
            strides: [1, self.columns as isize],
        }
    }

    /// Adds the product of two matrices.
    fn add(&mut self, left: View<'_>, right: View<'_>) {
        let ([rows, inner], [again, columns]) = (left.shape, right.shape);
        assert!(
            inner == again && [rows, columns] == [self.rows, self.columns],
            "{:?} times {:?} is no matrix of {}x{}",
            left.shape,
            right.shape,
            self.rows,
            self.columns
        );
        let ([row, column], [inner_row, inner_column]) = (left.strides, right.strides);
        // SAFETY: a view's shape and strides stay within its values, which are shared borrows; the
        // destination is borrowed mutably, of the product's shape, and its values are initialised.
        unsafe {
            gemm::gemm(
                rows,
                columns,
                inner,
                self.values.as_mut_ptr(),
                1,
                self.columns as isize,
                true,
                left.values.as_ptr(),
                column,
                row,
                right.values.as_ptr(),
                inner_column,
                inner_row,
                1.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::Rayon(0),
            );
        }
    }
}

/// A matrix or its transpose.
#[derive(Clone, Copy)]
struct View<'a> {
    values: &'a [f64],
    shape: [usize; 2],
    /// From a row to the next, from a column to the next.
    strides: [isize; 2],
}

/// `Σ aᵢ·bᵢ`, in eight sums that a processor can keep beside one another.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(rows: usize, columns: usize, start: f64) -> Matrix {
        let values = (0..rows * columns).map(|i| (start + i as f64 * 0.37).sin());
        Matrix::from_rows(values.collect(), columns)
    }

    fn plainly(a: &Matrix, b: &Matrix) -> Matrix {
        let mut product = Matrix::zeros(a.rows, b.columns);
        for i in 0..a.rows {
            for j in 0..b.columns {
                let column: Vec<f64> = (0..b.rows).map(|k| b.row(k)[j]).collect();
                product.values[i * b.columns + j] = dot(a.row(i), &column);
            }
        }
        product
    }

    fn transposed(a: &Matrix) -> Matrix {
        let value = |i: usize| a.row(i % a.rows)[i / a.rows];
        Matrix::from_rows((0..a.values.len()).map(value).collect(), a.rows)
    }

    fn equal(a: &Matrix, b: &Matrix) {
        assert_eq!((a.rows, a.columns), (b.rows, b.columns));
        for (a, b) in a.values.iter().zip(&b.values) {
            assert!((a - b).abs() < 1e-12, "{a} {b}");
        }
    }

    #[test]
    fn products_are_sums_of_products() {
        let (a, b) = (counted(5, 11, 0.0), counted(11, 19, 1.0));
        equal(&a.times(&b), &plainly(&a, &b));
        equal(&transposed(&a).transposed_times(&b), &plainly(&a, &b));
        equal(&a.times_transposed(&transposed(&b)), &plainly(&a, &b));
        let mut sum = counted(11, 11, 2.0);
        let mut expected = plainly(&transposed(&a), &a);
        for (e, s) in expected.values.iter_mut().zip(&sum.values) {
            *e += s;
        }
        sum.add_gram(&a);
        equal(&sum, &expected);
        assert_eq!(counted(2, 2, 0.0).trace(), 0.0 + (3.0f64 * 0.37).sin());
    }
}
