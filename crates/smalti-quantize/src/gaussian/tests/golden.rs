//! Codes and values of the published code, from its own moments.
//!
//! Its scores are f32 sums of terms up to thousands, so that codes must agree only where the best
//! and the second best differ by more than 1e-3 (in half the units of ours).

use super::*;

/// One variant: its name, K, m, c, β, the layout, and whether positions come before channels.
struct Variant {
    name: &'static str,
    size: [usize; 3],
    beta: f64,
    layout: Layout,
    positions_first: bool,
}

fn strided(name: &'static str, size: [usize; 3]) -> Variant {
    Variant {
        name,
        size,
        beta: 1.0,
        layout: Layout::Strided,
        positions_first: false,
    }
}

fn check(golden: &Golden, variant: &Variant) {
    let named = |what: &str| format!("{}.{what}", variant.name);
    let [codebook_size, code_dim, channels] = variant.size;
    let config = GaussianConfig {
        beta: variant.beta,
        layout: variant.layout.clone(),
        ..GaussianConfig::new(codebook_size, code_dim, channels)
    };
    let quantizer = built(&config, &Device::flex());
    // To and from `[batch, positions, channels]` as `[batch, channels, positions, 1]`.
    let read = |what: &str| -> Tensor<4> {
        if variant.positions_first {
            let map: Tensor<3> = golden.tensor(&named(what), &Device::flex());
            map.swap_dims(1, 2).unsqueeze_dim(3)
        } else {
            golden.tensor(&named(what), &Device::flex())
        }
    };
    let latents = read("z");
    let codes = quantizer.encode(latents.clone()).unwrap();
    let [batch, depth, height, width] = codes.dims();
    let positions = height * width;

    // `[batch, positions, depth]`, as statistics are recorded.
    let depth_last = |i: usize| -> usize {
        let (b, g, p) = (
            i / (depth * positions),
            i / positions % depth,
            i % positions,
        );
        (b * positions + p) * depth + g
    };
    let margins = golden.floats(&named("margin"));
    let recorded = golden.ids(&named("indices"));
    let expected: Vec<u32> = (0..batch * depth * positions)
        .map(|i| {
            recorded[if variant.positions_first {
                depth_last(i)
            } else {
                i
            }]
        })
        .collect();
    let mut safe = 0;
    for (i, (got, want)) in codes.values().into_iter().zip(&expected).enumerate() {
        if margins[depth_last(i)] > 1e-3 {
            assert_eq!(got, *want, "{} code {i}", variant.name);
            safe += 1;
        }
    }
    assert!(
        safe * 10 >= expected.len() * 9,
        "the margins are mostly safe"
    );

    let recorded = Codes::from_values(&expected, [batch, depth, height, width], &Device::flex());
    let value = quantizer.decode(&recorded).unwrap();
    let zhat = host_values(read("zhat"));
    assert_near(&host_values(value), &zhat, [1e-6, 0.0], variant.name);

    let bits = quantizer.divergence_bits(latents).unwrap();
    let bits = host_values(bits.permute([0, 2, 3, 1]));
    let kl = golden.floats(&named("kl_bits"));
    assert_near(&bits, &kl, [1e-5, 1e-5], &named("kl_bits"));
}

#[test]
fn codes_values_and_divergences_are_the_published_codes() {
    let golden = Golden::open("gq_quant");
    for variant in [
        strided("a_K65536_m16", [65536, 16, 16]),
        strided("b_K65536_m8", [65536, 8, 16]),
        strided("c_K65536_m4", [65536, 4, 16]),
        strided("d_K4096_m16", [4096, 16, 16]),
        strided("e_K4096_m8", [4096, 8, 16]),
        strided("f_K4096_m4", [4096, 4, 16]),
        Variant {
            beta: 0.0,
            ..strided("g_K4096_m4_beta0", [4096, 4, 16])
        },
        Variant {
            positions_first: true,
            ..strided("h_K4096_m8_blc", [4096, 8, 16])
        },
        Variant {
            layout: Layout::Contiguous,
            ..strided("i_class2_K4096_m4", [4096, 4, 16])
        },
        Variant {
            layout: Layout::Contiguous,
            positions_first: true,
            beta: 0.5,
            ..strided("j_class2_K4096_m8_blc", [4096, 8, 16])
        },
        strided("k_K1024_m1", [1024, 1, 3]),
        strided("l_K4096_m12", [4096, 12, 12]),
    ] {
        check(&golden, &variant);
    }
}

/// Scores of a second, independent implementation: `μ_i = 1.2·sin(0.7 i + 1.3 t)`,
/// `ln σ_i² = −1.5 + 0.8·cos(1.1 i + 0.9 t)`, seed 42, K = 65536.
#[test]
fn codes_of_another_implementation() {
    // m, t, bits, then the code for β = 1 and for β = 0.
    let known = [
        (16, 0, 16.9218, 15005, 15005),
        (16, 1, 18.2088, 35439, 35439),
        (16, 2, 16.6847, 772, 772),
        (8, 0, 8.0364, 56973, 4027),
        (8, 1, 8.7304, 50271, 16135),
        (8, 2, 8.7926, 5768, 30956),
        (4, 0, 4.4903, 51009, 37323),
        (4, 1, 4.8256, 31327, 14511),
        (4, 2, 4.7500, 27304, 52540),
    ];
    for (code_dim, t, bits, with_beta, without) in known {
        let t = f64::from(t);
        let mean = |i: usize| (1.2 * (0.7 * i as f64 + 1.3 * t).sin()) as f32;
        let log = |i: usize| (-1.5 + 0.8 * (1.1 * i as f64 + 0.9 * t).cos()) as f32;
        let values: Vec<f32> = (0..code_dim)
            .map(mean)
            .chain((0..code_dim).map(log))
            .collect();
        let data = TensorData::new(values, [1, 2 * code_dim, 1, 1]);
        let latents = Tensor::<4>::from_data(data, &Device::flex());
        for (beta, expected) in [(1.0, with_beta), (0.0, without)] {
            let config = GaussianConfig {
                beta,
                ..GaussianConfig::new(65536, code_dim, code_dim)
            };
            let quantizer = built(&config, &Device::flex());
            let codes = quantizer.encode(latents.clone()).unwrap();
            assert_eq!(codes.values(), [expected], "m {code_dim}, t {t}, β {beta}");
            let got = quantizer.divergence_bits(latents.clone()).unwrap();
            let got = got.into_scalar::<f32>();
            // Those are exact bits, ours 1.4426 a nat.
            assert!((got - bits).abs() < 2e-3, "{got} {bits}");
        }
    }
}
