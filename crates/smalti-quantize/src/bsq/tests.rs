use super::*;
use crate::testing::{
    Golden, assert_golden, assert_quantizer, assert_scalar, assert_slopes, loss, map, normal,
    quantized, weighted,
};
use burn::tensor::Device;
use smalti_nn::state::host_values;

const LN_2: f32 = std::f32::consts::LN_2;

fn built(config: &BsqConfig) -> BsqQuantizer {
    config.build().unwrap()
}

/// The official configuration of the goldens: 16 bits in groups of 4.
fn official(entropy_group: usize, normalize: bool) -> BsqConfig {
    BsqConfig {
        entropy_group,
        normalize,
        ..BsqConfig::new(16, 1)
    }
}

/// Recorded: β·Σ_channels commitment + H_sample − H_codebook with β = 0.1, its gradient with respect
/// to u, and all codes (the smallest margin is 7e-4, and signs are exact).
fn check_official(variant: &str, config: &BsqConfig) {
    let golden = Golden::open("quant_bsq");
    let named = |name: &str| format!("{variant}.{name}");
    let device = Device::flex().autodiff();
    let quantizer = built(config);
    let latents = golden.tensor::<4>("u", &device).require_grad();
    let seen = quantized(&quantizer, latents.clone());
    let value = host_values(seen.quantized.clone());
    assert_golden(&value, &golden.floats(&named("zq")), &named("zq"));
    assert_eq!(seen.codes.values(), golden.ids("indices_exact"));

    let entropy = golden.number(&named("codebook_entropy"));
    assert_scalar(
        loss(&seen, "unused_entropy"),
        16.0 * LN_2 - entropy,
        "codebook entropy",
    );
    let sample = golden.number(&named("persample_entropy"));
    assert_scalar(loss(&seen, "sample_entropy"), sample, "sample entropy");
    let weights = [
        ("commitment", 0.1 * 16.0),
        ("sample_entropy", 1.0),
        ("unused_entropy", 1.0),
    ];
    let total = weighted(&seen, &weights);
    let recorded = golden.number(&named("loss"));
    assert_scalar(total.clone(), recorded + 16.0 * LN_2, "loss");

    let gradient = latents.grad(&total.backward()).expect("tracked");
    let mut expected = golden.floats(&named("grad_u"));
    if config.normalize {
        expected = along_the_sphere(&expected, latents.inner());
    }
    assert_golden(&host_values(gradient), &expected, &named("grad_u"));
}

/// The recorded gradient is that of the unit vector; ours goes on through the scaling to it.
fn along_the_sphere(gradient: &[f32], unit: Tensor<4>) -> Vec<f32> {
    let gradient = map(gradient.to_vec(), unit.dims(), &Device::flex());
    let along = (gradient.clone() * unit.clone()).sum_dim(1);
    host_values(gradient - unit * along)
}

#[test]
fn published_codes_and_losses_by_groups() {
    check_official("official_l2_group", &official(4, true));
}

/// The recorded value has the entropies of single bits.
#[test]
fn published_codes_and_losses_of_single_bits() {
    check_official("official_l2_analytical", &official(1, true));
}

#[test]
fn published_codes_and_losses_without_the_sphere() {
    check_official("official_nol2", &official(1, false));
}

#[test]
fn codes_are_cut_into_groups_of_bits() {
    let golden = Golden::open("quant_bsq");
    let latents = golden.tensor::<4>("x", &Device::flex());
    let codes = built(&BsqConfig::new(4, 4)).encode(latents).unwrap();
    // Recorded with the group as the fastest axis.
    let ids = smalti_nn::nearest::id_values(codes.tensor().permute([0, 2, 3, 1]));
    assert_eq!(ids, golden.ids("group_indices_exact"));
}

#[test]
fn published_codes_of_gaussian_quant_s_bsq() {
    let golden = Golden::open("quant_bsq");
    let quantizer = built(&BsqConfig::new(16, 1));
    let seen = quantized(&quantizer, golden.tensor("x", &Device::flex()));
    let value = host_values(seen.quantized);
    assert_golden(&value, &golden.floats("pit.zq"), "zq");
    assert_eq!(seen.codes.values(), golden.ids("pit.indices"));
    let decoded = host_values(quantizer.decode(&seen.codes).unwrap());
    assert_golden(&decoded, &golden.floats("pit.dequant"), "dequant");
}

