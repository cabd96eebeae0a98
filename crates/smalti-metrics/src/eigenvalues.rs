//! Eigenvalues of symmetric matrices.
//!
//! Householder's reflections make the matrix tridiagonal from its last row to its first (Martin, Reinsch,
//! Wilkinson 1968, procedure `tred1`), QL steps with implicit shifts make that diagonal (Martin,
//! Wilkinson 1968, `imtql1`); Golub, Van Loan, *Matrix Computations*, sections 8.3.1 and 8.3.3. The error of an
//! eigenvalue is of the order of the rounding of the largest one.
//!
//! A reflection is a change by two outer products. It is made while the next one's product with the matrix
//! is taken, so that each step reads and writes what is left of the lower triangle once: 2048² take seconds.

use crate::matrix::{Matrix, dot};

/// QL steps for one eigenvalue; three are usual.
const MOST_STEPS: usize = 100;

/// The eigenvalues, in no order, of a symmetric matrix of finite numbers, of which the lower triangle is read.
pub(crate) fn eigenvalues(matrix: Matrix) -> Vec<f64> {
    assert_eq!(matrix.rows(), matrix.columns(), "a square matrix is needed");
    let (diagonal, beside) = tridiagonal(matrix);
    diagonalised(diagonal, beside)
}

/// The diagonal, and what stands beside it: `beside[i]` is in rows `i` and `i + 1`, the last is 0.
fn tridiagonal(mut matrix: Matrix) -> (Vec<f64>, Vec<f64>) {
    let size = matrix.rows();
    let values = matrix.values_mut();
    let (mut diagonal, mut beside) = (vec![0.0; size], vec![0.0; size]);
    // What the last reflection still has to take from the matrix: u·qᵀ + q·uᵀ.
    let (mut u, mut q) = (vec![0.0; size], vec![0.0; size]);
    let (mut next, mut product) = (vec![0.0; size], vec![0.0; size]);
    for i in (0..size).rev() {
        let (above, row) = values.split_at_mut(i * size);
        let row = &mut row[..=i];
        for (column, value) in row.iter_mut().enumerate() {
            *value -= u[i] * q[column] + q[i] * u[column];
        }
        diagonal[i] = row[i];
        if i == 0 {
            break;
        }
        let (last, half) = reflection(&row[..i], &mut next[..i]);
        beside[i - 1] = last;
        let product = &mut product[..i];
        product.fill(0.0);
        for r in 0..i {
            let row = &mut above[r * size..][..=r];
            row[r] -= 2.0 * u[r] * q[r];
            let sum = changed_and_multiplied(row, (&u, &q), &next, product);
            product[r] += sum + row[r] * next[r];
        }
        // q = p − (uᵀp / 2h)·u with p = A·u / h.
        if half > 0.0 {
            product.iter_mut().for_each(|p| *p /= half);
            let along = dot(&next[..i], product) / (2.0 * half);
            for (p, u) in product.iter_mut().zip(&next) {
                *p -= along * u;
            }
        }
        u[..i].copy_from_slice(&next[..i]);
        q[..i].copy_from_slice(product);
    }
    (diagonal, beside)
}

/// The vector `u` of the reflection `I − u·uᵀ/h` that leaves of `row` its last number only, that number, and
/// `h`; zeros where nothing is to be done.
fn reflection(row: &[f64], u: &mut [f64]) -> (f64, f64) {
    let (last, rest) = row.split_last().expect("a row is not empty");
    let scale: f64 = row.iter().map(|value| value.abs()).sum();
    if rest.iter().all(|value| *value == 0.0) {
        u.fill(0.0);
        return (*last, 0.0);
    }
    // In parts of the largest: squares neither vanish nor overflow.
    for (u, value) in u.iter_mut().zip(row) {
        *u = value / scale;
    }
    let squares = dot(u, u);
    let end = u.last_mut().expect("a row is not empty");
    let length = -squares.sqrt().copysign(*end);
    let half = squares - *end * length;
    *end -= length;
    (scale * length, half)
}

/// Takes `u·qᵀ + q·uᵀ` from the part of a row left of the diagonal; adds what that part and its mirror image
/// give in the product with `vector`: the mirror's to `product`, its own as the result.
fn changed_and_multiplied(
    row: &mut [f64],
    (u, q): (&[f64], &[f64]),
    vector: &[f64],
    product: &mut [f64],
) -> f64 {
    let r = row.len() - 1;
    let (own_u, own_q, own) = (u[r], q[r], vector[r]);
    let (parts, rest) = row[..r].as_chunks_mut::<8>();
    let (us, us_rest) = u[..r].as_chunks::<8>();
    let (qs, qs_rest) = q[..r].as_chunks::<8>();
    let (vs, vs_rest) = vector[..r].as_chunks::<8>();
    let (ps, ps_rest) = product[..r].as_chunks_mut::<8>();
    let mut sums = [0.0; 8];
    for ((((a, u), q), v), p) in parts.iter_mut().zip(us).zip(qs).zip(vs).zip(ps) {
        for lane in 0..8 {
            a[lane] -= own_u * q[lane] + own_q * u[lane];
            sums[lane] += a[lane] * v[lane];
            p[lane] += a[lane] * own;
        }
    }
    let mut sum = sums.iter().sum::<f64>();
    for (lane, a) in rest.iter_mut().enumerate() {
        *a -= own_u * qs_rest[lane] + own_q * us_rest[lane];
        sum += *a * vs_rest[lane];
        ps_rest[lane] += *a * own;
    }
    sum
}

