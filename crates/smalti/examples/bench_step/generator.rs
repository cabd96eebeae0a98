//! The works of stage 2: a training step, sampling.
//!
//! The step is that of training (`smalti_train::generator`) on one fixed batch of latents: nearest
//! codes and their targets, forward, cross entropy, backward, clipping, AdamW.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::ensure;
use burn::tensor::{Device, Tensor};
use serde::Deserialize;
use serde_json::json;
use smalti_models::generators::rq_transformer::config::{
    CodeInput, CodebookSize, Condition, Sharing, StackConfig,
};
use smalti_models::generators::rq_transformer::{
    CodeEmbedding, RqTransformer, RqTransformerConfig,
};
use smalti_models::generators::sampling::{PerDepth, SamplingConfig};
use smalti_models::generators::{CodeTargets, Conditions, GenerationRequest, GeneratorInput};
use smalti_nn::state::{Array, Weights, host_values};
use smalti_nn::{Init, Noise};
use smalti_quantize::{Codes, Quantizer, ResidualConfig, ResidualQuantizer};
use smalti_train::gradients::Gradients;
use smalti_train::halves;
use smalti_train::learner::Learner;
use smalti_train::optimizer::{DecayScope, OptimizerConfig, OptimizerKind};

use crate::inputs::Inputs;
use crate::{Outcome, Work};

/// Sizes of an RQ-Transformer, of its training and of its sampling.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RqTransformerBench {
    height: usize,
    width: usize,
    depth: usize,
    codebook_size: usize,
    code_dim: usize,
    classes: usize,
    embed_dim: usize,
    heads: usize,
    body_layers: usize,
    head_layers: usize,
    /// Said by the inputs as well; the PyTorch side makes them from it.
    #[serde(rename = "batch")]
    _batch: usize,
    #[serde(default = "usual_rate")]
    learning_rate: f64,
    /// None: the codes themselves are the targets.
    #[serde(default = "usual_temperature")]
    target_temperature: Option<f64>,
    /// Said by the inputs as well.
    #[serde(default, rename = "sample_batch")]
    _sample_batch: usize,
    top_k: Option<usize>,
    #[serde(default = "all")]
    top_p: f64,
    #[serde(default = "yes")]
    fixed_draws: bool,
}

fn usual_rate() -> f64 {
    5e-4
}

fn usual_temperature() -> Option<f64> {
    Some(0.5)
}

fn all() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

impl RqTransformerBench {
    fn load(&self, weights: &Path, codebook: Tensor<2>) -> anyhow::Result<RqTransformer> {
        let stack = |layers| StackConfig {
            residual_dropout: 0.0,
            ..StackConfig::published(layers, self.heads)
        };
        let config = RqTransformerConfig {
            height: self.height,
            width: self.width,
            depth: self.depth,
            codebook_size: CodebookSize::Same(self.codebook_size),
            embed_dim: self.embed_dim,
            embedding: CodeInput::Tokenizer {
                code_dim: self.code_dim,
                cumulative: true,
            },
            classifier: Sharing::Shared,
            condition: Condition::Class {
                classes: self.classes,
            },
            body: stack(self.body_layers),
            head: stack(self.head_layers),
            embedding_dropout: 0.0,
        };
        let device = codebook.device();
        let mut model = config.build(
            Some(CodeEmbedding::new(vec![codebook])),
            &mut Init::blank(&device),
        )?;
        // The codebook comes from the inputs; loading is strict about all the rest.
        let codes = model.code_embedding.take();
        let mut model = Weights::read_safetensors(weights)?.load_into(model)?;
        model.code_embedding = codes;
        Ok(model)
    }

    /// The stage-1 quantizer, whose codes and targets a step starts from.
    fn quantizer(&self, codebook: &Tensor<2>) -> anyhow::Result<ResidualQuantizer> {
        let config = ResidualConfig::new(self.codebook_size, self.code_dim, self.depth);
        let quantizer = config.build(&mut Init::blank(&Device::flex()))?;
        let mut weights = Weights::of(&quantizer);
        let values = host_values(codebook.clone());
        weights.0.insert(
            "codebooks.0.weight".into(),
            Array {
                shape: codebook.dims().to_vec(),
                values,
            },
        );
        Ok(weights.load_into(quantizer)?)
    }
}

/// Codes and targets, forward, backward, clipping, AdamW.
pub(crate) struct Stage2Step {
    learner: Learner<RqTransformer>,
    quantizer: ResidualQuantizer,
    latents: Tensor<4>,
    conditions: Conditions,
    temperature: Option<f64>,
    steps: u64,
}

