use super::*;
use burn::tensor::{Device, TensorData};
use proptest::prelude::*;
use smalti_nn::state::Weights;

mod llamagen;

const SHAPE: [usize; 4] = [2, 3, 4, 2];
const COUNT: usize = 16;

fn normal(seed: u64, shape: [usize; 4], device: &Device) -> Tensor<4> {
    Noise::from_seed(seed).standard_normal(shape, device)
}

fn config(metric: Metric, rule: Rule) -> VectorConfig {
    VectorConfig {
        metric,
        rule,
        ..VectorConfig::new(6, 3)
    }
}

fn every_config() -> Vec<VectorConfig> {
    let metrics = [Metric::Euclidean, Metric::Cosine];
    metrics
        .into_iter()
        .flat_map(|m| [Rule::Ema, Rule::Gradient].map(|r| config(m, r)))
        .collect()
}

fn built(config: &VectorConfig, device: &Device) -> VectorQuantizer {
    config.build(&mut Init::new(device, 5)).unwrap()
}

fn with_table(config: &VectorConfig, device: &Device, table: &[f32]) -> VectorQuantizer {
    let quantizer = built(config, device);
    let mut weights = Weights::of(&quantizer);
    weights
        .0
        .get_mut("codebook.weight")
        .expect("the table")
        .values = table.to_vec();
    weights
        .load_into(quantizer)
        .expect("the same names and shapes")
}

fn quantize(quantizer: &VectorQuantizer, latents: Tensor<4>) -> Quantized {
    quantizer
        .quantize(latents, &mut Noise::from_seed(1))
        .unwrap()
}

fn loss(quantized: &Quantized, name: &str) -> Tensor<1> {
    let found = quantized.losses.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("no loss {name}")).1.clone()
}

fn assert_close(got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len());
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!(
            (g - e).abs() <= tolerance * (1.0 + e.abs()),
            "[{i}]: expected {e}, got {g}"
        );
    }
}

#[test]
fn the_value_is_the_nearest_code() {
    let config = VectorConfig::new(3, 2);
    let quantizer = with_table(&config, &Device::flex(), &[0.0, 0.0, 1.0, 0.0, 0.0, 2.0]);
    let rows = TensorData::new(vec![0.9f32, 0.1, 0.2, 1.7, 0.1, 0.4], [1, 1, 3, 2]);
    let latents = Tensor::<4>::from_data(rows, &Device::flex()).permute([0, 3, 1, 2]);
    let quantized = quantize(&quantizer, latents.clone());
    assert_eq!(quantized.codes.dims(), [1, 1, 1, 3]);
    assert_eq!(quantized.codes.values(), [1, 2, 0]);
    let mean = (0.01 + 0.01 + 0.04 + 0.09 + 0.01 + 0.16) / 6.0;
    assert!((loss(&quantized, "commitment").into_scalar::<f32>() - mean).abs() < 1e-6);
    assert_eq!(quantized.losses.len(), 1, "moving averages need no loss");
    assert_eq!(quantizer.encode(latents).unwrap().values(), [1, 2, 0]);
}

#[test]
fn the_smallest_angle_wins_under_the_cosine() {
    let config = VectorConfig {
        metric: Metric::Cosine,
        ..VectorConfig::new(2, 2)
    };
    // (1, 1)/√2 is nearer to (2, 1.9) in angle, (3, 0) in distance to (2.6, 0.8).
    let quantizer = with_table(&config, &Device::flex(), &[0.1, 0.1, 3.0, 0.0]);
    let rows = TensorData::new(vec![2.0f32, 1.9, 2.6, 0.8], [1, 1, 2, 2]);
    let latents = Tensor::<4>::from_data(rows, &Device::flex()).permute([0, 3, 1, 2]);
    let quantized = quantize(&quantizer, latents.clone());
    assert_eq!(quantized.codes.values(), [0, 1]);
    let half = 0.5f32.sqrt();
    let rows = host_values(quantized.quantized.permute([0, 2, 3, 1]));
    assert_close(&rows, &[half, half, 1.0, 0.0], 1e-6);
    let longer = quantize(&quantizer, latents.mul_scalar(50.0));
    assert_eq!(longer.codes.values(), [0, 1]);
    assert_close(
        &host_values(quantizer.table()),
        &[half, half, 1.0, 0.0],
        1e-6,
    );
}

#[test]
fn decoding_what_was_encoded_gives_the_quantized_value() {
    for config in every_config() {
        let quantizer = built(&config, &Device::flex());
        let latents = normal(2, SHAPE, &Device::flex());
        let codes = quantizer.encode(latents.clone()).unwrap();
        let quantized = quantize(&quantizer, latents);
        assert_eq!(quantized.codes.values(), codes.values());
        let decoded = quantizer.decode(&codes).unwrap();
        assert_close(
            &host_values(quantized.quantized),
            &host_values(decoded.clone()),
            1e-6,
        );
        assert_eq!(quantizer.encode(decoded).unwrap().values(), codes.values());
    }
}

