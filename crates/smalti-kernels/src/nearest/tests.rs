use super::plain::Plain;
use super::*;
use crate::noise::noise;

mod weighted;

/// Every code in f64, first index first.
fn reference(codes: &[f32], query: &[f32], metric: Metric) -> (u32, f64, f64) {
    let (mut index, mut best, mut second) = (0, f64::INFINITY, f64::INFINITY);
    for (k, code) in codes.chunks_exact(query.len()).enumerate() {
        let score = Plain::exact_score(metric, query, code);
        if score < best {
            (index, second, best) = (k as u32, best, score);
        } else if score < second {
            second = score;
        }
    }
    (index, best, second)
}

/// Holds every path, with one neighbour and with two, against the reference.
fn check(codes: &[f32], code_dim: usize, queries: &[f32], metric: Metric) {
    let index = CodebookIndex::new(codes.to_vec(), code_dim, metric).unwrap();
    let rows = queries.len() / code_dim;
    let want: Vec<_> = queries
        .chunks_exact(code_dim)
        .map(|query| reference(codes, query, metric))
        .collect();
    let sign = if metric == Metric::InnerProduct {
        -1.0
    } else {
        1.0
    };
    for simd in Simd::available() {
        let mut got = vec![u32::MAX; rows];
        index.search_on(simd, queries, &mut got).unwrap();
        let mut two = vec![TopTwo::default(); rows];
        index.search_top2_on(simd, queries, &mut two).unwrap();
        for row in 0..rows {
            let (code, best, second) = want[row];
            let place = format!("{simd:?} {metric:?} dim {code_dim} row {row}");
            assert_eq!(got[row], code, "{place}");
            let expected = TopTwo {
                index: code,
                best: (sign * best) as f32,
                second: (sign * second) as f32,
            };
            assert_eq!(two[row], expected, "{place}");
        }
    }
}

#[test]
fn agrees_with_f64_for_odd_shapes() {
    let shapes = [
        (1, 1, 1),
        (2, 1, 9),
        (31, 3, 7),
        (32, 8, 8),
        (33, 16, 130),
        (100, 17, 5),
        (1000, 4, 300),
        (4097, 16, 33),
        (513, 256, 9),
        (70, 511, 3),
    ];
    for (size, code_dim, rows) in shapes {
        let codes = noise(size * code_dim, 1);
        let queries = noise(rows * code_dim, 2);
        check(&codes, code_dim, &queries, Metric::Euclidean);
        check(&codes, code_dim, &queries, Metric::InnerProduct);
    }
}

#[test]
fn codes_closer_than_a_rounding_error_are_told_apart() {
    // Sixteen-dimensional codes in groups that differ in the last bits of one coordinate.
    let mut codes = Vec::new();
    for (k, base) in noise(64 * 16, 3).chunks_exact(16).enumerate() {
        for step in 0..8_i32 {
            let mut code = base.to_vec();
            let place = k % 16;
            code[place] = f32::from_bits((code[place].to_bits() as i32 + step * 3 - 12) as u32);
            codes.extend(code);
        }
    }
    check(&codes, 16, &noise(64 * 16, 4), Metric::Euclidean);
    check(&codes, 16, &noise(64 * 16, 4), Metric::InnerProduct);
    // The queries lie on the codes themselves.
    check(&codes, 16, &codes, Metric::Euclidean);
}

#[test]
fn equal_codes_give_the_lowest_index() {
    let mut codes = noise(200 * 8, 5);
    codes.copy_within(40 * 8..60 * 8, 100 * 8);
    codes.copy_within(40 * 8..60 * 8, 7 * 8);
    let queries = noise(100 * 8, 6);
    check(&codes, 8, &queries, Metric::Euclidean);
    check(&codes, 8, &codes, Metric::Euclidean);
    let all_equal = vec![0.25; 300 * 8];
    check(&all_equal, 8, &queries, Metric::Euclidean);
    check(&all_equal, 8, &queries, Metric::InnerProduct);
}

#[test]
fn a_codebook_far_from_the_origin_keeps_its_digits() {
    let codes: Vec<f32> = noise(500 * 16, 7)
        .iter()
        .map(|x| 1000.0 + x * 0.01)
        .collect();
    let queries: Vec<f32> = noise(60 * 16, 8)
        .iter()
        .map(|x| 1000.0 + x * 0.01)
        .collect();
    check(&codes, 16, &queries, Metric::Euclidean);
}

