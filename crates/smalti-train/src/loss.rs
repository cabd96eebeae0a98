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

/// Σ weight · loss, where there is a loss.
///
/// # Errors
/// When a loss has no weight.
pub fn weigh(
    losses: &[NamedLoss],
    weights: &BTreeMap<String, f64>,
) -> Result<Option<Tensor<1>>, TrainError> {
    let mut total: Option<Tensor<1>> = None;
    for (name, loss) in losses {
        let weight = weight_of(name, weights)?;
        let loss = loss.clone().mul_scalar(weight);
        total = Some(match total {
            Some(total) => total + loss,
            None => loss,
        });
    }
    Ok(total)
}

/// The weight of a loss.
///
/// # Errors
/// When it has none.
pub(crate) fn weight_of(name: &str, weights: &BTreeMap<String, f64>) -> Result<f64, TrainError> {
    weights
        .get(name)
        .copied()
        .ok_or_else(|| TrainError::Config(vec![without_weight(name)]))
}

/// Refuses weights whose names are not exactly those of the losses that a model produces.
///
/// # Errors
/// Lists every name that only one of the two has.
pub(crate) fn require_names(
    produced: &[&str],
    weights: &BTreeMap<String, f64>,
) -> Result<(), TrainError> {
    TrainError::unless_empty(name_problems(produced, weights))
}

fn without_weight(name: &str) -> String {
    format!("losses: {name} has no weight; give it one, 0 to only watch it")
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
        .map(|name| without_weight(name));
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
        let total = weigh(&[("b", loss(4.0)), ("a", loss(3.0))], &weights).unwrap();
        assert_eq!(total.unwrap().into_scalar::<f32>(), 8.0);
        assert!(weigh(&[], &weights).unwrap().is_none());
    }

    #[test]
    fn names_must_be_the_same() {
        let weights = BTreeMap::from([("a".to_owned(), 2.0), ("perceptual".to_owned(), 1.0)]);
        let message = require_names(&["a", "b"], &weights)
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
