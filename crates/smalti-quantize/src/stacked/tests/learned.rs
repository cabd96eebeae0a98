//! Residual quantizers with learned codebooks of the common library (`ResidualVQ`,
//! `GroupedResidualVQ`): one step of training, with the moving averages it leaves.
//!
//! Recorded gradients are of Σ value · probe + Σ commit_loss. The reference adds the estimators of
//! its stages and the losses of its stages; ours are means: both are multiplied by the number of
//! stages here.
//!
//! A shared codebook is another matter: the reference decays its averages once for every stage and
//! rewrites the table at the end, [`residual`](crate::residual) offers one update from all stages or
//! a rewrite after each. Codes, values and losses are compared; the averages cannot be.

use super::*;
use crate::rows::unit_rows;
use crate::testing::{assert_near, pytorch, weighted, with_arrays};
use crate::{Codebook, Estimator, GroupedConfig, Learning, ResidualConfig, Start, UpdateOrder};
use smalti_nn::linear;
use smalti_nn::nearest::largest_products;

const CASE: &str = "quant_lucid_residual";
const STAGES: f64 = 3.0;

fn learning(decay: f32) -> Learning {
    Learning {
        decay,
        revival: Revival::Off {},
        start: Start::Normal {},
        ..Learning::default()
    }
}

fn stages(width: usize, estimator: Estimator, decay: f32) -> StackedConfig {
    let stage = VectorConfig {
        estimator,
        learning: learning(decay),
        ..VectorConfig::new(32, width)
    };
    StackedConfig::new(3, QuantizerConfig::Vector(stage))
}

/// Names here and in the reference, of one stage.
fn names(ours: &str, theirs: &str) -> [(String, String); 3] {
    [
        ("weight", "embed"),
        ("cluster_size_ema", "cluster_size"),
        ("embed_ema", "embed_avg"),
    ]
    .map(|(our, their)| {
        (
            format!("{ours}.codebook.{our}"),
            format!("{theirs}._codebook.{their}"),
        )
    })
}

/// A quantizer with the recorded state; `prefixes` are those of every stage, here and there.
fn recorded<M: Module>(fresh: M, file: &str, prefixes: &[(String, String)]) -> M {
    let weights = pytorch(CASE, file);
    let arrays: Vec<(String, Vec<f32>)> = prefixes
        .iter()
        .flat_map(|(ours, theirs)| names(ours, theirs))
        .map(|(our, their)| (our, weights.0[&their].values.clone()))
        .collect();
    let arrays: Vec<(&str, Vec<f32>)> = arrays
        .iter()
        .map(|(name, values)| (name.as_str(), values.clone()))
        .collect();
    with_arrays(fresh, &arrays)
}

fn stacked_prefixes() -> Vec<(String, String)> {
    (0..3)
        .map(|d| (format!("stages.{d}"), format!("layers.{d}")))
        .collect()
}

/// The averages and the table that the step leaves.
fn check_state<M: Module>(quantizer: &M, file: &str, prefixes: &[(String, String)]) {
    let (after, state) = (pytorch(CASE, file), Weights::of(quantizer));
    for (ours, theirs) in prefixes {
        for (our, their) in names(ours, theirs) {
            assert_golden(&state.0[&our].values, &after.0[&their].values, &our);
        }
    }
}

struct Seen {
    value: Tensor<4>,
    codes: Codes,
    commitment: Tensor<1>,
}

impl Seen {
    fn of(quantized: Quantized) -> Self {
        Self {
            commitment: loss(&quantized, "commitment"),
            value: quantized.quantized,
            codes: quantized.codes,
        }
    }

    /// Holds values, the losses' sum and the gradient of x against the record. `weight` is the
    /// reference's commitment weight.
    fn check(self, golden: &Golden, variant: &str, x: &Tensor<4>, weight: f64) {
        let named = |name: &str| format!("{variant}.train.{name}");
        let expected = golden.floats(&named("quantized"));
        assert_golden(&rows(self.value.clone()), &expected, &named("quantized"));
        let commitments = golden.floats(&named("commit_loss"));
        let sum = self
            .commitment
            .mul_scalar(weight * commitments.len() as f64);
        let expected: f32 = commitments.iter().sum();
        let got = sum.clone().into_scalar::<f32>();
        assert!((got - expected).abs() < 1e-5 * expected, "{got} {expected}");
        let probe = latents(golden, &named("grad_probe"), &x.device());
        let total = (self.value * probe).sum().mul_scalar(STAGES) + sum;
        let gradient = x.grad(&total.backward()).expect("tracked");
        let expected = golden.floats(&named("grad_x"));
        // Sums of three terms of up to ten: the tolerance is that of the terms.
        assert_near(&rows(gradient), &expected, [1e-4, 1e-4], &named("grad_x"));
    }
}

