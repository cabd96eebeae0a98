//! The published recipes: RQ-VAE by its downsampling factor, Gaussian Quant by its network.

use smalti_quantize::gaussian::GaussianConfig;
use smalti_quantize::{Learning, QuantizerConfig, ResidualConfig};

use super::{AutoencoderConfig, ConvolutionalConfig, NetworkConfig, VitConfig};

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

/// A published shape of Gaussian Quant for 256-pixel images: 32×32 positions of 16 channels, codes out
/// of 65,536.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GaussianQuantPreset {
    /// The convolutional network, "SD3 UNet": 87 million parameters.
    Unet,
    /// The transformer, "BSQ-ViT-B": 175 million parameters.
    Vit,
}

impl GaussianQuantPreset {
    /// The configuration in which a code stands for `code_dim` channels: 16, 8 and 4 make 0.25, 0.5
    /// and 1 bit per pixel.
    pub fn config(self, code_dim: usize) -> AutoencoderConfig {
        const CHANNELS: usize = 16;
        let network = match self {
            Self::Unet => NetworkConfig::Convolutional(ConvolutionalConfig {
                resolution: 256,
                channels: 128,
                multipliers: vec![1, 2, 4, 4],
                blocks: 2,
                attention_resolutions: vec![32],
                decoder_attention_resolutions: None,
                middle_attention: false,
                z_channels: CHANNELS,
                norm_groups: 32,
                dropout: 0.0,
            }),
            Self::Vit => NetworkConfig::Vit(VitConfig {
                resolution: 256,
                patch_size: 8,
                width: 768,
                layers: 12,
                heads: 12,
                mlp_ratio: 4.0,
                output_width: 3072,
                z_channels: CHANNELS,
                dropout: 0.0,
            }),
        };
        AutoencoderConfig {
            projections: false,
            clamp: self == Self::Vit,
            network,
            quantizer: QuantizerConfig::Gaussian(GaussianConfig::new(65_536, code_dim, CHANNELS)),
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
    use smalti_quantize::config::PerDepth;

    /// Parameters without the codebook, with its four arrays taken off.
    fn network_parameters(mut config: AutoencoderConfig) -> usize {
        // One code keeps the test small; the codebook is not counted.
        let one = ResidualConfig {
            learning: Learning::published(),
            ..ResidualConfig::new(1, 256, 4)
        };
        config.quantizer = QuantizerConfig::Residual(one);
        let model: Autoencoder = config.build(&mut Init::blank(&Device::flex())).unwrap();
        model.num_params() - (256 + 1 + 256 + 1)
    }

    #[test]
    fn parameter_counts_are_the_published_ones() {
        assert_eq!(network_parameters(Preset::F8.config(4)), 70_105_987);
        assert_eq!(network_parameters(Preset::F16.config(4)), 71_879_555);
        assert_eq!(network_parameters(Preset::F32.config(4)), 100_207_491);
    }
    /// Parameters without those of the quantizer.
    fn gaussian_parameters(mut config: AutoencoderConfig) -> usize {
        // Two codes keep the test small; they are no parameters.
        if let QuantizerConfig::Gaussian(quantizer) = &mut config.quantizer {
            quantizer.codebook_size = PerDepth::All(2);
        }
        let model = config.build(&mut Init::blank(&Device::flex())).unwrap();
        model.num_params() - model.quantizer().num_params()
    }

    #[test]
    fn the_convolutional_gaussian_network_has_the_published_size() {
        let config = GaussianQuantPreset::Unet.config(16);
        assert_eq!(gaussian_parameters(config), 35_325_856 + 51_648_771);
    }

    #[test]
    fn the_gaussian_transformer_has_the_published_size() {
        let config = GaussianQuantPreset::Vit.config(16);
        assert_eq!(gaussian_parameters(config), 174_825_440);
    }

    #[test]
    fn gaussian_presets_have_the_published_rates() {
        for (code_dim, bits) in [(16, 0.25), (8, 0.5), (4, 1.0)] {
            for preset in [GaussianQuantPreset::Unet, GaussianQuantPreset::Vit] {
                let config = preset.config(code_dim);
                config.validate().unwrap();
                let depth = config.quantizer.quantized_channels() / code_dim;
                let pixels = config.factor() * config.factor();
                assert_eq!((depth * 16) as f64 / pixels as f64, bits);
            }
        }
    }
}
