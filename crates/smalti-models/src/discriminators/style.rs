//! The discriminator of StyleGAN2: one logit for an image; Karras et al., CVPR 2020, arXiv 1912.04958, section
//! 4 and figure 7c (residual), with the layers of StyleGAN2-ADA (arXiv 2006.06676, appendix C).
//!
//! A 1×1 convolution of the image; blocks that halve it, `(skip(x) + conv1(conv0(x)))/√2`; at 4×4 the
//! deviation within a group of images as one more channel, a 3×3 convolution and two linear layers. Every
//! layer but `skip` and the last ends in `√2·leaky(x, 0.2)`. Before a halving the image is filtered by
//! 1-3-3-1: in `skip` only where pixels are kept, in `conv1` before a convolution of stride 2. Weights are
//! standard normal and scaled by `1/√fan_in` when used.
//!
//! `[batch, 3, resolution, resolution]` to `[batch, 1, 1, 1]`; maps of side `s` have
//! `min(channel_base/s, channel_limit)` channels. No state. Differences: the group is the largest divisor of the
//! batch that the configuration allows (the published code refuses other batches), and there is no label,
//! half precision or clamping.

use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2};

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use smalti_nn::blur::{Blur, Edge};
use smalti_nn::{Init, leaky_relu, leaky_relu_tangent, linear};

use super::StyleConfig;
use super::convolution::{Convolution, Steps};

const SLOPE: f32 = 0.2;
const FILTER: [f32; 4] = [1.0, 3.0, 3.0, 1.0];
/// Side of the maps that the last layers see.
const LAST_SIDE: usize = 4;

/// One logit for an image.
#[derive(Module, Debug)]
pub struct StyleDiscriminator {
    fromrgb: Convolution,
    blocks: Vec<Block>,
    conv: Convolution,
    fc: Equalised,
    out: Equalised,
    resolution: usize,
    group: usize,
}

#[derive(Module, Debug)]
struct Block {
    conv0: Convolution,
    conv1: Convolution,
    skip: Convolution,
}

/// A linear layer whose weight is scaled when used.
#[derive(Module, Debug)]
struct Equalised {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl StyleDiscriminator {
    /// Fresh weights.
    pub(super) fn new(config: &StyleConfig, init: &mut Init) -> Self {
        let StyleConfig {
            resolution, group, ..
        } = *config;
        let first = config.width(resolution);
        let fromrgb = Convolution::equalised([3, first, 1], true, steps(1, 0), init);
        let mut blocks = Vec::new();
        let mut side = resolution;
        while side > LAST_SIDE {
            blocks.push(Block::new(config.width(side), config.width(side / 2), init));
            side /= 2;
        }
        let last = config.width(LAST_SIDE);
        let extra = usize::from(group > 0);
        Self {
            fromrgb,
            blocks,
            conv: Convolution::equalised([last + extra, last, 3], true, steps(1, 1), init),
            fc: Equalised::new(last * LAST_SIDE * LAST_SIDE, last, init),
            out: Equalised::new(last, 1, init),
            resolution,
            group,
        }
    }

    /// Logits `[batch, 1, 1, 1]`.
    ///
    /// # Panics
    /// When the images are not of the resolution.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let batch = self.check(&images);
        let hidden = self
            .blocks
            .iter()
            .fold(activate(self.fromrgb.forward(images)), |hidden, block| {
                block.forward(hidden)
            });
        let hidden = match self.group {
            0 => hidden,
            group => with_deviation(hidden, group),
        };
        let hidden = activate(self.conv.forward(hidden));
        let hidden = activate(self.fc.forward(hidden.flatten::<2>(1, 3)));
        self.out.forward(hidden).reshape([batch, 1, 1, 1])
    }

