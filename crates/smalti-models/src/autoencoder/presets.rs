//! The published RQ-VAE recipes by their downsampling factor.

use smalti_quantize::{Learning, QuantizerConfig, ResidualConfig};

use super::{AutoencoderConfig, ConvolutionalConfig, NetworkConfig};

/// A published shape of RQ-VAE for 256-pixel images: 256 latent channels, blocks of width 128 to 512,
/// 16,384 codes shared by all depths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// 32×32 code maps.
    F8,
    /// 16×16 code maps.
    F16,
    /// 8×8 code maps: the shape of all released weights.
    F32,
    /// 8×8 code maps with attention at 16×16 instead of 8×8: the shape of the FFHQ weights.
    F32Ffhq,
}

impl Preset {
    /// The configuration with `depth` codes at each position.
    pub fn config(self, depth: usize) -> AutoencoderConfig {
        let (multipliers, attention, codebook_size) = match self {
            Self::F8 => (vec![1, 2, 2, 4], 32, 16_384),
            Self::F16 => (vec![1, 1, 2, 2, 4], 16, 16_384),
            Self::F32 => (vec![1, 1, 2, 2, 4, 4], 8, 16_384),
            Self::F32Ffhq => (vec![1, 1, 2, 2, 4, 4], 16, 2_048),
        };
        let network = ConvolutionalConfig {
            resolution: 256,
            channels: 128,
            multipliers,
            blocks: 2,
            attention_resolutions: vec![attention],
            decoder_attention_resolutions: None,
            middle_attention: true,
            z_channels: 256,
            norm_groups: 32,
            dropout: 0.0,
        };
        let quantizer = ResidualConfig {
            learning: Learning::published(),
            ..ResidualConfig::new(codebook_size, 256, depth)
        };
        AutoencoderConfig {
            projections: true,
            clamp: false,
            network: NetworkConfig::Convolutional(network),
            quantizer: QuantizerConfig::Residual(quantizer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autoencoder::Autoencoder;
    use burn::module::Module;
    use burn::tensor::Device;
    use smalti_nn::Init;

    /// Parameters without the codebook, with its four arrays taken off.
    fn network_parameters(mut config: AutoencoderConfig) -> usize {
        // One code keeps the test small; the codebook is not counted.
        let one = ResidualConfig {
            learning: Learning::published(),
            ..ResidualConfig::new(1, 256, 4)
        };
        config.quantizer = QuantizerConfig::Residual(one);
        let model: Autoencoder = config.build(&mut Init::new(&Device::flex(), 0)).unwrap();
        model.num_params() - (256 + 1 + 256 + 1)
    }

    #[test]
    fn parameter_counts_are_the_published_ones() {
        assert_eq!(network_parameters(Preset::F8.config(4)), 70_105_987);
        assert_eq!(network_parameters(Preset::F16.config(4)), 71_879_555);
        assert_eq!(network_parameters(Preset::F32.config(4)), 100_207_491);
    }
}
