use super::super::weighted::{WeightedIndex, exact_score, weight};
use super::*;

/// Every code in f64, first index first: the best code, `-s` of it and of the second.
fn reference(index: &WeightedIndex, means: &[f32], log_variances: &[f32]) -> (u32, f64, f64) {
    let weights: Vec<f64> = log_variances.iter().map(|v| weight(*v)).collect();
    let (mut found, mut best, mut second) = (0, f64::INFINITY, f64::INFINITY);
    for (k, code) in index.codes().chunks_exact(means.len()).enumerate() {
        let score = exact_score(index.beta(), means, &weights, code);
        if score < best {
            (found, second, best) = (k as u32, best, score);
        } else if score < second {
            second = score;
        }
    }
    (found, best, second)
}

/// Holds every path, for the best code and the best two, against the reference.
fn check(index: &WeightedIndex, means: &[f32], log_variances: &[f32]) {
    let code_dim = index.code_dim();
    let rows = means.len() / code_dim;
    let want: Vec<_> = means
        .chunks_exact(code_dim)
        .zip(log_variances.chunks_exact(code_dim))
        .map(|(means, variances)| reference(index, means, variances))
        .collect();
    for simd in Simd::available() {
        let mut got = vec![u32::MAX; rows];
        index
            .search_on(simd, means, log_variances, &mut got)
            .unwrap();
        let mut two = vec![TopTwo::default(); rows];
        index
            .search_top2_on(simd, means, log_variances, &mut two)
            .unwrap();
        for row in 0..rows {
            let (code, best, second) = want[row];
            let place = format!("{simd:?} dim {code_dim} row {row}");
            assert_eq!(got[row], code, "{place}");
            let expected = TopTwo {
                index: code,
                best: -best as f32,
                second: -second as f32,
            };
            assert_eq!(two[row], expected, "{place}");
        }
    }
}

/// Roughly normal numbers.
fn normal(count: usize, seed: u64) -> Vec<f32> {
    let parts: Vec<Vec<f32>> = (0..3).map(|i| noise(count, seed * 3 + i)).collect();
    (0..count)
        .map(|i| 0.5 * (parts[0][i] + parts[1][i] + parts[2][i]))
        .collect()
}

fn shifted(values: Vec<f32>, scale: f32, offset: f32) -> Vec<f32> {
    values.iter().map(|x| x * scale + offset).collect()
}

#[test]
fn agrees_with_f64_for_odd_shapes() {
    let shapes = [
        (1, 1, 1),
        (2, 1, 9),
        (31, 3, 7),
        (33, 16, 130),
        (1000, 4, 300),
        (4097, 16, 33),
        (5000, 1, 100),
        (513, 64, 9),
    ];
    for (size, code_dim, rows) in shapes {
        for beta in [1.0, 0.0, 0.5, -0.25] {
            let index = WeightedIndex::new(normal(size * code_dim, 1), code_dim, beta).unwrap();
            let means = normal(rows * code_dim, 2);
            // Variances from 0.02 to 2.7: weights β - 1/σ² of both signs.
            let log_variances = shifted(noise(rows * code_dim, 3), 1.25, -1.5);
            check(&index, &means, &log_variances);
        }
    }
}

#[test]
fn a_million_codes_are_searched_like_few() {
    let index = WeightedIndex::new(normal(3 << 20, 21), 3, 1.0).unwrap();
    let log_variances = shifted(noise(12 * 3, 23), 1.0, -5.0);
    check(&index, &normal(12 * 3, 22), &log_variances);
}

#[test]
fn narrow_and_wide_gaussians_keep_their_digits() {
    let codes = normal(3000 * 4, 4);
    let index = WeightedIndex::new(codes.clone(), 4, 1.0).unwrap();
    let (means, noise) = (normal(60 * 4, 5), noise(60 * 4, 6));
    for middle in [-30.0, -18.0, -9.0, 0.0, 5.0, 20.0] {
        check(&index, &means, &shifted(noise.clone(), 2.0, middle));
    }
    // Gaussians that lie on codes, one and all.
    check(&index, &codes[..400], &vec![-30.0; 400]);
    // A weight of β in every dimension leaves only 2·w·μ·c.
    check(&index, &means, &vec![0.0; 240]);
}

#[test]
fn scores_closer_than_a_rounding_error_are_told_apart() {
    let mut codes = Vec::new();
    for (k, base) in noise(64 * 16, 7).chunks_exact(16).enumerate() {
        for step in 0..8_i32 {
            let mut code = base.to_vec();
            let place = k % 16;
            code[place] = f32::from_bits((code[place].to_bits() as i32 + step * 3 - 12) as u32);
            codes.extend(code);
        }
    }
    let index = WeightedIndex::new(codes, 16, 1.0).unwrap();
    let log_variances = shifted(noise(64 * 16, 9), 1.0, -2.0);
    check(&index, &noise(64 * 16, 8), &log_variances);
}

