//! Any quantizer, several times over: every stage quantizes what the stages before left over.
//!
//! `r_1 = x`, `q_d = s_d · Q_d(r_d / s_d)`, `r_{d+1} = r_d − sg(q_d)`, value `Σ q_d` (Zeghidour et al.,
//! 2021, algorithm 1, with scales). The scales `s_d` follow the kind of stage:
//!
//! * FSQ: `L^{−(d−1)}` for each channel of L levels, so that a stage divides the interval of one level
//!   of the stage before. It needs levels that reach both ends (`symmetric` or `clamped`). Under
//!   `clamped`, x is first softly bounded to `c·tanh(x/c)` with `c = 1 + 1/(L − 1)`;
//! * LFQ and BSQ: `2^{−(d−1)}`;
//! * all others: 1, because their codebooks learn the sizes of the residuals.
//!
//! Losses of the same name are averaged over the stages; they are taken in the units of their
//! stage, `r_d / s_d`.
//!
//! Shapes: latents as the stage's, codes `[batch, depth · k, height, width]` for stages of k codes.
//! State: that of the stages, under `stages`.
//!
//! For one shared codebook, and for the published RQ-VAE, there is [`residual`](crate::residual).
//!
//! Difference: the value's gradient is the mean of the stages' estimators, so that straight-through
//! stages make a straight-through stack. The common library adds them up, which multiplies every
//! gradient of the encoder by the depth.

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use smalti_nn::{Init, Noise};

use crate::config::{AnyQuantizer, InvalidQuantizer, QuantizerConfig, check_part};
use crate::quantizer::{check_codes, mean_losses, sum_perturbations};
use crate::rows::{single, straight_through};
use crate::{
    Bound, CodeSpec, Codes, FsqConfig, Learn, QuantizeError, Quantized, Quantizer, UpdateReport,
};

/// The shape of a stack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StackedConfig {
    /// Number of stages.
    pub depth: usize,
    /// What quantizes at each stage; each has its own parameters.
    pub stage: Box<QuantizerConfig>,
}

impl StackedConfig {
    /// `depth` stages.
    pub fn new(depth: usize, stage: QuantizerConfig) -> Self {
        Self {
            depth,
            stage: Box::new(stage),
        }
    }

    /// Checks every number.
    ///
    /// # Errors
    /// Lists all problems.
    pub fn validate(&self) -> Result<(), InvalidQuantizer> {
        let mut problems = check_part("stage", &self.stage);
        if self.depth == 0 {
            problems.push("depth must be at least 1, got 0".into());
        }
        if let QuantizerConfig::Fsq(fsq) = &*self.stage
            && fsq.bound == Bound::Official
        {
            problems.push(
                "stage: a stack of fsq needs bound = \"symmetric\" or \"clamped\": the official levels \
                 do not reach both ends of their interval"
                    .into(),
            );
        }
        InvalidQuantizer::unless_empty(problems)
    }

    /// Builds the stages.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn build(&self, init: &mut Init) -> Result<StackedQuantizer, InvalidQuantizer> {
        self.validate()?;
        let stages = (0..self.depth).map(|_| self.stage.build(init));
        Ok(StackedQuantizer {
            stages: stages.collect::<Result<_, _>>()?,
            config: self.clone(),
        })
    }
}

/// Quantizers one after the other.
#[derive(Module, Debug)]
pub struct StackedQuantizer {
    stages: Vec<AnyQuantizer>,
    #[module(skip)]
    config: StackedConfig,
}

/// What was left over and put together so far.
struct Pass {
    residual: Tensor<4>,
    value: Option<Tensor<4>>,
}

impl Pass {
    fn new(latents: Tensor<4>) -> Self {
        Self {
            residual: latents,
            value: None,
        }
    }

    fn add(&mut self, value: Tensor<4>) {
        let value = value.detach();
        self.residual = self.residual.clone() - value.clone();
        self.value = Some(match self.value.take() {
            Some(sum) => sum + value,
            None => value,
        });
    }

    fn value(self) -> Tensor<4> {
        self.value.expect("there is at least one stage")
    }
}

impl StackedQuantizer {
    /// The codes of one depth, where its stage stores a table.
    pub fn table(&self, depth: usize) -> Option<Tensor<2>> {
        let each = self.stages[0].spec().depth();
        // Stages with tables are not scaled.
        self.stages[depth / each].table(depth % each)
    }

    /// `s_d` for every channel; `None` where all are 1.
    fn scale(&self, stage: usize, like: &Tensor<4>) -> Option<Tensor<4>> {
        let steps: Vec<f32> = match &*self.config.stage {
            QuantizerConfig::Fsq(fsq) => each_level(fsq, |levels| 1.0 / levels),
            QuantizerConfig::Lfq(_) | QuantizerConfig::Bsq(_) => vec![0.5; like.dims()[1]],
            _ => return None,
        };
        let power = i32::try_from(stage).expect("a small depth");
        let scales: Vec<f32> = steps.iter().map(|step| step.powi(power)).collect();
        let shape = [1, scales.len(), 1, 1];
        Some(Tensor::from_data(
            TensorData::new(scales, shape),
            &like.device(),
        ))
    }

    /// The residual of a stage in the stage's units.
    fn scaled(&self, stage: usize, residual: Tensor<4>) -> Tensor<4> {
        match self.scale(stage, &residual) {
            Some(scale) => residual / scale,
            None => residual,
        }
    }

