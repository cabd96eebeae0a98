//! A frozen stack of convolutions with taps between its layers.
//!
//! `[batch, 3, height, width]` to one map for each tap, `[batch, channels, height', width']`, in the order of the
//! layers. Images come normalised as the network wants them; the trunk does not touch their colours.
//!
//! The widths are read off the file, so that narrow networks work as well. Names are torchvision's
//! `features.N.weight` and `features.N.bias`; those of a bare list (`N.weight`) and of LPIPS
//! (`net.slice2.N.weight`, alone or inside a training's checkpoint) are understood. Parameters are frozen:
//! gradients pass through to the images and stop nowhere else.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use smalti_nn::blur::{Blur, Edge};
use smalti_nn::state::{Array, Weights, WeightsError};
use smalti_nn::{Conv2d, Conv2dConfig, Init, Padding, max_pool2d, relu};

use super::{Backbone, FeatureError, Plan, Step};
use crate::weights_file::read_weights;

/// The convolutional part of a published network.
#[derive(Module, Debug)]
pub struct Trunk {
    /// A convolution at the place of each convolution.
    features: Vec<Option<Conv2d>>,
    #[module(skip)]
    plan: Plan,
}

impl Trunk {
    /// Reads the trunk of `backbone` from `path`, with the named taps.
    ///
    /// # Errors
    /// When the file cannot be read or holds another network, or a tap is unknown.
    pub fn read(
        backbone: Backbone,
        taps: &[&str],
        path: &Path,
        device: &Device,
    ) -> Result<Self, FeatureError> {
        let plan = Plan::new(backbone, taps).map_err(FeatureError::Invalid)?;
        Self::read_plan(plan, backbone.name(), path, device)
    }

    /// Reads the trunk of a shift-tolerant LPIPS, whose file says which backbone it has: with the named taps, or
    /// without any those of the distance.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_shift_tolerant(
        taps: &[&str],
        path: &Path,
        device: &Device,
    ) -> Result<Self, FeatureError> {
        // The second convolution tells the backbones apart: 3×3 in the first slice, 5×5 in the second.
        let second = read_weights(path, &["state_dict"], |name| {
            name.ends_with("slice1.2.weight")
        })?;
        let backbone = match second.0.len() {
            0 => Backbone::Alexnet,
            _ => Backbone::Vgg16,
        };
        let name = format!("the shift-tolerant {}", backbone.name());
        let plan = match taps {
            [] => Plan::shift_tolerant(backbone, &backbone.default_taps()),
            taps => Plan::shift_tolerant(backbone, taps),
        };
        let plan = plan.map_err(FeatureError::Invalid)?;
        Self::read_plan(plan, &name, path, device)
    }

    fn read_plan(
        plan: Plan,
        name: &str,
        path: &Path,
        device: &Device,
    ) -> Result<Self, FeatureError> {
        let last = plan.steps.len();
        let number = |name: &str| place(name).filter(|(number, _)| *number < last);
        let weights = read_weights(path, &["state_dict"], |name| number(name).is_some())?;
        let weights = weights.rename(|name| {
            number(name).map(|(number, field)| format!("features.{number}.{field}"))
        })?;
        let layout = |problems| FeatureError::Layout {
            path: path.into(),
            of: format!("the trunk of {name}"),
            problems,
        };
        Self::load(plan, weights, device).map_err(|error| match error {
            WeightsError::Mismatch(problems) => layout(problems),
            error => error.into(),
        })
    }

    /// A trunk of arrays named `features.N.weight` and `features.N.bias`.
    fn load(plan: Plan, weights: Weights, device: &Device) -> Result<Self, WeightsError> {
        let mut init = Init::blank(device);
        let (mut problems, mut channels) = (Vec::new(), 3);
        let mut features = Vec::with_capacity(plan.steps.len());
        for (number, step) in plan.steps.iter().enumerate() {
            let Step::Convolution {
                kernel,
                stride,
                padding,
            } = *step
            else {
                features.push(None);
                continue;
            };
            let name = format!("features.{number}.weight");
            match width(weights.0.get(&name), channels, kernel) {
                Ok(out_channels) => {
                    let config = Conv2dConfig {
                        in_channels: channels,
                        out_channels,
                        kernel,
                        stride,
                        padding: Padding::same(padding),
                    };
                    channels = out_channels;
                    features.push(Some(config.init(&mut init)));
                }
                Err(problem) => problems.push(format!("{name}: {problem}")),
            }
        }
        if !problems.is_empty() {
            return Err(WeightsError::Mismatch(problems));
        }
        let trunk = Self { features, plan };
        Ok(weights.load_into(trunk)?.no_grad())
    }

    /// The maps at the taps, in the order of the layers.
    ///
    /// # Panics
    /// When a side is smaller than [`smallest_side`](Self::smallest_side).
    pub fn forward(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let [_, _, height, width] = images.dims();
        let least = self.plan.smallest_side(1);
        assert!(
            height.min(width) >= least,
            "this network needs images of at least {least}x{least} pixels, got {width}x{height}"
        );
        let blur = Blur::binomial(&[1.0, 2.0, 1.0], 2, [2, 2], Edge::Reflect);
        let (mut maps, mut hidden) = (Vec::new(), images);
        for (place, (step, layer)) in self.plan.steps.iter().zip(&self.features).enumerate() {
            hidden = match (step, layer) {
                (_, Some(convolution)) => convolution.forward(hidden),
                (Step::Pool { kernel, stride }, _) => max_pool2d(hidden, *kernel, *stride),
                (Step::Blur, _) => blur.forward(hidden),
                _ => relu(hidden),
            };
            if self.plan.taps.contains(&place) {
                maps.push(hidden.clone());
            }
        }
        maps
    }

    /// The channels of the map at each tap.
    pub fn widths(&self) -> Vec<usize> {
        let before = |tap: &usize| self.features[..*tap].iter().flatten().next_back();
        let convolutions = self.plan.taps.iter().filter_map(before);
        convolutions
            .map(|layer| layer.bias.val().dims()[0])
            .collect()
    }

    /// The smallest side of an image that every layer has room for.
    pub fn smallest_side(&self) -> usize {
        self.plan.smallest_side(1)
    }

    /// The smallest side of an image whose maps have at least `least` positions on a side.
    pub fn smallest_side_for(&self, least: usize) -> usize {
        self.plan.smallest_side(least)
    }

    /// The names of the tapped layers, in their order.
    pub fn taps(&self) -> Vec<&str> {
        self.plan.tap_names()
    }
}

