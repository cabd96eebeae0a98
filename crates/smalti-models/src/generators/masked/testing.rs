//! Small models for the tests of this folder.

use burn::tensor::Device;
use smalti_nn::Init;

use super::config::{MaskedConfig, MaskedLesson};
use super::model::Masked;
use crate::generators::class_condition::ClassCondition;
use crate::generators::layout::CodebookSize;

/// A class-conditional model on maps of 2×3 positions with so many codes out of 12 at each.
pub(super) fn tiny(depth: usize) -> MaskedConfig {
    MaskedConfig {
        height: 2,
        width: 3,
        depth,
        codebook_size: CodebookSize::Same(12),
        embed_dim: 16,
        layers: 2,
        heads: 2,
        condition: ClassCondition::Class {
            classes: 4,
            dropout: 0.1,
        },
        dropout: 0.1,
        lesson: MaskedLesson::default(),
    }
}

/// With and without classes, with codebooks of one size and of several.
pub(super) fn all_kinds() -> Vec<MaskedConfig> {
    vec![
        tiny(1),
        MaskedConfig {
            codebook_size: CodebookSize::PerDepth(vec![12, 7]),
            ..tiny(2)
        },
        MaskedConfig {
            condition: ClassCondition::Unconditional {},
            ..tiny(2)
        },
    ]
}

/// Random weights that are large enough to make a difference.
pub(super) fn random(config: &MaskedConfig, device: &Device, seed: u64) -> Masked {
    let mut init = Init::new(device, seed);
    config.build_with(0.4, &mut init).unwrap()
}
