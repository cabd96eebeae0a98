use super::*;
use burn::tensor::Device;

fn constraint(config: Constraint) -> DivergenceConstraint {
    DivergenceConstraint::new(&config, &[4.0, 8.0], &Init::new(&Device::flex(), 1))
}

/// Divergences in bits of two depths at two positions of two images, in nats.
fn nats(bits: [f32; 8]) -> Tensor<4> {
    let values = bits.map(|b| b / BITS_PER_NAT as f32).to_vec();
    Tensor::from_data(TensorData::new(values, [2, 2, 1, 2]), &Device::flex())
}

const BITS: [f32; 8] = [4.2, 5.0, 8.0, 7.0, 3.0, 3.6, 9.5, 8.4];

fn scalar(loss: Tensor<1>) -> f64 {
    f64::from(loss.into_scalar::<f32>())
}

fn close(got: f64, expected: f64) {
    assert!(
        (got - expected).abs() < 1e-5 * expected.abs(),
        "expected {expected}, got {got}"
    );
}

#[test]
fn a_target_starts_with_equal_weights_and_moves_each() {
    let mut target = constraint(Constraint::Target(TargetConfig {
        factor: 2.0,
        ..TargetConfig::default()
    }));
    let total: f64 = BITS.iter().map(|b| f64::from(*b)).sum();
    close(scalar(target.loss(nats(BITS))), total / 2.0);
    // Excess: 0.2 1 | 0 −1, −1 −0.4 | 1.5 0.4: above and below, 0.0875 in the mean.
    let report = target.learn(nats(BITS)).unwrap();
    assert_eq!(report.groups, 8);
    close(report.mean_bits, total / 8.0);
    close(report.min_bits, 3.0);
    close(report.max_bits, 9.5);
    let weights = DivergenceWeights {
        all: 2.0,
        below: 0.5,
        above: 2.0,
    };
    assert_eq!(target.weights(), weights);
    assert_eq!(
        (report.weight, report.weight_below, report.weight_above),
        (2.0, 0.5, 2.0)
    );
    // 2·(4.2 + 2·5 + 8 + ½·7 + ½·3 + 3.6 + 2·9.5 + 8.4)/2
    close(scalar(target.loss(nats(BITS))), 58.2);
    // On target: λ falls, the others return to 1 and stop there.
    for all in [1.0, 0.5] {
        target
            .learn(nats([4.0, 4.0, 8.0, 8.0, 4.0, 3.9, 7.9, 8.0]))
            .unwrap();
        let weights = DivergenceWeights {
            all,
            below: 1.0,
            above: 1.0,
        };
        assert_eq!(target.weights(), weights);
    }
}

#[test]
fn weights_stop_at_their_limits() {
    let mut target = constraint(Constraint::Target(TargetConfig {
        factor: 3.0,
        limit: 10.0,
        ..TargetConfig::default()
    }));
    let mut bits = [40.0; 8];
    bits[0] = 0.1;
    for _ in 0..100 {
        target.learn(nats(bits)).unwrap();
    }
    let weights = DivergenceWeights {
        all: 1e30,
        below: 0.1,
        above: 10.0,
    };
    assert_eq!(target.weights(), weights);
    for _ in 0..200 {
        target.learn(nats([1.0; 8])).unwrap();
    }
    assert_eq!(target.weights().all, 1e-30);
}

#[test]
fn a_given_target_counts_for_every_depth() {
    let target = constraint(Constraint::Target(TargetConfig {
        target_bits: Some(6.0),
        ..TargetConfig::default()
    }));
    assert_eq!(target.targets(), [6.0, 6.0]);
    let statistics = target.measure(nats(BITS));
    close(statistics.max_excess, 3.5);
    close(statistics.min_excess, -3.0);
}

#[test]
fn fixed_weights_and_even_ones_count_nats_and_keep_no_state() {
    let mut fixed = constraint(Constraint::FixedFactor(FixedFactorConfig::default()));
    // 4.2 + 40·5 + 8 + 7/40 + 3/40 + 3.6 + 40·9.5 + 8.4 bits; ±0.4 is within 0.35 nats.
    close(
        scalar(fixed.loss(nats(BITS))),
        (4.2 + 200.0 + 8.0 + 0.25 + 3.6 + 380.0 + 8.4) / BITS_PER_NAT / 2.0,
    );
    let report = fixed.learn(nats(BITS)).unwrap();
    assert_eq!(
        (report.weight, report.weight_below, report.weight_above),
        (1.0, 0.025, 40.0)
    );
    let mut even = constraint(Constraint::Even {});
    let total: f64 = BITS.iter().map(|b| f64::from(*b)).sum();
    close(scalar(even.loss(nats(BITS))), total / BITS_PER_NAT / 2.0);
    let report = even.learn(nats(BITS)).unwrap();
    assert_eq!(
        (report.weight, report.weight_below, report.weight_above),
        (1.0, 1.0, 1.0)
    );
    for constraint in [fixed, even] {
        assert!(smalti_nn::state::Weights::of(&constraint).0.is_empty());
    }
}

#[test]
fn weights_keep_all_their_digits() {
    for value in [1.0, 1.0 / 3.0, 1e-30, 1e30, 0.001, 1.01_f64.powi(700)] {
        let parts = parts([value; 3]);
        let sum: f64 = parts[..3].iter().map(|p| f64::from(*p)).sum();
        assert_eq!(sum, value);
    }
}

#[test]
fn reports_of_later_batches_are_merged() {
    let report = |groups, mean_bits, least, most, weight| Divergence {
        groups,
        mean_bits,
        min_bits: least,
        max_bits: most,
        weight,
        weight_below: 0.5 * weight,
        weight_above: 2.0 * weight,
    };
    let mut sum = report(10, 4.0, 1.0, 8.0, 1.0);
    sum.merge(&report(30, 8.0, 2.0, 9.0, 1.1));
    assert_eq!(sum, report(40, 7.0, 1.0, 9.0, 1.1));
    let mut update = crate::UpdateReport::default();
    let with = crate::UpdateReport {
        divergence: Some(sum),
        ..update.clone()
    };
    update.merge(&with);
    assert_eq!(update.divergence, Some(sum));
    update.merge(&crate::UpdateReport::default());
    assert_eq!(update.divergence, Some(sum));
    update.merge(&with);
    assert_eq!(update.divergence.unwrap().groups, 80);
}

#[test]
fn a_divergence_beyond_f32_changes_nothing() {
    let mut target = constraint(Constraint::default());
    let mut bits = BITS;
    bits[3] = f32::INFINITY;
    assert_eq!(
        target.learn(nats(bits)).err(),
        Some(QuantizeError::TooLarge)
    );
    assert_eq!(target.weights().all, 1.0);
}