#[test]
fn equal_scores_give_the_lowest_index() {
    let mut codes = normal(200 * 8, 10);
    codes.copy_within(40 * 8..60 * 8, 100 * 8);
    codes.copy_within(40 * 8..60 * 8, 7 * 8);
    let index = WeightedIndex::new(codes, 8, 1.0).unwrap();
    check(
        &index,
        &normal(800, 11),
        &shifted(noise(800, 12), 1.0, -1.0),
    );
    // The standard normal is equally far from every code.
    let mut got = [9];
    index.search(&[0.0; 8], &[0.0; 8], &mut got).unwrap();
    assert_eq!(got, [0]);
    let all_equal = WeightedIndex::new(vec![0.25; 300 * 8], 8, 1.0).unwrap();
    check(
        &all_equal,
        &normal(80, 13),
        &shifted(noise(80, 14), 1.0, -1.0),
    );
}

#[test]
fn numbers_that_leave_f32_are_compared_in_f64() {
    for scale in [1e30, 3e18, 1e-25, 1e-42] {
        let index = WeightedIndex::new(shifted(noise(100 * 5, 15), scale, 0.0), 5, 1.0).unwrap();
        let means = shifted(noise(20 * 5, 16), scale, 0.0);
        check(&index, &means, &shifted(noise(20 * 5, 17), 2.0, -1.0));
        check(&index, &means, &vec![-80.0; 100]);
        check(&index, &means, &vec![80.0; 100]);
        check(&index, &means, &vec![0.0; 100]);
    }
    let zero = WeightedIndex::new(vec![0.0; 40 * 3], 3, 0.0).unwrap();
    check(&zero, &[f32::MAX; 3], &[-80.0; 3]);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let index = WeightedIndex::new(normal(2000 * 12, 18), 12, 1.0).unwrap();
    let means = normal(777 * 12, 19);
    let log_variances = shifted(noise(777 * 12, 20), 1.0, -2.0);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let mut out = vec![TopTwo::default(); 777];
        pool.install(|| index.search_top2(&means, &log_variances, &mut out))
            .unwrap();
        out
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn scores_are_those_of_the_formula() {
    let index = WeightedIndex::new(vec![0.0, 1.0, -2.0], 1, 1.0).unwrap();
    let mut out = [TopTwo::default()];
    // σ² = 1/2, μ = 0.75: s = c² - 2·(c - 0.75)².
    let log_variance = 0.5_f32.ln();
    index
        .search_top2(&[0.75], &[log_variance], &mut out)
        .unwrap();
    assert_eq!(out[0].index, 1);
    assert!((out[0].best - 0.875).abs() < 1e-6 && (out[0].second + 1.125).abs() < 1e-6);
    assert!((out[0].margin() - 2.0).abs() < 1e-6);
    let lonely = WeightedIndex::new(vec![2.0], 1, 1.0).unwrap();
    lonely.search_top2(&[1.0], &[0.0], &mut out).unwrap();
    assert_eq!((out[0].index, out[0].best), (0, 3.0));
    assert_eq!(out[0].margin(), f32::INFINITY);
}

#[test]
fn wrong_input_is_named() {
    let index = WeightedIndex::new(vec![1.0; 8], 4, 1.0).unwrap();
    let built = WeightedIndex::new(vec![1.0, f32::NAN], 1, 1.0).map(|index| index.code_dim());
    assert_eq!(built, Err(NearestError::NonFiniteCode { row: 1 }));
    let built = WeightedIndex::new(vec![1.0; 6], 4, 1.0).map(|index| index.code_dim());
    let shape = NearestError::CodebookShape {
        values: 6,
        code_dim: 4,
    };
    assert_eq!(built, Err(shape));
    for (place, bad) in [(0, f32::NAN), (1, f32::INFINITY)] {
        let mut given = [vec![0.5; 12], vec![0.5; 12]];
        given[place][9] = bad;
        let got = index.search(&given[0], &given[1], &mut [0; 3]);
        assert_eq!(got, Err(NearestError::NonFiniteQuery { row: 2 }));
    }
    let mut log_variances = [0.0; 12];
    log_variances[5] = 81.0;
    let error = index
        .search(&[0.0; 12], &log_variances, &mut [0; 3])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "query 1 has the log-variance 81, expected -80 to 80"
    );
    let error = index.search(&[0.0; 12], &[0.0; 8], &mut [0; 3]);
    let shape = NearestError::QueryShape {
        values: 8,
        code_dim: 4,
        results: 3,
    };
    assert_eq!(error, Err(shape));
    assert_eq!(index.search(&[], &[], &mut []), Ok(()));
}
