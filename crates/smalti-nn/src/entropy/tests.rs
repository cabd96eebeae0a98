use super::*;
use crate::Noise;
use crate::hook::agreement::{assert_agree, assert_slopes};
use crate::state::host_values;
use burn::tensor::Device;

const LOGARITHMS: [Logarithm; 3] = [
    Logarithm::Exact,
    Logarithm::Added(1e-3),
    Logarithm::Clamped(1e-3),
];
const OVER: [Over; 3] = [Over::Pooled, Over::Mean, Over::Sum];

fn both(logarithm: Logarithm) -> Logarithms {
    Logarithms {
        sample: logarithm,
        codebook: logarithm,
    }
}

fn signs(over: Over, logarithm: Logarithm) -> SignEntropies {
    SignEntropies {
        bits: 3,
        sharpness: 1.3,
        over,
        logarithms: both(logarithm),
    }
}

fn softmax(logarithm: Logarithm) -> SoftmaxEntropies {
    SoftmaxEntropies {
        inverse_temperature: 1.5,
        logarithms: both(logarithm),
    }
}

fn rows(values: &[f32], width: usize) -> Tensor<2> {
    let data = TensorData::new(values.to_vec(), [values.len() / width, width]);
    Tensor::from_data(data, &Device::flex())
}

fn term(p: f64, logarithm: Logarithm) -> f64 {
    match logarithm {
        Logarithm::Exact => -p * p.ln(),
        Logarithm::Added(epsilon) => -p * (p + f64::from(epsilon)).ln(),
        Logarithm::Clamped(epsilon) => -p * p.max(f64::from(epsilon)).ln(),
    }
}

/// `softmax(factor·x·c)` over all codes, straight from the definition.
fn distribution(x: &[f32], codes: &[Vec<f64>], factor: f64) -> Vec<f64> {
    let product = |code: &Vec<f64>| -> f64 {
        let terms = x.iter().zip(code).map(|(x, c)| f64::from(*x) * c);
        factor * terms.sum::<f64>()
    };
    let weights: Vec<f64> = codes.iter().map(|code| product(code).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|w| w / total).collect()
}

/// Sample and unused entropy of one group in `f64`.
fn expected(tables: &[Vec<f64>], logarithm: Logarithm) -> [f64; 2] {
    let size = tables[0].len();
    let entropy = |p: &[f64]| p.iter().map(|p| term(*p, logarithm)).sum::<f64>();
    let mean = |code: usize| tables.iter().map(|p| p[code]).sum::<f64>() / tables.len() as f64;
    let usage: Vec<f64> = (0..size).map(mean).collect();
    let samples: f64 = tables.iter().map(|p| entropy(p)).sum();
    [
        samples / tables.len() as f64,
        (size as f64).ln() - entropy(&usage),
    ]
}

fn check(of: Entropies, expected: [f64; 2], what: &str) {
    for (got, expected) in [of.sample, of.unused].into_iter().zip(expected) {
        let got = f64::from(got.into_scalar::<f32>());
        assert!(
            (got - expected).abs() < 1e-5,
            "{what}: {got}, expected {expected}"
        );
    }
}

#[test]
fn sign_entropies_are_those_of_the_definition() {
    let values = Noise::from_seed(1).normal_values(5 * 6);
    let sign = |code: usize, bit: usize| if code >> bit & 1 == 1 { 1.0 } else { -1.0 };
    let codes: Vec<Vec<f64>> = (0..8)
        .map(|code| (0..3).map(|bit| sign(code, bit)).collect())
        .collect();
    for logarithm in LOGARITHMS {
        let group = |group: usize| -> Vec<Vec<f64>> {
            let latents = values.chunks(6).map(|row| &row[3 * group..3 * group + 3]);
            latents.map(|x| distribution(x, &codes, 1.3)).collect()
        };
        let [a, b] = [group(0), group(1)];
        let pooled = expected(&[a.clone(), b.clone()].concat(), logarithm);
        let [a, b] = [expected(&a, logarithm), expected(&b, logarithm)];
        let sum = [a[0] + b[0], a[1] + b[1]];
        for (over, expected) in OVER.into_iter().zip([pooled, sum.map(|v| v / 2.0), sum]) {
            let what = format!("{over:?} {logarithm:?}");
            let of = signs(over, logarithm);
            check(of.of(rows(&values, 6)), expected, &what);
            check(composed::signs(&of, rows(&values, 6)), expected, &what);
        }
    }
}

#[test]
fn softmax_entropies_are_those_of_the_definition() {
    let values = Noise::from_seed(1).normal_values(5 * 3);
    let table = Noise::from_seed(9).normal_values(7 * 3);
    let codes: Vec<Vec<f64>> = table
        .chunks(3)
        .map(|code| code.iter().map(|v| f64::from(*v)).collect())
        .collect();
    for logarithm in LOGARITHMS {
        let tables = values.chunks(3).map(|x| distribution(x, &codes, 1.5));
        let expected = expected(&tables.collect::<Vec<_>>(), logarithm);
        let of = softmax(logarithm);
        let both = || (rows(&values, 3), rows(&table, 3));
        let (x, c) = both();
        check(of.of(x, c), expected, &format!("{logarithm:?}"));
        let (x, c) = both();
        check(
            composed::softmax(&of, x, c),
            expected,
            &format!("{logarithm:?}"),
        );
    }
}