fn learn(quantizer: &mut impl Learn, latents: Tensor<4>) -> Seen {
    let mut noise = Noise::from_seed(1);
    let (quantized, _) = quantizer.quantize_and_update(latents, &mut noise).unwrap();
    Seen::of(quantized)
}

/// Evaluation: codes, their sum, and the sum found again from the codes.
fn check_evaluation(quantizer: &impl Quantizer, golden: &Golden, variant: &str) {
    let named = |name: &str| format!("{variant}.{name}");
    let latents = latents(golden, &named("x"), &Device::flex());
    let codes = quantizer.encode(latents).unwrap();
    assert_eq!(depth_last(&codes), golden.ids(&named("indices")));
    let value = rows(quantizer.decode(&codes).unwrap());
    assert_golden(&value, &golden.floats(&named("quantized")), "quantized");
    assert_golden(
        &value,
        &golden.floats(&named("output_from_indices")),
        "decoded",
    );
}

fn check_stacked(variant: &str, config: &StackedConfig) {
    let golden = Golden::open(CASE);
    let device = Device::flex().autodiff();
    let file = format!("{variant}.pt");
    let prefixes = stacked_prefixes();
    let mut quantizer = recorded(built(config, &device), &file, &prefixes);
    check_evaluation(&quantizer, &golden, variant);
    let x = latents(&golden, &format!("{variant}.x"), &device).require_grad();
    let seen = learn(&mut quantizer, x.clone());
    let codes = depth_last(&seen.codes);
    assert_eq!(codes, golden.ids(&format!("{variant}.train.indices")));
    seen.check(&golden, variant, &x, 1.0);
    let file = format!("{variant}.after_train.pt");
    check_state(&quantizer, &file, &prefixes);
}

#[test]
fn a_step_with_the_rotation_trick() {
    check_stacked("residual", &stages(8, Estimator::Rotation, 0.8));
}

/// The cosine codebook of the reference takes its codes as stored, for the search and as values, and
/// scales them when it writes them. The record starts from codes of any length, which no training
/// leaves behind; ours would be scaled when read. So the codebook itself is followed through the
/// step: choices, averages, and the table that is left, which must have the recorded directions.
#[test]
fn the_averages_of_a_step_by_the_cosine() {
    let (golden, device) = (Golden::open(CASE), Device::flex());
    let (before, after) = (
        pytorch(CASE, "residual_cos.pt"),
        pytorch(CASE, "residual_cos.after_train.pt"),
    );
    let mut residual = golden
        .tensor::<3>("residual_cos.x", &device)
        .reshape([48, 8]);
    let ids = golden.ids("residual_cos.train.indices");
    let commitments = golden.floats("residual_cos.train.commit_loss");
    let mut rng = Noise::from_seed(1);
    for (stage, commitment) in commitments.into_iter().enumerate() {
        let named = |name: &str| format!("layers.{stage}._codebook.{name}");
        let fresh = Codebook::new(32, 8, &learning(0.8), &mut Init::new(&device, 5));
        let arrays = [
            ("weight", before.0[&named("embed")].values.clone()),
            (
                "cluster_size_ema",
                before.0[&named("cluster_size")].values.clone(),
            ),
            ("embed_ema", before.0[&named("embed_avg")].values.clone()),
        ];
        let mut codebook = with_arrays(fresh, &arrays);
        let unit = unit_rows(residual.clone());
        let chosen = largest_products(unit.clone(), codebook.table()).unwrap();
        let expected: Vec<u32> = ids.iter().skip(stage).step_by(3).copied().collect();
        assert_eq!(id_values(chosen.clone()), expected);
        let codes = codebook.lookup(chosen);
        let gap = (unit.clone() - codes.clone())
            .square()
            .mean()
            .into_scalar::<f32>();
        assert!((gap - commitment).abs() < 1e-5 * gap);

        let vectors = host_values(unit);
        codebook
            .update(&vectors, &expected, &learning(0.8), rng.rng())
            .unwrap();
        let state = Weights::of(&codebook);
        for (our, their) in [
            ("cluster_size_ema", "cluster_size"),
            ("embed_ema", "embed_avg"),
        ] {
            let expected = &after.0[&named(their)].values;
            assert_golden(&state.0[our].values, expected, their);
        }
        let table = host_values(unit_rows(codebook.table()));
        assert_golden(&table, &after.0[&named("embed")].values, "embed");
        residual = residual - codes;
    }
}