#[test]
fn very_large_very_small_and_uneven_numbers() {
    for scale in [1e30, 3e18, 1e-25, 1e-42] {
        let codes: Vec<f32> = noise(100 * 5, 9).iter().map(|x| x * scale).collect();
        let queries: Vec<f32> = noise(20 * 5, 10).iter().map(|x| x * scale).collect();
        let index = CodebookIndex::new(codes.clone(), 5, Metric::Euclidean).unwrap();
        for simd in Simd::available() {
            let mut got = vec![0; 20];
            index.search_on(simd, &queries, &mut got).unwrap();
            for (query, got) in queries.chunks_exact(5).zip(got) {
                assert_eq!(
                    got,
                    reference(&codes, query, Metric::Euclidean).0,
                    "scale {scale}"
                );
            }
        }
    }
    // The centred query overflows while the codes around the mean are zero.
    let index = CodebookIndex::new(vec![-3e38; 8], 4, Metric::Euclidean).unwrap();
    let mut got = [7];
    index.search(&[3e38; 4], &mut got).unwrap();
    assert_eq!(got, [0]);
    let mut codes = noise(300 * 6, 11);
    for (k, code) in codes.chunks_exact_mut(6).enumerate() {
        let scale = if k % 3 == 0 { 1e6 } else { 1e-3 };
        code.iter_mut().for_each(|x| *x *= scale);
    }
    check(&codes, 6, &noise(50 * 6, 12), Metric::Euclidean);
    check(&codes, 6, &noise(50 * 6, 12), Metric::InnerProduct);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let (codes, queries) = (noise(2000 * 12, 13), noise(777 * 12, 14));
    let index = CodebookIndex::new(codes.clone(), 12, Metric::Euclidean).unwrap();
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let mut out = vec![TopTwo::default(); 777];
        pool.install(|| index.search_top2(&queries, &mut out))
            .unwrap();
        out
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn margins_are_the_gap_between_the_best_two() {
    let index = CodebookIndex::new(vec![0.0, 4.0, 1.0], 1, Metric::Euclidean).unwrap();
    let mut out = [TopTwo::default(); 2];
    index.search_top2(&[0.25, 3.0], &mut out).unwrap();
    assert_eq!(
        out[0],
        TopTwo {
            index: 0,
            best: 0.0625,
            second: 0.5625
        }
    );
    assert_eq!(out[0].margin(), 0.5);
    assert_eq!(
        out[1],
        TopTwo {
            index: 1,
            best: 1.0,
            second: 4.0
        }
    );
    let lonely = CodebookIndex::new(vec![2.0], 1, Metric::InnerProduct).unwrap();
    let mut out = [TopTwo::default()];
    lonely.search_top2(&[3.0], &mut out).unwrap();
    assert_eq!((out[0].index, out[0].best), (0, 6.0));
    assert_eq!(out[0].margin(), f32::INFINITY);
}

#[test]
fn wrong_input_is_named() {
    let shape = |values, code_dim| NearestError::CodebookShape { values, code_dim };
    let build = |codes: &[f32], code_dim| {
        CodebookIndex::new(codes.to_vec(), code_dim, Metric::Euclidean)
            .map(|index| index.codebook_size())
    };
    assert_eq!(build(&[], 4), Err(shape(0, 4)));
    assert_eq!(build(&[1.0; 6], 4), Err(shape(6, 4)));
    assert_eq!(build(&[1.0; 6], 0), Err(shape(6, 0)));
    let mut codes = [1.0; 8];
    codes[6] = f32::NAN;
    assert_eq!(
        build(&codes, 4),
        Err(NearestError::NonFiniteCode { row: 1 })
    );
    let index = CodebookIndex::new(vec![1.0; 8], 4, Metric::Euclidean).unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut queries = vec![0.5; 4 * 2000];
        queries[4 * 1501 + 3] = bad;
        queries[4 * 1700] = bad;
        let got = index.search(&queries, &mut vec![0; 2000]);
        assert_eq!(got, Err(NearestError::NonFiniteQuery { row: 1501 }));
        assert_eq!(
            got.unwrap_err().to_string(),
            "query 1501 is not finite, it has no nearest code"
        );
    }
    let got = index.search(&[0.0; 8], &mut [0; 3]);
    assert_eq!(
        got,
        Err(NearestError::QueryShape {
            values: 8,
            code_dim: 4,
            results: 3
        })
    );
    assert_eq!(index.search(&[], &mut []), Ok(()));
}