#[test]
fn the_value_passes_gradients_straight_through() {
    let device = Device::flex().autodiff();
    for rule in [Rule::Ema, Rule::Gradient] {
        let quantizer = built(&config(Metric::Euclidean, rule), &device);
        let latents = normal(2, SHAPE, &device).require_grad();
        let weights = normal(3, SHAPE, &device);
        let value = quantize(&quantizer, latents.clone()).quantized;
        let gradients = (value * weights.clone()).sum().backward();
        let gradient = latents.grad(&gradients).expect("latents are tracked");
        assert_eq!(host_values(gradient), host_values(weights));
        assert!(
            quantizer.table().grad(&gradients).is_none(),
            "the value moves no code"
        );
    }
}

#[test]
fn each_loss_moves_its_own_side_by_its_exact_gradient() {
    let device = Device::flex().autodiff();
    let quantizer = built(&config(Metric::Euclidean, Rule::Gradient), &device);
    let latents = normal(2, SHAPE, &device).require_grad();
    let quantized = quantize(&quantizer, latents.clone());
    let rows = host_values(to_rows(latents.clone().inner()));
    let (table, ids) = (host_values(quantizer.table()), quantized.codes.values());
    let scale = 2.0 / (COUNT * 3) as f32;
    let (mut of_rows, mut of_table) = (vec![0.0; COUNT * 3], vec![0.0; 18]);
    for (i, &id) in ids.iter().enumerate() {
        for j in 0..3 {
            let code = 3 * id as usize + j;
            of_rows[3 * i + j] = scale * (rows[3 * i + j] - table[code]);
            of_table[code] += scale * (table[code] - rows[3 * i + j]);
        }
    }
    let gradients = loss(&quantized, "commitment").backward();
    assert!(quantizer.table().grad(&gradients).is_none());
    let got = latents.grad(&gradients).expect("latents are tracked");
    assert_close(&host_values(to_rows(got)), &of_rows, 1e-6);

    let quantized = quantize(&quantizer, latents.clone());
    let gradients = loss(&quantized, "codebook").backward();
    assert!(latents.grad(&gradients).is_none());
    let got = quantizer
        .table()
        .grad(&gradients)
        .expect("the optimiser learns the codes");
    assert_close(&host_values(got), &of_table, 1e-6);
}

#[test]
fn the_codebook_loss_agrees_with_finite_differences() {
    for metric in [Metric::Euclidean, Metric::Cosine] {
        let config = config(metric, Rule::Gradient);
        let device = Device::flex().autodiff();
        let quantizer = built(&config, &device);
        let quantized = quantize(&quantizer, normal(2, SHAPE, &device));
        let codes = quantized.codes.values();
        let gradients = loss(&quantized, "codebook").backward();
        let weight = quantizer.codebook.table();
        let gradient = host_values(
            weight
                .grad(&gradients)
                .expect("the optimiser learns the codes"),
        );
        let table = host_values(weight);
        let mut compared = 0;
        for (i, expected) in gradient.iter().enumerate() {
            let at = |offset: f32| {
                let mut moved = table.clone();
                moved[i] += offset;
                let quantizer = with_table(&config, &Device::flex(), &moved);
                let quantized = quantize(&quantizer, normal(2, SHAPE, &Device::flex()));
                (
                    loss(&quantized, "codebook").into_scalar::<f32>(),
                    quantized.codes.values(),
                )
            };
            let step = 0.005;
            let ((up, up_codes), (down, down_codes)) = (at(step), at(-step));
            if up_codes == codes && down_codes == codes {
                let difference = (up - down) / (2.0 * step);
                assert!(
                    (difference - expected).abs() < 2e-3,
                    "{i}: {difference} {expected}"
                );
                compared += 1;
            }
        }
        assert!(compared >= 12, "only {compared} of 18 steps keep the codes");
    }
}