/// Linear maps around the stack, as the autoencoder's 1×1 convolutions here.
#[test]
fn a_step_between_projections() {
    let (golden, device) = (Golden::open(CASE), Device::flex().autodiff());
    let config = stages(6, Estimator::StraightThrough, 0.9);
    let prefixes = stacked_prefixes();
    let mut quantizer = recorded(built(&config, &device), "residual_proj.pt", &prefixes);
    let weights = pytorch(CASE, "residual_proj.pt");
    let project = |map: Tensor<4>, name: &str| -> Tensor<4> {
        let device = map.device();
        let array = |part: &str| &weights.0[&format!("{name}.{part}")];
        let weight = array("weight");
        let shape: [usize; 2] = weight.shape.clone().try_into().unwrap();
        let data = TensorData::new(weight.values.clone(), shape);
        let bias = TensorData::new(array("bias").values.clone(), [shape[0]]);
        let mapped = linear(
            map.permute([0, 2, 3, 1]),
            Tensor::from_data(data, &device),
            Some(Tensor::from_data(bias, &device)),
        );
        mapped.permute([0, 3, 1, 2])
    };
    let plain = latents(&golden, "residual_proj.x", &Device::flex());
    let codes = quantizer.encode(project(plain, "project_in")).unwrap();
    assert_eq!(depth_last(&codes), golden.ids("residual_proj.indices"));
    let value = project(quantizer.decode(&codes).unwrap().inner(), "project_out");
    assert_golden(
        &rows(value),
        &golden.floats("residual_proj.quantized"),
        "quantized",
    );

    let x = latents(&golden, "residual_proj.x", &device).require_grad();
    let seen = learn(&mut quantizer, project(x.clone(), "project_in"));
    let codes = depth_last(&seen.codes);
    assert_eq!(codes, golden.ids("residual_proj.train.indices"));
    let seen = Seen {
        value: project(seen.value, "project_out"),
        ..seen
    };
    seen.check(&golden, "residual_proj", &x, 0.5);
    check_state(&quantizer, "residual_proj.after_train.pt", &prefixes);
}

#[test]
fn a_step_of_groups_of_stacks() {
    let (golden, device) = (Golden::open(CASE), Device::flex().autodiff());
    // The recorded gradient is the straight-through one.
    let stack = stages(4, Estimator::StraightThrough, 0.8);
    let config = GroupedConfig {
        shared: false,
        ..GroupedConfig::new(2, QuantizerConfig::Stacked(stack))
    };
    let fresh = config.build(&mut Init::new(&device, 5)).unwrap();
    let prefixes: Vec<(String, String)> = (0..2)
        .flat_map(|g| (0..3).map(move |d| (g, d)))
        .map(|(g, d)| {
            (
                format!("parts.{g}.stages.{d}"),
                format!("rvqs.{g}.layers.{d}"),
            )
        })
        .collect();
    let mut quantizer = recorded(fresh, "grouped.pt", &prefixes);
    let x = latents(&golden, "grouped.x", &device).require_grad();
    let codes = quantizer.encode(x.clone()).unwrap();
    let value = rows(quantizer.decode(&codes).unwrap());
    assert_golden(&value, &golden.floats("grouped.quantized"), "quantized");
    assert_golden(
        &value,
        &golden.floats("grouped.output_from_indices"),
        "decoded",
    );
    let seen = learn(&mut quantizer, x.clone());
    // Recorded with the group as the slowest axis, then batch, position, stage.
    for (codes, name) in [(&codes, "indices"), (&seen.codes, "train.indices")] {
        let groups = [0, 3].map(|first| Codes::new(codes.tensor().narrow(1, first, 3)));
        let ids = groups.map(|codes| depth_last(&codes)).concat();
        assert_eq!(ids, golden.ids(&format!("grouped.{name}")));
    }
    seen.check(&golden, "grouped", &x, 1.0);
    check_state(&quantizer, "grouped.after_train.pt", &prefixes);
}

#[test]
fn a_shared_codebook_up_to_its_averages() {
    let (golden, device) = (Golden::open(CASE), Device::flex());
    let config = ResidualConfig {
        learning: Learning {
            order: UpdateOrder::Joint,
            ..learning(0.8)
        },
        ..ResidualConfig::new(32, 8, 3)
    };
    let fresh = config.build(&mut Init::new(&device, 5)).unwrap();
    let weights = pytorch(CASE, "residual_shared.pt");
    let table = weights.0["layers.0._codebook.embed"].values.clone();
    let mut quantizer = with_arrays(fresh, &[("codebooks.0.weight", table)]);
    check_evaluation(&quantizer, &golden, "residual_shared");
    let x = latents(&golden, "residual_shared.x", &device);
    let mut noise = Noise::from_seed(1);
    let (seen, _) = quantizer.quantize_and_update(x, &mut noise).unwrap();
    let codes = depth_last(&seen.codes);
    assert_eq!(codes, golden.ids("residual_shared.train.indices"));
    let expected = golden.floats("residual_shared.train.quantized");
    assert_golden(&rows(seen.quantized.clone()), &expected, "quantized");
    let commitments = golden.floats("residual_shared.train.commit_loss");
    let sum = weighted(&seen, &[("commitment", STAGES)]).into_scalar::<f32>();
    let expected: f32 = commitments.iter().sum();
    assert!((sum - expected).abs() < 1e-5 * expected, "{sum} {expected}");
}
