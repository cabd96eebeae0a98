//! Gaussian Quant: codes of a Gaussian autoencoder's latents without training a codebook
//! (Xu et al., "Vector Quantization using Gaussian Variational Autoencoder", arXiv 2512.06609).
//!
//! The encoder gives each channel a mean μ and the logarithm of a variance σ²
//! ([`GaussianPosterior`]). The codebook is K vectors of m standard normal numbers, made from a seed.
//! The code of a group of m channels is (eq. 8, in the form that the published code has)
//!
//! `argmax_j Σ_i [ −((c_ji − μ_i)/σ_i)² + β·c_ji² ]`,
//!
//! with β = 1 the code at which posterior and prior differ most in the posterior's favour. Latents of
//! c channels have `c/m` groups, the depth of the codes; all groups share the codebook.
//!
//! Training is that of a Gaussian variational autoencoder: the value is a sample `μ + σ·ε`, so that
//! no gradient estimator is needed, and the loss `divergence` holds the divergence of every group
//! near log2 K bits ([`constraint`](crate::constraint)). So [`Quantizer::quantize`] does *not* give the
//! value of `decode(encode(latents))`, which is what evaluation has to look at; it does with
//! [`TrainingValue::Codeword`], whose gradient is that of the sample.
//!
//! Shapes: latents `[batch, 2c, height, width]`, means first; codes `[batch, c/m, height, width]`;
//! quantized `[batch, c, height, width]`. State: that of the constraint. The codebook is made anew
//! from the configuration whenever a quantizer is built.
//!
//! Differences from the published code. The search decides in f64 and takes the lowest index on ties
//! ([`smalti_nn::nearest::weighted_codes`]). Depths may have codebooks of different sizes, a model whose latents
//! are not standard normal can be normalised ([`Normalization`]), and channels may be grouped in any
//! order. Codebook sizes must be powers of two: the published code rounds log2 K down without a word.
//! Its stochastic selection rules, which serve it as rivals, are left out.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use smalti_nn::nearest::weighted_codes;
use smalti_nn::{Init, Noise};

use crate::constraint::{DivergenceConstraint, DivergenceStatistics};
use crate::posterior::GaussianPosterior;
use crate::quantizer::check_codes;
use crate::rows::{beside, straight_through, to_rows};
use crate::{CodeSpec, Codes, Learn, QuantizeError, Quantized, Quantizer, UpdateReport};
use codebook::Codebooks;

pub use codebook::Generator;
pub use config::{GaussianConfig, Layout, Normalization, TrainingValue};

mod codebook;
mod config;
#[cfg(test)]
mod tests;

/// Gaussian latents and a codebook made from a seed.
#[derive(Module, Debug)]
pub struct GaussianQuantizer {
    constraint: DivergenceConstraint,
    #[module(skip)]
    codebooks: Codebooks,
    #[module(skip)]
    config: GaussianConfig,
    /// Where [`table`](Self::table) puts a codebook.
    #[module(skip)]
    device: Device,
}

impl GaussianQuantizer {
    fn new(config: &GaussianConfig, init: &Init) -> Self {
        let bits: Vec<f64> = config.sizes().iter().map(|k| (*k as f64).log2()).collect();
        Self {
            constraint: DivergenceConstraint::new(&config.constraint, &bits, init),
            codebooks: Codebooks::new(config),
            config: config.clone(),
            device: init.device().clone().inner(),
        }
    }

    /// The configuration it was built from.
    pub fn config(&self) -> &GaussianConfig {
        &self.config
    }

    /// The codes of one depth on the host, rows of `code_dim` numbers.
    pub fn codes_of(&self, depth: usize) -> &[f32] {
        self.codebooks.at(depth).codes()
    }

