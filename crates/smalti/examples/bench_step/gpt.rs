//! The decoding step of a GPT: one more position of every sequence, through all blocks, from a cache.

use std::path::Path;

use anyhow::ensure;
use burn::tensor::{Device, Tensor};
use serde::Deserialize;
use smalti_nn::Init;
use smalti_nn::gelu::Gelu;
use smalti_nn::state::{Array, Weights, host_values};
use smalti_nn::transformer::{Transformer, TransformerCache, TransformerConfig};

use crate::inputs::Inputs;
use crate::{Outcome, Work};

/// Sizes of the stack.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GptBench {
    layers: usize,
    width: usize,
    heads: usize,
    batch: usize,
    context: usize,
    /// At most; the cache has room for them.
    steps: usize,
}

/// The stack with what it has seen.
pub(crate) struct GptDecode {
    stack: Transformer,
    cache: TransformerCache,
    next: Tensor<3>,
}

impl GptDecode {
    /// Fills the cache with the prefix of the inputs.
    pub(crate) fn new(config: GptBench, weights: &Path, inputs: &Inputs) -> anyhow::Result<Self> {
        let device = Device::flex();
        let shape = TransformerConfig {
            width: config.width,
            layers: config.layers,
            heads: config.heads,
            attention_dropout: 0.0,
            residual_dropout: 0.0,
            gelu: Gelu::Exact,
        };
        let stack = shape.normal(0.02, &mut Init::blank(&device));
        let stack = Weights::read_safetensors(weights)?.load_into(stack)?;
        let prefix = inputs.floats::<3>("prefix", &device)?;
        let expected = [config.batch, config.context - 1, config.width];
        ensure!(
            prefix.dims() == expected,
            "expected a prefix of {expected:?}, got {:?}",
            prefix.dims()
        );
        let mut cache = stack.cache(config.batch, config.context + config.steps, &device);
        stack.forward_cached(prefix, &mut cache);
        Ok(Self {
            stack,
            cache,
            next: inputs.floats("next", &device)?,
        })
    }
}

impl Work for GptDecode {
    fn step(&mut self) -> anyhow::Result<Outcome> {
        let hidden = self
            .stack
            .forward_cached(self.next.clone(), &mut self.cache);
        let shape = hidden.dims().to_vec();
        let values = host_values(hidden);
        Ok(Outcome::floats("hidden", Array { shape, values }))
    }
}