/// The layer's number and the field in a published name, if it is one of a trunk.
fn place(name: &str) -> Option<(usize, &'static str)> {
    let mut parts = name.rsplit('.');
    let field = match parts.next()? {
        "weight" => "weight",
        "bias" => "bias",
        _ => return None,
    };
    let number = parts.next()?.parse().ok()?;
    let slice = |owner: &str| {
        owner
            .strip_prefix("slice")
            .is_some_and(|rest| rest.parse::<usize>().is_ok())
    };
    let listed = parts
        .next()
        .is_none_or(|owner| owner == "features" || slice(owner));
    listed.then_some((number, field))
}

/// The output channels of a convolution of `channels` with a square kernel, or what is wrong with it.
fn width(array: Option<&Array>, channels: usize, kernel: usize) -> Result<usize, String> {
    let Some(array) = array else {
        return Err("missing".into());
    };
    match array.shape[..] {
        [out, inputs, height, width]
            if out > 0 && inputs == channels && height == kernel && width == kernel =>
        {
            Ok(out)
        }
        _ => Err(format!(
            "expected the shape [any, {channels}, {kernel}, {kernel}], got {:?}",
            array.shape
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn names_of_all_layouts_are_understood() {
        for name in [
            "features.10.weight",
            "10.weight",
            "net.slice3.10.weight",
            "loss.perceptual_loss.net.slice3.10.weight",
        ] {
            assert_eq!(place(name), Some((10, "weight")), "{name}");
        }
        for name in [
            "classifier.0.weight",
            "lin0.model.1.weight",
            "net.slice1.1.filt",
            "weight",
        ] {
            assert_eq!(place(name), None, "{name}");
        }
    }

    #[test]
    fn another_network_is_refused_with_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.safetensors");
        let array = Array {
            shape: vec![4, 3, 5, 5],
            values: vec![0.0; 300],
        };
        let weights = Weights(BTreeMap::from([("features.0.weight".into(), array)]));
        std::fs::write(&path, weights.to_safetensors(&BTreeMap::new())).unwrap();
        let device = Device::flex();
        let message = Trunk::read(Backbone::Vgg16, &["relu1_2"], &path, &device)
            .unwrap_err()
            .to_string();
        for part in [
            "other.safetensors does not hold the trunk of VGG-16",
            "features.0.weight: expected the shape [any, 3, 3, 3], got [4, 3, 5, 5]",
            "features.2.weight: missing",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }
}