    /// How the logits change when the images change by `direction`.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn tangent(&self, images: Tensor<4>, direction: Tensor<4>) -> Tensor<4> {
        let batch = self.check(&images);
        let first = self.fromrgb.forward(images);
        let tangent = activate_tangent(self.fromrgb.tangent(direction), &first);
        let start = (activate(first), tangent);
        let blocks = self.blocks.iter();
        let (hidden, tangent) = blocks.fold(start, |both, block| block.tangent(both));
        let (hidden, tangent) = match self.group {
            0 => (hidden, tangent),
            group => (
                with_deviation(hidden.clone(), group),
                with_deviation_tangent(hidden, tangent, group),
            ),
        };
        let before = self.conv.forward(hidden);
        let tangent = activate_tangent(self.conv.tangent(tangent), &before).flatten::<2>(1, 3);
        let before = self.fc.forward(activate(before).flatten::<2>(1, 3));
        let tangent = activate_tangent(self.fc.tangent(tangent), &before);
        self.out.tangent(tangent).reshape([batch, 1, 1, 1])
    }

    /// The number of images, if they are of the right size.
    fn check(&self, images: &Tensor<4>) -> usize {
        let [batch, _, height, width] = images.dims();
        let side = self.resolution;
        assert!(
            height == side && width == side,
            "this discriminator judges images of {side}x{side} pixels, got {width}x{height}"
        );
        batch
    }
}

impl Block {
    fn new(inputs: usize, outputs: usize, init: &mut Init) -> Self {
        let mut convolution = |shape, bias, steps| Convolution::equalised(shape, bias, steps, init);
        Self {
            conv0: convolution([inputs, inputs, 3], true, steps(1, 1)),
            conv1: convolution([inputs, outputs, 3], true, steps(2, 0)),
            skip: convolution([inputs, outputs, 1], false, steps(1, 0)),
        }
    }

    fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let skipped = self.skip.forward(halving().forward(input.clone()));
        let hidden = activate(self.conv0.forward(input));
        let hidden = activate(self.conv1.forward(before_convolution().forward(hidden)));
        (skipped + hidden).mul_scalar(FRAC_1_SQRT_2)
    }

    /// The output, and how it changes when the input changes by the second of the pair.
    fn tangent(&self, (input, tangent): (Tensor<4>, Tensor<4>)) -> (Tensor<4>, Tensor<4>) {
        let skip = |x: Tensor<4>| self.skip.forward(halving().forward(x));
        let before = self.conv0.forward(input.clone());
        let moved = activate_tangent(self.conv0.tangent(tangent.clone()), &before);
        let blurred = before_convolution().forward(activate(before));
        let before = self.conv1.forward(blurred);
        let moved = self.conv1.tangent(before_convolution().forward(moved));
        let moved = activate_tangent(moved, &before);
        let sum = |x: Tensor<4>, y: Tensor<4>| (skip(x) + y).mul_scalar(FRAC_1_SQRT_2);
        (sum(input, activate(before)), sum(tangent, moved))
    }
}

/// The filter before a 3×3 convolution of stride 2: one row of padding is the convolution's, the other is what
/// the filter reaches over.
fn before_convolution() -> Blur {
    Blur::binomial(&FILTER, 1, [2, 2], Edge::Zero)
}

/// The filter that halves.
fn halving() -> Blur {
    Blur::binomial(&FILTER, 2, [1, 1], Edge::Zero)
}

impl Equalised {
    fn new(inputs: usize, outputs: usize, init: &mut Init) -> Self {
        Self {
            weight: init.normal([outputs, inputs], 1.0),
            bias: init.constant([outputs], 0.0),
        }
    }

    fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        linear(input, self.scaled(), Some(self.bias.val()))
    }

    fn tangent(&self, tangent: Tensor<2>) -> Tensor<2> {
        linear(tangent, self.scaled(), None)
    }

    fn scaled(&self) -> Tensor<2> {
        let weight = self.weight.val();
        let [_, inputs] = weight.dims();
        weight.div_scalar((inputs as f64).sqrt())
    }
}

fn steps(stride: usize, padding: usize) -> Steps {
    Steps { stride, padding }
}

/// The rectifier with the gain that keeps deviations.
fn activate<const D: usize>(input: Tensor<D>) -> Tensor<D> {
    leaky_relu(input, SLOPE).mul_scalar(SQRT_2)
}

/// How [`activate`] changes at `before` when that changes by `tangent`.
fn activate_tangent<const D: usize>(tangent: Tensor<D>, before: &Tensor<D>) -> Tensor<D> {
    leaky_relu_tangent(tangent, before.clone(), SLOPE).mul_scalar(SQRT_2)
}

