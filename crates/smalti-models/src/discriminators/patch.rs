//! PatchGAN's discriminator: a logit for every patch; Isola et al., CVPR 2017, arXiv 1611.07004, section 3.2.2,
//! in the form of taming-transformers (Esser et al., CVPR 2021) that RQ-VAE, LlamaGen and FQGAN took over.
//!
//! Convolutions of 4×4 with one zero around: one of stride 2 with a bias, `layers − 1` of stride 2, one of
//! stride 1, each of these normalised, and one of stride 1 to a single channel; between them a leaky rectifier
//! of slope 0.2. Widths `channels·min(2ⁱ, 8)`. `[batch, 3, height, width]` to
//! `[batch, 1, rows, columns]`: 256 pixels give 30×30 logits with three layers, 62×62 with two.
//!
//! State: the running statistics of batch norms, and whether activation norms were started; both change only
//! by [`PatchDiscriminator::absorb`] and [`PatchDiscriminator::start`]. Names are those of published files
//! (`main.0.weight`). Convolutions before a batch norm have no bias.

use burn::module::Module;
use burn::tensor::Tensor;
use smalti_nn::{ActNorm, BatchNorm, Init, leaky_relu, leaky_relu_tangent};

use super::convolution::Convolution;
use super::{PatchConfig, PatchNorm, Statistics};

/// Of the leaky rectifiers.
const SLOPE: f32 = 0.2;
/// Of the scales of fresh norms round 1.
const NORM_DEVIATION: f32 = 0.02;
/// Widths grow up to so many times that of the first layer.
const WIDEST: usize = 8;

/// A logit for every patch.
#[derive(Module, Debug)]
pub struct PatchDiscriminator {
    /// Layers at their published places; a leaky rectifier, which has no parameters, where there is none.
    main: Vec<Option<Layer>>,
}

#[derive(Module, Debug)]
enum Layer {
    Convolution(Convolution),
    Batch(BatchNorm),
    Act(ActNorm),
}

impl PatchDiscriminator {
    /// Fresh weights: convolutions normal with deviation 0.02, scales of norms round 1 with 0.02.
    pub(super) fn new(config: &PatchConfig, init: &mut Init) -> Self {
        const KERNEL: usize = 4;
        let PatchConfig {
            channels,
            layers,
            norm,
        } = *config;
        let first = Convolution::patch([3, channels, KERNEL], true, 2, init);
        let mut main = vec![Some(Layer::Convolution(first)), None];
        let mut inputs = channels;
        for layer in 1..=layers {
            let outputs = channels * WIDEST.min(1 << layer.min(3));
            let stride = if layer < layers { 2 } else { 1 };
            let bias = norm != PatchNorm::Batch;
            let convolution = Convolution::patch([inputs, outputs, KERNEL], bias, stride, init);
            main.push(Some(Layer::Convolution(convolution)));
            match norm {
                PatchNorm::Batch => {
                    let norm = BatchNorm::new(outputs, NORM_DEVIATION, init);
                    main.push(Some(Layer::Batch(norm)));
                }
                PatchNorm::Actnorm => main.push(Some(Layer::Act(ActNorm::new(outputs, init)))),
                PatchNorm::None => {}
            }
            main.push(None);
            inputs = outputs;
        }
        let last = Convolution::patch([inputs, 1, KERNEL], true, 1, init);
        main.push(Some(Layer::Convolution(last)));
        Self { main }
    }

