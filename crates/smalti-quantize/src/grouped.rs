//! Several quantizers side by side, each for its own part of the channels (product quantization;
//! Jégou et al., 2011).
//!
//! The channels are dealt out to g groups, and every group is quantized by itself: by one quantizer
//! that all share, or each by its own. Losses of the same name are averaged over the groups.
//!
//! Shapes: latents `[batch, g · c, height, width]` for a quantizer of c channels, codes
//! `[batch, g · d, height, width]` for one of depth d: all codes of the first group, then all of the
//! second. State: that of the quantizers, under `parts`.
//!
//! [`Layout::Strided`] with a shared quantizer is the multi-codebook VQ of the author's code of
//! Gaussian Quant: it views the channels as `[c, g]`. [`Layout::Contiguous`] with separate ones is
//! the grouped residual VQ of the common library.

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};
use smalti_nn::{Init, Noise};

use crate::config::{AnyQuantizer, InvalidQuantizer, QuantizerConfig, check_part};
use crate::quantizer::{check_channels, check_codes, mean_losses, sum_perturbations};
use crate::{CodeSpec, Codes, Learn, QuantizeError, Quantized, Quantizer, UpdateReport};

/// Which channels are a group's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Channel i of group j is channel `j · c + i`.
    #[default]
    Contiguous,
    /// Channel i of group j is channel `i · g + j`.
    Strided,
}

/// The shape of a grouped quantizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupedConfig {
    /// Number of groups.
    pub groups: usize,
    /// Which channels are a group's.
    #[serde(default)]
    pub layout: Layout,
    /// Whether one quantizer serves all groups.
    #[serde(default = "yes")]
    pub shared: bool,
    /// What quantizes a group.
    pub part: Box<QuantizerConfig>,
}

fn yes() -> bool {
    true
}

impl GroupedConfig {
    /// Groups of neighbouring channels that share one quantizer.
    pub fn new(groups: usize, part: QuantizerConfig) -> Self {
        Self {
            groups,
            layout: Layout::Contiguous,
            shared: true,
            part: Box::new(part),
        }
    }

    /// Channels of the latents.
    pub fn channels(&self) -> usize {
        self.groups * self.part.latent_channels()
    }

    /// Checks every number.
    ///
    /// # Errors
    /// Lists all problems.
    pub fn validate(&self) -> Result<(), InvalidQuantizer> {
        let mut problems = check_part("part", &self.part);
        if self.groups == 0 {
            problems.push("groups must be at least 1, got 0".into());
        }
        InvalidQuantizer::unless_empty(problems)
    }

    /// Builds the quantizers.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn build(&self, init: &mut Init) -> Result<GroupedQuantizer, InvalidQuantizer> {
        self.validate()?;
        let count = if self.shared { 1 } else { self.groups };
        let parts = (0..count).map(|_| self.part.build(init));
        Ok(GroupedQuantizer {
            parts: parts.collect::<Result<_, _>>()?,
            config: self.clone(),
        })
    }
}

/// Quantizers side by side.
#[derive(Module, Debug)]
pub struct GroupedQuantizer {
    /// One for all groups, or one for each.
    parts: Vec<AnyQuantizer>,
    #[module(skip)]
    config: GroupedConfig,
}

impl GroupedQuantizer {
    /// The configuration it was built from.
    pub fn config(&self) -> &GroupedConfig {
        &self.config
    }

    /// One quantizer for all groups, or one for each.
    pub(crate) fn parts(&self) -> &[AnyQuantizer] {
        &self.parts
    }

    /// What each part quantizes: its groups lie one after the other within an image's place in the
    /// batch, `[batch · groups / parts, c, height, width]`.
    fn split(&self, latents: Tensor<4>) -> Result<Vec<Tensor<4>>, QuantizeError> {
        check_channels(&latents, self.config.channels())?;
        let ([batch, channels, height, width], groups) = (latents.dims(), self.config.groups);
        let each = channels / groups;
        let by_group: Tensor<5> = match self.config.layout {
            Layout::Contiguous => latents.reshape([batch, groups, each, height, width]),
            Layout::Strided => latents
                .reshape([batch, each, groups, height, width])
                .swap_dims(1, 2),
        };
        let of_part = groups / self.parts.len();
        let part = |index| {
            let groups = by_group.clone().narrow(1, index * of_part, of_part);
            groups.reshape([batch * of_part, each, height, width])
        };
        Ok((0..self.parts.len()).map(part).collect())
    }

