//! What a training step gets from a generator.

use burn::tensor::Tensor;
use smalti_quantize::NamedLoss;

use super::loss::GeneratorLosses;

/// What a batch teaches.
#[derive(Clone, Debug)]
pub struct GeneratorLesson {
    /// What is minimised, `[1]`; a mean over the samples, so that a batch may be learned in parts.
    pub total: Tensor<1>,
    /// The losses it is made of, unweighted; the first is `codes`.
    pub losses: Vec<NamedLoss>,
    /// What a generator that chooses its time steps by their losses has to be told of this batch, by
    /// [`AnyGenerator::note`](super::AnyGenerator::note); empty for all others.
    pub times: Vec<TimeLoss>,
}

/// The loss of one sample at the time step that was drawn for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeLoss {
    /// The time step.
    pub time: usize,
    /// Its part of the bound, summed over the sample's codes.
    pub loss: f32,
}

impl From<GeneratorLosses> for GeneratorLesson {
    /// That of a generator whose codes alone count.
    fn from(losses: GeneratorLosses) -> Self {
        Self {
            total: losses.codes.clone(),
            losses: vec![("codes", losses.codes)],
            times: Vec::new(),
        }
    }
}
