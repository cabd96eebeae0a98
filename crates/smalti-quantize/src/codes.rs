//! Discrete codes and what they mean.

use burn::tensor::{Device, Int, Tensor};
use smalti_nn::nearest::{id_tensor, id_values};

/// How codes are laid out: what a generator or a file has to know of a quantizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeSpec {
    /// Number of codes to choose from, for each code at one position.
    pub codebook_sizes: Vec<usize>,
    /// Width of one code vector.
    pub code_dim: usize,
    /// Image positions of the latent grid that share one position of the code grid, in each
    /// direction; 1 but for folded latents.
    pub fold: usize,
}

impl CodeSpec {
    /// Codes at one position.
    pub fn depth(&self) -> usize {
        self.codebook_sizes.len()
    }

    /// Bits that one position takes at a fixed rate: Σ log2 of the codebook sizes.
    pub fn bits_per_position(&self) -> f64 {
        self.codebook_sizes
            .iter()
            .map(|&size| (size as f64).log2())
            .sum()
    }
}

/// Codes of a batch, `[batch, depth, height, width]`, on a device and without gradient.
#[derive(Clone, Debug)]
pub struct Codes(Tensor<4, Int>);

impl Codes {
    /// Takes over ids `[batch, depth, height, width]`.
    pub fn new(ids: Tensor<4, Int>) -> Self {
        Self(ids.inner())
    }

    /// Ids from the host.
    pub fn from_values(values: &[u32], shape: [usize; 4], device: &Device) -> Self {
        Self(id_tensor(values, shape, &device.clone().inner()))
    }

    /// The ids as a tensor.
    pub fn tensor(&self) -> Tensor<4, Int> {
        self.0.clone()
    }

    /// The ids on the host, row-major.
    pub fn values(&self) -> Vec<u32> {
        id_values(self.0.clone())
    }

    /// `[batch, depth, height, width]`
    pub fn dims(&self) -> [usize; 4] {
        self.0.dims()
    }

    /// The ids of one depth in row order, `[batch · height · width]`.
    pub fn at_depth(&self, depth: usize) -> Tensor<1, Int> {
        let [batch, _, height, width] = self.dims();
        self.0
            .clone()
            .narrow(1, depth, 1)
            .reshape([batch * height * width])
    }

    /// Puts together the ids of every depth, each in row order.
    pub(crate) fn from_depths(
        depths: Vec<Tensor<1, Int>>,
        [batch, height, width]: [usize; 3],
    ) -> Self {
        let depths = depths
            .into_iter()
            .map(|ids| ids.reshape([batch, 1, height, width]))
            .collect();
        Self(Tensor::cat(depths, 1))
    }
}
