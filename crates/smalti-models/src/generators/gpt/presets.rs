//! Sizes that were published: configurations of taming-transformers for maps of 16×16 positions.

use super::config::{GptCondition, GptConfig};
use crate::generators::layout::CodebookSize;

/// A published model size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Faces of FFHQ or CelebA-HQ, without a condition; 802 M parameters.
    Faces,
    /// The classes of ImageNet; 1.4 G parameters.
    ImageNet,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Faces, Self::ImageNet];

    /// The configuration of this size.
    pub fn config(self) -> GptConfig {
        let (codes, layers, embed_dim, heads) = match self {
            Self::Faces => (1024, 24, 1664, 16),
            Self::ImageNet => (16_384, 48, 1536, 24),
        };
        GptConfig {
            height: 16,
            width: 16,
            depth: 1,
            codebook_size: CodebookSize::Same(codes),
            vocab_size: codes,
            block_size: 256,
            embed_dim,
            layers,
            heads,
            condition: match self {
                Self::Faces => GptCondition::Unconditional { start_token: 0 },
                Self::ImageNet => GptCondition::Class { classes: 1000 },
            },
            keep: 1.0,
            embedding_dropout: 0.0,
            attention_dropout: 0.0,
            residual_dropout: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_counts_are_the_published_ones() {
        for (preset, millions) in Preset::ALL.into_iter().zip([801.8, 1410.0]) {
            let config = preset.config();
            assert_eq!(config.validate(), Ok(()));
            let counted = config.parameter_count() as f64 / 1e6;
            assert!((counted / millions - 1.0).abs() < 1e-3, "{counted}");
        }
    }
}
