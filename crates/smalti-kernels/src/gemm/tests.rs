//! Products against an f64 reference, on every path.

use proptest::prelude::*;

use super::*;

/// Values in [-1, 1) that look random and are the same everywhere.
pub(crate) fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// What a product must be, with the sum of magnitudes of its terms as a yardstick for rounding.
fn reference(p: &Product, c: &[f32], row_stride: usize) -> Vec<(f64, f64)> {
    // SAFETY: `at` is asked for elements inside the matrices only.
    let read = |m: &Matrix, i, j| f64::from(unsafe { *m.at(i, j) });
    let mut out = Vec::new();
    for i in 0..p.a.rows {
        for j in 0..p.b.cols {
            let terms =
                (0..p.a.cols).map(|k| f64::from(p.alpha) * read(&p.a, i, k) * read(&p.b, k, j));
            let (mut sum, mut size) =
                terms.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
            if p.beta != 0.0 {
                let old = f64::from(p.beta) * f64::from(c[i * row_stride + j]);
                (sum, size) = (sum + old, size + old.abs());
            }
            let bias = p.bias.map_or(0.0, |bias| f64::from(bias[j]));
            out.push((sum + bias, size + bias.abs()));
        }
    }
    out
}

fn check_on_every_path(p: &Product, row_stride: usize) {
    let (m, n) = (p.a.rows, p.b.cols);
    let fill = if p.beta == 0.0 {
        vec![f32::NAN; m * row_stride]
    } else {
        noise(m * row_stride, 9)
    };
    let expected = reference(p, &fill, row_stride);
    for simd in Simd::available() {
        let mut c = fill.clone();
        gemm_on(
            simd,
            p,
            MatrixMut::with_row_stride(&mut c, m, n, row_stride),
        );
        for i in 0..m {
            for j in 0..row_stride {
                let got = c[i * row_stride + j];
                if j >= n {
                    assert_eq!(
                        got.to_bits(),
                        fill[i * row_stride + j].to_bits(),
                        "wrote between rows"
                    );
                    continue;
                }
                let (want, size) = expected[i * n + j];
                let error = (f64::from(got) - want).abs();
                // Every term is rounded at most once when multiplied, the sum a few times a term.
                assert!(
                    error <= 1e-6 * size + 1e-12,
                    "{simd:?} ({i}, {j}): {got} instead of {want}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_shape_and_layout_matches_the_reference(
        (m, n, k) in (0usize..40, 0usize..70, 0usize..50),
        (a_transposed, b_transposed, biased) in any::<(bool, bool, bool)>(),
        (alpha, beta) in (prop_oneof![Just(1.0f32), Just(-0.5)], prop_oneof![Just(0.0f32), Just(1.0), Just(0.25)]),
        gap in 0usize..3,
    ) {
        let (a, b, bias) = (noise(m * k, 1), noise(k * n, 2), noise(n, 3));
        let a = if a_transposed { Matrix::new(&a, k, m).transposed() } else { Matrix::new(&a, m, k) };
        let b = if b_transposed { Matrix::new(&b, n, k).transposed() } else { Matrix::new(&b, k, n) };
        let product = Product { a, b, alpha, beta, bias: biased.then_some(&bias[..]) };
        check_on_every_path(&product, n + gap);
    }
}

#[test]
fn several_blocks_match_the_reference() {
    let (m, n, k) = (300, 290, 530);
    let (a, b, bias) = (noise(m * k, 4), noise(k * n, 5), noise(n, 6));
    let b = Matrix::new(&b, n, k).transposed();
    check_on_every_path(
        &Product::new(Matrix::new(&a, m, k), b)
            .with_bias(Some(&bias))
            .with_beta(0.5),
        n,
    );
}

#[test]
fn strides_in_both_directions_match_the_reference() {
    let (m, n, k) = (19, 37, 21);
    let (a, b) = (noise(m * k * 3, 7), noise(k * n * 2, 8));
    let a = Matrix::with_strides(&a, [m, k], [k * 3, 3]);
    let b = Matrix::with_strides(&b, [k, n], [n * 2, 2]);
    check_on_every_path(&Product::new(a, b), n);
}

#[test]
fn batches_match_single_products_bit_for_bit() {
    let (count, m, n, k) = (5, 33, 20, 18);
    let (a, b) = (noise(count * m * k, 1), noise(count * k * n, 2));
    let batch = Batch {
        count,
        a_step: m * k,
        b_step: k * n,
        c_step: m * n,
    };
    let mut all = vec![0.0; count * m * n];
    let product = Product::new(Matrix::new(&a, m, k), Matrix::new(&b, k, n)).with_alpha(0.125);
    gemm_batched(&product, batch, MatrixMut::new(&mut all, m, n));
    for i in 0..count {
        let a = Matrix::new(&a[i * m * k..], m, k);
        let mut c = vec![0.0; m * n];
        gemm(
            &Product {
                a,
                b: Matrix::new(&b[i * k * n..], k, n),
                ..product
            },
            MatrixMut::new(&mut c, m, n),
        );
        assert_eq!(c, all[i * m * n..(i + 1) * m * n]);
    }
}

#[test]
fn threads_and_company_do_not_change_bits() {
    let (m, n, k) = (150, 200, 300);
    let (a, b) = (noise(m * k, 1), noise(k * n, 2));
    let weights = Matrix::new(&b, n, k).transposed();
    let run = |rows: usize, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let mut c = vec![0.0; rows * n];
        let product = Product::new(Matrix::new(&a, rows, k), weights);
        pool.install(|| gemm(&product, MatrixMut::new(&mut c, rows, n)));
        c
    };
    let all = run(m, 1);
    assert_eq!(all, run(m, 3));
    assert_eq!(all, run(m, 8));
    assert_eq!(all[..20 * n], run(20, 2));
    let few = run(FEW_ROWS, 2);
    for rows in 1..FEW_ROWS {
        assert_eq!(few[..rows * n], run(rows, 3));
    }
}

#[test]
fn not_a_number_and_infinity_pass_through() {
    for rows in [2, 40] {
        for simd in Simd::available() {
            let (mut a, mut b) = (noise(rows * 40, 1), noise(40 * 40, 2));
            a[40 + 3] = f32::NAN;
            b[7 * 40 + 5] = f32::INFINITY;
            let mut c = vec![0.0; rows * 40];
            let product = Product::new(
                Matrix::new(&a, rows, 40),
                Matrix::new(&b, 40, 40).transposed(),
            );
            gemm_on(simd, &product, MatrixMut::new(&mut c, rows, 40));
            for (at, value) in c.iter().enumerate() {
                let (row, col) = (at / 40, at % 40);
                assert_eq!(value.is_nan(), row == 1, "{simd:?} ({row}, {col})");
                assert_eq!(
                    value.is_infinite(),
                    row != 1 && col == 7,
                    "{simd:?} ({row}, {col})"
                );
            }
        }
    }
}

#[test]
#[should_panic(expected = "the inner sizes differ")]
fn unfitting_factors_are_refused() {
    let product = Product::new(Matrix::new(&[0.0; 6], 2, 3), Matrix::new(&[0.0; 8], 4, 2));
    gemm(&product, MatrixMut::new(&mut [0.0; 4], 2, 2));
}

#[test]
#[should_panic(expected = "needs 6 values, 5 were given")]
fn short_data_are_refused() {
    let _ = Matrix::new(&[0.0; 5], 2, 3);
}
