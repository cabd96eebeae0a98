//! The nearest code of every latent: from a table that was never prepared, as training sees it, and
//! from an index that is built once.

use anyhow::ensure;
use burn::tensor::{Device, Tensor};
use serde::Deserialize;
use smalti_kernels::nearest::{CodebookIndex, Metric};
use smalti_nn::nearest::{id_values, nearest_codes};
use smalti_nn::state::host_values;

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

/// The search in an index that is built before the first step.
pub(crate) struct NearestIndexed {
    latents: Vec<f32>,
    index: CodebookIndex,
}

impl NearestIndexed {
    /// Builds the index.
    pub(crate) fn new(config: NearestBench, inputs: &Inputs) -> anyhow::Result<Self> {
        let code_dim = config.code_dim;
        let Nearest { latents, codebook } = Nearest::new(config, inputs)?;
        Ok(Self {
            latents: host_values(latents),
            index: CodebookIndex::new(host_values(codebook), code_dim, Metric::Euclidean)?,
        })
    }
}

impl Work for NearestIndexed {
    fn step(&mut self) -> anyhow::Result<Outcome> {
        let mut codes = vec![0; self.latents.len() / self.index.code_dim()];
        self.index.search(&self.latents, &mut codes)?;
        Ok(Outcome::codes(&codes, &[codes.len()]))
    }
}

impl Work for Nearest {
    fn step(&mut self) -> anyhow::Result<Outcome> {
        let codes = id_values(nearest_codes(self.latents.clone(), self.codebook.clone())?);
        Ok(Outcome::codes(&codes, &[codes.len()]))
    }
}