    fn unscaled(&self, stage: usize, value: Tensor<4>) -> Tensor<4> {
        match self.scale(stage, &value) {
            Some(scale) => value * scale,
            None => value,
        }
    }

    /// Latents as the first stage takes them.
    fn bounded(&self, latents: Tensor<4>) -> Result<Tensor<4>, QuantizeError> {
        let expected = self.config.stage.latent_channels();
        crate::quantizer::check_channels(&latents, expected)?;
        let latents = single(latents);
        let QuantizerConfig::Fsq(fsq) = &*self.config.stage else {
            return Ok(latents);
        };
        if fsq.bound != Bound::Clamped {
            return Ok(latents);
        }
        crate::quantizer::check_finite(&smalti_nn::state::host_values(latents.clone().inner()))?;
        let bounds = each_level(fsq, |levels| 1.0 + 1.0 / (levels - 1.0));
        let shape = [1, bounds.len(), 1, 1];
        let bounds = Tensor::from_data(TensorData::new(bounds, shape), &latents.device());
        Ok((latents / bounds.clone()).tanh() * bounds)
    }

    /// Runs `quantize` over the stages.
    fn run(
        &self,
        latents: Tensor<4>,
        mut quantize: impl FnMut(usize, Tensor<4>) -> Result<Quantized, QuantizeError>,
    ) -> Result<Quantized, QuantizeError> {
        let mut pass = Pass::new(self.bounded(latents)?);
        let (mut through, mut codes) = (Vec::new(), Vec::new());
        let (mut losses, mut perturbations) = (Vec::new(), Vec::new());
        for stage in 0..self.config.depth {
            let latents = self.scaled(stage, pass.residual.clone());
            let seen = quantize(stage, latents).map_err(|error| at_stage(error, stage))?;
            let value = self.unscaled(stage, seen.quantized);
            pass.add(value.clone());
            through.push(value);
            codes.push(seen.codes.tensor());
            losses.push(seen.losses);
            perturbations.push(seen.perturbation);
        }
        let depth = self.config.depth as f64;
        let through = through.into_iter().reduce(|a, b| a + b);
        let through = through.expect("there is at least one stage");
        Ok(Quantized {
            quantized: straight_through(through.div_scalar(depth), pass.value()),
            codes: Codes::new(Tensor::cat(codes, 1)),
            losses: mean_losses(losses),
            perturbation: sum_perturbations(perturbations),
        })
    }

    /// The codes of every stage, each as its stage reads them.
    fn by_stage(&self, codes: &Codes) -> Vec<Codes> {
        let each = self.stages[0].spec().depth();
        (0..self.config.depth)
            .map(|stage| Codes::new(codes.tensor().narrow(1, stage * each, each)))
            .collect()
    }
}

fn each_level(fsq: &FsqConfig, of: impl Fn(f32) -> f32) -> Vec<f32> {
    let one = fsq.levels.iter().map(|&levels| of(levels as f32));
    one.collect::<Vec<_>>().repeat(fsq.depth)
}

/// The first residual is the latents; the others are not finite only by overflow.
fn at_stage(error: QuantizeError, stage: usize) -> QuantizeError {
    match error {
        QuantizeError::NonFinite if stage > 0 => QuantizeError::TooLarge,
        error => error,
    }
}

impl Quantizer for StackedQuantizer {
    fn spec(&self) -> CodeSpec {
        let one = self.stages[0].spec();
        CodeSpec {
            codebook_sizes: one.codebook_sizes.repeat(self.config.depth),
            ..one
        }
    }

    fn encode(&self, latents: Tensor<4>) -> Result<Codes, QuantizeError> {
        let mut pass = Pass::new(self.bounded(latents.inner())?);
        let mut all = Vec::new();
        for (index, stage) in self.stages.iter().enumerate() {
            let codes = stage
                .encode(self.scaled(index, pass.residual.clone()))
                .map_err(|error| at_stage(error, index))?;
            let value = stage.decode(&codes)?;
            pass.add(self.unscaled(index, value.inner()));
            all.push(codes.tensor());
        }
        Ok(Codes::new(Tensor::cat(all, 1)))
    }

    fn decode(&self, codes: &Codes) -> Result<Tensor<4>, QuantizeError> {
        check_codes(codes, &self.spec())?;
        let stages = self.stages.iter().zip(self.by_stage(codes)).enumerate();
        let values = stages
            .map(|(index, (stage, codes))| Ok(self.unscaled(index, stage.decode(&codes)?)))
            .collect::<Result<Vec<_>, QuantizeError>>()?;
        let sum = values.into_iter().reduce(|a, b| a + b);
        Ok(sum.expect("there is at least one stage"))
    }

    fn quantize(&self, latents: Tensor<4>, noise: &mut Noise) -> Result<Quantized, QuantizeError> {
        self.run(latents, |stage, latents| {
            self.stages[stage].quantize(latents, noise)
        })
    }
}

impl Learn for StackedQuantizer {
    fn quantize_and_update(
        &mut self,
        latents: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<(Quantized, UpdateReport), QuantizeError> {
        // The stages learn on a copy: an error of a later one leaves nothing behind.
        let (mut stages, mut report) = (self.stages.clone(), UpdateReport::default());
        let quantized = self.run(latents, |stage, latents| {
            let (quantized, did) = stages[stage].quantize_and_update(latents, noise)?;
            report.merge(&did);
            Ok(quantized)
        })?;
        self.stages = stages;
        Ok((quantized, report))
    }
}

#[cfg(test)]
mod tests;
