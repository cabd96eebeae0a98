use super::*;
use smalti_nn::Noise;

fn scalar(mean: f64, deviation: f64) -> Scalar {
    Scalar { mean, deviation }
}

/// Means and deviations as they occur, and some that do not.
fn scalars() -> Vec<Scalar> {
    let means = [0.0, 0.03, -0.4, 1.0, -1.9, 3.0, 5.5];
    let deviations = [1e-6, 0.01, 0.1, 0.5, 0.9, 1.0, 1.4, 3.0];
    let all = means
        .iter()
        .flat_map(|&mean| deviations.map(|deviation| scalar(mean, deviation)));
    all.collect()
}

#[test]
fn the_divergence_is_the_formula_in_bits() {
    assert_eq!(divergence_bits(0.0, 0.0), 0.0);
    assert!((divergence_bits(1.0, 0.0) - 0.5 / LN_2).abs() < 1e-15);
    // σ² = 1/4: ½ (¼ − 1 + ln 4) nats.
    let nats = 0.5 * (0.25 - 1.0 + 4f64.ln());
    assert!((scalar(0.0, 0.5).bits() - nats / LN_2).abs() < 1e-14);
}

#[test]
fn one_code_hits_as_often_as_the_normal_table_says() {
    for (mean, deviation, expected) in [
        (0.0, 1.0, 0.682_689_492_137_085_9),
        (0.0, 2.0, 0.954_499_736_103_641_6),
        // Φ(3) − Φ(1)
        (2.0, 1.0, 0.157_305_355_899_826_97),
        (0.0, 50.0, 1.0),
    ] {
        let hit = scalar(mean, deviation).hit();
        assert!((hit - expected).abs() < 1e-13, "{mean} {deviation}: {hit}");
    }
    // A thin strip: 2σφ(μ).
    let thin = scalar(3.0, 1e-8).hit();
    let expected = 2e-8 * (-4.5f64).exp() / (2.0 * PI).sqrt();
    assert!((thin / expected - 1.0).abs() < 1e-12, "{thin} {expected}");
    // Beyond everything.
    assert_eq!(scalar(1e3, 1.0).hit(), 0.0);
}

#[test]
fn both_theorems_enclose_the_exact_probability() {
    for scalar in scalars() {
        for codebook_bits in [0.0, 3.0, 6.0, 12.0, 18.0] {
            let exact = scalar.large_error(codebook_bits);
            let excess = codebook_bits - scalar.bits();
            let (least, most) = (at_least(excess, scalar.c2()), at_most(excess, scalar.c1()));
            assert!(
                least <= exact + 1e-12 && exact <= most + 1e-12,
                "{scalar:?}, {codebook_bits} bits: {least} {exact} {most}"
            );
            // Larger constants say less.
            assert!(at_least(excess, scalar.c2() + 0.3) <= least);
            assert!(at_most(excess, scalar.c1() + 0.3) >= most);
        }
    }
}

#[test]
fn the_bounds_for_groups_enclose_the_exact_probability_of_one_scalar() {
    let bounds = GroupBounds::new(1);
    for scalar in scalars() {
        for codebook_bits in [0.0, 3.0, 6.0, 12.0, 18.0] {
            let exact = scalar.large_error(codebook_bits);
            let (least, most) = bounds.large_error(&[scalar], codebook_bits);
            assert!(
                least <= exact + 1e-12 && exact <= most + 1e-12,
                "{scalar:?}, {codebook_bits} bits: {least} {exact} {most}"
            );
        }
    }
}

#[test]
fn constants_of_the_groups_are_those_of_the_chi_squared_table() {
    // (m, P{χ²_m < m}, P{χ²_(m+2) < m})
    for (m, share, wider) in [
        (1, 0.682_689_492_137_085_9, 0.198_748_043_098_799_1),
        (2, 0.632_120_558_828_557_7, 0.264_241_117_657_115_3),
        (4, 0.593_994_150_290_161_9, 0.323_323_583_816_936_5),
    ] {
        let bounds = GroupBounds::new(m);
        assert!((bounds.log_share.exp() - share).abs() < 1e-12, "{m}");
        assert!(
            (bounds.inside - 0.5 * (1.0 - wider / share)).abs() < 1e-12,
            "{m}"
        );
    }
    // Theorem 3.2's factor.
    assert!((GroupBounds::new(1).log_volume.exp() - FRAC_2_PI.sqrt()).abs() < 1e-14);
    // 8^8 / 8!
    assert!((GroupBounds::new(16).log_volume.exp() / 416.101_587_301_587_3 - 1.0).abs() < 1e-12);
}

/// The share of `trials` codebooks of K independent codes in which every code has a mean squared
/// normalised error of at least 1.
fn missed(group: &[Scalar], codes: usize, trials: usize) -> f64 {
    let mut noise = Noise::from_seed(11);
    let mut misses = 0;
    for _ in 0..trials {
        let values = noise.normal_values(codes * group.len());
        let hit = values.chunks_exact(group.len()).any(|code| {
            let error = |(s, &c): (&Scalar, &f32)| ((f64::from(c) - s.mean) / s.deviation).powi(2);
            group.iter().zip(code).map(error).sum::<f64>() < group.len() as f64
        });
        misses += usize::from(!hit);
    }
    misses as f64 / trials as f64
}

#[test]
fn the_bounds_for_groups_enclose_what_random_codebooks_do() {
    let groups = [
        vec![scalar(0.9, 0.4), scalar(-0.7, 0.5), scalar(0.2, 0.6)],
        vec![scalar(0.3, 0.8); 8],
        vec![scalar(1.5, 0.3), scalar(0.1, 1.2)],
    ];
    let mut told = 0;
    for group in &groups {
        let bounds = GroupBounds::new(group.len());
        for bits in [2, 4, 6] {
            let (least, most) = bounds.large_error(group, f64::from(bits));
            let trials = 4000;
            let measured = missed(group, 1 << bits, trials);
            // Three standard deviations of the count, and one miss.
            let slack = 3.0 * (measured * (1.0 - measured) / trials as f64).sqrt() + 1e-3;
            assert!(
                least - slack <= measured && measured <= most + slack,
                "{group:?}, {bits} bits: {least} {measured} {most}"
            );
            told += usize::from(most - least < 0.5);
        }
    }
    // The bounds must say something, too.
    assert!(told >= 4, "{told}");
}

#[test]
fn errors_fall_doubly_exponentially_above_the_divergence() {
    // e^t in the exponent: each further bit squares the bound.
    let bounds: Vec<f64> = (2..6).map(|bits| at_most(f64::from(bits), 0.2)).collect();
    for pair in bounds.windows(2) {
        assert!(
            (pair[1].ln() / pair[0].ln() - 2.0).abs() < 1e-9,
            "{bounds:?}"
        );
    }
    assert_eq!(at_least(5.0, 1.0), 0.0);
    assert!(at_least(-8.0, 1.0) > 0.99);
}
