//! Small models for the tests of this folder.

use burn::tensor::Device;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use smalti_nn::Init;
use smalti_quantize::Codes;

use super::config::{DiffusionConfig, PerceptronConfig, ProcessConfig};
use super::model::Diffusion;
use crate::generators::class_condition::ClassCondition;
use crate::generators::conditions::Conditions;
use crate::generators::layout::{CodeLayout, CodebookSize};

/// A class-conditional model on maps of 2×3 positions with so many codes out of 12 at each, in a chain
/// of 8 steps.
pub(in crate::generators) fn tiny(depth: usize) -> DiffusionConfig {
    DiffusionConfig {
        height: 2,
        width: 3,
        depth,
        codebook_size: CodebookSize::Same(12),
        embed_dim: 16,
        layers: 2,
        heads: 2,
        perceptron: PerceptronConfig::Linear {},
        condition: ClassCondition::Class {
            classes: 4,
            dropout: 0.1,
        },
        process: ProcessConfig {
            steps: 8,
            ..ProcessConfig::default()
        },
    }
}

/// A model of every kind of perceptron and condition, with codebooks of one size and of several.
pub(super) fn all_kinds() -> Vec<DiffusionConfig> {
    vec![
        tiny(1),
        DiffusionConfig {
            perceptron: PerceptronConfig::Convolution {},
            codebook_size: CodebookSize::PerDepth(vec![12, 7]),
            ..tiny(2)
        },
        DiffusionConfig {
            condition: ClassCondition::Unconditional {},
            ..tiny(2)
        },
    ]
}

/// Random weights that are large enough to make a difference.
pub(in crate::generators) fn random(
    config: &DiffusionConfig,
    device: &Device,
    seed: u64,
) -> Diffusion {
    let mut init = Init::new(device, seed);
    config.build_with(0.4, &mut init).unwrap()
}

/// Conditions of the right kind.
pub(in crate::generators) fn conditions(condition: &ClassCondition, samples: usize) -> Conditions {
    match condition {
        ClassCondition::Unconditional {} => Conditions::Unconditional(samples),
        ClassCondition::Class { classes, .. } => {
            Conditions::Classes((0..samples).map(|i| (i % classes) as u32).collect())
        }
    }
}

/// Random codes.
pub(in crate::generators) fn random_codes(layout: &CodeLayout, batch: usize, seed: u64) -> Codes {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let ids: Vec<u32> = (0..batch * layout.codes())
        .map(|i| {
            let size = layout.codebook_sizes[layout.depth_of(i % layout.codes())];
            rng.random_range(0..size as u32)
        })
        .collect();
    let shape = [batch, layout.depth(), layout.height, layout.width];
    Codes::from_values(&ids, shape, &Device::flex())
}
