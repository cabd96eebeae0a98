//! The works of stage 1: a training step, encoding, decoding.
//!
//! The step is that of training (`smalti_train::tokenizer`) on one fixed batch: reconstruct in halves
//! while the codebook learns, squared error and commitment, backward, Adam.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use serde::Deserialize;
use serde_json::json;
use smalti_data::{Preprocess, PreprocessPair};
use smalti_models::autoencoder::published::rq_vae;
use smalti_models::autoencoder::{
    Autoencoder, AutoencoderConfig, ConvolutionalConfig, NetworkConfig,
};
use smalti_nn::state::{Array, host_values};
use smalti_nn::{Init, Noise};
use smalti_quantize::{Learning, QuantizerConfig, ResidualConfig, Revival};
use smalti_train::gradients::Gradients;
use smalti_train::learner::Learner;
use smalti_train::loss::{ReconstructionLoss, weigh};
use smalti_train::model_dir::TokenizerModel;
use smalti_train::optimizer::{DecayScope, OptimizerConfig, OptimizerKind};
use smalti_train::passage::Passage;

use crate::inputs::Inputs;
use crate::{Outcome, Work};

/// Sizes of an RQ-VAE and of its training.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RqVaeBench {
    resolution: usize,
    /// Said by the inputs as well; the PyTorch side makes them from it.
    #[serde(rename = "batch")]
    _batch: usize,
    channels: usize,
    multipliers: Vec<usize>,
    blocks: usize,
    attention_resolutions: Vec<usize>,
    z_channels: usize,
    code_dim: usize,
    codebook_size: usize,
    depth: usize,
    #[serde(default = "usual_decay")]
    decay: f32,
    #[serde(default = "usual_commitment")]
    commitment_weight: f64,
    #[serde(default = "usual_rate")]
    learning_rate: f64,
    #[serde(default = "usual_groups")]
    norm_groups: usize,
}

fn usual_decay() -> f32 {
    0.99
}

fn usual_commitment() -> f64 {
    0.25
}

fn usual_rate() -> f64 {
    4e-5
}

fn usual_groups() -> usize {
    32
}

impl RqVaeBench {
    fn load(&self, weights: &Path, device: &Device) -> anyhow::Result<Autoencoder> {
        let network = ConvolutionalConfig {
            resolution: self.resolution,
            channels: self.channels,
            multipliers: self.multipliers.clone(),
            blocks: self.blocks,
            attention_resolutions: self.attention_resolutions.clone(),
            decoder_attention_resolutions: None,
            middle_attention: true,
            z_channels: self.z_channels,
            norm_groups: self.norm_groups,
            dropout: 0.0,
            branches: None,
        };
        let learning = Learning {
            decay: self.decay,
            revival: Revival::Off {},
            ..Learning::published()
        };
        let quantizer = ResidualConfig {
            learning,
            ..ResidualConfig::new(self.codebook_size, self.code_dim, self.depth)
        };
        let config = AutoencoderConfig {
            projections: true,
            clamp: false,
            network: NetworkConfig::Convolutional(network),
            quantizer: QuantizerConfig::Residual(quantizer),
            representation: Vec::new(),
        };
        Ok(rq_vae::load(&config, weights, &mut Init::blank(device))?)
    }
}

/// Writes the model as the program reads it, for images that need no preprocessing.
pub(crate) fn export(config: &RqVaeBench, weights: &Path, folder: &Path) -> anyhow::Result<()> {
    let network = config.load(weights, &Device::flex())?;
    let untouched = PreprocessPair {
        train: Preprocess::default(),
        eval: Preprocess::default(),
    };
    let model = TokenizerModel::new(network, untouched, "none".into());
    Ok(model.save(folder)?)
}

/// Forward with the codebook's updates, backward, Adam.
pub(crate) struct Stage1Step {
    learner: Learner<Autoencoder>,
    weights: BTreeMap<String, f64>,
    images: Tensor<4>,
    steps: u64,
}

