//! The gradients of the straight-through value and of the prior, against differences of what they stand for, in `f64`:
//! `Σ y·Z·v + w·Σ c·mean(y)` with the codes Z and the prior's slopes c as constants.

use super::*;

const CODES: usize = 6;
const WIDTH: usize = 3;
const ROWS: usize = 8;
const TEMPERATURE: f64 = 0.7;
/// Of the prior, beside the value's slope.
const WEIGHT: f64 = 2.0;

/// Everything that the soft form depends on.
#[derive(Clone)]
struct Soft {
    rows: Vec<f64>,
    weight: Vec<f64>,
    bias: Vec<f64>,
    /// The codes by which distances are measured.
    near: Vec<f64>,
    /// The codes that are mixed: constants.
    table: Vec<f64>,
    gumbel: Vec<f64>,
    probe: Vec<f64>,
    logits: Logits,
    posterior: Posterior,
    /// Slopes of the prior over the shares.
    slopes: Vec<f64>,
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let sum: f64 = logits.iter().map(|l| l.exp()).sum();
    logits.iter().map(|l| l.exp() / sum).collect()
}

impl Soft {
    fn logit(&self, row: &[f64], code: usize) -> f64 {
        let of = |values: &[f64], k: usize| values[code * WIDTH + k];
        (0..WIDTH)
            .map(|k| match self.logits {
                Logits::Head => row[k] * of(&self.weight, k),
                Logits::Distances => -(row[k] - of(&self.near, k)).powi(2),
            })
            .sum::<f64>()
            + match self.logits {
                Logits::Head => self.bias[code],
                Logits::Distances => 0.0,
            }
    }

    fn value(&self) -> f64 {
        let (mut value, mut shares) = (0.0, [0.0; CODES]);
        for (i, row) in self.rows.chunks(WIDTH).enumerate() {
            let plain: Vec<f64> = (0..CODES).map(|n| self.logit(row, n)).collect();
            let cold = |with: f64| {
                let each = plain.iter().zip(&self.gumbel[i * CODES..]);
                let each = each.map(|(l, g)| (l + with * g) / TEMPERATURE);
                softmax(&each.collect::<Vec<_>>())
            };
            let soft = cold(1.0);
            for (n, y) in soft.iter().enumerate() {
                let of_code = (0..WIDTH)
                    .map(|k| self.table[n * WIDTH + k] * self.probe[i * WIDTH + k])
                    .sum::<f64>();
                value += y * of_code;
            }
            let counted = match self.posterior {
                Posterior::Hard => soft,
                Posterior::Soft => cold(0.0),
            };
            for (share, y) in shares.iter_mut().zip(counted) {
                *share += y / ROWS as f64;
            }
        }
        let prior = |(p, slope): (&f64, &f64)| match self.posterior {
            Posterior::Hard => p * slope,
            Posterior::Soft => p * (p * CODES as f64).ln(),
        };
        value + WEIGHT * shares.iter().zip(&self.slopes).map(prior).sum::<f64>()
    }

    /// The slope over each of the numbers that `of` names.
    fn slopes(&self, of: impl Fn(&mut Soft) -> &mut Vec<f64>) -> Vec<f64> {
        let count = of(&mut self.clone()).len();
        let at = |i: usize, step: f64| {
            let mut moved = self.clone();
            of(&mut moved)[i] += step;
            moved.value()
        };
        (0..count)
            .map(|i| (at(i, 1e-5) - at(i, -1e-5)) / 2e-5)
            .collect()
    }
}

fn assert_gradient(found: Tensor<2>, expected: &[f64], what: &str) {
    let found = host_values(found);
    let largest = expected.iter().fold(0.0f64, |m, e| m.max(e.abs()));
    assert!(largest > 0.1, "{what}: gradients of zeros prove nothing");
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let gap = (f64::from(*found) - expected).abs();
        assert!(gap < 2e-4 * largest, "{what}[{i}]: {found}, {expected}");
    }
}

fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// Runs one choice of logits and posterior.
fn check(logits: Logits, posterior: Posterior) {
    let device = Device::flex().autodiff();
    let config = RegularizedConfig {
        logits,
        posterior,
        temperature: Temperature::Constant { value: TEMPERATURE },
        ..RegularizedConfig::new(CODES, WIDTH)
    };
    // A fresh head is made of the codes; this one knows nothing of them.
    let fresh = built(&config, &device);
    let own = host_values(normal(6, [CODES, WIDTH, 1, 1], &Device::flex()));
    let quantizer = match logits {
        Logits::Head => with_arrays(fresh, &[("proj.weight", own)]),
        Logits::Distances => fresh,
    };
    let drawn: Vec<bool> = (0..ROWS).map(|i| i % 3 == 1).collect();
    let gumbel = relaxed::gumbel_rows(&drawn, CODES, &mut Noise::from_seed(3));
    let rows = normal(4, [2, WIDTH, 2, 2], &device).require_grad();
    let probe = normal(5, [2, WIDTH, 2, 2], &Device::flex());
    let draws = Draws {
        drawn,
        gumbel: Some(gumbel.clone()),
    };
    let seen = quantizer
        .training_pass(rows.clone(), |_| draws)
        .unwrap()
        .quantized;
    assert!(!seen.perturbation.as_ref().unwrap().device().is_autodiff());
    let value = (seen.quantized.clone() * Tensor::from_inner(probe.clone())).sum();
    let total = value + loss(&seen, "prior").mul_scalar(WEIGHT);
    let gradients = total.backward();

    let state = Weights::of(&quantizer);
    let array = |name: &str| {
        let array = state.0.get(name);
        array.map_or_else(Vec::new, |array| doubles(&array.values))
    };
    let shares = |n: usize| {
        let ids = seen.codes.values();
        ids.iter().filter(|id| **id as usize == n).count() as f64 / ROWS as f64
    };
    let slope = |n: usize| {
        let ratio = CODES as f64 * shares(n);
        (ratio + 1e-10).ln() + ratio / (ratio + 1e-10)
    };
    let soft = Soft {
        rows: doubles(&host_values(to_rows(rows.clone().inner()))),
        weight: array("proj.weight"),
        bias: array("proj.bias"),
        near: array("embed.weight"),
        table: array("embed.weight"),
        gumbel: doubles(&gumbel),
        probe: doubles(&host_values(to_rows(probe))),
        logits,
        posterior,
        slopes: (0..CODES).map(slope).collect(),
    };

    let of_rows = to_rows(rows.grad(&gradients).unwrap());
    assert_gradient(of_rows, &soft.slopes(|s| &mut s.rows), "latents");
    // Chosen rows get the value's slope, whoever chose them.
    let mut of_codes = vec![0.0; CODES * WIDTH];
    for (row, id) in soft.probe.chunks(WIDTH).zip(seen.codes.values()) {
        for (k, slope) in row.iter().enumerate() {
            of_codes[id as usize * WIDTH + k] += slope;
        }
    }
    if let Some(head) = &quantizer.proj {
        let weight = head.weight.val().grad(&gradients).unwrap();
        let weight = weight.reshape([CODES, WIDTH]);
        assert_gradient(weight, &soft.slopes(|s| &mut s.weight), "head");
        let bias = head.bias.val().grad(&gradients).unwrap();
        let bias = bias.reshape([CODES, 1]);
        assert_gradient(bias, &soft.slopes(|s| &mut s.bias), "bias");
    } else {
        let near = soft.slopes(|s| &mut s.near);
        of_codes.iter_mut().zip(near).for_each(|(a, b)| *a += b);
    }
    let found = quantizer.table().grad(&gradients).unwrap();
    assert_gradient(found, &of_codes, "codes");
}

#[test]
fn a_heads_gradients_are_those_of_the_soft_choice() {
    check(Logits::Head, Posterior::Hard);
    check(Logits::Head, Posterior::Soft);
}

#[test]
fn distances_move_codes_as_well() {
    check(Logits::Distances, Posterior::Hard);
    check(Logits::Distances, Posterior::Soft);
}
