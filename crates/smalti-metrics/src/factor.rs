//! A factor of a covariance: `A = L·Lᵀ` with as many columns as `A` has rank.
//!
//! Cholesky's decomposition that takes the largest remaining variance at each step (Higham, *Accuracy and
//! Stability of Numerical Algorithms*, section 10.3) and ends where what remains is rounding:
//! at most `n·ε` of the largest variance of all. `L` has the rows of `A` in their order, so it is no
//! triangle.

use crate::matrix::{Matrix, dot};

/// `L` of a symmetric matrix without negative eigenvalues, `[n, rank]`.
pub(crate) fn factor(matrix: &Matrix) -> Matrix {
    let size = matrix.rows();
    let mut left: Vec<f64> = (0..size).map(|i| matrix.row(i)[i]).collect();
    let largest = left.iter().copied().fold(0.0, f64::max);
    let lost = size as f64 * f64::EPSILON * largest;
    let mut taken = vec![false; size];
    let mut factor = Matrix::zeros(size, size);
    let mut rank = 0;
    while rank < size {
        let remaining = (0..size).filter(|&i| !taken[i]);
        let pivot = remaining
            .max_by(|&a, &b| left[a].total_cmp(&left[b]))
            .expect("fewer are taken than there are");
        if left[pivot] <= lost {
            break;
        }
        taken[pivot] = true;
        let root = left[pivot].sqrt();
        let own = factor.row(pivot)[..rank].to_vec();
        let values = factor.values_mut();
        values[pivot * size + rank] = root;
        for i in (0..size).filter(|&i| !taken[i]) {
            let row = &mut values[i * size..][..=rank];
            let value = (matrix.row(pivot)[i] - dot(&row[..rank], &own)) / root;
            row[rank] = value;
            left[i] -= value * value;
        }
        rank += 1;
    }
    narrowed(&factor, rank)
}

/// The first columns.
fn narrowed(matrix: &Matrix, columns: usize) -> Matrix {
    if columns == 0 {
        return Matrix::zeros(matrix.rows(), 0);
    }
    let rows = (0..matrix.rows()).flat_map(|i| matrix.row(i)[..columns].iter().copied());
    Matrix::from_rows(rows.collect(), columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The Gram matrix of `rank` directions among `size`.
    fn gram(size: usize, rank: usize) -> Matrix {
        let value = |i: usize| ((i * i) as f64 * 0.71 + i as f64 + 1.0).sin();
        let rows = Matrix::from_rows((0..rank * size).map(value).collect(), size);
        let mut gram = Matrix::zeros(size, size);
        gram.add_gram(&rows);
        gram
    }

    #[test]
    fn the_factor_has_the_rank_and_gives_the_matrix_back() {
        for (size, rank) in [(1, 1), (9, 9), (20, 6), (20, 1)] {
            let matrix = gram(size, rank);
            let factor = factor(&matrix);
            assert_eq!((factor.rows(), factor.columns()), (size, rank));
            let again = factor.times_transposed(&factor);
            for (a, b) in again.values().iter().zip(matrix.values()) {
                assert!((a - b).abs() < 1e-12, "{a} {b}");
            }
        }
        assert_eq!(factor(&Matrix::zeros(4, 4)).columns(), 0);
    }
}
