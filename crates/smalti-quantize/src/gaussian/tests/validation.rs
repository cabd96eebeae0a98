use super::*;

fn problems(config: &GaussianConfig) -> String {
    let problems = config.validate().unwrap_err();
    // Building refuses the same.
    let built = config.build(&mut Init::new(&Device::flex(), 1));
    assert_eq!(built.unwrap_err(), problems);
    problems.to_string()
}

#[test]
fn impossible_shapes_are_refused_before_anything_is_built() {
    let base = GaussianConfig::new(16, 2, 4);
    base.validate().unwrap();
    let cases = [
        (GaussianConfig::new(16, 0, 4), "code_dim must be at least 1"),
        (
            GaussianConfig::new(16, 3, 4),
            "multiple of code_dim (3), got 4",
        ),
        (
            GaussianConfig::new(16, 3, 0),
            "multiple of code_dim (3), got 0",
        ),
        (
            GaussianConfig::new(24, 2, 4),
            "power of two from 2 to 2^22, got 24",
        ),
        (GaussianConfig::new(1, 2, 4), "got 1"),
        (GaussianConfig::new(1 << 23, 2, 4), "got 8388608"),
        (
            GaussianConfig::new(16, 33, 33),
            "sobol knows code_dim up to 32, got 33; use generator = \"iid\"",
        ),
        (
            GaussianConfig {
                codebook_size: PerDepth::Each(vec![16]),
                ..base.clone()
            },
            "lists 1 sizes for a depth of 2",
        ),
        (
            GaussianConfig {
                layout: Layout::Order(vec![0, 1, 2, 2]),
                ..base.clone()
            },
            "each of the channels 0 to 3 once",
        ),
        (
            GaussianConfig {
                layout: Layout::Order(vec![0, 1]),
                ..base.clone()
            },
            "each of the channels 0 to 3 once",
        ),
        (
            GaussianConfig {
                beta: f64::NAN,
                ..base.clone()
            },
            "beta must be finite",
        ),
        (
            GaussianConfig {
                seed: 1 << 32,
                ..base.clone()
            },
            "seed below 2^32, got 4294967296",
        ),
    ];
    for (config, part) in cases {
        let message = problems(&config);
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
    let wide = GaussianConfig {
        generator: Generator::Iid,
        seed: u64::MAX,
        ..GaussianConfig::new(16, 33, 33)
    };
    wide.validate().unwrap();
}

#[test]
fn every_problem_is_listed() {
    let config = GaussianConfig {
        beta: f64::INFINITY,
        normalization: Some(Normalization {
            shift: vec![f32::NAN; 3],
            scale: vec![0.0; 4],
        }),
        constraint: Constraint::Target(TargetConfig {
            target_bits: Some(-1.0),
            tolerance: -0.5,
            factor: 1.0,
            limit: 0.5,
        }),
        ..GaussianConfig::new(3, 2, 4)
    };
    let message = problems(&config);
    for part in [
        "beta must be finite",
        "normalization.shift must have one number for each of 4 channels, got 3",
        "normalization.shift must be finite, got NaN",
        "normalization.scale must lie between 1e-6 and 1e6, got 0",
        "target_bits must be positive and finite, got -1",
        "tolerance must be finite and not negative, got -0.5",
        "factor must be finite and above 1, got 1",
        "limit must lie between 1 and 1e30, got 0.5",
        "codebook_size must be a power of two",
    ] {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}