/// The entropies of that code differ from the paper's: it counts the use of all sixteen bits as one
/// distribution over two values, and takes the mean over bits instead of the sum. That is LFQ on
/// the sphere with sixteen pooled sub-codebooks of one bit.
#[test]
fn published_losses_of_gaussian_quant_s_bsq_are_those_of_pooled_bits() {
    let golden = Golden::open("quant_bsq");
    let device = Device::flex().autodiff();
    let latents = golden.tensor::<4>("x", &device).require_grad();
    let points = from_rows(unit_rows(to_rows(latents.clone())), [2, 5, 6]);
    let config = crate::LfqConfig {
        scale: 0.25,
        logarithms: Logarithms::both(Logarithm::Added { epsilon: 1e-5 }),
        ..crate::LfqConfig::new(1, 16)
    };
    let seen = quantized(&config.build().unwrap(), points);
    let number = |name: &str| golden.number(&format!("pit.{name}"));
    assert_scalar(
        loss(&seen, "sample_entropy"),
        number("per_sample_entropy"),
        "sample entropy",
    );
    let unused = LN_2 - number("codebook_entropy");
    assert_scalar(loss(&seen, "unused_entropy"), unused, "codebook entropy");
    let total = weighted(&seen, &[("sample_entropy", 1.0), ("unused_entropy", 1.0)]);
    assert_scalar(total.clone(), number("entropy_aux_loss") + LN_2, "loss");
    let gradient = latents.grad(&total.backward()).expect("tracked");
    assert_golden(
        &host_values(gradient),
        &golden.floats("pit.grad_x"),
        "grad_x",
    );
}

/// LFQ on the sphere of the common library: the first ten channels, entropies over all 2^10 codes.
#[test]
fn published_codes_and_losses_of_the_common_library() {
    let golden = Golden::open("quant_bsq");
    let device = Device::flex().autodiff();
    let quantizer = built(&BsqConfig {
        entropy_group: 10,
        inverse_temperature: 50.0,
        logarithms: Logarithms::both(Logarithm::Clamped { epsilon: 1e-5 }),
        ..BsqConfig::new(10, 1)
    });
    let all = golden.tensor::<4>("x", &device).require_grad();
    let seen = quantized(&quantizer, all.clone().narrow(1, 0, 10));
    let value = host_values(seen.quantized.clone());
    assert_golden(&value, &golden.floats("lucid.quantized"), "quantized");
    assert_eq!(seen.codes.values(), golden.ids("lucid.indices"));
    let decoded = host_values(quantizer.decode(&seen.codes).unwrap());
    assert_golden(
        &decoded,
        &golden.floats("lucid.codes_from_indices"),
        "decoded",
    );
    let number = |name: &str| golden.number(&format!("lucid.{name}"));
    assert_scalar(
        loss(&seen, "commitment"),
        number("commitment"),
        "commitment",
    );
    assert_scalar(
        loss(&seen, "sample_entropy"),
        number("per_sample_entropy"),
        "sample entropy",
    );
    let unused = 10.0 * LN_2 - number("codebook_entropy");
    assert_scalar(loss(&seen, "unused_entropy"), unused, "codebook entropy");
    let weights = [
        ("commitment", 0.25),
        ("sample_entropy", 0.1),
        ("unused_entropy", 0.1),
    ];
    let total = weighted(&seen, &weights);
    assert_scalar(total.clone(), number("aux_loss") + LN_2, "loss");
    let gradient = all.grad(&total.backward()).expect("tracked");
    let gradient = host_values(gradient.narrow(1, 0, 10));
    assert_golden(&gradient, &golden.floats("lucid.grad_x"), "grad_x");
}

#[test]
fn it_does_what_every_quantizer_does() {
    for (bits, depth, entropy_group) in [(4, 1, 2), (3, 2, 6), (1, 5, 1)] {
        for normalize in [true, false] {
            let config = BsqConfig {
                entropy_group,
                normalize,
                ..BsqConfig::new(bits, depth)
            };
            assert_quantizer(&mut built(&config), bits * depth);
        }
    }
}

