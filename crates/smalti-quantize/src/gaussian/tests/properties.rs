use super::*;
use crate::posterior::BITS_PER_NAT;
use proptest::prelude::*;

fn layouts() -> [Layout; 3] {
    let order = vec![5, 0, 3, 1, 4, 2];
    [Layout::Strided, Layout::Contiguous, Layout::Order(order)]
}

/// Moments of narrow Gaussians around given means.
fn around(means: Tensor<4>, log_variance: f64) -> Tensor<4> {
    let logs = means.zeros_like() + log_variance;
    Tensor::cat(vec![means, logs], 1)
}

#[test]
fn narrow_gaussians_on_codes_give_these_codes_back() {
    for layout in layouts() {
        for normalization in [
            None,
            Some(Normalization {
                shift: vec![0.5, -1.0, 0.0, 2.0, 0.25, 0.0],
                scale: vec![2.0, 0.5, 1.0, 4.0, 0.125, 1.0],
            }),
        ] {
            let config = GaussianConfig {
                layout: layout.clone(),
                normalization,
                codebook_size: PerDepth::Each(vec![64, 256]),
                ..GaussianConfig::new(64, 3, 6)
            };
            let quantizer = built(&config, &Device::flex());
            let ids: Vec<u32> = (0..2 * 2 * 4 * 3)
                .map(|i| {
                    let size = [64, 256][i / 12 % 2];
                    (i * 37 % size) as u32
                })
                .collect();
            let codes = Codes::from_values(&ids, [2, 2, 4, 3], &Device::flex());
            let value = quantizer.decode(&codes).unwrap();
            assert_eq!(value.dims(), [2, 6, 4, 3]);
            let again = quantizer.encode(around(value, -12.0)).unwrap();
            assert_eq!(again.values(), ids, "{layout:?}");
        }
    }
}

#[test]
fn layouts_name_the_channels_of_a_code() {
    // Depth 1 of two depths of three dimensions.
    for (layout, channels) in layouts().into_iter().zip([[1, 3, 5], [3, 4, 5], [1, 4, 2]]) {
        let config = GaussianConfig {
            layout,
            ..GaussianConfig::new(16, 3, 6)
        };
        let quantizer = built(&config, &Device::flex());
        let codes = Codes::from_values(&[3, 9], [1, 2, 1, 1], &Device::flex());
        let value = host_values(quantizer.decode(&codes).unwrap());
        let code = &quantizer.codes_of(1)[9 * 3..10 * 3];
        assert_eq!(channels.map(|c| value[c]), code);
        // The divergence of depth 1 is that of the same channels.
        let mut means = vec![0.0; 6];
        channels.iter().for_each(|c| means[*c] = 2.0);
        let means = Tensor::<1>::from_floats(means.as_slice(), &Device::flex());
        let latents = around(means.reshape([1, 6, 1, 1]), 0.0);
        let bits = host_values(quantizer.divergence_bits(latents).unwrap());
        assert_near(
            &bits,
            &[0.0, 3.0 * 2.0 * BITS_PER_NAT as f32],
            [1e-6, 1e-6],
            "bits",
        );
    }
}

#[test]
fn smaller_codebooks_are_the_beginning_of_larger_ones() {
    let config = GaussianConfig {
        codebook_size: PerDepth::Each(vec![32, 128]),
        ..GaussianConfig::new(32, 3, 6)
    };
    let quantizer = built(&config, &Device::flex());
    assert_eq!(quantizer.codes_of(0), &quantizer.codes_of(1)[..96]);
    assert!(quantizer.table().is_none());
    let alone = built(&GaussianConfig::new(128, 3, 3), &Device::flex().autodiff());
    let table = alone.table().expect("one depth");
    assert_eq!(table.dims(), [128, 3]);
    assert_eq!(host_values(table), quantizer.codes_of(1));
    assert_eq!(quantizer.spec().codebook_sizes, [32, 128]);
}

