use super::*;
use crate::testing::{assert_near, assert_slopes};
use burn::tensor::{Device, TensorData};
use smalti_nn::Noise;
use smalti_nn::state::host_values;

const LOGARITHMS: [Logarithm; 3] = [
    Logarithm::Exact {},
    Logarithm::Added { epsilon: 1e-3 },
    Logarithm::Clamped { epsilon: 1e-3 },
];

fn rows(values: &[f32], width: usize, device: &Device) -> Tensor<2> {
    let data = TensorData::new(values.to_vec(), [values.len() / width, width]);
    Tensor::from_data(data, device)
}

fn term(p: f64, logarithm: Logarithm) -> f64 {
    match logarithm {
        Logarithm::Exact {} if p == 0.0 => 0.0,
        Logarithm::Exact {} => -p * p.ln(),
        Logarithm::Added { epsilon } => -p * (p + f64::from(epsilon)).ln(),
        Logarithm::Clamped { epsilon } => -p * p.max(f64::from(epsilon)).ln(),
    }
}

/// `softmax(sharpness·x·c)` over all codes, straight from the definition.
fn distribution(x: &[f32], codes: &[Vec<f64>], sharpness: f64) -> Vec<f64> {
    let product = |code: &Vec<f64>| -> f64 {
        let terms = x.iter().zip(code).map(|(x, c)| f64::from(*x) * c);
        sharpness * terms.sum::<f64>()
    };
    let logits: Vec<f64> = codes.iter().map(product).collect();
    let most = logits.iter().fold(f64::MIN, |a, b| a.max(*b));
    let total: f64 = logits.iter().map(|l| (l - most).exp()).sum();
    logits.iter().map(|l| (l - most).exp() / total).collect()
}

fn all_signs(bits: usize) -> Vec<Vec<f64>> {
    let sign = |code: usize, bit: usize| if code >> bit & 1 == 1 { 1.0 } else { -1.0 };
    (0..1 << bits)
        .map(|code| (0..bits).map(|bit| sign(code, bit)).collect())
        .collect()
}

/// Sample and unused entropy of one group in `f64`.
fn expected(tables: &[Vec<f64>], logarithms: &Logarithms) -> [f64; 2] {
    let size = tables[0].len();
    let entropy = |p: &[f64], logarithm| p.iter().map(|p| term(*p, logarithm)).sum::<f64>();
    let samples = tables.iter().map(|p| entropy(p, logarithms.sample));
    let mean = |code: usize| tables.iter().map(|p| p[code]).sum::<f64>() / tables.len() as f64;
    let usage: Vec<f64> = (0..size).map(mean).collect();
    [
        samples.sum::<f64>() / tables.len() as f64,
        (size as f64).ln() - entropy(&usage, logarithms.codebook),
    ]
}

fn numbers(entropies: Entropies) -> Vec<f32> {
    [entropies.sample, entropies.unused]
        .map(|value| value.into_scalar::<f32>())
        .to_vec()
}

fn sign_entropies(over: Over, logarithm: Logarithm) -> SignEntropies {
    SignEntropies {
        bits: 3,
        sharpness: 1.3,
        over,
        logarithms: Logarithms::both(logarithm),
    }
}

#[test]
fn sign_entropies_are_those_of_the_definition() {
    let values = Noise::from_seed(1).normal_values(5 * 6);
    let codes = all_signs(3);
    for logarithm in LOGARITHMS {
        let logarithms = Logarithms::both(logarithm);
        let group = |group: usize| -> Vec<Vec<f64>> {
            let latents = values.chunks(6).map(|row| &row[3 * group..3 * group + 3]);
            latents.map(|x| distribution(x, &codes, 1.3)).collect()
        };
        let [a, b] = [group(0), group(1)];
        let pooled = expected(&[a.clone(), b.clone()].concat(), &logarithms);
        let [a, b] = [expected(&a, &logarithms), expected(&b, &logarithms)];
        let sum = [a[0] + b[0], a[1] + b[1]];
        for (over, expected) in [
            (Over::Pooled, pooled),
            (Over::Mean, sum.map(|v| v / 2.0)),
            (Over::Sum, sum),
        ] {
            let of = sign_entropies(over, logarithm).of(rows(&values, 6, &Device::flex()));
            let expected = expected.map(|v| v as f32);
            assert_near(
                &numbers(of),
                &expected,
                [1e-6, 1e-5],
                &format!("{over:?} {logarithm:?}"),
            );
        }
    }
}

#[test]
fn the_gradients_of_sign_entropies_are_slopes() {
    let values = Noise::from_seed(2).normal_values(4 * 6);
    for logarithm in LOGARITHMS {
        for over in [Over::Pooled, Over::Mean, Over::Sum] {
            let entropies = sign_entropies(over, logarithm);
            for which in 0..2 {
                let device = Device::flex().autodiff();
                let latents = rows(&values, 6, &device).require_grad();
                let of = entropies.of(latents.clone());
                let chosen = if which == 0 { of.sample } else { of.unused };
                let gradient = latents.grad(&chosen.backward()).expect("tracked");
                assert_slopes(&values, &host_values(gradient), 1.0, |moved| {
                    let of = entropies.of(rows(&moved, 6, &Device::flex()));
                    (numbers(of)[which], Vec::new())
                });
            }
        }
    }
}

