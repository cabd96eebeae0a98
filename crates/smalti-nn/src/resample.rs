//! Halving and doubling an image's sides inside a network.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::{Conv2d, Conv2dConfig, Init, Padding};

/// Halves both sides: zeros on the right and below only, then a 3×3 convolution of stride 2.
///
/// The asymmetric padding is the VQGAN family's; a symmetric one shifts every feature by half a
/// pixel and does not fit published weights.
#[derive(Module, Debug)]
pub struct Downsample {
    /// `channels → channels`
    pub conv: Conv2d,
}

impl Downsample {
    /// Keeps the number of channels.
    pub fn new(channels: usize, init: &mut Init) -> Self {
        let padding = Padding { top: 0, left: 0, bottom: 1, right: 1 };
        let config = Conv2dConfig { in_channels: channels, out_channels: channels, kernel: 3, stride: 2, padding };
        Self { conv: config.init(init) }
    }

    /// `[batch, channels, height, width]` to `[batch, channels, height / 2, width / 2]`.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        self.conv.forward(input)
    }
}

/// Doubles both sides: every pixel becomes a 2×2 block, then a 3×3 convolution.
#[derive(Module, Debug)]
pub struct Upsample {
    /// `channels → channels`
    pub conv: Conv2d,
}

impl Upsample {
    /// Keeps the number of channels.
    pub fn new(channels: usize, init: &mut Init) -> Self {
        Self { conv: Conv2dConfig::same(channels, channels, 3).init(init) }
    }

    /// `[batch, channels, height, width]` to `[batch, channels, 2·height, 2·width]`.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        self.conv.forward(double(input))
    }
}

/// Nearest-neighbour doubling.
fn double(input: Tensor<4>) -> Tensor<4> {
    let [batch, channels, height, width] = input.dims();
    input
        .reshape([batch, channels, height, 1, width, 1])
        .expand([batch, channels, height, 2, width, 2])
        .reshape([batch, channels, 2 * height, 2 * width])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn doubling_repeats_every_pixel() {
        let input = Tensor::<4>::from_data([[[[1.0, 2.0], [3.0, 4.0]]]], &Device::flex());
        let expected = [1., 1., 2., 2., 1., 1., 2., 2., 3., 3., 4., 4., 3., 3., 4., 4.];
        assert_eq!(double(input).into_data().try_to_vec::<f32>().unwrap(), expected);
    }
}