#[test]
fn normalization_only_renames_the_latents() {
    // Latents of a model with mean 3 and deviation 4, and the same ones normalised beforehand.
    let plain = GaussianConfig::new(256, 3, 6);
    let moved = GaussianConfig {
        normalization: Some(Normalization {
            shift: vec![3.0; 6],
            scale: vec![0.25; 6],
        }),
        ..plain.clone()
    };
    let (plain, moved) = (
        built(&plain, &Device::flex()),
        built(&moved, &Device::flex()),
    );
    let latents = moments(4, [2, 6, 3, 3], &Device::flex());
    let means = latents.clone().narrow(1, 0, 6) * 4.0 + 3.0;
    let logs = latents.clone().narrow(1, 6, 6) + 16f64.ln();
    let raw = Tensor::cat(vec![means, logs], 1);
    let codes = plain.encode(latents.clone()).unwrap();
    assert_eq!(moved.encode(raw.clone()).unwrap().values(), codes.values());
    let expected = host_values(plain.decode(&codes).unwrap() * 4.0 + 3.0);
    let got = host_values(moved.decode(&codes).unwrap());
    assert_near(&got, &expected, [1e-6, 1e-6], "decoded");
    let (a, b) = (quantize(&plain, latents), quantize(&moved, raw));
    let losses = [divergence(&a), divergence(&b)].map(|loss| loss.into_scalar::<f32>());
    assert!((losses[0] - losses[1]).abs() < 1e-4 * losses[0]);
    let expected = host_values(a.quantized * 4.0 + 3.0);
    assert_near(
        &host_values(b.quantized),
        &expected,
        [1e-5, 1e-5],
        "samples",
    );
}

#[test]
fn what_is_not_finite_is_an_error_everywhere() {
    let mut quantizer = built(&GaussianConfig::new(16, 3, 6), &Device::flex());
    for (place, bad) in [
        (3, f32::NAN),
        (4, f32::INFINITY),
        (80, f32::NAN),
        (90, f32::NEG_INFINITY),
    ] {
        let mut values = host_values(moments(1, [2, 6, 2, 2], &Device::flex()));
        values[place] = bad;
        let data = TensorData::new(values, [2, 12, 2, 2]);
        let latents = Tensor::<4>::from_data(data, &Device::flex());
        let mut noise = Noise::from_seed(1);
        let wrong = Some(QuantizeError::NonFinite);
        assert_eq!(quantizer.encode(latents.clone()).err(), wrong);
        assert_eq!(quantizer.quantize(latents.clone(), &mut noise).err(), wrong);
        assert_eq!(
            quantizer.quantize_and_update(latents, &mut noise).err(),
            wrong
        );
    }
    let wide = Tensor::zeros([1, 6, 2, 2], &Device::flex());
    assert_eq!(
        quantizer.encode(wide).unwrap_err().to_string(),
        "latents need 12 channels, got 6"
    );
    let codes = Codes::from_values(&[0, 16], [1, 2, 1, 1], &Device::flex());
    assert_eq!(
        quantizer.decode(&codes).unwrap_err().to_string(),
        "code 16 at depth 1 is outside the codebook of 16"
    );
}

#[test]
fn equal_seeds_sample_alike_and_others_do_not() {
    let quantizer = built(&GaussianConfig::new(16, 3, 6), &Device::flex());
    let latents = moments(1, [2, 6, 2, 2], &Device::flex());
    let draw = |seed| {
        let quantized = quantizer.quantize(latents.clone(), &mut Noise::from_seed(seed));
        host_values(quantized.unwrap().quantized)
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_split_of_a_batch_gives_the_same_codes_in_range(
        seed: u64, scale in 0.0f64..1e6, spread in 0.0f64..40.0, middle in -40.0f64..30.0, cut in 1usize..4,
    ) {
        let config = GaussianConfig {
            codebook_size: PerDepth::Each(vec![32, 8]),
            generator: Generator::Iid,
            seed,
            ..GaussianConfig::new(32, 2, 4)
        };
        let quantizer = built(&config, &Device::flex());
        let means = normal(seed, [4, 4, 2, 3], &Device::flex()) * scale;
        let logs = normal(seed ^ 1, [4, 4, 2, 3], &Device::flex()) * spread + middle;
        let latents = Tensor::cat(vec![means, logs], 1);
        let whole = quantizer.encode(latents.clone()).unwrap().values();
        for (i, id) in whole.iter().enumerate() {
            prop_assert!(*id < [32, 8][i / 6 % 2]);
        }
        let part = |from, count| {
            quantizer.encode(latents.clone().narrow(0, from, count)).unwrap().values()
        };
        let mut parts = part(0, cut);
        parts.extend(part(cut, 4 - cut));
        prop_assert_eq!(whole, parts);
    }
}