    /// Logits, batch norms by their running statistics.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        self.main
            .iter()
            .fold(images, |hidden, layer| Self::apply(layer, hidden))
    }

    /// Logits, batch norms by the statistics of this batch, which come with them.
    pub fn forward_batch(&self, images: Tensor<4>) -> (Tensor<4>, Statistics) {
        let (mut hidden, mut seen) = (images, Vec::new());
        for layer in &self.main {
            hidden = match layer {
                Some(Layer::Batch(norm)) => {
                    let (normed, statistics) = norm.forward_batch(hidden);
                    seen.push(statistics);
                    normed
                }
                layer => Self::apply(layer, hidden),
            };
        }
        (hidden, Statistics(seen))
    }

    /// How the logits of [`forward_batch`](Self::forward_batch) change when the images change by `direction`.
    pub fn tangent(&self, images: Tensor<4>, direction: Tensor<4>) -> Tensor<4> {
        let (mut hidden, mut tangent) = (images, direction);
        for layer in &self.main {
            (hidden, tangent) = match layer {
                Some(Layer::Convolution(convolution)) => {
                    (convolution.forward(hidden), convolution.tangent(tangent))
                }
                Some(Layer::Batch(norm)) => {
                    let tangent = norm.tangent(hidden.clone(), tangent);
                    (norm.forward_batch(hidden).0, tangent)
                }
                Some(Layer::Act(norm)) => (norm.forward(hidden), tangent * norm.scale.val()),
                None => {
                    let tangent = leaky_relu_tangent(tangent, hidden.clone(), SLOPE);
                    (leaky_relu(hidden, SLOPE), tangent)
                }
            };
        }
        tangent
    }

    /// Mixes the statistics of a batch into the running ones.
    ///
    /// # Panics
    /// When they are of another network.
    pub fn absorb(&mut self, statistics: &Statistics) {
        let norms = self
            .main
            .iter_mut()
            .flatten()
            .filter_map(|layer| match layer {
                Layer::Batch(norm) => Some(norm),
                _ => None,
            });
        let norms: Vec<_> = norms.collect();
        assert_eq!(
            norms.len(),
            statistics.0.len(),
            "statistics of {} norms for a discriminator with {}",
            statistics.0.len(),
            norms.len()
        );
        for (norm, statistics) in norms.into_iter().zip(&statistics.0) {
            norm.absorb(statistics);
        }
    }

    /// Starts activation norms, one after the other, so that each sees what the one before it gives.
    pub fn start(&mut self, images: Tensor<4>) {
        let mut hidden = images;
        for layer in &mut self.main {
            if let Some(Layer::Act(norm)) = layer {
                norm.start(hidden.clone());
            }
            hidden = Self::apply(layer, hidden);
        }
    }

    fn apply(layer: &Option<Layer>, hidden: Tensor<4>) -> Tensor<4> {
        match layer {
            Some(Layer::Convolution(convolution)) => convolution.forward(hidden),
            Some(Layer::Batch(norm)) => norm.forward(hidden),
            Some(Layer::Act(norm)) => norm.forward(hidden),
            None => leaky_relu(hidden, SLOPE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use smalti_nn::Noise;
    use smalti_nn::state::{Weights, host_values};

    fn build(layers: usize, norm: PatchNorm, device: &Device) -> PatchDiscriminator {
        let config = PatchConfig {
            channels: 64,
            layers,
            norm,
        };
        PatchDiscriminator::new(&config, &mut Init::new(device, 1))
    }

    /// Numbers of the published networks, whose running statistics are no parameters.
    #[test]
    fn published_sizes_and_names() {
        for (layers, parameters, statistics) in [(2, 663_361, 2 * 384), (3, 2_765_633, 2 * 896)] {
            let network = build(layers, PatchNorm::Batch, &Device::flex());
            assert_eq!(network.num_params(), parameters + statistics);
        }
        let weights = Weights::of(&build(2, PatchNorm::Batch, &Device::flex()));
        let names: Vec<_> = weights.0.keys().map(String::as_str).collect();
        let norm = |place| {
            ["bias", "running_mean", "running_var", "weight"].map(|n| format!("main.{place}.{n}"))
        };
        let mut expected = vec![
            "main.0.bias".to_owned(),
            "main.0.weight".into(),
            "main.2.weight".into(),
        ];
        expected.extend(norm(3));
        expected.push("main.5.weight".into());
        expected.extend(norm(6));
        expected.extend(["main.8.bias".into(), "main.8.weight".into()]);
        assert_eq!(names, expected);
    }

    #[test]
    fn activation_norms_are_started_in_a_chain() {
        let device = Device::flex();
        let images = Noise::from_seed(2).standard_normal([4, 3, 32, 32], &device);
        let config = PatchConfig {
            channels: 4,
            layers: 2,
            norm: PatchNorm::Actnorm,
        };
        let mut network = PatchDiscriminator::new(&config, &mut Init::new(&device, 1));
        network.start(images.clone());
        let last = network.main.len() - 3;
        let normed = network.main[..=last].iter().fold(images, |hidden, layer| {
            PatchDiscriminator::apply(layer, hidden)
        });
        let values = host_values(normed);
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let square = values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
        assert!(
            mean.abs() < 1e-3 && (square - 1.0).abs() < 0.02,
            "{mean} {square}"
        );
    }

    #[test]
    fn what_a_batch_showed_is_used_only_once_absorbed() {
        let device = Device::flex();
        let images = Noise::from_seed(3).standard_normal([2, 3, 32, 32], &device);
        let mut network = build(2, PatchNorm::Batch, &device);
        let before = host_values(network.forward(images.clone()));
        let (_, statistics) = network.forward_batch(images.clone());
        assert_eq!(host_values(network.forward(images.clone())), before);
        network.absorb(&statistics);
        assert_ne!(host_values(network.forward(images)), before);
    }
}