#[test]
fn sixty_four_bits_survive_as_several_codes() {
    let quantizer = built(&BsqConfig::new(16, 4));
    let latents = normal(2, [2, 64, 3, 3], &Device::flex());
    let codes = quantizer.encode(latents.clone()).unwrap();
    assert_eq!(codes.dims(), [2, 4, 3, 3]);
    let decoded = quantizer.decode(&codes).unwrap();
    let signs =
        |map: Tensor<4>| -> Vec<bool> { host_values(map).iter().map(|v| *v > 0.0).collect() };
    assert_eq!(signs(decoded.clone()), signs(latents));
    let lengths = host_values(decoded.square().sum_dim(1));
    assert!(lengths.iter().all(|length| (length - 1.0).abs() < 1e-6));
}

/// The published value has the gradient of u/√d.
#[test]
fn the_gradient_passes_the_sign_and_is_scaled_with_the_value() {
    let shape = [1, 8, 2, 2];
    let device = Device::flex().autodiff();
    let latents = normal(3, shape, &device).require_grad();
    let weights = normal(4, shape, &device);
    let value = quantized(&built(&BsqConfig::new(8, 1)), latents.clone()).quantized;
    let gradient = latents
        .grad(&(value * weights).sum().backward())
        .expect("tracked");
    let plain = host_values(latents.inner());
    assert_slopes(&plain, &host_values(gradient), 1.0, |moved| {
        let device = Device::flex();
        let rows = unit_rows(to_rows(map(moved, shape, &device)));
        let scaled = from_rows(rows, [1, 2, 2]).div_scalar(8f32.sqrt());
        let weighted = scaled * normal(4, shape, &device);
        (weighted.sum().into_scalar::<f32>(), Vec::new())
    });
}

#[test]
fn every_loss_has_its_slope() {
    let shape = [1, 6, 2, 2];
    for (entropy_group, normalize) in [(1, true), (3, true), (2, false)] {
        let quantizer = built(&BsqConfig {
            entropy_group,
            normalize,
            inverse_temperature: 2.0,
            ..BsqConfig::new(6, 1)
        });
        for name in ["commitment", "sample_entropy", "unused_entropy"] {
            let device = Device::flex().autodiff();
            let latents = normal(3, shape, &device).require_grad();
            let seen = quantized(&quantizer, latents.clone());
            let gradient = latents
                .grad(&loss(&seen, name).backward())
                .expect("tracked");
            let values = host_values(latents.inner());
            assert_slopes(&values, &host_values(gradient), 0.9, |moved| {
                let seen = quantized(&quantizer, map(moved, shape, &Device::flex()));
                (loss(&seen, name).into_scalar::<f32>(), seen.codes.values())
            });
        }
    }
}

#[test]
fn latents_of_zeros_have_finite_gradients() {
    let device = Device::flex().autodiff();
    let latents = Tensor::<4>::zeros([1, 6, 2, 2], &device).require_grad();
    let seen = quantized(&built(&BsqConfig::new(6, 1)), latents.clone());
    assert_eq!(seen.codes.values(), [0; 4]);
    let losses = seen.losses.iter().map(|(_, loss)| loss.clone());
    let total = losses.fold(seen.quantized.sum(), |a, b| a + b);
    let gradient = latents.grad(&total.backward()).expect("tracked");
    assert!(host_values(gradient).iter().all(|v| v.is_finite()));
}

#[test]
fn validation_names_every_problem() {
    let problems = |config: BsqConfig| config.validate().unwrap_err().to_string();
    let config = BsqConfig {
        entropy_group: 0,
        inverse_temperature: 0.0,
        ..BsqConfig::new(36, 0)
    };
    let message = problems(config);
    for part in [
        "depth must be",
        "between 1 and 30, got 36",
        "entropy_group must lie between 1 and 18, got 0",
        "inverse_temperature must be positive",
    ] {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
    let nine = BsqConfig {
        entropy_group: 9,
        ..BsqConfig::new(16, 1)
    };
    assert!(problems(nine).contains("must divide bits · depth (16), got 9"));
    assert!(
        BsqConfig {
            entropy_group: 9,
            ..BsqConfig::new(18, 2)
        }
        .validate()
        .is_ok()
    );
}
