//! The sizes that were published with the method, by the configuration files of its repository
//! (kakaobrain/rq-vae-transformer): all on maps of 8×8 positions with 4 codes each.
//!
//! Not among them: the 3.9 G text model, whose configuration is only in its archive (read it from
//! there, see [`published`](super::published)).

use super::config::{
    CodeInput, CodebookSize, Condition, RqTransformerConfig, Sharing, StackConfig,
};

/// A published model size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Faces; codebooks of 2,048 codes; 355 M parameters.
    Ffhq,
    /// Churches; 370 M parameters.
    LsunChurch,
    /// Cats, and in equal size bedrooms; 612 M parameters.
    LsunCat,
    /// ImageNet's classes; 481 M parameters.
    ImageNet480M,
    /// ImageNet's classes; 821 M parameters.
    ImageNet821M,
    /// ImageNet's classes; 1.4 G parameters.
    ImageNet1400M,
    /// ImageNet's classes; 3.8 G parameters.
    ImageNet3800M,
    /// Captions of 32 tokens; 654 M parameters.
    Cc3m,
    /// The small class-conditional model that only the method's speed test uses; 97 M parameters.
    Small,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Ffhq,
        Self::LsunChurch,
        Self::LsunCat,
        Self::ImageNet480M,
        Self::ImageNet821M,
        Self::ImageNet1400M,
        Self::ImageNet3800M,
        Self::Cc3m,
        Self::Small,
    ];

    /// The configuration of this size.
    pub fn config(self) -> RqTransformerConfig {
        // Width (heads are 64 wide), blocks of the body and of the head.
        let (embed_dim, body, head) = match self {
            Self::Ffhq | Self::LsunChurch => (1024, 24, 4),
            Self::LsunCat | Self::Cc3m => (1280, 26, 4),
            Self::ImageNet480M => (1536, 12, 4),
            Self::ImageNet821M => (1536, 24, 4),
            Self::ImageNet1400M => (1536, 42, 6),
            Self::ImageNet3800M => (2560, 42, 6),
            Self::Small => (512, 24, 4),
        };
        let condition = match self {
            Self::Ffhq | Self::LsunChurch | Self::LsunCat => Condition::Unconditional {},
            Self::Cc3m => Condition::Text {
                vocab_size: 16_384,
                length: 32,
            },
            _ => Condition::Class { classes: 1000 },
        };
        let codebook_size = if self == Self::Ffhq { 2048 } else { 16_384 };
        RqTransformerConfig {
            height: 8,
            width: 8,
            depth: 4,
            codebook_size: CodebookSize::Same(codebook_size),
            embed_dim,
            embedding: CodeInput::Tokenizer {
                code_dim: 256,
                cumulative: true,
            },
            classifier: Sharing::Shared,
            condition,
            body: StackConfig::published(body, embed_dim / 64),
            head: StackConfig::published(head, embed_dim / 64),
            embedding_dropout: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_counts_are_the_published_ones() {
        let counts = [
            355_393_536,
            370_087_936,
            612_061_184,
            480_921_088,
            820_899_328,
            1_387_529_728,
            3_822_488_064,
            654_061_568,
            97_483_264,
        ];
        for (preset, count) in Preset::ALL.into_iter().zip(counts) {
            let config = preset.config();
            assert_eq!(config.validate(), Ok(()));
            assert_eq!(config.parameter_count(), count, "{preset:?}");
        }
    }
}