    /// The codes of the only depth, `[codebook_size, code_dim]`, as they are before a normalisation
    /// is undone; none where several depths are of different channels.
    pub fn table(&self) -> Option<Tensor<2>> {
        (self.config.depth() == 1).then(|| {
            let book = self.codebooks.at(0);
            let shape = [book.codebook_size(), book.code_dim()];
            let data = TensorData::new(book.codes().to_vec(), shape);
            Tensor::from_data(data, &self.device)
        })
    }

    /// What holds the divergence near the number of bits.
    pub fn constraint(&self) -> &DivergenceConstraint {
        &self.constraint
    }

    /// The same, for whoever merges the statistics of several processes before they move it.
    pub fn constraint_mut(&mut self) -> &mut DivergenceConstraint {
        &mut self.constraint
    }

    /// The divergence of every group from the prior in bits, `[batch, depth, height, width]`.
    ///
    /// # Errors
    /// As [`Quantizer::encode`].
    pub fn divergence_bits(&self, latents: Tensor<4>) -> Result<Tensor<4>, QuantizeError> {
        let posterior = self.normalized(&self.posterior(latents)?);
        Ok(self.sum_groups(posterior.kl_bits()))
    }

    /// The statistics of a batch's divergences.
    ///
    /// # Errors
    /// As [`Quantizer::encode`].
    pub fn statistics(&self, latents: Tensor<4>) -> Result<DivergenceStatistics, QuantizeError> {
        let posterior = self.normalized(&self.posterior(latents.inner())?);
        Ok(self
            .constraint
            .measure(self.sum_groups(posterior.kl_nats())))
    }

    fn posterior(&self, latents: Tensor<4>) -> Result<GaussianPosterior, QuantizeError> {
        GaussianPosterior::from_moments(latents, self.config.channels)
    }

    /// The posterior of the latents that the prior is meant for.
    fn normalized(&self, posterior: &GaussianPosterior) -> GaussianPosterior {
        match &self.config.normalization {
            Some(to) => posterior.normalized(&to.shift, &to.scale),
            None => posterior.clone(),
        }
    }

    /// `[batch, c, height, width]` to `[batch, depth, code_dim, height, width]`.
    fn grouped(&self, map: Tensor<4>) -> Tensor<5> {
        let [batch, _, height, width] = map.dims();
        let (depth, code_dim) = (self.config.depth(), self.config.code_dim);
        match &self.config.layout {
            Layout::Strided => map
                .reshape([batch, code_dim, depth, height, width])
                .swap_dims(1, 2),
            Layout::Contiguous => map.reshape([batch, depth, code_dim, height, width]),
            Layout::Order(order) => {
                let order: Vec<i32> = order.iter().map(|c| *c as i32).collect();
                let order = Tensor::from_ints(order.as_slice(), &map.device());
                map.select(1, order)
                    .reshape([batch, depth, code_dim, height, width])
            }
        }
    }

    /// Sums over the channels of each group.
    fn sum_groups(&self, map: Tensor<4>) -> Tensor<4> {
        self.grouped(map).sum_dim(2).squeeze_dim(2)
    }

    /// The codes of a normalised posterior without gradient.
    fn search(&self, posterior: &GaussianPosterior) -> Result<Codes, QuantizeError> {
        let [batch, _, height, width] = posterior.mean().dims();
        let means = self.grouped(posterior.mean().inner());
        let log_variances = self.grouped(posterior.log_variance().inner());
        let depths = (0..self.config.depth()).map(|depth| {
            let rows = |map: &Tensor<5>| to_rows(map.clone().narrow(1, depth, 1).squeeze_dim(1));
            // The latents were finite, so only normalising can have spoiled them.
            weighted_codes(rows(&means), rows(&log_variances), self.codebooks.at(depth))
                .map_err(|_| QuantizeError::TooLarge)
        });
        let depths = depths.collect::<Result<_, _>>()?;
        Ok(Codes::from_depths(depths, [batch, height, width]))
    }

