//! The sizes that were published: FAR (arXiv 2411.16681, table 7) and LlamaGen (arXiv 2406.06525, table 1).
//!
//! All on maps of 16×16 positions out of 16,384 codes, for ImageNet's classes, but for the text model.
//! The published counts of FAR's parameters leave the aggregation out: 415 M and 898 M.

use super::config::{FarCondition, FarConfig, HeadConfig, PUBLISHED_DROPOUT};
use crate::generators::layout::CodebookSize;

/// A published model size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Two codes at a position; 417 M parameters.
    FarDualB,
    /// Two codes at a position; 901 M parameters.
    FarDualL,
    /// Three codes at a position; 452 M parameters.
    FarTripleB,
    /// Three codes at a position; 945 M parameters.
    FarTripleL,
    /// 111 M parameters.
    LlamaGenB,
    /// 343 M parameters.
    LlamaGenL,
    /// 775 M parameters.
    LlamaGenXl,
    /// 1.4 G parameters.
    LlamaGenXxl,
    /// 3.1 G parameters.
    LlamaGen3B,
    /// For features of 120 text tokens; 778 M parameters.
    LlamaGenTextXl,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::FarDualB,
        Self::FarDualL,
        Self::FarTripleB,
        Self::FarTripleL,
        Self::LlamaGenB,
        Self::LlamaGenL,
        Self::LlamaGenXl,
        Self::LlamaGenXxl,
        Self::LlamaGen3B,
        Self::LlamaGenTextXl,
    ];

    /// The configuration of this size.
    pub fn config(self) -> FarConfig {
        let (layers, embed_dim, heads) = match self {
            Self::LlamaGenB => (12, 768, 12),
            Self::FarDualB | Self::FarTripleB | Self::LlamaGenL => (24, 1024, 16),
            Self::FarDualL | Self::FarTripleL | Self::LlamaGenXl | Self::LlamaGenTextXl => {
                (36, 1280, 20)
            }
            Self::LlamaGenXxl => (48, 1536, 24),
            Self::LlamaGen3B => (24, 3200, 32),
        };
        let (depth, head) = match self {
            Self::FarDualB => (2, HeadConfig::Autoregressive { layers: 3 }),
            Self::FarDualL => (2, HeadConfig::Autoregressive { layers: 4 }),
            Self::FarTripleB => (3, HeadConfig::Autoregressive { layers: 3 }),
            Self::FarTripleL => (3, HeadConfig::Autoregressive { layers: 4 }),
            _ => (1, HeadConfig::Linear {}),
        };
        let condition = match self {
            Self::LlamaGenTextXl => FarCondition::Caption {
                tokens: 120,
                feature_dim: 2048,
                dropout: PUBLISHED_DROPOUT,
            },
            _ => FarCondition::classes(1000),
        };
        FarConfig {
            height: 16,
            width: 16,
            depth,
            codebook_size: CodebookSize::Same(16_384),
            embed_dim,
            layers,
            heads,
            hidden: None,
            head,
            condition,
            token_dropout: PUBLISHED_DROPOUT,
            residual_dropout: PUBLISHED_DROPOUT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_counts_are_the_published_ones() {
        let counts = [
            417_104_896,
            901_195_520,
            451_707_904,
            944_776_960,
            110_888_448,
            342_910_976,
            774_699_520,
            1_410_972_672,
            3_096_659_200,
            777_678_080,
        ];
        for (preset, count) in Preset::ALL.into_iter().zip(counts) {
            let config = preset.config();
            assert_eq!(config.validate(), Ok(()));
            assert_eq!(config.parameter_count(), count, "{preset:?}");
        }
    }
}
