use super::*;
use crate::noise::noise;

fn adam(weight_decay: WeightDecay) -> Adam {
    let (learning_rate, beta1, beta2) = (0.01, 0.9, 0.95);
    Adam {
        learning_rate,
        beta1,
        beta2,
        eps: 1e-8,
        weight_decay,
        grad_scale: 0.5,
    }
}

/// The formulas of the module's head for one number, in f64.
fn reference(adam: &Adam, step: i32, [p, m, v]: &mut [f64; 3], grad: f64) {
    let mut g = grad * f64::from(adam.grad_scale);
    match adam.weight_decay {
        WeightDecay::L2(decay) => g += f64::from(decay) * *p,
        WeightDecay::Decoupled(decay) => *p *= 1.0 - adam.learning_rate * f64::from(decay),
    }
    *m = adam.beta1 * *m + (1.0 - adam.beta1) * g;
    *v = adam.beta2 * *v + (1.0 - adam.beta2) * g * g;
    let (m_hat, v_hat) = (
        *m / (1.0 - adam.beta1.powi(step)),
        *v / (1.0 - adam.beta2.powi(step)),
    );
    *p -= adam.learning_rate * m_hat / (v_hat.sqrt() + adam.eps);
}

#[test]
fn five_steps_agree_with_f64_on_every_path() {
    for count in [1, 16, 33, TASK + 5] {
        for decay in [
            WeightDecay::L2(0.1),
            WeightDecay::Decoupled(0.1),
            WeightDecay::L2(0.0),
        ] {
            let adam = adam(decay);
            for simd in Simd::available() {
                let mut p = noise(count, 1);
                let mut want: Vec<_> = p.iter().map(|p| [f64::from(*p), 0.0, 0.0]).collect();
                let (mut m, mut v) = (vec![0.0; count], vec![0.0; count]);
                for step in 1..=5 {
                    let grad = noise(count, 1 + step);
                    let state = AdamState {
                        parameter: &mut p,
                        first: &mut m,
                        second: &mut v,
                    };
                    adam.step_on(simd, step, state, &grad);
                    for (want, grad) in want.iter_mut().zip(&grad) {
                        reference(&adam, step as i32, want, f64::from(*grad));
                    }
                }
                for i in 0..count {
                    let close = |a: f32, b: f64| (f64::from(a) - b).abs() < 1e-6;
                    let good = close(p[i], want[i][0]) && close(m[i], want[i][1]);
                    assert!(
                        good && close(v[i], want[i][2]),
                        "{simd:?} {count} {decay:?} at {i}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_first_step_has_the_learning_rate_as_its_length() {
    let (mut p, mut m, mut v) = ([1.0], [0.0], [0.0]);
    let adam = Adam {
        grad_scale: 1.0,
        ..adam(WeightDecay::L2(0.0))
    };
    adam.step(
        1,
        AdamState {
            parameter: &mut p,
            first: &mut m,
            second: &mut v,
        },
        &[-300.0],
    );
    assert!((p[0] - 1.01).abs() < 1e-6, "{}", p[0]);
    adam.step(
        2,
        AdamState {
            parameter: &mut p,
            first: &mut m,
            second: &mut v,
        },
        &[f32::NAN],
    );
    assert!(p[0].is_nan() && m[0].is_nan() && v[0].is_nan());
}

#[test]
fn a_late_step_has_no_correction_left() {
    let constants = adam(WeightDecay::L2(0.0)).constants(u64::MAX);
    assert_eq!((constants.root_correction, constants.length), (1.0, -0.01));
}

#[test]
fn averages_move_by_their_share() {
    for simd in Simd::available() {
        for count in [1, 16, 37] {
            let (start, values) = (noise(count, 3), noise(count, 4));
            let mut average = start.clone();
            average_weights_on(simd, &mut average, &values, 0.99);
            for i in 0..count {
                let want = 0.99 * f64::from(start[i]) + 0.01 * f64::from(values[i]);
                assert!(
                    (f64::from(average[i]) - want).abs() < 3e-7,
                    "{simd:?} {count} at {i}"
                );
            }
        }
    }
}

#[test]
fn squares_are_summed_in_f64_whatever_the_path_and_the_threads() {
    let mut values = noise(3 * TASK + 7, 5);
    values[5] = 1e30;
    values[TASK] = 1e-30;
    let naive: f64 = values.iter().map(|x| f64::from(*x).powi(2)).sum();
    let sums: Vec<f64> = Simd::available()
        .into_iter()
        .map(|simd| sum_of_squares_on(simd, &values))
        .collect();
    assert!((sums[0] / naive - 1.0).abs() < 1e-12);
    assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(3)
        .build()
        .unwrap();
    assert_eq!(pool.install(|| sum_of_squares(&values)), sums[0]);
    assert_eq!(sum_of_squares(&[]), 0.0);
}
