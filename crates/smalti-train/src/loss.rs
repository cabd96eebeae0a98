//! Losses of stage 1: how images are compared, and the one place where losses are weighed.
//!
//! The model produces named, unweighted losses; the configuration gives each name a weight. A name
//! that only one of the two knows is an error: a loss without a weight, or a weight that would do
//! nothing.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use smalti_quantize::NamedLoss;

use crate::error::TrainError;

/// How the reconstruction is compared with the image, both in [−1, 1].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReconstructionLoss {
    /// mean (x − x̂)²
    #[default]
    SquaredError,
    /// mean |x − x̂|
    AbsoluteError,
}

impl ReconstructionLoss {
    /// The loss, `[1]`.
    pub fn of(self, reconstruction: Tensor<4>, images: Tensor<4>) -> Tensor<1> {
        let difference = reconstruction - images;
        match self {
            Self::SquaredError => difference.square().mean(),
            Self::AbsoluteError => difference.abs().mean(),
        }
    }
}

/// Σ weight · loss, and every loss's value for the journal.
///
/// # Errors
/// When the names of the weights are not exactly the names of the losses.
pub fn weigh(
    losses: Vec<NamedLoss>,
    weights: &BTreeMap<String, f64>,
) -> Result<(Tensor<1>, Vec<NamedLoss>), TrainError> {
    let produced: Vec<&str> = losses.iter().map(|(name, _)| *name).collect();
    TrainError::unless_empty(name_problems(&produced, weights))?;
    let total = losses
        .iter()
        .map(|(name, loss)| loss.clone().mul_scalar(weights[*name]))
        .reduce(|a, b| a + b)
        .expect("a model produces a loss");
    Ok((total, losses))
}

/// Losses without a weight and weights without a loss.
pub(crate) fn name_problems(produced: &[&str], weights: &BTreeMap<String, f64>) -> Vec<String> {
    let idle = weights
        .keys()
        .filter(|name| !produced.contains(&name.as_str()))
        .map(|name| {
            format!(
                "losses: {name} is not produced by this model, which has {}",
                produced.join(", ")
            )
        });
    let unweighted = produced
        .iter()
        .filter(|name| !weights.contains_key(**name))
        .map(|name| format!("losses: {name} has no weight; give it one, 0 to only watch it"));
    idle.chain(unweighted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn loss(value: f32) -> Tensor<1> {
        Tensor::from_data([value], &Device::flex())
    }

    #[test]
    fn the_sum_is_weighted_by_name() {
        let weights = BTreeMap::from([("a".to_owned(), 2.0), ("b".to_owned(), 0.5)]);
        let (total, _) = weigh(vec![("b", loss(4.0)), ("a", loss(3.0))], &weights).unwrap();
        assert_eq!(total.into_scalar::<f32>(), 8.0);
    }

    #[test]
    fn names_must_be_the_same() {
        let weights = BTreeMap::from([("a".to_owned(), 2.0), ("perceptual".to_owned(), 1.0)]);
        let message = weigh(vec![("a", loss(1.0)), ("b", loss(1.0))], &weights)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("perceptual is not produced") && message.contains("b has no weight"),
            "{message}"
        );
    }

    #[test]
    fn both_comparisons_are_means() {
        let device = Device::flex();
        let (x, y) = (
            Tensor::<4>::ones([1, 1, 1, 2], &device).mul_scalar(3.0),
            Tensor::zeros([1, 1, 1, 2], &device),
        );
        assert_eq!(
            ReconstructionLoss::SquaredError
                .of(x.clone(), y.clone())
                .into_scalar::<f32>(),
            9.0
        );
        assert_eq!(
            ReconstructionLoss::AbsoluteError
                .of(x, y)
                .into_scalar::<f32>(),
            3.0
        );
    }
}