/// The eigenvalues of a tridiagonal matrix.
fn diagonalised(mut diagonal: Vec<f64>, mut beside: Vec<f64>) -> Vec<f64> {
    let size = diagonal.len();
    for first in 0..size {
        for step in 0.. {
            let last = (first..size - 1)
                .find(|&i| negligible(beside[i], diagonal[i], diagonal[i + 1]))
                .unwrap_or(size - 1);
            if last == first {
                break;
            }
            assert!(
                step < MOST_STEPS,
                "QL steps of a symmetric matrix of finite numbers converge"
            );
            ql_step(&mut diagonal[first..=last], &mut beside[first..=last]);
        }
    }
    diagonal
}

/// Whether a number beside the diagonal is lost in the rounding of its neighbours.
fn negligible(beside: f64, above: f64, below: f64) -> bool {
    beside.abs() <= f64::EPSILON * (above.abs() + below.abs()) || beside.abs() < f64::MIN_POSITIVE
}

/// One QL step with the implicit shift of Wilkinson on a block without zeros beside its diagonal.
fn ql_step(diagonal: &mut [f64], beside: &mut [f64]) {
    let last = diagonal.len() - 1;
    let slope = (diagonal[1] - diagonal[0]) / (2.0 * beside[0]);
    let shift = beside[0] / (slope + slope.hypot(1.0).copysign(slope));
    let mut g = diagonal[last] - diagonal[0] + shift;
    let (mut sine, mut cosine, mut taken) = (1.0, 1.0, 0.0);
    for i in (0..last).rev() {
        let (f, b) = (sine * beside[i], cosine * beside[i]);
        let length = f.hypot(g);
        beside[i + 1] = length;
        if length == 0.0 {
            // The block has come apart.
            diagonal[i + 1] -= taken;
            beside[last] = 0.0;
            return;
        }
        (sine, cosine) = (f / length, g / length);
        g = diagonal[i + 1] - taken;
        let turned = (diagonal[i] - g) * sine + 2.0 * cosine * b;
        taken = sine * turned;
        diagonal[i + 1] = g + taken;
        g = cosine * turned - b;
    }
    diagonal[0] -= taken;
    beside[0] = g;
    beside[last] = 0.0;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(mut values: Vec<f64>) -> Vec<f64> {
        values.sort_by(f64::total_cmp);
        values
    }

    fn close(matrix: Matrix, expected: &[f64]) {
        let got = sorted(eigenvalues(matrix));
        let largest = expected.iter().fold(0.0f64, |most, e| most.max(e.abs()));
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(sorted(expected.to_vec())) {
            let difference = (got - expected).abs();
            assert!(difference <= 1e-13 * largest, "{got} {expected}");
        }
    }

    /// `Q·diag·Qᵀ` with a product of reflections as Q.
    fn with_eigenvalues(values: &[f64]) -> Matrix {
        let size = values.len();
        let mut matrix = Matrix::zeros(size, size);
        for (i, value) in values.iter().enumerate() {
            matrix.values_mut()[i * size + i] = *value;
        }
        for seed in 0..3 {
            let v: Vec<f64> = (0..size)
                .map(|i| (i as f64 * 1.7 + f64::from(seed)).cos())
                .collect();
            let square = dot(&v, &v);
            let mut reflection = Matrix::zeros(size, size);
            for i in 0..size {
                for j in 0..size {
                    let unit = f64::from(u8::from(i == j));
                    reflection.values_mut()[i * size + j] = unit - 2.0 * v[i] * v[j] / square;
                }
            }
            matrix = reflection.times(&matrix).times(&reflection);
        }
        matrix
    }

    #[test]
    fn small_matrices_have_their_known_eigenvalues() {
        close(Matrix::from_rows(vec![3.0], 1), &[3.0]);
        close(Matrix::from_rows(vec![2.0, 1.0, 1.0, 2.0], 2), &[1.0, 3.0]);
        close(Matrix::zeros(5, 5), &[0.0; 5]);
        // The second difference of a string with fixed ends.
        let size = 40;
        let mut string = Matrix::zeros(size, size);
        for i in 0..size {
            string.values_mut()[i * size + i] = 2.0;
            if i > 0 {
                string.values_mut()[i * size + i - 1] = -1.0;
            }
        }
        let angle = std::f64::consts::PI / (size + 1) as f64;
        let expected: Vec<f64> = (1..=size)
            .map(|k| 2.0 - 2.0 * (angle * k as f64).cos())
            .collect();
        close(string, &expected);
    }

    #[test]
    fn reflected_diagonals_are_found_again() {
        let plain: Vec<f64> = (0..61).map(|i| f64::from(i) - 20.0).collect();
        close(with_eigenvalues(&plain), &plain);
        let repeated: Vec<f64> = (0..50).map(|i| f64::from(i / 10)).collect();
        close(with_eigenvalues(&repeated), &repeated);
        let wide: Vec<f64> = (0..30).map(|i| 10f64.powi(i - 15)).collect();
        close(with_eigenvalues(&wide), &wide);
    }

    #[test]
    fn numbers_may_be_huge_or_tiny() {
        for scale in [1e-140, 1e140] {
            let values: Vec<f64> = (1..20).map(|i| f64::from(i) * scale).collect();
            close(with_eigenvalues(&values), &values);
        }
    }
}