#[test]
fn kernels_and_compositions_agree_and_gradients_are_slopes() {
    for logarithm in LOGARITHMS {
        for over in OVER {
            let of = signs(over, logarithm);
            let shapes: [&[usize]; 1] = [&[4, 6]];
            assert_agree(
                &shapes,
                1e-5,
                |i| of.of(i.get(0)).sample,
                |i| composed::signs(&of, i.get(0)).sample,
            );
            assert_agree(
                &shapes,
                1e-5,
                |i| of.of(i.get(0)).unused,
                |i| composed::signs(&of, i.get(0)).unused,
            );
            assert_slopes(&shapes, |i| of.of(i.get(0)).sample);
            assert_slopes(&shapes, |i| of.of(i.get(0)).unused);
        }
        let of = softmax(logarithm);
        let shapes: [&[usize]; 2] = [&[4, 3], &[7, 3]];
        assert_agree(
            &shapes,
            1e-5,
            |i| of.of(i.get(0), i.get(1)).sample,
            |i| composed::softmax(&of, i.get(0), i.get(1)).sample,
        );
        assert_agree(
            &shapes,
            1e-5,
            |i| of.of(i.get(0), i.get(1)).unused,
            |i| composed::softmax(&of, i.get(0), i.get(1)).unused,
        );
        assert_slopes(&shapes, |i| of.of(i.get(0), i.get(1)).sample);
        assert_slopes(&shapes, |i| of.of(i.get(0), i.get(1)).unused);
    }
}

fn close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    let scale = b.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    assert!(scale > 0.0);
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= tolerance * scale, "{a}, expected {b}");
    }
}

/// 200 rows of 2^16 codes do not fit one slice of the composition, nor 700 rows of 2^13 codes one of
/// the softmax.
#[test]
fn slices_do_not_show() {
    let device = Device::flex().autodiff();
    let latents = || {
        let values = Noise::from_seed(4).standard_normal::<2>([200, 16], &device);
        values.require_grad()
    };
    const { assert!((200 << 16) > 3 * AT_ONCE && (700 << 13) > AT_ONCE) };
    let wide = SignEntropies {
        bits: 16,
        sharpness: 3.0,
        over: Over::Sum,
        logarithms: both(Logarithm::Exact),
    };
    let run = |of: &dyn Fn(Tensor<2>) -> Entropies| {
        let latents = latents();
        let of = of(latents.clone());
        let values = [of.sample.clone(), of.unused.clone()].map(|v| v.into_scalar::<f32>());
        let gradients = (of.sample.mul_scalar(0.5) + of.unused).backward();
        (
            values,
            host_values(latents.grad(&gradients).expect("tracked")),
        )
    };
    let (values, gradient) = run(&|rows| wide.of(rows));
    let (composed, slopes) = run(&|rows| composed::signs(&wide, rows));
    close(&values, &composed, 1e-4);
    close(&gradient, &slopes, 1e-3);
    // The bits of one latent are independent: their entropies add up.
    let bitwise = SignEntropies { bits: 1, ..wide };
    close(&values[..1], &run(&|rows| bitwise.of(rows)).0[..1], 1e-4);

    let table = || Noise::from_seed(5).standard_normal::<2>([1 << 13, 3], &device);
    let latents = || {
        Noise::from_seed(6)
            .standard_normal::<2>([700, 3], &device)
            .require_grad()
    };
    let of = softmax(Logarithm::Exact);
    let run = |of: &dyn Fn(Tensor<2>, Tensor<2>) -> Entropies| {
        let (latents, table) = (latents(), table().require_grad());
        let of = of(latents.clone(), table.clone());
        let gradients = (of.sample.mul_scalar(0.5) + of.unused).backward();
        [latents, table].map(|t| host_values(t.grad(&gradients).expect("tracked")))
    };
    let [of_rows, of_table] = run(&|rows, table| of.of(rows, table));
    let [rows, table] = run(&|rows, table| composed::softmax(&of, rows, table));
    close(&of_rows, &rows, 1e-3);
    close(&of_table, &table, 1e-3);
}

#[test]
fn certain_choices_have_no_entropy_and_finite_gradients() {
    let device = Device::flex().autodiff();
    for logarithm in LOGARITHMS {
        let values = [1e15, -1e15, 3e8, 0.0, -0.0, 1e-30];
        let data = TensorData::new(values.to_vec(), [2, 3]);
        let latents = Tensor::<2>::from_data(data, &device).require_grad();
        let sharp = SignEntropies {
            sharpness: 200.0,
            ..signs(Over::Pooled, logarithm)
        };
        for of in [
            sharp.of(latents.clone()),
            composed::signs(&sharp, latents.clone()),
        ] {
            let numbers = [of.sample.clone(), of.unused.clone()];
            assert!(
                numbers
                    .map(|v| v.into_scalar::<f32>())
                    .iter()
                    .all(|v| v.is_finite())
            );
            let gradients = (of.sample + of.unused).backward();
            let gradient = host_values(latents.grad(&gradients).expect("tracked"));
            assert!(gradient.iter().all(|v| v.is_finite()), "{gradient:?}");
        }
    }
}
