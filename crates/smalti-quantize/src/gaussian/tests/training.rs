//! The loss, its gradient and the moving weights, against twenty steps of the published code.

use super::*;

/// Sets λ, λ_min and λ_max as a checkpoint would.
fn with_weights(quantizer: GaussianQuantizer, weights: [f64; 3]) -> GaussianQuantizer {
    let parts = |value: f64| {
        let high = value as f32;
        let middle = (value - f64::from(high)) as f32;
        let low = (value - f64::from(high) - f64::from(middle)) as f32;
        [high, middle, low]
    };
    let mut state = Weights::of(&quantizer);
    let array = state.0.get_mut("constraint.weights").expect("the state");
    array.values = weights.into_iter().flat_map(parts).collect();
    state.load_into(quantizer).expect("the same names")
}

fn config(size: [usize; 3], factor: f64, tolerance: f64) -> GaussianConfig {
    let [codebook_size, code_dim, channels] = size;
    GaussianConfig {
        constraint: Constraint::Target(TargetConfig {
            factor,
            tolerance,
            ..TargetConfig::default()
        }),
        ..GaussianConfig::new(codebook_size, code_dim, channels)
    }
}

/// The moments of one step.
fn step_of(golden: &Golden, name: &str, step: usize, device: &Device) -> Tensor<4> {
    let all: Tensor<5> = golden.tensor(&format!("{name}.z"), device);
    all.narrow(0, step, 1).squeeze_dim(0)
}

fn close(got: f64, expected: f64, relative: f64, what: &str) {
    assert!(
        (got - expected).abs() <= relative * expected.abs(),
        "{what}: expected {expected}, got {got}"
    );
}

/// Twenty steps, of which each finds the weights that the one before left.
fn check_steps(name: &str, config: &GaussianConfig) {
    let golden = Golden::open("gq_tdc");
    let device = Device::flex().autodiff();
    let mut quantizer = built(config, &device);
    let named = |what: &str| format!("{name}.{what}");
    let [losses, means, least, greatest] =
        ["kl_loss", "bits_mean", "bits_min", "bits_max"].map(|what| golden.floats(&named(what)));
    let [all, below, above] =
        ["lam", "lam_min", "lam_max"].map(|w| golden.doubles(&named(&format!("{w}_after_f64"))));
    for step in 0..20 {
        let what = format!("{name}, step {step}");
        let latents = step_of(&golden, name, step, &device).require_grad();
        let (quantized, report) = quantizer
            .quantize_and_update(latents.clone(), &mut Noise::from_seed(1))
            .unwrap();
        let loss = divergence(&quantized);
        close(
            loss.clone().into_scalar::<f32>().into(),
            losses[step].into(),
            1e-5,
            &what,
        );
        let report = report.divergence.expect("Gaussian latents");
        close(report.mean_bits, means[step].into(), 1e-6, &what);
        close(report.min_bits, least[step].into(), 1e-6, &what);
        close(report.max_bits, greatest[step].into(), 1e-6, &what);
        close(report.weight, all[step], 1e-12, &what);
        close(report.weight_below, below[step], 1e-12, &what);
        close(report.weight_above, above[step], 1e-12, &what);
        if step == 10 {
            let gradient = latents.grad(&loss.backward()).unwrap();
            let expected = golden.floats(&named("grad_z_step10"));
            assert_near(&host_values(gradient), &expected, [1e-6, 1e-5], &what);
        }
    }
}

#[test]
fn twenty_steps_with_the_published_numbers() {
    check_steps("class1", &config([4096, 4, 8], 1.01, 0.5));
}

#[test]
fn twenty_steps_with_a_wide_tolerance_and_large_factor() {
    check_steps("class1_tight", &config([65536, 8, 8], 1.2, 6.0));
}

/// The published second class: channels side by side, a mean in place of the sum over an image,
/// weights up to 1e7 that never fall. Its weights are given, its loss and gradient compared.
#[test]
fn the_second_class_with_its_weights_given() {
    let golden = Golden::open("gq_tdc");
    let device = Device::flex().autodiff();
    let config = GaussianConfig {
        layout: Layout::Contiguous,
        ..config([4096, 4, 8], 1.05, 0.5)
    };
    let losses = golden.floats("class2.kl_loss");
    let [before, after] = ["before", "after"].map(|when| {
        ["lam", "lam_min", "lam_max"].map(|w| golden.doubles(&format!("class2.{w}_{when}_f64")))
    });
    let mut quantizer = built(&config, &device);
    for step in 0..20 {
        quantizer = with_weights(quantizer, [0, 1, 2].map(|i| before[i][step]));
        let latents = step_of(&golden, "class2", step, &device).require_grad();
        let groups = 2 * 2 * 2;
        let (quantized, report) = quantizer
            .quantize_and_update(latents.clone(), &mut Noise::from_seed(1))
            .unwrap();
        let loss = divergence(&quantized).div_scalar(f64::from(groups));
        let what = format!("step {step}");
        close(
            loss.clone().into_scalar::<f32>().into(),
            losses[step].into(),
            1e-5,
            &what,
        );
        let report = report.divergence.unwrap();
        close(report.weight, after[0][step], 1e-12, &what);
        close(report.weight_below, after[1][step], 1e-12, &what);
        if after[2][step] > before[2][step] {
            close(report.weight_above, after[2][step], 1e-12, &what);
        }
        if step == 10 {
            let gradient = latents.grad(&loss.backward()).unwrap();
            let expected = golden.floats("class2.grad_z_step10");
            assert_near(&host_values(gradient), &expected, [1e-7, 1e-5], &what);
        }
    }
}

