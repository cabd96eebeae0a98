use super::softmax::choices_on;
use super::*;
use crate::Simd;
use crate::noise::noise;

const LOGARITHMS: [Logarithm; 3] = [
    Logarithm::Exact,
    Logarithm::Added(1e-3),
    Logarithm::Clamped(1e-3),
];

fn term(p: f64, logarithm: Logarithm) -> f64 {
    match logarithm {
        Logarithm::Exact if p == 0.0 => 0.0,
        Logarithm::Exact => -p * p.ln(),
        Logarithm::Added(epsilon) => -p * (p + f64::from(epsilon)).ln(),
        Logarithm::Clamped(epsilon) => -p * p.max(f64::from(epsilon)).ln(),
    }
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let most = logits.iter().fold(f64::MIN, |a, b| a.max(*b));
    let total: f64 = logits.iter().map(|l| (l - most).exp()).sum();
    logits.iter().map(|l| (l - most).exp() / total).collect()
}

/// Probabilities of one group of signs in `f64`, straight from `exp(s·x·c)`.
fn signs(x: &[f32], sharpness: f64) -> Vec<f64> {
    let sign = |code: usize, bit: usize| if code >> bit & 1 == 1 { 1.0 } else { -1.0 };
    let logit = |code: usize| -> f64 {
        let terms = x.iter().enumerate();
        terms
            .map(|(bit, x)| sharpness * f64::from(*x) * sign(code, bit))
            .sum()
    };
    softmax(&(0..1 << x.len()).map(logit).collect::<Vec<_>>())
}

fn entropy(p: &[f64], logarithm: Logarithm) -> f64 {
    p.iter().map(|p| term(*p, logarithm)).sum()
}

/// Central differences of `of` in `f64` arithmetic over numbers moved in `f32`.
fn slope(values: &[f32], i: usize, of: impl Fn(&[f32]) -> f64) -> f64 {
    let step = 1.0 / 256.0;
    let mut moved = values.to_vec();
    moved[i] = values[i] + step;
    let (up, high) = (of(&moved), moved[i]);
    moved[i] = values[i] - step;
    (up - of(&moved)) / f64::from(high - moved[i])
}

fn close(got: f32, expected: f64, tolerance: f64, what: &str) {
    let distance = (f64::from(got) - expected).abs();
    assert!(
        distance <= tolerance * (1.0 + expected.abs()),
        "{what}: {got}, expected {expected}"
    );
}

#[test]
fn entropies_and_uses_of_signs_are_those_of_the_definition() {
    for (bits, groups, count) in [(1, 5, 7), (3, 2, 9), (6, 1, 40), (10, 1, 3)] {
        let shape = Signs {
            bits,
            groups,
            sharpness: 0.8,
        };
        let rows = noise(count * groups * bits, 1);
        let tables: Vec<Vec<f64>> = rows
            .chunks(bits)
            .map(|x| signs(x, f64::from(0.8f32)))
            .collect();
        for simd in Simd::available() {
            for logarithm in LOGARITHMS {
                let what = format!("{bits} bits, {groups} groups, {logarithm:?}, {simd:?}");
                let mut slopes = vec![0.0; rows.len()];
                let found = shape.choices_on(simd, &rows, logarithm, &mut slopes);
                let expected: f64 = tables.iter().map(|p| entropy(p, logarithm)).sum();
                close(found.entropy as f32, expected, 1e-5, &what);
                for (k, got) in found.usage.iter().enumerate() {
                    let (group, code) = (k >> bits, k % (1 << bits));
                    let of_group = tables.iter().skip(group).step_by(groups);
                    close(*got, of_group.map(|p| p[code]).sum(), 1e-5, &what);
                }
                for i in (0..rows.len()).step_by(3) {
                    let total = |rows: &[f32]| -> f64 {
                        let group = &rows[i / bits * bits..][..bits];
                        entropy(&signs(group, f64::from(0.8f32)), logarithm)
                    };
                    close(slopes[i], slope(&rows, i, total), 2e-3, &what);
                }
            }
        }
    }
}