fn table(size: usize, device: &Device) -> Tensor<2> {
    Noise::from_seed(9).standard_normal([size, 3], device)
}

#[test]
fn softmax_entropies_are_those_of_the_definition() {
    let values = Noise::from_seed(1).normal_values(5 * 3);
    let device = Device::flex();
    let codes: Vec<Vec<f64>> = host_values(table(7, &device))
        .chunks(3)
        .map(|code| code.iter().map(|v| f64::from(*v)).collect())
        .collect();
    for logarithm in LOGARITHMS {
        let logarithms = Logarithms::both(logarithm);
        let tables: Vec<Vec<f64>> = values
            .chunks(3)
            .map(|x| distribution(x, &codes, 2.0))
            .collect();
        let entropies = SoftmaxEntropies {
            inverse_temperature: 2.0,
            logarithms,
        };
        let of = entropies.of(rows(&values, 3, &device), table(7, &device));
        let expected = expected(&tables, &logarithms).map(|v| v as f32);
        assert_near(
            &numbers(of),
            &expected,
            [1e-6, 1e-5],
            &format!("{logarithm:?}"),
        );
    }
}

#[test]
fn the_gradients_of_softmax_entropies_are_slopes() {
    let (values, size) = (Noise::from_seed(3).normal_values(4 * 3), 7);
    let codes = host_values(table(size, &Device::flex()));
    for logarithm in LOGARITHMS {
        let entropies = SoftmaxEntropies {
            inverse_temperature: 1.5,
            logarithms: Logarithms::both(logarithm),
        };
        for which in 0..2 {
            let device = Device::flex().autodiff();
            let latents = rows(&values, 3, &device).require_grad();
            let table = table(size, &device).require_grad();
            let of = entropies.of(latents.clone(), table.clone());
            let chosen = if which == 0 { of.sample } else { of.unused };
            let gradients = chosen.backward();
            let at = |latents: &[f32], codes: &[f32]| {
                let device = Device::flex();
                let of = entropies.of(rows(latents, 3, &device), rows(codes, 3, &device));
                (numbers(of)[which], Vec::new())
            };
            let gradient = host_values(latents.grad(&gradients).expect("tracked"));
            assert_slopes(&values, &gradient, 1.0, |moved| at(&moved, &codes));
            let gradient = host_values(table.grad(&gradients).expect("tracked"));
            assert_slopes(&codes, &gradient, 1.0, |moved| at(&values, &moved));
        }
    }
}

/// 200 rows of 2^16 codes do not fit one slice.
#[test]
fn slices_do_not_show() {
    let device = Device::flex().autodiff();
    let bits = 16;
    let latents = Noise::from_seed(4).standard_normal::<2>([200, bits], &device);
    let entropies = SignEntropies {
        bits,
        sharpness: 3.0,
        over: Over::Sum,
        logarithms: Logarithms::both(Logarithm::Exact {}),
    };
    assert!(200 << bits > 3 * AT_ONCE);
    let latents = latents.require_grad();
    let of = entropies.of(latents.clone());
    // The bits of one latent are independent: their entropies add up.
    let one = SignEntropies {
        bits: 1,
        ..entropies.clone()
    };
    let bitwise = one.of(latents.clone());
    let gradient = |value: &Tensor<1>| {
        let gradients = value.clone().backward();
        host_values(latents.grad(&gradients).expect("tracked"))
    };
    assert_near(
        &gradient(&of.sample),
        &gradient(&bitwise.sample),
        [1e-6, 1e-3],
        "gradient",
    );
    let values = [of.sample, bitwise.sample].map(|v| v.into_scalar::<f32>());
    assert_near(&values[..1], &values[1..], [0.0, 1e-4], "sample entropy");
    // 200 latents cannot use more than a few of 65,536 codes.
    assert!(of.unused.into_scalar::<f32>() > 1.0);
}

#[test]
fn certain_choices_have_no_entropy_and_finite_gradients() {
    let device = Device::flex().autodiff();
    for logarithm in LOGARITHMS {
        let latents = rows(&[1e15, -1e15, 3e8, 0.0, -0.0, 1e-30], 3, &device).require_grad();
        let entropies = SignEntropies {
            sharpness: 200.0,
            ..sign_entropies(Over::Pooled, logarithm)
        };
        let of = entropies.of(latents.clone());
        let gradients = (of.sample.clone() + of.unused.clone()).backward();
        let gradient = host_values(latents.grad(&gradients).expect("tracked"));
        assert!(gradient.iter().all(|v| v.is_finite()), "{gradient:?}");
        assert!(numbers(of).iter().all(|v| v.is_finite()));
    }
}

#[test]
fn nonsense_epsilons_are_named() {
    let wrong = |epsilon| Logarithms {
        sample: Logarithm::Added { epsilon },
        codebook: Logarithm::Clamped { epsilon },
    };
    for epsilon in [0.0, -1.0, 1.0, f32::NAN] {
        let problems = wrong(epsilon).problems();
        assert_eq!(problems.len(), 2);
        assert!(problems[0].contains("logarithms.sample") && problems[1].contains("codebook"));
    }
    assert!(wrong(1e-8).problems().is_empty() && Logarithms::magvit().problems().is_empty());
    assert!(check_temperature(0.0).is_some() && check_temperature(100.0).is_none());
}
