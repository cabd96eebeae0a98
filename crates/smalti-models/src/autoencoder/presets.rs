//! The published recipes: RQ-VAE by its downsampling factor, Gaussian Quant by its network, LlamaGen and
//! FQGAN by their downsampling factor and number of branches.

use smalti_quantize::gaussian::GaussianConfig;
use smalti_quantize::{
    DistanceEntropies, FactorizedConfig, Learning, Metric, QuantizerConfig, ResidualConfig, Rule,
    VectorConfig,
};

use super::published::llamagen::by_gradient;
use super::{
    AutoencoderConfig, BranchesConfig, ConvolutionalConfig, NetworkConfig, PredictionHeadConfig,
    VitConfig,
};

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
            branches: None,
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
            representation: Vec::new(),
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
                branches: None,
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
            representation: Vec::new(),
        }
    }
}

/// Codes of every codebook of LlamaGen and FQGAN.
const CODES: usize = 16_384;
/// Their width.
const CODE_DIM: usize = 8;

/// The network of LlamaGen: attention at its lowest resolution only.
fn llamagen(multipliers: &[usize]) -> ConvolutionalConfig {
    let resolution = 256;
    ConvolutionalConfig {
        resolution,
        channels: 128,
        multipliers: multipliers.to_vec(),
        blocks: 2,
        attention_resolutions: vec![resolution >> (multipliers.len() - 1)],
        decoder_attention_resolutions: None,
        middle_attention: true,
        z_channels: 256,
        norm_groups: 32,
        dropout: 0.0,
        branches: None,
    }
}

const F8: [usize; 4] = [1, 2, 2, 4];
const F16: [usize; 5] = [1, 1, 2, 2, 4];

/// A published tokenizer of LlamaGen: 16,384 codes of width 8, scaled to length one and moved by the
/// optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LlamaGenPreset {
    /// VQ-8: 32×32 code maps of 256-pixel images, 70 million parameters.
    F8,
    /// VQ-16: 16×16 code maps, 72 million parameters.
    F16,
}

impl LlamaGenPreset {
    /// The configuration.
    pub fn config(self) -> AutoencoderConfig {
        let network = match self {
            Self::F8 => llamagen(&F8),
            Self::F16 => llamagen(&F16),
        };
        let quantizer = VectorConfig {
            metric: Metric::Cosine,
            rule: Rule::Gradient,
            learning: by_gradient(),
            ..VectorConfig::new(CODES, CODE_DIM)
        };
        AutoencoderConfig {
            projections: true,
            clamp: false,
            network: NetworkConfig::Convolutional(network),
            quantizer: QuantizerConfig::Vector(quantizer),
            representation: Vec::new(),
        }
    }
}

/// A published tokenizer of FQGAN for 256-pixel images, with the prediction heads of its training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FqganPreset {
    /// Two branches, 32×32 code maps: 110 million parameters without the head.
    DualF8,
    /// Two branches, 16×16 code maps: 111 million parameters without the head.
    DualF16,
    /// Three branches, 32×32 code maps: 131 million parameters without the heads.
    TripleF8,
    /// Three branches, 16×16 code maps: 132 million parameters without the heads.
    TripleF16,
}

impl FqganPreset {
    /// The configuration. Its weights are published as 1 for `reconstruction` and `codebook`, 0.25 for
    /// `commitment`, 0.03 for both entropies, 0.1 for `disentanglement` and 0.5 for `representation` of
    /// each head: CLIP's ViT-L/14 of two branches; DINOv2's small one, then CLIP's ViT-B/16, of three.
    pub fn config(self) -> AutoencoderConfig {
        let multipliers = match self {
            Self::DualF8 | Self::TripleF8 => &F8[..],
            Self::DualF16 | Self::TripleF16 => &F16[..],
        };
        let (names, heads) = match self {
            Self::DualF8 | Self::DualF16 => (&["vis", "sem"][..], &[("sem", 1024)][..]),
            Self::TripleF8 | Self::TripleF16 => (
                &["vis", "sem_mid", "sem_high"][..],
                &[("sem_mid", 384), ("sem_high", 768)][..],
            ),
        };
        let network = ConvolutionalConfig {
            branches: Some(BranchesConfig::published(names)),
            ..llamagen(multipliers)
        };
        let quantizer = FactorizedConfig {
            entropies: Some(DistanceEntropies::default()),
            learning: by_gradient(),
            ..FactorizedConfig::new(CODES, CODE_DIM, names.len())
        };
        let heads = heads.iter();
        AutoencoderConfig {
            projections: true,
            clamp: false,
            network: NetworkConfig::Convolutional(network),
            quantizer: QuantizerConfig::Factorized(quantizer),
            representation: heads
                .map(|(branch, width)| PredictionHeadConfig::published(branch, *width))
                .collect(),
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
    use smalti_quantize::Quantizer;
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

    /// Parameters with the codes, and without what only watches them.
    fn parameters(config: &AutoencoderConfig) -> usize {
        let model = config.build(&mut Init::blank(&Device::flex())).unwrap();
        let codes = model.quantizer().spec().depth() * CODES * CODE_DIM;
        model.num_params() - model.quantizer().num_params() + codes
    }

    #[test]
    fn llamagens_have_the_published_sizes() {
        assert_eq!(parameters(&LlamaGenPreset::F16.config()), 71_883_403);
        assert_eq!(parameters(&LlamaGenPreset::F8.config()), 70_109_835);
    }

    #[test]
    fn fqgans_have_the_sizes_of_their_published_arrays() {
        for (preset, all, of_heads) in [
            (FqganPreset::DualF16, 150_410_131, 39_115_776),
            (FqganPreset::TripleF16, 159_295_515, 27_637_632),
            (FqganPreset::DualF8, 150_209_427, 39_902_208),
            (FqganPreset::TripleF8, 159_586_331, 28_522_368),
        ] {
            let mut config = preset.config();
            assert_eq!(parameters(&config), all, "{preset:?}");
            config.representation.clear();
            assert_eq!(parameters(&config), all - of_heads, "{preset:?}");
        }
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