    /// Quantizes with the constraint as it is; the divergences in nats beside it.
    fn training_pass(
        &self,
        latents: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<(Quantized, Tensor<4>), QuantizeError> {
        let posterior = self.posterior(latents)?;
        let normalized = self.normalized(&posterior);
        let codes = self.search(&normalized)?;
        let nats = self.sum_groups(normalized.kl_nats());
        let sample = posterior.sample(noise);
        let quantized = match self.config.training {
            TrainingValue::Sample => sample,
            TrainingValue::Codeword => {
                let codewords = beside(self.lookup(&codes), &sample);
                straight_through(sample, codewords)
            }
        };
        let losses = vec![("divergence", self.constraint.loss(nats.clone()))];
        Ok((Quantized::new(quantized, codes, losses), nats))
    }

    /// The vectors of codes that are in range, where the channels are the latents'.
    fn lookup(&self, codes: &Codes) -> Tensor<4> {
        let [batch, depth, height, width] = codes.dims();
        let (code_dim, positions) = (self.config.code_dim, height * width);
        let order = self.config.order();
        let mut map = vec![0.0; batch * depth * code_dim * positions];
        for (i, id) in codes.values().into_iter().enumerate() {
            let (image, rest) = (i / (depth * positions), i % (depth * positions));
            let (group, position) = (rest / positions, rest % positions);
            let code = &self.codes_of(group)[id as usize * code_dim..][..code_dim];
            for (value, channel) in code.iter().zip(&order[group * code_dim..]) {
                let (shift, scale) = match &self.config.normalization {
                    Some(to) => (to.shift[*channel], to.scale[*channel]),
                    None => (0.0, 1.0),
                };
                map[(image * self.config.channels + channel) * positions + position] =
                    value / scale + shift;
            }
        }
        let shape = [batch, self.config.channels, height, width];
        Tensor::from_data(TensorData::new(map, shape), &codes.tensor().device())
    }

    /// Different codes chosen, and codes there are, over the codebooks.
    fn count(&self, codes: &Codes) -> UpdateReport {
        let [_, depth, height, width] = codes.dims();
        let sizes = self.config.sizes();
        let mut chosen: BTreeMap<usize, Vec<bool>> = BTreeMap::new();
        for (i, id) in codes.values().into_iter().enumerate() {
            let size = sizes[i / (height * width) % depth];
            chosen.entry(size).or_insert_with(|| vec![false; size])[id as usize] = true;
        }
        let seen = |flags: &Vec<bool>| flags.iter().filter(|seen| **seen).count();
        UpdateReport {
            chosen: chosen.values().map(seen).sum(),
            codes: chosen.keys().sum(),
            ..UpdateReport::default()
        }
    }
}

impl Quantizer for GaussianQuantizer {
    fn spec(&self) -> CodeSpec {
        CodeSpec {
            codebook_sizes: self.config.sizes(),
            code_dim: self.config.code_dim,
            fold: 1,
        }
    }

    fn encode(&self, latents: Tensor<4>) -> Result<Codes, QuantizeError> {
        let posterior = self.posterior(latents.inner())?;
        self.search(&self.normalized(&posterior))
    }

    fn decode(&self, codes: &Codes) -> Result<Tensor<4>, QuantizeError> {
        check_codes(codes, &self.spec())?;
        Ok(self.lookup(codes))
    }

    fn quantize(&self, latents: Tensor<4>, noise: &mut Noise) -> Result<Quantized, QuantizeError> {
        Ok(self.training_pass(latents, noise)?.0)
    }
}

impl Learn for GaussianQuantizer {
    /// The codebook learns nothing: what moves is the state of the constraint, after the loss was
    /// taken with the old one.
    fn quantize_and_update(
        &mut self,
        latents: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<(Quantized, UpdateReport), QuantizeError> {
        if latents.dims().contains(&0) {
            return Err(QuantizeError::Empty);
        }
        let (quantized, nats) = self.training_pass(latents, noise)?;
        let report = UpdateReport {
            divergence: Some(self.constraint.learn(nats)?),
            ..self.count(&quantized.codes)
        };
        Ok((quantized, report))
    }
}
