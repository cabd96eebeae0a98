//! What training shows to a generator, and what the generator says.

use burn::tensor::{Int, Tensor};
use smalti_quantize::Codes;

use super::conditions::Conditions;

/// What a training step shows to the model.
#[derive(Clone, Debug)]
pub struct GeneratorInput {
    /// The codes of every sample.
    pub codes: Codes,
    /// The condition of every sample.
    pub conditions: Conditions,
}

/// What the model says.
#[derive(Clone, Debug)]
pub struct GeneratorOutput {
    /// Of every code given those before it, `[batch, positions, depth, vocab]`.
    pub logits: Tensor<4>,
    /// Of the text, for models that write it as well.
    pub text: Option<TextOutput>,
}

/// What a text model says about the text.
#[derive(Clone, Debug)]
pub struct TextOutput {
    /// Of tokens 1 … L−1 given those before, `[batch, L−1, text vocab]`.
    pub logits: Tensor<3>,
    /// The tokens 1 … L−1 of the text that was shown, `[batch, L−1]`.
    pub tokens: Tensor<2, Int>,
}
