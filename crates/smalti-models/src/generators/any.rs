//! Any of the generators, as training and sampling see them.

use std::ops::ControlFlow;

use burn::module::Module;
use burn::tensor::Device;
use smalti_nn::Noise;
use smalti_quantize::Codes;

use super::config::GeneratorConfig;
use super::far::Far;
use super::gpt::Gpt;
use super::output::{GeneratorInput, GeneratorOutput};
use super::request::{GenerateError, GenerationRequest, Progress};
use super::rq_transformer::RqTransformer;

/// One of the generators. The names of its parameters are those of the generator itself.
#[derive(Module, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a program holds one, its weights weigh more"
)]
pub enum AnyGenerator {
    /// Codes that refine one another.
    RqTransformer(RqTransformer),
    /// Codes beside one another, or a single one.
    Far(Far),
    /// One sequence of codes.
    Gpt(Gpt),
}

impl AnyGenerator {
    /// The configuration it was built from.
    pub fn config(&self) -> GeneratorConfig {
        match self {
            Self::RqTransformer(model) => GeneratorConfig::RqTransformer(model.config().clone()),
            Self::Far(model) => GeneratorConfig::Far(model.config().clone()),
            Self::Gpt(model) => GeneratorConfig::Gpt(model.config().clone()),
        }
    }

    /// The device of the parameters.
    pub fn device(&self) -> Device {
        match self {
            Self::RqTransformer(model) => model.device(),
            Self::Far(model) => model.device(),
            Self::Gpt(model) => model.device(),
        }
    }

    /// Logits of all codes at once, each given the true codes before it; dropout where there is noise.
    ///
    /// # Panics
    /// When the input does not fit the model.
    pub fn forward(&self, input: GeneratorInput, noise: Option<&mut Noise>) -> GeneratorOutput {
        match self {
            Self::RqTransformer(model) => model.forward(input, noise),
            Self::Far(model) => model.forward(input, noise),
            Self::Gpt(model) => model.forward(input, noise),
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