#[test]
fn weighted_probabilities_of_signs_have_their_slopes() {
    let shape = Signs {
        bits: 5,
        groups: 2,
        sharpness: 1.1,
    };
    let (rows, weights) = (noise(4 * 10, 2), noise(64, 3));
    for simd in Simd::available() {
        let mut slopes = vec![0.0; rows.len()];
        shape.weighted_on(simd, &rows, &weights, &mut slopes);
        for (i, got) in slopes.iter().enumerate() {
            let group = i / 5;
            let total = |rows: &[f32]| -> f64 {
                let p = signs(&rows[group * 5..][..5], f64::from(1.1f32));
                let weights = &weights[group % 2 * 32..][..32];
                p.iter().zip(weights).map(|(p, w)| p * f64::from(*w)).sum()
            };
            close(*got, slope(&rows, i, total), 2e-3, &format!("{simd:?} {i}"));
        }
    }
}

#[test]
fn entropies_and_uses_of_logits_are_those_of_the_definition() {
    for (width, count) in [(1, 3), (7, 5), (33, 40), (300, 2)] {
        let logits: Vec<f32> = noise(width * count, 4).iter().map(|l| 3.0 * l).collect();
        let tables: Vec<Vec<f64>> = logits
            .chunks(width)
            .map(|row| softmax(&row.iter().map(|l| f64::from(*l)).collect::<Vec<_>>()))
            .collect();
        for simd in Simd::available() {
            for logarithm in LOGARITHMS {
                let what = format!("{width} codes, {logarithm:?}, {simd:?}");
                let mut slopes = logits.clone();
                let found = choices_on(simd, width, &mut slopes, logarithm);
                let expected: f64 = tables.iter().map(|p| entropy(p, logarithm)).sum();
                close(found.entropy as f32, expected, 1e-5, &what);
                for (code, got) in found.usage.iter().enumerate() {
                    close(*got, tables.iter().map(|p| p[code]).sum(), 1e-5, &what);
                }
                for i in (0..logits.len()).step_by(5) {
                    let total = |logits: &[f32]| -> f64 {
                        let row = &logits[i / width * width..][..width];
                        let row: Vec<f64> = row.iter().map(|l| f64::from(*l)).collect();
                        entropy(&softmax(&row), logarithm)
                    };
                    close(slopes[i], slope(&logits, i, total), 2e-3, &what);
                }
            }
        }
    }
}

#[test]
fn weighted_probabilities_of_logits_have_their_slopes() {
    let (logits, weights) = (noise(3 * 19, 5), noise(19, 6));
    let mut slopes = logits.clone();
    weighted(&mut slopes, &weights);
    for (i, got) in slopes.iter().enumerate() {
        let total = |logits: &[f32]| -> f64 {
            let row = &logits[i / 19 * 19..][..19];
            let p = softmax(&row.iter().map(|l| f64::from(*l)).collect::<Vec<_>>());
            p.iter().zip(&weights).map(|(p, w)| p * f64::from(*w)).sum()
        };
        close(*got, slope(&logits, i, total), 2e-3, &format!("{i}"));
    }
}

#[test]
fn certain_choices_have_no_entropy_and_finite_slopes() {
    let shape = Signs {
        bits: 2,
        groups: 1,
        sharpness: 200.0,
    };
    let rows = [1e30, -1e30, f32::MAX, f32::MIN, 0.0, -0.0];
    for logarithm in LOGARITHMS {
        let mut slopes = [0.0; 6];
        let found = shape.choices(&rows, logarithm, &mut slopes);
        assert!(found.entropy.is_finite() && slopes.iter().all(|s| s.is_finite()));
        // Two certain choices of one code, and an even one between all four.
        assert_eq!(found.usage, [0.25, 2.25, 0.25, 0.25]);
        let mut logits = [1e30, 0.0, -1e30, 5.0, 5.0, 5.0];
        let found = choices(3, &mut logits, logarithm);
        assert!(found.entropy.is_finite() && logits.iter().all(|s| s.is_finite()));
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let shape = Signs {
        bits: 4,
        groups: 3,
        sharpness: 0.5,
    };
    let rows = noise(5000 * 12, 7);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("a pool").install(|| {
            let mut slopes = vec![0.0; rows.len()];
            let found = shape.choices(&rows, Logarithm::Added(1e-5), &mut slopes);
            let mut logits = rows.clone();
            let other = choices(12, &mut logits, Logarithm::Exact);
            (found, slopes, other, logits)
        })
    };
    assert_eq!(run(1), run(4));
}