    /// The inverse of [`split`](Self::split), of values.
    fn join(&self, parts: Vec<Tensor<4>>) -> Tensor<4> {
        let ([all, each, height, width], groups) = (parts[0].dims(), self.config.groups);
        let of_part = groups / parts.len();
        let batch = all / of_part;
        let by_group = parts
            .into_iter()
            .map(|part| part.reshape([batch, of_part, each, height, width]));
        let by_group = Tensor::cat(by_group.collect(), 1);
        let ordered = match self.config.layout {
            Layout::Contiguous => by_group,
            Layout::Strided => by_group.swap_dims(1, 2),
        };
        ordered.reshape([batch, groups * each, height, width])
    }

    fn join_codes(&self, parts: Vec<Codes>) -> Codes {
        let [all, depth, height, width] = parts[0].dims();
        let of_part = self.config.groups / parts.len();
        let batch = all / of_part;
        let ids = |codes: Codes| -> Tensor<4, Int> {
            codes
                .tensor()
                .reshape([batch, of_part * depth, height, width])
        };
        Codes::new(Tensor::cat(parts.into_iter().map(ids).collect(), 1))
    }

    fn join_quantized(&self, parts: Vec<Quantized>) -> Quantized {
        let (mut values, mut codes) = (Vec::new(), Vec::new());
        let (mut losses, mut perturbations) = (Vec::new(), Vec::new());
        let of_part = self.config.groups / parts.len();
        for part in parts {
            values.push(part.quantized);
            codes.push(part.codes);
            losses.push(part.losses);
            let by_image = |map: Tensor<3>| {
                let [all, height, width] = map.dims();
                let groups = map.reshape([all / of_part, of_part, height, width]);
                groups.sum_dim(1).squeeze_dim::<3>(1)
            };
            perturbations.push(part.perturbation.map(by_image));
        }
        Quantized {
            quantized: self.join(values),
            codes: self.join_codes(codes),
            losses: mean_losses(losses),
            perturbation: sum_perturbations(perturbations),
        }
    }

    fn learn(
        &mut self,
        latents: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<(Quantized, UpdateReport), QuantizeError> {
        let groups = self.split(latents)?;
        let (mut parts, mut report) = (Vec::new(), UpdateReport::default());
        for (part, latents) in self.parts.iter_mut().zip(groups) {
            let (quantized, did) = part.quantize_and_update(latents, noise)?;
            parts.push(quantized);
            report.merge(&did);
        }
        Ok((self.join_quantized(parts), report))
    }
}

impl Quantizer for GroupedQuantizer {
    fn spec(&self) -> CodeSpec {
        let part = |group: usize| self.parts[group % self.parts.len()].spec();
        let sizes = (0..self.config.groups).flat_map(|group| part(group).codebook_sizes);
        CodeSpec {
            codebook_sizes: sizes.collect(),
            ..part(0)
        }
    }

    fn encode(&self, latents: Tensor<4>) -> Result<Codes, QuantizeError> {
        let groups = self.split(latents.inner())?;
        let parts = self.parts.iter().zip(groups);
        let codes = parts.map(|(part, latents)| part.encode(latents));
        Ok(self.join_codes(codes.collect::<Result<_, _>>()?))
    }

    fn decode(&self, codes: &Codes) -> Result<Tensor<4>, QuantizeError> {
        check_codes(codes, &self.spec())?;
        let ([batch, all, height, width], parts) = (codes.dims(), self.parts.len());
        let depth = all / self.config.groups;
        let of_part = self.config.groups / parts;
        let values = self.parts.iter().enumerate().map(|(index, part)| {
            let first = index * of_part * depth;
            let ids = codes.tensor().narrow(1, first, of_part * depth);
            let ids = ids.reshape([batch * of_part, depth, height, width]);
            part.decode(&Codes::new(ids))
        });
        Ok(self.join(values.collect::<Result<_, _>>()?))
    }

    fn quantize(&self, latents: Tensor<4>, noise: &mut Noise) -> Result<Quantized, QuantizeError> {
        let groups = self.split(latents)?;
        let parts = self.parts.iter().zip(groups);
        let parts = parts.map(|(part, latents)| part.quantize(latents, noise));
        Ok(self.join_quantized(parts.collect::<Result<_, _>>()?))
    }
}

impl Learn for GroupedQuantizer {
    fn quantize_and_update(
        &mut self,
        latents: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<(Quantized, UpdateReport), QuantizeError> {
        // An error of a later group must not leave the updates of earlier ones behind.
        let before = self.parts.clone();
        let result = self.learn(latents, noise);
        if result.is_err() {
            self.parts = before;
        }
        result
    }
}

#[cfg(test)]
mod tests;
