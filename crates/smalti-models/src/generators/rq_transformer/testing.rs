//! Small models for the tests of this folder.

use burn::tensor::Device;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use smalti_nn::Init;
use smalti_quantize::Codes;

use super::config::{
    CodeInput, CodebookSize, Condition, RqTransformerConfig, Sharing, StackConfig,
};
use super::{CodeEmbedding, RqTransformer};

/// A class-conditional model on maps of 2×3 positions and 3 codes out of 12.
pub(super) fn tiny() -> RqTransformerConfig {
    RqTransformerConfig {
        height: 2,
        width: 3,
        depth: 3,
        codebook_size: CodebookSize::Same(12),
        embed_dim: 16,
        embedding: CodeInput::Tokenizer {
            code_dim: 6,
            cumulative: true,
        },
        classifier: Sharing::Shared,
        condition: Condition::Class { classes: 4 },
        body: StackConfig::published(2, 2),
        head: StackConfig::published(1, 4),
        embedding_dropout: 0.0,
    }
}

/// The variants that no golden case covers: codebooks of different sizes with a classifier for each
/// depth, and a depth input that is not cumulative.
pub(super) fn tiny_uneven() -> RqTransformerConfig {
    RqTransformerConfig {
        codebook_size: CodebookSize::PerDepth(vec![12, 5, 7]),
        classifier: Sharing::PerDepth,
        embedding: CodeInput::Tokenizer {
            code_dim: 6,
            cumulative: false,
        },
        condition: Condition::Text {
            vocab_size: 9,
            length: 3,
        },
        ..tiny()
    }
}

/// The model of `config` with random weights that are large enough to make a difference.
pub(super) fn build(config: &RqTransformerConfig, device: &Device, seed: u64) -> RqTransformer {
    let mut init = Init::new(device, seed);
    let codes = match config.embedding {
        CodeInput::Tokenizer { code_dim, .. } => {
            let tables = match &config.codebook_size {
                CodebookSize::Same(size) => vec![*size],
                CodebookSize::PerDepth(sizes) => sizes.clone(),
            };
            let tables = tables
                .iter()
                .map(|&size| init.normal([size, code_dim], 1.0).val());
            Some(CodeEmbedding::new(tables.collect()))
        }
        CodeInput::Own { .. } => None,
    };
    config.build_with(codes, 0.3, &mut init).unwrap()
}

/// Random codes.
pub(super) fn random_codes(
    config: &RqTransformerConfig,
    batch: usize,
    device: &Device,
    seed: u64,
) -> Codes {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let sizes = config.codebook_sizes();
    let positions = config.positions();
    let ids: Vec<u32> = (0..batch * config.depth * positions)
        .map(|i| rng.random_range(0..sizes[i / positions % config.depth] as u32))
        .collect();
    Codes::from_values(
        &ids,
        [batch, config.depth, config.height, config.width],
        device,
    )
}