/// `hidden` with one more channel: the deviation within each image's group, averaged over channels and
/// positions; Karras et al., ICLR 2018, section 3. Image `i` of `n` is in group `i mod (n / group)`.
fn with_deviation(hidden: Tensor<4>, group: usize) -> Tensor<4> {
    let centred = centred(hidden.clone(), group);
    let channel = deviation(centred).mean_dim(2);
    with_channel(hidden, channel)
}

/// How [`with_deviation`] changes at `hidden` when that changes by `tangent`: `σ̇ = mean(c·ċ)/σ`, `c` the distance
/// from the group's mean.
fn with_deviation_tangent(hidden: Tensor<4>, tangent: Tensor<4>, group: usize) -> Tensor<4> {
    let at = centred(hidden, group);
    let moved = centred(tangent.clone(), group);
    let products = (at.clone() * moved).mean_dim(0);
    with_channel(tangent, (products / deviation(at)).mean_dim(2))
}

/// The distance of each number from its group's mean, `[group, groups, numbers]`.
fn centred(hidden: Tensor<4>, group: usize) -> Tensor<3> {
    let [batch, channels, height, width] = hidden.dims();
    let group = (1..=group.min(batch))
        .rev()
        .find(|group| batch.is_multiple_of(*group))
        .expect("one divides everything");
    let grouped = hidden.reshape([group, batch / group, channels * height * width]);
    grouped.clone() - grouped.mean_dim(0)
}

/// The deviation of each number within its group, `[1, groups, numbers]`.
fn deviation(centred: Tensor<3>) -> Tensor<3> {
    centred.square().mean_dim(0).add_scalar(1e-8).sqrt()
}

/// `hidden` with one number for each group, `[1, groups, 1]`, as one more channel.
fn with_channel(hidden: Tensor<4>, numbers: Tensor<3>) -> Tensor<4> {
    let [batch, _, height, width] = hidden.dims();
    let [_, groups, _] = numbers.dims();
    let channel = numbers
        .repeat_dim(0, batch / groups)
        .reshape([batch, 1, 1, 1])
        .expand([batch, 1, height, width]);
    Tensor::cat(vec![hidden, channel], 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use smalti_nn::Noise;
    use smalti_nn::state::host_values;

    #[test]
    fn the_published_network_has_its_number_of_parameters() {
        // 256 pixels, channel_base 32768, channel_limit 512: conv_n·k²·in·out + biases, summed by hand.
        let config = StyleConfig::new(256);
        let network = StyleDiscriminator::new(&config, &mut Init::blank(&Device::flex()));
        let widths = [128, 256, 512, 512, 512, 512, 512];
        let blocks: usize = widths
            .windows(2)
            .map(|w| (9 * w[0] * w[0] + w[0]) + (9 * w[0] * w[1] + w[1]) + w[0] * w[1])
            .sum();
        let last = (9 * 513 * 512 + 512) + (512 * 16 * 512 + 512) + (512 + 1);
        assert_eq!(network.num_params(), 3 * 128 + 128 + blocks + last);
    }

    #[test]
    fn deviations_are_those_of_the_groups() {
        // Groups of two: images 0 and 2, images 1 and 3.
        let values = [0.0f32, 5.0, 2.0, 5.0];
        let hidden = Tensor::<1>::from_data(values, &Device::flex()).reshape([4, 1, 1, 1]);
        let channel = with_deviation(hidden.expand([4, 1, 2, 2]), 3).narrow(1, 1, 1);
        let got = host_values(channel);
        for (image, got) in got.chunks(4).enumerate() {
            let want = if image % 2 == 0 { 1.0 } else { 1e-4 };
            assert!(
                got.iter().all(|g| (g - want).abs() < 1e-6),
                "{image}: {got:?}"
            );
        }
    }

    #[test]
    fn fresh_layers_keep_the_size_of_what_passes() {
        let device = Device::flex();
        let config = StyleConfig {
            channel_base: 512,
            channel_limit: 32,
            ..StyleConfig::new(32)
        };
        let network = StyleDiscriminator::new(&config, &mut Init::new(&device, 1));
        let images = Noise::from_seed(2).standard_normal([16, 3, 32, 32], &device);
        let logits = host_values(network.forward(images));
        let square = logits.iter().map(|l| l * l).sum::<f32>() / 16.0;
        assert!((0.05..20.0).contains(&square), "{square}");
    }
}
