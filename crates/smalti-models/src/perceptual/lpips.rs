//! LPIPS, the learned perceptual distance of image patches; Zhang et al., CVPR 2018, arXiv 1801.03924, in
//! the version 0.1 of its authors' code.
//!
//! `d(x, x₀) = Σ_l mean_{i,j} Σ_c w_{l,c}·(ŷ_{l,c,i,j} − ŷ⁰_{l,c,i,j})²` with `ŷ = y/(|y| + 1e-10)`, the length over
//! channels, `y_l` the maps of a frozen trunk at five taps, `w_l ≥ 0` learned heads. Images
//! `[batch, 3, height, width]` in [−1, 1] are first normalised: `(x − shift)/scale`, shift (−0.030, −0.088, −0.188),
//! scale (0.458, 0.448, 0.450). Distances `[batch]`.
//!
//! The shift-tolerant form (Ghildyal, Liu, ECCV 2022, arXiv 2207.13686) has the same formula over another
//! trunk, see [`Trunk::read_shift_tolerant`], and heads of its own.
//!
//! No state. Differences: the dropout that the published heads apply while they are trained is left out
//! (training frameworks turn it on by accident); where a feature vector is zero the gradient is finite.

use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use smalti_nn::state::{Array, Weights};
use smalti_nn::{Init, unit_distance};

use crate::features::{Backbone, FeatureError, Trunk};
use crate::weights_file::read_weights;

/// Subtracted from the colours of images in [−1, 1].
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
/// What they are then divided by.
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];

/// A perceptual distance.
#[derive(Module, Debug)]
pub struct Lpips {
    net: Trunk,
    /// `[channels]` for each tap.
    lins: Vec<Param<Tensor<1>>>,
}

impl Lpips {
    /// Reads a trunk of ImageNet and its heads.
    ///
    /// # Errors
    /// When a file cannot be read or holds something else.
    pub fn read(
        backbone: Backbone,
        trunk: &Path,
        heads: &Path,
        device: &Device,
    ) -> Result<Self, FeatureError> {
        let net = Trunk::read(backbone, &backbone.default_taps(), trunk, device)?;
        Self::with_heads(net, heads, device)
    }

    /// Reads the file of a shift-tolerant LPIPS.
    ///
    /// # Errors
    /// When the file cannot be read or holds something else.
    pub fn read_shift_tolerant(file: &Path, device: &Device) -> Result<Self, FeatureError> {
        Self::with_heads(Trunk::read_shift_tolerant(&[], file, device)?, file, device)
    }

    fn with_heads(net: Trunk, path: &Path, device: &Device) -> Result<Self, FeatureError> {
        let mut weights = read_weights(path, &["state_dict"], |name| head(name).is_some())?
            .rename(|name| head(name).map(|number| number.to_string()))?;
        let mut problems = Vec::new();
        let mut lins = Vec::new();
        let init = Init::blank(device);
        for (number, channels) in net.widths().into_iter().enumerate() {
            match take(&mut weights, number, channels) {
                Ok(values) => lins.push(init.buffer([channels], values)),
                Err(problem) => problems.push(format!("lin{number}: {problem}")),
            }
        }
        problems.extend(
            weights
                .0
                .keys()
                .map(|number| format!("lin{number}: unexpected")),
        );
        if problems.is_empty() {
            return Ok(Self { net, lins });
        }
        Err(FeatureError::Layout {
            path: path.into(),
            of: "the heads of this LPIPS".into(),
            problems,
        })
    }

    /// The distance of each pair of images in [−1, 1], `[batch]`.
    ///
    /// # Panics
    /// When a side is smaller than [`smallest_side`](Self::smallest_side).
    pub fn distances(&self, images: Tensor<4>, others: Tensor<4>) -> Tensor<1> {
        let terms = self.terms(images, others).into_iter();
        terms
            .reduce(|sum, term| sum + term)
            .expect("a trunk has at least one tap")
    }

    /// What each tap adds to the distances, `[batch]` each.
    ///
    /// # Panics
    /// As [`distances`](Self::distances).
    pub fn terms(&self, images: Tensor<4>, others: Tensor<4>) -> Vec<Tensor<1>> {
        let [a, b] = [images, others].map(|x| self.net.forward(normalised(x)));
        let maps = a.into_iter().zip(b).zip(&self.lins);
        maps.map(|((a, b), head)| unit_distance(a, b, head.val()))
            .collect()
    }

    /// The smallest side of an image that the trunk has room for.
    pub fn smallest_side(&self) -> usize {
        self.net.smallest_side()
    }
}

/// Images in [−1, 1] as the trunks want them.
fn normalised(images: Tensor<4>) -> Tensor<4> {
    let device = images.device();
    let colours = |values: [f32; 3]| Tensor::<1>::from_data(values, &device).reshape([1, 3, 1, 1]);
    (images - colours(SHIFT)) / colours(SCALE)
}

/// The number of a head by its published name: `lin0.model.1.weight`, where the `1` is after a dropout.
fn head(name: &str) -> Option<usize> {
    let name = name
        .strip_suffix(".model.1.weight")
        .or(name.strip_suffix(".model.0.weight"))?;
    let last = name.rsplit('.').next()?;
    last.strip_prefix("lin")?.parse().ok()
}

/// The values of head `number`, which must be `[1, channels, 1, 1]`.
fn take(weights: &mut Weights, number: usize, channels: usize) -> Result<Vec<f32>, String> {
    let Array { shape, values } = weights
        .0
        .remove(&number.to_string())
        .ok_or_else(|| format!("missing, expected [1, {channels}, 1, 1]"))?;
    if shape == [1, channels, 1, 1] {
        Ok(values)
    } else {
        Err(format!(
            "expected the shape [1, {channels}, 1, 1], got {shape:?}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_known_by_their_names() {
        assert_eq!(head("lin3.model.1.weight"), Some(3));
        assert_eq!(head("loss.perceptual_loss.lin0.model.1.weight"), Some(0));
        assert_eq!(head("lin1.model.0.weight"), Some(1));
        for name in ["lins.0.weight", "line.model.1.weight", "lin0.model.1.bias"] {
            assert_eq!(head(name), None, "{name}");
        }
    }
}
