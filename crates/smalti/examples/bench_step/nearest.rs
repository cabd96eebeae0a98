//! The nearest code of every latent, from tables that were never prepared.

use anyhow::ensure;
use burn::tensor::{Device, Tensor};
use serde::Deserialize;
use smalti_nn::nearest::{id_values, nearest_codes};

use crate::inputs::Inputs;
use crate::{Outcome, Work};

/// Sizes of the search.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NearestBench {
    codebook_size: usize,
    code_dim: usize,
    latents: usize,
}

/// The search.
pub(crate) struct Nearest {
    latents: Tensor<2>,
    codebook: Tensor<2>,
}

impl Nearest {
    /// Latents and codes of the inputs, which must have the sizes that `config` tells.
    pub(crate) fn new(config: NearestBench, inputs: &Inputs) -> anyhow::Result<Self> {
        let device = Device::flex();
        let codebook = inputs.floats::<2>("codebook", &device)?;
        let latents = inputs.floats::<2>("latents", &device)?;
        let expected = (
            [config.codebook_size, config.code_dim],
            [config.latents, config.code_dim],
        );
        let got = (codebook.dims(), latents.dims());
        ensure!(
            got == expected,
            "expected codebook and latents of sizes {expected:?}, got {got:?}"
        );
        Ok(Self { latents, codebook })
    }
}

impl Work for Nearest {
    fn step(&mut self) -> anyhow::Result<Outcome> {
        let codes = id_values(nearest_codes(self.latents.clone(), self.codebook.clone())?);
        Ok(Outcome::codes(&codes, &[codes.len()]))
    }
}
