//! Small models for the tests of this folder.

use burn::tensor::Device;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use smalti_nn::{Init, Noise};
use smalti_quantize::Codes;

use super::config::{FarCondition, FarConfig, HeadConfig};
use super::model::Far;
use crate::generators::conditions::{Caption, Conditions};
use crate::generators::layout::CodebookSize;

/// A class-conditional model on maps of 2×3 positions with so many codes out of 12 at each.
pub(in crate::generators) fn tiny(depth: usize) -> FarConfig {
    FarConfig {
        height: 2,
        width: 3,
        depth,
        codebook_size: CodebookSize::Same(12),
        embed_dim: 16,
        layers: 2,
        heads: 2,
        hidden: Some(24),
        head: HeadConfig::Autoregressive { layers: 1 },
        condition: FarCondition::classes(4),
        token_dropout: 0.1,
        residual_dropout: 0.1,
    }
}

/// A model of every kind of head and condition.
pub(super) fn all_kinds() -> Vec<FarConfig> {
    vec![
        tiny(3),
        FarConfig {
            head: HeadConfig::Linear {},
            condition: FarCondition::Unconditional {},
            ..tiny(1)
        },
        FarConfig {
            head: HeadConfig::Mlp {},
            codebook_size: CodebookSize::PerDepth(vec![12, 7]),
            ..tiny(2)
        },
        FarConfig {
            condition: FarCondition::Caption {
                tokens: 5,
                feature_dim: 3,
                dropout: 0.1,
            },
            ..tiny(2)
        },
    ]
}

/// Random weights that are large enough to make a difference.
pub(in crate::generators) fn random(config: &FarConfig, device: &Device, seed: u64) -> Far {
    let mut init = Init::new(device, seed);
    config.build_with(0.4, 0.4, &mut init).unwrap()
}

/// Conditions of the right kind; captions of three tokens.
pub(super) fn conditions(config: &FarConfig, samples: usize) -> Conditions {
    match config.condition {
        FarCondition::Unconditional {} => Conditions::Unconditional(samples),
        FarCondition::Class { classes, .. } => {
            Conditions::Classes((0..samples).map(|i| (i % classes) as u32).collect())
        }
        FarCondition::Caption { feature_dim, .. } => {
            let caption = |i| Caption {
                values: Noise::from_seed(i).normal_values(3 * feature_dim),
                width: feature_dim,
            };
            Conditions::Captions((0..samples as u64).map(caption).collect())
        }
    }
}

/// Random codes.
pub(super) fn random_codes(config: &FarConfig, batch: usize, seed: u64) -> Codes {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (sizes, positions) = (config.codebook_sizes(), config.positions());
    let ids: Vec<u32> = (0..batch * config.depth * positions)
        .map(|i| rng.random_range(0..sizes[i / positions % config.depth] as u32))
        .collect();
    let shape = [batch, config.depth, config.height, config.width];
    Codes::from_values(&ids, shape, &Device::flex())
}
