//! What the configuration of a quantizer says of its posteriors: prior, groups, codebook.

use burn::tensor::{Device, Tensor, TensorData};
use smalti_nn::Init;
use smalti_nn::state::host_values;
use smalti_quantize::{
    GaussianConfig, Generator, Layout, Normalization, Quantizer, QuantizerConfig,
};

use super::moments::Moments;
use crate::error::TrainError;

/// How posteriors become codes.
#[derive(Clone, Debug, PartialEq)]
pub struct Scheme {
    /// Channels of each group, in the order of the depths.
    pub groups: Vec<Vec<usize>>,
    /// log2 K of each group.
    pub codebook_bits: Vec<f64>,
    /// What fits the latents to the prior.
    pub normalization: Option<Normalization>,
    /// How codes are made and chosen.
    pub codes: Codes,
}

/// How codes are made and chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Codes {
    /// Where the numbers come from.
    pub generator: Generator,
    /// What they are made from.
    pub seed: u64,
    /// How strongly codes far from the origin are preferred.
    pub beta: f64,
}

impl Scheme {
    /// Of a quantizer; none where its latents are no distributions.
    pub fn of(config: &QuantizerConfig) -> Option<Self> {
        match config {
            QuantizerConfig::Gaussian(config) => Some(Self::gaussian(config)),
            QuantizerConfig::TokenBridge(config) => {
                let channels = config.channels;
                Some(Self {
                    groups: (0..channels).map(|channel| vec![channel]).collect(),
                    codebook_bits: vec![f64::from(config.bits); channels],
                    normalization: (config.scale != 1.0).then(|| Normalization {
                        shift: vec![0.0; channels],
                        scale: vec![config.scale; channels],
                    }),
                    // It has no random codes; independent ones are what the theorems are about.
                    codes: Codes {
                        generator: Generator::Iid,
                        seed: 0,
                        beta: 0.0,
                    },
                })
            }
            _ => None,
        }
    }

    fn gaussian(config: &GaussianConfig) -> Self {
        Self {
            groups: config
                .order()
                .chunks(config.code_dim)
                .map(<[usize]>::to_vec)
                .collect(),
            codebook_bits: config.sizes().iter().map(|&k| (k as f64).log2()).collect(),
            normalization: config.normalization.clone(),
            codes: Codes {
                generator: config.generator,
                seed: config.seed,
                beta: config.beta,
            },
        }
    }

    /// Channels of all groups.
    pub fn channels(&self) -> usize {
        self.groups.iter().map(Vec::len).sum()
    }

    /// Posteriors as the prior is meant for them.
    pub fn normalized(&self, moments: &Moments) -> Moments {
        match &self.normalization {
            Some(to) => moments.normalized(&to.shift, &to.scale),
            None => moments.clone(),
        }
    }
}

impl Codes {
    /// Quantizes a latent map `[2m, count]` of posteriors that fit the prior, with `2^codebook_bits` codes.
    ///
    /// # Errors
    /// When the numbers are not finite, or there are no such codes.
    pub fn quantize(
        &self,
        codebook_bits: u32,
        code_dim: usize,
        map: &[f32],
        device: &Device,
    ) -> Result<Vec<f32>, TrainError> {
        let config = GaussianConfig {
            generator: self.generator,
            seed: self.seed,
            beta: self.beta,
            layout: Layout::Contiguous,
            ..GaussianConfig::new(1 << codebook_bits, code_dim, code_dim)
        };
        let quantizer = config
            .build(&mut Init::new(device, 0))
            .map_err(|invalid| TrainError::Request(invalid.to_string()))?;
        let shape = [1, 2 * code_dim, 1, map.len() / (2 * code_dim)];
        let map = Tensor::<4>::from_data(TensorData::new(map.to_vec(), shape), device);
        let codes = quantizer.encode(map)?;
        Ok(host_values(quantizer.decode(&codes)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smalti_quantize::config::PerDepth;
    use smalti_quantize::{ResidualConfig, TokenBridgeConfig};

    #[test]
    fn groups_follow_the_layout() {
        let groups = |layout: Layout| {
            let config = GaussianConfig {
                layout,
                ..GaussianConfig::new(16, 2, 4)
            };
            Scheme::of(&QuantizerConfig::Gaussian(config))
                .unwrap()
                .groups
        };
        assert_eq!(groups(Layout::Strided), [[0, 2], [1, 3]]);
        assert_eq!(groups(Layout::Contiguous), [[0, 1], [2, 3]]);
        assert_eq!(groups(Layout::Order(vec![3, 0, 1, 2])), [[3, 0], [1, 2]]);
    }

    #[test]
    fn every_group_has_the_bits_of_its_codebook() {
        let config = GaussianConfig {
            codebook_size: PerDepth::Each(vec![16, 64]),
            ..GaussianConfig::new(1, 2, 4)
        };
        let scheme = Scheme::of(&QuantizerConfig::Gaussian(config)).unwrap();
        assert_eq!(scheme.codebook_bits, [4.0, 6.0]);
        assert_eq!(scheme.channels(), 4);
        let bridge = QuantizerConfig::TokenBridge(TokenBridgeConfig::new(3, 2));
        let scheme = Scheme::of(&bridge).unwrap();
        assert_eq!(scheme.groups, [[0], [1]]);
        assert_eq!(scheme.codebook_bits, [3.0; 2]);
    }

    #[test]
    fn other_latents_are_no_distributions() {
        let residual = QuantizerConfig::Residual(ResidualConfig::new(8, 4, 2));
        assert_eq!(Scheme::of(&residual), None);
    }

    #[test]
    fn a_sharp_posterior_gets_a_code_near_its_mean() {
        let codes = Codes {
            generator: Generator::Sobol,
            seed: 42,
            beta: 1.0,
        };
        // Two positions of two channels; σ² = e^−8.
        let map = [0.5, -1.0, 0.2, 0.9, -8.0, -8.0, -8.0, -8.0];
        let values = codes.quantize(14, 2, &map, &Device::flex()).unwrap();
        for (value, mean) in values.iter().zip(&map[..4]) {
            assert!((value - mean).abs() < 0.05, "{values:?}");
        }
    }
}