#[test]
fn the_commitment_under_the_cosine_agrees_with_finite_differences() {
    let config = config(Metric::Cosine, Rule::Ema);
    let device = Device::flex().autodiff();
    let latents = normal(2, SHAPE, &device).require_grad();
    let quantized = quantize(&built(&config, &device), latents.clone());
    let gradients = loss(&quantized, "commitment").backward();
    let gradient = host_values(latents.grad(&gradients).expect("latents are tracked"));
    let (values, codes) = (host_values(latents.inner()), quantized.codes.values());
    let quantizer = built(&config, &Device::flex());
    let mut compared = 0;
    for (i, expected) in gradient.iter().enumerate() {
        let at = |offset: f32| {
            let mut moved = values.clone();
            moved[i] += offset;
            let latents = Tensor::from_data(TensorData::new(moved, SHAPE), &Device::flex());
            let quantized = quantize(&quantizer, latents);
            (
                loss(&quantized, "commitment").into_scalar::<f32>(),
                quantized.codes.values(),
            )
        };
        let step = 0.005;
        let ((up, up_codes), (down, down_codes)) = (at(step), at(-step));
        if up_codes == codes && down_codes == codes {
            let difference = (up - down) / (2.0 * step);
            assert!(
                (difference - expected).abs() < 2e-3,
                "{i}: {difference} {expected}"
            );
            compared += 1;
        }
    }
    assert!(compared > 36, "only {compared} of 48 steps keep the codes");
}

#[test]
fn a_latent_of_zeros_has_a_finite_gradient_under_the_cosine() {
    let device = Device::flex().autodiff();
    let quantizer = built(&config(Metric::Cosine, Rule::Ema), &device);
    let latents = Tensor::<4>::zeros(SHAPE, &device).require_grad();
    let quantized = quantize(&quantizer, latents.clone());
    let gradients = (quantized.quantized.clone().sum() + loss(&quantized, "commitment")).backward();
    let gradient = host_values(latents.grad(&gradients).expect("latents are tracked"));
    assert!(gradient.iter().all(|v| v.is_finite()));
}

#[test]
fn moving_averages_leave_no_gradient() {
    let device = Device::flex().autodiff();
    for metric in [Metric::Euclidean, Metric::Cosine] {
        let mut quantizer = built(&config(metric, Rule::Ema), &device);
        let latents = normal(2, SHAPE, &device).require_grad();
        let (quantized, _) = quantizer
            .quantize_and_update(latents, &mut Noise::from_seed(1))
            .unwrap();
        let gradients =
            (quantized.quantized.clone().sum() + loss(&quantized, "commitment")).backward();
        let weight = quantizer.codebook.table();
        assert!(!weight.is_require_grad() && weight.grad(&gradients).is_none());
    }
}

/// The gradient must be that of the parameters as they are after the call, or the optimiser, which
/// looks gradients up by parameter, would find none.
#[test]
fn the_optimiser_finds_the_gradient_of_a_codebook_in_training() {
    let device = Device::flex().autodiff();
    for metric in [Metric::Euclidean, Metric::Cosine] {
        let mut config = config(metric, Rule::Gradient);
        config.codebook_size = 40;
        config.learning.revival = crate::Revival::Unused { patience: 2 };
        let mut quantizer = built(&config, &device);
        let mut revived = 0;
        for step in 0..5 {
            let latents = normal(step, SHAPE, &device);
            let mut noise = Noise::for_step(1, step);
            let (quantized, report) = quantizer.quantize_and_update(latents, &mut noise).unwrap();
            revived += report.revived;
            let gradients = loss(&quantized, "codebook").backward();
            let gradient = quantizer.codebook.table().grad(&gradients);
            let gradient = gradient.unwrap_or_else(|| panic!("no gradient at step {step}"));
            assert!(host_values(gradient).iter().any(|v| *v != 0.0));
            let again = quantizer
                .encode(normal(step, SHAPE, &Device::flex()))
                .unwrap();
            assert_eq!(
                quantized.codes.values(),
                again.values(),
                "codes of the table as it is now"
            );
        }
        assert!(revived > 0, "16 vectors cannot keep 40 codes alive");
    }
}

#[test]
fn either_rule_finds_the_clusters() {
    let centres = [
        [4.0f32, 0.0, 0.0],
        [0.0, -3.0, 1.0],
        [-2.0, 2.0, 5.0],
        [1.0, 6.0, -4.0],
    ];
    let latents = |seed: u64| {
        let mut values = Noise::from_seed(seed).normal_values(64 * 3);
        for (i, vector) in values.chunks_exact_mut(3).enumerate() {
            let centre = centres[(i + seed as usize) % 4];
            vector
                .iter_mut()
                .zip(centre)
                .for_each(|(v, c)| *v = c + 0.1 * *v);
        }
        let device = Device::flex().autodiff();
        let rows = Tensor::<4>::from_data(TensorData::new(values, [1, 1, 64, 3]), &device);
        rows.permute([0, 3, 1, 2])
    };
    for metric in [Metric::Euclidean, Metric::Cosine] {
        for rule in [Rule::Ema, Rule::Gradient] {
            let mut quantizer = built(&config(metric, rule), &Device::flex().autodiff());
            let mut commitment = f32::INFINITY;
            for step in 0..150 {
                let mut noise = Noise::for_step(3, step);
                let (quantized, _) = quantizer
                    .quantize_and_update(latents(step), &mut noise)
                    .unwrap();
                commitment = loss(&quantized, "commitment").into_scalar::<f32>();
                if rule == Rule::Gradient {
                    let gradients = loss(&quantized, "codebook").backward();
                    let gradient = quantizer
                        .codebook
                        .table()
                        .grad(&gradients)
                        .expect("tracked");
                    let stepped =
                        host_values(quantizer.codebook.table().inner() - gradient.mul_scalar(3.0));
                    quantizer = with_state_of(quantizer, &stepped);
                }
            }
            let largest = if metric == Metric::Euclidean {
                0.02
            } else {
                0.002
            };
            assert!(commitment < largest, "{metric:?} {rule:?}: {commitment}");
        }
    }
}