#[test]
fn quantizing_alone_moves_nothing_and_an_error_neither() {
    let mut quantizer = built(&config([256, 4, 8], 1.5, 0.5), &Device::flex());
    let before = Weights::of(&quantizer);
    let latents = moments(3, [2, 8, 2, 2], &Device::flex());
    quantize(&quantizer, latents.clone());
    assert_eq!(Weights::of(&quantizer), before);
    let mut noise = Noise::from_seed(1);
    let huge = latents.clone().mul_scalar(1e30);
    let refused = quantizer.quantize_and_update(huge, &mut noise);
    assert_eq!(refused.err(), Some(QuantizeError::TooLarge));
    let empty = Tensor::zeros([0, 16, 2, 2], &Device::flex());
    let refused = quantizer.quantize_and_update(empty, &mut noise);
    assert_eq!(refused.err(), Some(QuantizeError::Empty));
    assert_eq!(Weights::of(&quantizer), before);
    quantizer.quantize_and_update(latents, &mut noise).unwrap();
    assert_ne!(Weights::of(&quantizer), before);
}

#[test]
fn a_restored_state_goes_on_to_the_bit() {
    let config = config([256, 4, 8], 1.037, 0.5);
    let run = |quantizer: &mut GaussianQuantizer, steps: std::ops::Range<u64>| {
        for step in steps {
            let latents = moments(step, [2, 8, 2, 2], &Device::flex());
            quantizer
                .quantize_and_update(latents, &mut Noise::from_seed(1))
                .unwrap();
        }
    };
    let mut whole = built(&config, &Device::flex());
    run(&mut whole, 0..30);
    let mut first = built(&config, &Device::flex());
    run(&mut first, 0..13);
    let bytes = Weights::of(&first).to_safetensors(&std::collections::BTreeMap::new());
    let weights = Weights::from_safetensors(&bytes).unwrap();
    let mut second = weights.load_into(built(&config, &Device::flex())).unwrap();
    run(&mut second, 13..30);
    assert_eq!(whole.constraint().weights(), second.constraint().weights());
    assert_eq!(Weights::of(&whole), Weights::of(&second));
}

#[test]
fn processes_that_merge_their_statistics_move_alike() {
    let config = config([256, 4, 8], 1.1, 0.5);
    let latents = moments(5, [4, 8, 2, 3], &Device::flex());
    let mut alone = built(&config, &Device::flex());
    let whole = alone.statistics(latents.clone()).unwrap();
    alone.constraint_mut().update_from(&whole);
    let parts = [(0, 1), (1, 3)].map(|(from, count)| {
        let part = latents.clone().narrow(0, from, count);
        alone.statistics(part).unwrap()
    });
    let merged = parts[0].merge(&parts[1]);
    assert_eq!(
        (merged.groups, merged.min_bits, merged.max_bits),
        (whole.groups, whole.min_bits, whole.max_bits)
    );
    assert_eq!(
        (merged.min_excess, merged.max_excess),
        (whole.min_excess, whole.max_excess)
    );
    close(merged.mean_bits, whole.mean_bits, 1e-12, "mean");
    close(merged.mean_excess, whole.mean_excess, 1e-12, "excess");
    let mut together = built(&config, &Device::flex());
    together.constraint_mut().update_from(&merged);
    assert_eq!(
        alone.constraint().weights(),
        together.constraint().weights()
    );
}

/// A target for an encoder that is nothing but its moments: the divergence must end at it.
#[test]
fn moments_under_the_loss_reach_the_target() {
    let device = Device::flex().autodiff();
    let mut quantizer = built(&config([1024, 4, 8], 1.01, 0.5), &device);
    let mut values = moments(7, [2, 8, 2, 2], &Device::flex()) * 2.0;
    for _ in 0..400 {
        let latents = Tensor::from_inner(values.clone()).require_grad();
        let (quantized, _) = quantizer
            .quantize_and_update(latents.clone(), &mut Noise::from_seed(1))
            .unwrap();
        // A reconstruction that wants narrow Gaussians pulls against the constraint.
        let logs = latents.clone().narrow(1, 8, 8);
        let loss = divergence(&quantized) + logs.sum().mul_scalar(0.3);
        let gradient = latents.grad(&loss.backward()).unwrap();
        // Steps of bounded length, as an adaptive optimiser makes them.
        values = values - gradient.clamp(-1.0, 1.0).mul_scalar(0.02);
    }
    let reached = quantizer.statistics(values).unwrap();
    assert!((reached.mean_bits - 10.0).abs() < 1.0, "{reached:?}");
    assert!(
        reached.max_excess < 2.0 && reached.min_excess > -2.0,
        "{reached:?}"
    );
}

#[test]
fn the_report_counts_codes_once_for_each_codebook() {
    let sizes = PerDepth::Each(vec![16, 64, 16]);
    let config = GaussianConfig {
        codebook_size: sizes,
        ..GaussianConfig::new(16, 2, 6)
    };
    let mut quantizer = built(&config, &Device::flex());
    let latents = moments(9, [2, 6, 3, 3], &Device::flex());
    let (seen, report) = quantizer
        .quantize_and_update(latents, &mut Noise::from_seed(1))
        .unwrap();
    let ids = |depth| smalti_nn::nearest::id_values(seen.codes.at_depth(depth));
    let small: std::collections::BTreeSet<u32> = ids(0).into_iter().chain(ids(2)).collect();
    let large: std::collections::BTreeSet<u32> = ids(1).into_iter().collect();
    assert_eq!(report.chosen, small.len() + large.len());
    assert_eq!((report.codes, report.revived), (80, 0));
    assert_eq!(quantizer.constraint().targets(), [4.0, 6.0, 4.0]);
    assert_eq!(report.divergence.unwrap().groups, 54);
}