impl Stage2Step {
    /// The trainer before its first step.
    pub(crate) fn new(
        config: RqTransformerBench,
        weights: &Path,
        inputs: &Inputs,
    ) -> anyhow::Result<Self> {
        let device = Device::flex();
        let codebook = inputs.floats::<2>("codebook", &device)?;
        let optimizer = OptimizerConfig {
            kind: OptimizerKind::AdamW,
            learning_rate: config.learning_rate,
            betas: [0.9, 0.95],
            epsilon: 1e-8,
            weight_decay: 1e-4,
            decay_scope: DecayScope::All,
            clip_norm: Some(1.0),
        };
        let model = config.load(weights, Tensor::from_inner(codebook.clone()))?;
        Ok(Self {
            learner: Learner::new(model, optimizer, None),
            quantizer: config.quantizer(&codebook)?,
            latents: inputs.floats("latents", &device)?,
            conditions: Conditions::Classes(inputs.ids("classes")?),
            temperature: config.target_temperature,
            steps: 0,
        })
    }
}

impl Stage2Step {
    /// The codes of some latents, and what the model should say at each.
    fn lesson(&self, latents: Tensor<4>) -> anyhow::Result<(Codes, CodeTargets)> {
        let Some(temperature) = self.temperature else {
            let codes = self.quantizer.encode(latents)?;
            return Ok((codes.clone(), CodeTargets::Hard(codes)));
        };
        let [batch, _, height, width] = latents.dims();
        let soft = self.quantizer.soft_codes(latents, temperature, None)?;
        let each = soft.targets.into_iter().map(|target| {
            let [_, size] = target.dims();
            target.reshape([batch, height * width, 1, size])
        });
        let targets = CodeTargets::Soft(Tensor::from_inner(Tensor::cat(each.collect(), 2)));
        Ok((soft.codes, targets))
    }
}

impl Work for Stage2Step {
    fn step(&mut self) -> anyhow::Result<Outcome> {
        let mut noise = Noise::for_step(0, self.steps);
        self.steps += 1;
        let Conditions::Classes(classes) = &self.conditions else {
            unreachable!("made with classes")
        };
        let device = self.latents.device().autodiff();
        let (mut start, mut parts) = (0, Vec::new());
        for size in halves::sizes(classes.len(), &device) {
            let (codes, targets) = self.lesson(self.latents.clone().narrow(0, start, size))?;
            let conditions = Conditions::Classes(classes[start..start + size].to_vec());
            parts.push((size, (GeneratorInput { codes, conditions }, targets)));
            start += size;
        }
        let model = self.learner.model();
        let learn = |model: RqTransformer, (input, targets), mut noise: Noise| {
            let losses = model.forward(input, Some(&mut noise)).losses(targets);
            let loss = losses.codes.clone().inner().into_scalar::<f32>();
            let gradients = Gradients::of(&model, &losses.codes.backward());
            Ok((gradients, vec![("codes".to_owned(), f64::from(loss))]))
        };
        let (mut gradients, losses) = halves::learn(model, &device, &mut noise, parts, learn)?;
        let loss = losses[0].1;
        let norm = gradients.norm();
        self.learner.step(gradients, norm, 1.0);
        let numbers = vec![
            ("loss", json!(loss)),
            ("gradient_norm", json!(norm)),
            ("checksum", json!(loss)),
        ];
        Ok(Outcome {
            numbers,
            ..Outcome::default()
        })
    }
}

/// A whole batch of code maps.
pub(crate) struct Sample {
    model: RqTransformer,
    request: GenerationRequest,
}

impl Sample {
    /// Model and request.
    pub(crate) fn new(
        config: RqTransformerBench,
        weights: &Path,
        inputs: &Inputs,
    ) -> anyhow::Result<Self> {
        ensure!(
            !config.fixed_draws || config.top_k == Some(1),
            "fixed_draws must be false, or top_k 1: draws come from this library's own streams"
        );
        let model = config.load(weights, inputs.floats("codebook", &Device::flex())?)?;
        let sampling = SamplingConfig {
            temperature: 1.0,
            top_k: config.top_k.map(PerDepth::Same),
            top_p: Some(PerDepth::Same(config.top_p)),
            ..SamplingConfig::default()
        };
        let conditions = Conditions::Classes(inputs.ids("sample_classes")?);
        Ok(Self {
            model,
            request: GenerationRequest {
                sampling,
                ..GenerationRequest::new(conditions, 0)
            },
        })
    }
}

impl Work for Sample {
    fn step(&mut self) -> anyhow::Result<Outcome> {
        let codes = self
            .model
            .generate(&self.request, &mut |_| ControlFlow::Continue(()))?;
        Ok(Outcome::codes(&codes.values(), &codes.dims()))
    }
}
