use std::path::Path;

use super::*;
use crate::testing::{
    Golden, assert_golden, assert_near, assert_quantizer, assert_scalar, assert_slopes, loss, map,
    normal, quantized, weighted, with_arrays,
};
use crate::{Revival, Start};
use burn::tensor::Device;
use smalti_nn::state::{Weights, host_values};

const SHAPE: [usize; 4] = [2, 6, 2, 3];

fn config(codebook_size: usize, code_dim: usize, depth: usize) -> FactorizedConfig {
    let mut config = FactorizedConfig {
        entropies: Some(DistanceEntropies::default()),
        ..FactorizedConfig::new(codebook_size, code_dim, depth)
    };
    (config.learning.revival, config.learning.start) = (Revival::Off {}, Start::Normal {});
    config
}

fn built(config: &FactorizedConfig, device: &Device) -> FactorizedQuantizer {
    config.build(&mut Init::new(device, 5)).unwrap()
}

fn name_of(branch: usize) -> String {
    format!("branches.parts.{branch}.codebook.weight")
}

/// One case of FQGAN: its branches in order, and its codebooks as published.
struct Published {
    golden: Golden,
    weights: Weights,
    branches: Vec<&'static str>,
}

impl Published {
    fn open(case: &str, branches: &[&'static str]) -> Self {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens");
        let path = format!("{root}/{case}/model.pt");
        let wanted = |name: &str| name.starts_with("quantize");
        Self {
            golden: Golden::open(case),
            weights: Weights::read_pytorch_where(Path::new(&path), &["model"], wanted).unwrap(),
            branches: branches.to_vec(),
        }
    }

    fn quantizer(&self, codebook_size: usize, device: &Device) -> FactorizedQuantizer {
        let tables = self.branches.iter().enumerate().map(|(i, branch)| {
            let table = &self.weights.0[&format!("quantize_{branch}.embedding.weight")];
            (name_of(i), table.values.clone())
        });
        let tables: Vec<(String, Vec<f32>)> = tables.collect();
        let tables: Vec<(&str, Vec<f32>)> = tables
            .iter()
            .map(|(name, values)| (name.as_str(), values.clone()))
            .collect();
        let fresh = built(&config(codebook_size, 8, self.branches.len()), device);
        with_arrays(fresh, &tables)
    }

    /// The recorded maps of all branches along the channels.
    fn maps(&self, start: &str, device: &Device) -> Tensor<4> {
        let branch = |branch: &&str| self.golden.tensor(&format!("{start}_{branch}"), device);
        Tensor::cat(self.branches.iter().map(branch).collect(), 1)
    }

    /// The sum of a number that is recorded for every branch.
    fn sum(&self, start: &str) -> f32 {
        let branch = |branch: &&str| self.golden.number(&format!("{start}_{branch}"));
        self.branches.iter().map(branch).sum()
    }
}

/// The smallest recorded margin is 5.9e-5, of distances that float32 gets right to 1e-6: all codes
/// must be equal.
fn published_values_codes_and_losses(case: &str, codebook_size: usize, branches: &[&'static str]) {
    let (published, device) = (Published::open(case, branches), Device::flex());
    let quantizer = published.quantizer(codebook_size, &device);
    let seen = quantized(&quantizer, published.maps("h", &device));
    let recorded = published.maps("quant", &device);
    assert_golden(
        &host_values(seen.quantized.clone()),
        &host_values(recorded),
        "quantized",
    );
    for (depth, branch) in branches.iter().enumerate() {
        let ids: Vec<u32> = smalti_nn::nearest::id_values(seen.codes.at_depth(depth));
        assert_eq!(
            ids,
            published.golden.ids(&format!("codes_{branch}")),
            "{branch}"
        );
    }
    // The recorded commitment is weighed with 0.25, the entropies with 0.03 and the last with 0.1.
    let commitment = loss(&seen, "commitment").mul_scalar(0.25);
    assert_scalar(commitment, published.sum("commit"), "commitment");
    assert_scalar(loss(&seen, "codebook"), published.sum("vq"), "codebook");
    let entropies = weighted(&seen, &[("sample_entropy", 0.03), ("unused_entropy", 0.03)]);
    let most = 0.03 * branches.len() as f32 * (codebook_size as f32).ln();
    assert_scalar(entropies, published.sum("entropy") + most, "entropies");
    let disentanglement = loss(&seen, "disentanglement").mul_scalar(0.1);
    let recorded = published.golden.number("disentangle_loss");
    assert_scalar(disentanglement, recorded, "disentanglement");

    let pairs = quantizer.correlations(&seen.codes).unwrap();
    let mean = pairs
        .iter()
        .map(|pair| pair.mean_squared_cosine)
        .sum::<f64>()
        / pairs.len() as f64;
    assert!((0.1 * mean - f64::from(recorded)).abs() < 1e-5, "{pairs:?}");
}

#[test]
fn two_branches_as_published() {
    published_values_codes_and_losses("fqgan_dual", 96, &["vis", "sem"]);
}

#[test]
fn three_branches_as_published() {
    published_values_codes_and_losses("fqgan_triple", 80, &["vis", "sem_mid", "sem_high"]);
}

#[test]
fn it_does_what_every_quantizer_does() {
    for depth in 1..=3 {
        let mut quantizer = built(&config(9, 2, depth), &Device::flex());
        assert_quantizer(&mut quantizer, 2 * depth);
    }
}

#[test]
fn one_branch_is_a_vector_quantizer() {
    let device = Device::flex();
    let config = config(9, 3, 1);
    let (one, vector) = (
        built(&config, &device),
        config.branch().build(&mut Init::new(&device, 5)).unwrap(),
    );
    let latents = normal(1, [2, 3, 2, 2], &device);
    let (seen, expected) = (
        quantized(&one, latents.clone()),
        quantized(&vector, latents),
    );
    assert_eq!(seen.codes.values(), expected.codes.values());
    let names = |quantized: &Quantized| -> Vec<(&str, f32)> {
        let losses = quantized.losses.iter();
        losses
            .map(|(name, loss)| (*name, loss.clone().into_scalar::<f32>()))
            .collect()
    };
    assert_eq!(
        names(&seen),
        names(&expected),
        "no pair, no disentanglement"
    );
    assert!(one.correlations(&seen.codes).unwrap().is_empty());
}

/// Every loss as a function of the latents and of each table, by finite differences. A loss that is a
/// function of values has no slope of its own over latents: the codes do not move.
#[test]
fn every_loss_has_its_slope_on_both_sides() {
    let mut config = config(7, 3, 2);
    config.entropies = Some(DistanceEntropies {
        inverse_temperature: 2.0,
        ..DistanceEntropies::default()
    });
    let device = Device::flex().autodiff();
    let quantizer = built(&config, &device);
    let weights = Weights::of(&quantizer).0;
    let plain = host_values(normal(3, SHAPE, &Device::flex()));
    let run = |name: &str, latents: Vec<f32>, branch: usize, table: Vec<f32>| {
        let fresh = built(&config, &Device::flex());
        let quantizer = with_arrays(fresh, &[(&name_of(branch), table)]);
        let seen = quantized(&quantizer, map(latents, SHAPE, &Device::flex()));
        (loss(&seen, name).into_scalar::<f32>(), seen.codes.values())
    };
    for (name, of_latents, of_tables) in [
        ("commitment", true, false),
        ("codebook", false, true),
        ("sample_entropy", true, true),
        ("unused_entropy", true, true),
    ] {
        let latents = normal(3, SHAPE, &device).require_grad();
        let gradients = loss(&quantized(&quantizer, latents.clone()), name).backward();
        let gradient = latents.grad(&gradients).map(host_values);
        assert_eq!(gradient.is_some(), of_latents, "{name}");
        let first = weights[&name_of(0)].values.clone();
        if let Some(gradient) = gradient {
            assert_slopes(&plain, &gradient, 0.7, |moved| {
                run(name, moved, 0, first.clone())
            });
        }
        for branch in 0..2 {
            let table = stored(&quantizer, branch);
            let gradient = table.grad(&gradients).map(host_values);
            assert_eq!(gradient.is_some(), of_tables, "{name} {branch}");
            if let Some(gradient) = gradient {
                let values = host_values(table.inner());
                assert_slopes(&values, &gradient, 0.7, |moved| {
                    run(name, plain.clone(), branch, moved)
                });
            }
        }
    }
}

/// The stored table of a branch, before it is scaled.
fn stored(quantizer: &FactorizedQuantizer, branch: usize) -> Tensor<2> {
    quantizer.part(branch).codebook().table()
}

/// The straight-through estimator by hand: the slope of the loss over the *value*, taken through the
/// scaling of the latents.
#[test]
fn disentanglement_moves_latents_by_the_slope_over_the_values_and_no_code() {
    let config = config(7, 3, 2);
    let device = Device::flex().autodiff();
    let quantizer = built(&config, &device);
    let latents = normal(3, SHAPE, &device).require_grad();
    let seen = quantized(&quantizer, latents.clone());
    let gradients = loss(&seen, "disentanglement").backward();
    for branch in 0..2 {
        assert!(stored(&quantizer, branch).grad(&gradients).is_none());
    }

    let values = host_values(seen.quantized.inner());
    let of = |values: Vec<f32>| {
        let values = map(values, SHAPE, &Device::flex());
        correlations(values, 2)[0].mean_squared_cosine
    };
    let slopes = (0..values.len()).map(|i| {
        let at = |offset: f32| {
            let mut moved = values.clone();
            moved[i] += offset;
            of(moved)
        };
        ((at(1e-3) - at(-1e-3)) / 2e-3) as f32
    });
    let slopes = map(slopes.collect(), SHAPE, &device);
    // Back through x/‖x‖ of each branch.
    let again = normal(3, SHAPE, &device).require_grad();
    let unit = |branch: usize| {
        let rows = unit_rows(to_rows(again.clone().narrow(1, 3 * branch, 3)));
        crate::rows::from_rows(rows, [2, 2, 3])
    };
    let scaled = Tensor::cat(vec![unit(0), unit(1)], 1);
    let expected = again.grad(&(scaled * slopes).sum().backward()).unwrap();
    let gradient = latents.grad(&gradients).expect("the encoder is moved");
    assert_near(
        &host_values(gradient),
        &host_values(expected),
        [2e-4, 1e-2],
        "gradient",
    );
}

#[test]
fn a_branch_by_itself_has_zeros_elsewhere() {
    let device = Device::flex();
    let quantizer = built(&config(7, 3, 2), &device);
    let codes = quantizer.encode(normal(1, SHAPE, &device)).unwrap();
    let whole = quantizer.decode(&codes).unwrap();
    let [first, second] = [0, 1].map(|b| quantizer.decode_branch(&codes, b).unwrap());
    assert_eq!(
        host_values(first.clone() + second.clone()),
        host_values(whole)
    );
    let largest = |map: Tensor<4>| map.abs().max().into_scalar::<f32>();
    assert!(largest(first.narrow(1, 3, 3)) == 0.0 && largest(second.narrow(1, 0, 3)) == 0.0);
    let refusal = QuantizeError::Depths {
        start: 2,
        end: 3,
        depth: 2,
    };
    assert_eq!(quantizer.decode_branch(&codes, 2).err(), Some(refusal));
}

#[test]
fn correlation_is_one_of_equal_and_nothing_of_orthogonal_branches() {
    let device = Device::flex();
    // Three branches of two channels at one position: a, −2a, and one at a right angle.
    let values = map(vec![3.0, 4.0, -6.0, -8.0, -4.0, 3.0], [1, 6, 1, 1], &device);
    let found = correlations(values, 3);
    let pairs = found.iter().map(|pair| pair.branches);
    assert_eq!(pairs.collect::<Vec<_>>(), [[0, 1], [0, 2], [1, 2]]);
    for (pair, expected) in found.iter().zip([1.0, 0.0, 0.0]) {
        assert!(
            (pair.mean_squared_cosine - expected).abs() < 1e-6,
            "{pair:?}"
        );
    }
}

/// Independent directions in eight dimensions: 1/8.
#[test]
fn independent_branches_have_the_correlation_of_chance() {
    let maps = normal(1, [8, 16, 32, 32], &Device::flex());
    let found = correlations(maps, 2)[0].mean_squared_cosine;
    assert!((found - 0.125).abs() < 0.005, "{found}");
}

#[test]
fn dead_codes_of_every_branch_are_revived() {
    let mut config = config(16, 2, 2);
    config.learning.revival = Revival::Unused { patience: 1 };
    let mut quantizer = built(&config, &Device::flex());
    let latents = normal(1, [1, 4, 1, 2], &Device::flex());
    let mut noise = Noise::from_seed(1);
    let mut revived = 0;
    for _ in 0..3 {
        let (_, report) = quantizer
            .quantize_and_update(latents.clone(), &mut noise)
            .unwrap();
        assert_eq!(report.codes, 32);
        revived += report.revived;
    }
    assert!(revived > 0);
}

#[test]
fn validation_names_every_problem() {
    let mut config = config(0, 0, 0);
    config.entropies = Some(DistanceEntropies {
        inverse_temperature: 0.0,
        ..DistanceEntropies::default()
    });
    let message = config.validate().unwrap_err().to_string();
    for part in [
        "codebook_size must be",
        "code_dim must be",
        "depth must be",
        "entropies: inverse_temperature",
    ] {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}
