//! Any of the generators, as training and sampling see them.

use std::ops::ControlFlow;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use smalti_nn::Noise;
use smalti_quantize::Codes;

use super::config::GeneratorConfig;
use super::diffusion::Diffusion;
use super::far::Far;
use super::gpt::Gpt;
use super::lesson::{GeneratorLesson, TimeLoss};
use super::loss::CodeTargets;
use super::masked::Masked;
use super::output::GeneratorInput;
use super::request::{GenerateError, GenerationRequest, Progress};
use super::rq_transformer::RqTransformer;

/// One of the generators. The names of its parameters are those of the generator itself.
#[derive(Module, Debug)]
pub enum AnyGenerator {
    /// Codes that refine one another.
    RqTransformer(RqTransformer),
    /// Codes beside one another, or a single one.
    Far(Far),
    /// One sequence of codes.
    Gpt(Gpt),
    /// All codes at once, back along a chain that wears them away.
    Diffusion(Diffusion),
    /// All codes at once, the surest first.
    Masked(Masked),
}

impl AnyGenerator {
    /// The configuration it was built from.
    pub fn config(&self) -> GeneratorConfig {
        match self {
            Self::RqTransformer(model) => GeneratorConfig::RqTransformer(model.config().clone()),
            Self::Far(model) => GeneratorConfig::Far(model.config().clone()),
            Self::Gpt(model) => GeneratorConfig::Gpt(model.config().clone()),
            Self::Diffusion(model) => GeneratorConfig::Diffusion(model.config().clone()),
            Self::Masked(model) => GeneratorConfig::Masked(model.config().clone()),
        }
    }

    /// The device of the parameters.
    pub fn device(&self) -> Device {
        match self {
            Self::RqTransformer(model) => model.device(),
            Self::Far(model) => model.device(),
            Self::Gpt(model) => model.device(),
            Self::Diffusion(model) => model.device(),
            Self::Masked(model) => model.device(),
        }
    }

    /// What a batch teaches. The noise drops, hides conditions, and decides what generators of whole
    /// maps are shown of the codes.
    ///
    /// # Panics
    /// When the input does not fit the model, or targets are soft that it cannot learn.
    pub fn learn(
        &self,
        input: GeneratorInput,
        targets: CodeTargets,
        noise: &mut Noise,
    ) -> GeneratorLesson {
        match (self, &targets) {
            (Self::RqTransformer(model), _) => {
                model.forward(input, Some(noise)).losses(targets).into()
            }
            (Self::Far(model), _) => model.forward(input, Some(noise)).losses(targets).into(),
            (Self::Gpt(model), _) => model.forward(input, Some(noise)).losses(targets).into(),
            (Self::Diffusion(model), CodeTargets::Hard(_)) => model.learn(&input, noise),
            (Self::Masked(model), CodeTargets::Hard(_)) => model.learn(&input, noise),
            (Self::Diffusion(_) | Self::Masked(_), CodeTargets::Soft(_)) => {
                panic!("generators of whole maps learn codes, not distributions")
            }
        }
    }

    /// The loss of these codes at every depth in nats for each code, `[depth]`, without dropout.
    ///
    /// Of generators that write code by code it is the cross entropy, and the noise is not used; of
    /// others a bound on it (diffusion) or that of codes that are masked (masked), and the noise
    /// decides what is hidden: the same noise gives the same loss.
    ///
    /// # Panics
    /// When the input does not fit the model.
    pub fn measure(&self, input: GeneratorInput, noise: &mut Noise) -> Tensor<1> {
        let targets = CodeTargets::Hard(input.codes.clone());
        match self {
            Self::RqTransformer(model) => model.forward(input, None).losses(targets).per_depth,
            Self::Far(model) => model.forward(input, None).losses(targets).per_depth,
            Self::Gpt(model) => model.forward(input, None).losses(targets).per_depth,
            Self::Diffusion(model) => model.measure(&input, noise),
            Self::Masked(model) => model.measure(&input, noise),
        }
    }

    /// Takes note of a [`GeneratorLesson`]'s times, in the order of its samples.
    pub fn note(&mut self, times: &[TimeLoss]) {
        match self {
            Self::Diffusion(model) => model.note(times),
            Self::RqTransformer(_) | Self::Far(_) | Self::Gpt(_) | Self::Masked(_) => {}
        }
    }

    /// Samples codes, one map for each condition.
    ///
    /// `watch` is called after every position and stops the generation by [`ControlFlow::Break`].
    ///
    /// # Errors
    /// When the request does not fit the model, the logits are not numbers, or `watch` says so.
    pub fn generate(
        &self,
        request: &GenerationRequest,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Codes, GenerateError> {
        match self {
            Self::RqTransformer(model) => model.generate(request, watch),
            Self::Far(model) => model.generate(request, watch),
            Self::Gpt(model) => model.generate(request, watch),
            Self::Diffusion(model) => model.generate(request, watch),
            Self::Masked(model) => model.generate(request, watch),
        }
    }
}

impl From<RqTransformer> for AnyGenerator {
    fn from(model: RqTransformer) -> Self {
        Self::RqTransformer(model)
    }
}

impl From<Far> for AnyGenerator {
    fn from(model: Far) -> Self {
        Self::Far(model)
    }
}

impl From<Gpt> for AnyGenerator {
    fn from(model: Gpt) -> Self {
        Self::Gpt(model)
    }
}

impl From<Diffusion> for AnyGenerator {
    fn from(model: Diffusion) -> Self {
        Self::Diffusion(model)
    }
}

impl From<Masked> for AnyGenerator {
    fn from(model: Masked) -> Self {
        Self::Masked(model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::far::testing::{random, tiny};
    use smalti_nn::state::Weights;

    #[test]
    fn parameters_keep_the_names_of_the_generator() {
        let model = random(&tiny(2), &Device::flex(), 1);
        let names = |weights: Weights| weights.0.into_keys().collect::<Vec<_>>();
        let alone = names(Weights::of(&model));
        assert!(alone.contains(&"layers.1.attention.wqkv.weight".to_owned()));
        assert_eq!(names(Weights::of(&AnyGenerator::from(model))), alone);
    }
}
