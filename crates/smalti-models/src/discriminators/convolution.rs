//! A convolution whose bias may be missing and whose weight may be scaled when it is used.
//!
//! The bias is left out where a norm would subtract it again. The scale is StyleGAN's equalised learning
//! rate (Karras et al., ICLR 2018, arXiv 1710.10196, section 4.1): weights are standard normal, and
//! `1/√fan_in` is applied at every use, so that the optimiser moves all layers alike.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use smalti_nn::{Init, Padding, conv2d};

/// A convolution with a square kernel.
#[derive(Module, Debug)]
pub(super) struct Convolution {
    /// `[out, in, k, k]`
    pub(super) weight: Param<Tensor<4>>,
    /// `[out]`
    pub(super) bias: Option<Param<Tensor<1>>>,
    stride: usize,
    padding: usize,
    gain: f64,
}

/// How it moves over the image.
#[derive(Clone, Copy)]
pub(super) struct Steps {
    pub(super) stride: usize,
    pub(super) padding: usize,
}

impl Convolution {
    /// PatchGAN's: weights normal with deviation 0.02, the bias, where there is one, PyTorch's default.
    pub(super) fn patch(
        [inputs, outputs, kernel]: [usize; 3],
        bias: bool,
        stride: usize,
        init: &mut Init,
    ) -> Self {
        let fan_in = inputs * kernel * kernel;
        Self {
            weight: init.normal([outputs, inputs, kernel, kernel], 0.02),
            bias: bias.then(|| init.fan_in([outputs], fan_in)),
            stride,
            padding: 1,
            gain: 1.0,
        }
    }

    /// StyleGAN's: standard normal weights, scaled when used; a bias of zeros, where there is one.
    pub(super) fn equalised(
        [inputs, outputs, kernel]: [usize; 3],
        bias: bool,
        steps: Steps,
        init: &mut Init,
    ) -> Self {
        let fan_in = inputs * kernel * kernel;
        Self {
            weight: init.normal([outputs, inputs, kernel, kernel], 1.0),
            bias: bias.then(|| init.constant([outputs], 0.0)),
            stride: steps.stride,
            padding: steps.padding,
            gain: 1.0 / (fan_in as f64).sqrt(),
        }
    }

    pub(super) fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        match &self.bias {
            Some(bias) => self.with_bias(input, bias.val()),
            None => self.tangent(input),
        }
    }

    /// How the output changes when the input changes by `tangent`: the same without a bias.
    pub(super) fn tangent(&self, tangent: Tensor<4>) -> Tensor<4> {
        let [outputs, ..] = self.weight.val().dims();
        let none = Tensor::zeros([outputs], &tangent.device());
        self.with_bias(tangent, none)
    }

    fn with_bias(&self, input: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
        let weight = self.weight.val();
        let weight = if self.gain == 1.0 {
            weight
        } else {
            weight.mul_scalar(self.gain)
        };
        conv2d(
            input,
            weight,
            bias,
            self.stride,
            Padding::same(self.padding),
        )
    }
}
