//! Quantization to signs, which LFQ and BSQ share: every channel is a bit of a code.
//!
//! `x > 0` is a set bit and the value `+s`, anything else (zero included) a clear bit and `−s`.

use burn::tensor::{Device, Tensor, TensorData};
use smalti_nn::state::host_values;

use crate::digits::{Radix, Significance};
use crate::quantizer::check_finite;
use crate::{CodeSpec, Codes, QuantizeError};

/// How channels become bits, and bits values.
#[derive(Clone, Debug)]
pub(crate) struct Signs {
    /// Bits of one code.
    pub(crate) bits: usize,
    pub(crate) depth: usize,
    pub(crate) first: Significance,
    /// s
    pub(crate) magnitude: f32,
}

impl Signs {
    pub(crate) fn channels(&self) -> usize {
        self.bits * self.depth
    }

    pub(crate) fn spec(&self) -> CodeSpec {
        CodeSpec {
            codebook_sizes: vec![1 << self.bits; self.depth],
            code_dim: self.bits,
            fold: 1,
        }
    }

    fn radix(&self) -> Radix {
        Radix::bits(self.bits, self.first)
    }

    /// Codes of latents, and their values.
    pub(crate) fn of(&self, latents: &Tensor<4>) -> Result<(Codes, Tensor<4>), QuantizeError> {
        let values = host_values(latents.clone().inner());
        check_finite(&values)?;
        let digits: Vec<u32> = values.iter().map(|&x| u32::from(x > 0.0)).collect();
        let ([batch, _, height, width], device) = (latents.dims(), latents.device());
        let shape = [batch, self.depth, height, width];
        let ids = self.radix().pack_map(&digits, shape);
        let codes = Codes::from_values(&ids, shape, &device);
        Ok((codes, self.values(&digits, latents.dims(), &device)))
    }

    /// Values of codes that were checked.
    pub(crate) fn decode(&self, codes: &Codes) -> Tensor<4> {
        let [batch, _, height, width] = codes.dims();
        let digits = self.radix().unpack_map(&codes.values(), codes.dims());
        let shape = [batch, self.channels(), height, width];
        self.values(&digits, shape, &codes.tensor().device())
    }

    fn values(&self, digits: &[u32], shape: [usize; 4], device: &Device) -> Tensor<4> {
        let value = |&digit: &u32| [-self.magnitude, self.magnitude][digit as usize];
        let values: Vec<f32> = digits.iter().map(value).collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    }
}

/// What is wrong with the size of a code made of bits.
pub(crate) fn check_bits(bits: usize, depth: usize) -> Vec<String> {
    let mut problems = Vec::new();
    if depth == 0 {
        problems.push("depth must be at least 1, got 0".into());
    }
    // Ids are 32-bit integers on every device.
    if !(1..=30).contains(&bits) {
        problems.push(format!(
            "bits must lie between 1 and 30, got {bits}: spread more bits over more depth"
        ));
    }
    problems
}
