//! Small models for the tests of this folder.

use burn::tensor::Device;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use smalti_nn::Init;
use smalti_quantize::Codes;

use super::config::{GptCondition, GptConfig};
use super::model::Gpt;
use crate::generators::conditions::Conditions;
use crate::generators::layout::CodebookSize;

/// A class-conditional model on maps of 2×3 positions, in a vocabulary larger than its codebook.
pub(in crate::generators) fn tiny() -> GptConfig {
    GptConfig {
        height: 2,
        width: 3,
        depth: 1,
        codebook_size: CodebookSize::Same(12),
        vocab_size: 14,
        block_size: 7,
        embed_dim: 16,
        layers: 2,
        heads: 2,
        condition: GptCondition::Class { classes: 4 },
        keep: 1.0,
        embedding_dropout: 0.0,
        attention_dropout: 0.0,
        residual_dropout: 0.0,
    }
}

/// The same without a condition, with no place to spare.
pub(super) fn tiny_free() -> GptConfig {
    GptConfig {
        vocab_size: 12,
        block_size: 6,
        condition: GptCondition::Unconditional { start_token: 3 },
        ..tiny()
    }
}

/// Two codes at a position, of codebooks of different sizes.
pub(super) fn tiny_deep() -> GptConfig {
    GptConfig {
        depth: 2,
        codebook_size: CodebookSize::PerDepth(vec![12, 5]),
        block_size: 12,
        ..tiny()
    }
}

/// Random weights that are large enough to make a difference.
pub(in crate::generators) fn random(config: &GptConfig, device: &Device, seed: u64) -> Gpt {
    let mut init = Init::new(device, seed);
    config.build_with(0.4, 0.4, &mut init).unwrap()
}

/// Conditions of the right kind.
pub(super) fn conditions(config: &GptConfig, samples: usize) -> Conditions {
    match config.condition {
        GptCondition::Unconditional { .. } => Conditions::Unconditional(samples),
        GptCondition::Class { classes } => {
            Conditions::Classes((0..samples).map(|i| (i % classes) as u32).collect())
        }
    }
}

/// Random codes.
pub(super) fn random_codes(config: &GptConfig, batch: usize, seed: u64) -> Codes {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (sizes, positions) = (config.codebook_sizes(), config.height * config.width);
    let ids: Vec<u32> = (0..batch * config.codes())
        .map(|i| rng.random_range(0..sizes[i / positions % config.depth] as u32))
        .collect();
    let shape = [batch, config.depth, config.height, config.width];
    Codes::from_values(&ids, shape, &Device::flex())
}