impl Stage1Step {
    /// The trainer before its first step.
    pub(crate) fn new(config: RqVaeBench, weights: &Path, inputs: &Inputs) -> anyhow::Result<Self> {
        let device = Device::flex().autodiff();
        let optimizer = OptimizerConfig {
            kind: OptimizerKind::Adam,
            learning_rate: config.learning_rate,
            betas: [0.5, 0.9],
            epsilon: 1e-8,
            weight_decay: 0.0,
            decay_scope: DecayScope::All,
            clip_norm: None,
        };
        let weighted = [
            ("reconstruction".to_owned(), 1.0),
            ("commitment".to_owned(), config.commitment_weight),
        ];
        Ok(Self {
            learner: Learner::new(config.load(weights, &device)?, optimizer, None),
            weights: weighted.into(),
            images: inputs.floats("images", &device)?,
            steps: 0,
        })
    }
}

impl Work for Stage1Step {
    fn step(&mut self) -> anyhow::Result<Outcome> {
        let mut noise = Noise::for_step(0, self.steps);
        self.steps += 1;
        let images = self.images.clone();
        let model = self.learner.model_mut();
        let (passage, _) = Passage::forward(model, &images, &mut noise)?;
        let hidden = Tensor::from_inner(passage.hidden()).require_grad();
        let reconstructions = model.finish(hidden.clone());
        let mut losses = vec![(
            "reconstruction",
            ReconstructionLoss::SquaredError.of(reconstructions, images),
        )];
        let on_images = weigh(&losses, &self.weights)?.expect("images are compared");
        let inner = weigh(passage.losses(), &self.weights)?.expect("an RQ-VAE has commitment");
        losses.extend(passage.losses().iter().cloned());
        let value = |loss: &Tensor<1>| loss.clone().inner().into_scalar::<f32>();
        let total = json!(value(&on_images) + value(&inner));
        let mut numbers = vec![("loss", total.clone()), ("checksum", total)];
        numbers.extend(
            losses
                .iter()
                .map(|(name, loss)| (*name, json!(value(loss)))),
        );
        drop(losses);
        let graph = on_images.backward();
        let slope = hidden.grad(&graph).expect("a leaf");
        let mut gradients = Gradients::of(model, &graph);
        drop(graph);
        gradients.add(passage.backward(model, slope, Some(inner)));
        let norm = gradients.norm();
        self.learner.step(gradients, norm, 1.0);
        Ok(Outcome {
            numbers,
            ..Outcome::default()
        })
    }
}

/// Images to latents, without quantization.
pub(crate) struct Encode {
    model: Autoencoder,
    images: Tensor<4>,
}

impl Encode {
    /// Model and images.
    pub(crate) fn new(config: RqVaeBench, weights: &Path, inputs: &Inputs) -> anyhow::Result<Self> {
        let device = Device::flex();
        Ok(Self {
            model: config.load(weights, &device)?,
            images: inputs.floats("images", &device)?,
        })
    }
}

impl Work for Encode {
    fn step(&mut self) -> anyhow::Result<Outcome> {
        Ok(Outcome::floats(
            "latents",
            array(self.model.latents(self.images.clone(), None)),
        ))
    }
}

/// Latents to images.
pub(crate) struct Decode {
    model: Autoencoder,
    latents: Tensor<4>,
}

impl Decode {
    /// Model and latents.
    pub(crate) fn new(config: RqVaeBench, weights: &Path, inputs: &Inputs) -> anyhow::Result<Self> {
        let device = Device::flex();
        Ok(Self {
            model: config.load(weights, &device)?,
            latents: inputs.floats("latents", &device)?,
        })
    }
}

impl Work for Decode {
    fn step(&mut self) -> anyhow::Result<Outcome> {
        Ok(Outcome::floats(
            "images",
            array(self.model.images(self.latents.clone(), None)),
        ))
    }
}

fn array<const D: usize>(tensor: Tensor<D>) -> Array {
    let shape = tensor.dims().to_vec();
    Array {
        shape,
        values: host_values(tensor),
    }
}