fn with_state_of(quantizer: VectorQuantizer, table: &[f32]) -> VectorQuantizer {
    let mut weights = Weights::of(&quantizer);
    weights
        .0
        .get_mut("codebook.weight")
        .expect("the table")
        .values = table.to_vec();
    weights
        .load_into(quantizer)
        .expect("the same names and shapes")
}

#[test]
fn tracked_and_untracked_sides_mix() {
    let (plain, tracked) = (Device::flex(), Device::flex().autodiff());
    for config in every_config() {
        let frozen = built(&config, &plain);
        let latents = normal(2, SHAPE, &tracked).require_grad();
        let quantized = quantize(&frozen, latents.clone());
        let gradients =
            (quantized.quantized.clone().sum() + loss(&quantized, "commitment")).backward();
        assert!(latents.grad(&gradients).is_some());
        let quantized = quantize(&built(&config, &tracked), latents.inner());
        assert!(!quantized.quantized.device().is_autodiff());
    }
}

#[test]
fn refused_latents_change_nothing() {
    for config in every_config() {
        let mut quantizer = built(&config, &Device::flex());
        let before = Weights::of(&quantizer);
        let mut refused = |latents: Tensor<4>, expected: QuantizeError| {
            let mut noise = Noise::from_seed(1);
            let error = quantizer
                .quantize_and_update(latents, &mut noise)
                .unwrap_err();
            assert_eq!(error, expected);
            assert_eq!(Weights::of(&quantizer), before);
        };
        for (wrong, error) in [
            (f32::NAN, QuantizeError::NonFinite),
            (f32::NEG_INFINITY, QuantizeError::NonFinite),
            (1e30, QuantizeError::TooLarge),
        ] {
            let mut values = vec![1.0; COUNT * 3];
            values[7] = wrong;
            refused(
                Tensor::from_data(TensorData::new(values, SHAPE), &Device::flex()),
                error,
            );
        }
        refused(
            Tensor::zeros([0, 3, 1, 1], &Device::flex()),
            QuantizeError::Empty,
        );
        let narrow = Tensor::zeros([1, 2, 1, 1], &Device::flex());
        refused(
            narrow,
            QuantizeError::Channels {
                expected: 3,
                got: 2,
            },
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn ids_are_in_range_for_any_finite_latents(
        values in proptest::collection::vec(-f32::MAX..f32::MAX, COUNT * 3), shrink in 0i32..38,
    ) {
        let values: Vec<f32> = values.iter().map(|v| v / 10f32.powi(shrink)).collect();
        for config in every_config() {
            let latents = Tensor::from_data(TensorData::new(values.clone(), SHAPE), &Device::flex());
            let codes = built(&config, &Device::flex()).encode(latents).unwrap();
            prop_assert!(codes.values().iter().all(|&id| id < 6));
        }
    }

    #[test]
    fn a_batch_is_quantized_as_its_parts_are(seed: u64) {
        for config in every_config() {
            let quantizer = built(&config, &Device::flex());
            let latents = normal(seed, SHAPE, &Device::flex());
            let parts = [0, 1].map(|b| quantize(&quantizer, latents.clone().narrow(0, b, 1)));
            let whole = quantize(&quantizer, latents);
            let codes: Vec<u32> = parts.iter().flat_map(|part| part.codes.values()).collect();
            prop_assert_eq!(whole.codes.values(), codes);
            let values: Vec<f32> =
                parts.iter().flat_map(|part| host_values(part.quantized.clone())).collect();
            prop_assert_eq!(host_values(whole.quantized), values);
        }
    }

    #[test]
    fn codes_outside_the_codebook_are_refused(place in 0usize..8, wrong in 6u32..40) {
        let mut ids = [5; 8];
        ids[place] = wrong;
        let codes = Codes::from_values(&ids, [2, 1, 2, 2], &Device::flex());
        for config in every_config() {
            let error = built(&config, &Device::flex()).decode(&codes).unwrap_err();
            prop_assert_eq!(error, QuantizeError::OutOfRange { id: wrong, depth: 0, codebook_size: 6 });
        }
    }
}
