//! Halving and doubling an image's sides inside a network.

use burn::module::Module;
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::hook::{self, CpuOp, CpuTensor, cpu_tensor, dims, elements};
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
        let padding = Padding {
            top: 0,
            left: 0,
            bottom: 1,
            right: 1,
        };
        let config = Conv2dConfig {
            in_channels: channels,
            out_channels: channels,
            kernel: 3,
            stride: 2,
            padding,
        };
        Self {
            conv: config.init(init),
        }
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
        Self {
            conv: Conv2dConfig::same(channels, channels, 3).init(init),
        }
    }

    /// `[batch, channels, height, width]` to `[batch, channels, 2·height, 2·width]`.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        self.conv.forward(double(input))
    }
}

/// Nearest-neighbour doubling of both sides.
fn double(input: Tensor<4>) -> Tensor<4> {
    match hook::call(Doubling, [input.into_dispatch()]) {
        Ok(output) => output,
        Err([input]) => composed(Tensor::from_dispatch(input)),
    }
}

/// The doubling of the CPU.
#[derive(Clone, Copy, Debug)]
struct Doubling;

impl CpuOp<1> for Doubling {
    type Saved = ();
    const CHEAP: bool = true;

    fn forward(&self, [input]: &[CpuTensor; 1]) -> (CpuTensor, ()) {
        let [batch, channels, height, width] = dims(input);
        let values = elements(input);
        let mut output = hook::output(4 * values.len());
        let planes = output.par_chunks_mut((4 * height * width).max(1));
        planes
            .zip(values.par_chunks((height * width).max(1)))
            .for_each(|(to, from)| {
                for (pair, row) in to.chunks_exact_mut(4 * width).zip(from.chunks_exact(width)) {
                    let (first, second) = pair.split_at_mut(2 * width);
                    for (pixels, value) in first.chunks_exact_mut(2).zip(row) {
                        pixels.fill(*value);
                    }
                    second.copy_from_slice(first);
                }
            });
        (
            cpu_tensor(output, [batch, channels, 2 * height, 2 * width]),
            (),
        )
    }

    fn backward(
        &self,
        [input]: &[CpuTensor; 1],
        _: (),
        grad: CpuTensor,
        _: [bool; 1],
    ) -> [Option<CpuTensor>; 1] {
        let [batch, channels, height, width] = dims(input);
        let grad = elements(&grad);
        let mut output = hook::output(grad.len() / 4);
        let planes = output.par_chunks_mut((height * width).max(1));
        planes
            .zip(grad.par_chunks((4 * height * width).max(1)))
            .for_each(|(to, from)| {
                for (row, pair) in to.chunks_exact_mut(width).zip(from.chunks_exact(4 * width)) {
                    let (first, second) = pair.split_at(2 * width);
                    let blocks = first.chunks_exact(2).zip(second.chunks_exact(2));
                    for (sum, (above, below)) in row.iter_mut().zip(blocks) {
                        *sum = (above[0] + above[1]) + (below[0] + below[1]);
                    }
                }
            });
        [Some(cpu_tensor(output, [batch, channels, height, width]))]
    }
}

/// [`double`] made of burn's own operations.
fn composed(input: Tensor<4>) -> Tensor<4> {
    let [batch, channels, height, width] = input.dims();
    input
        .reshape([batch, channels, height, 1, width, 1])
        .expand([batch, channels, height, 2, width, 2])
        .reshape([batch, channels, 2 * height, 2 * width])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::agreement::{assert_agree, assert_slopes};
    use burn::tensor::Device;

    #[test]
    fn kernel_and_composition_agree() {
        assert_agree(
            &[&[2, 3, 4, 5]],
            1e-6,
            |i| double(i.get(0)),
            |i| composed(i.get(0)),
        );
        assert_slopes(&[&[2, 3, 4, 5]], |i| double(i.get(0)));
    }

    #[test]
    fn doubling_repeats_every_pixel() {
        let input = Tensor::<4>::from_data([[[[1.0, 2.0], [3.0, 4.0]]]], &Device::flex());
        let expected = [
            1., 1., 2., 2., 1., 1., 2., 2., 3., 3., 4., 4., 3., 3., 4., 4.,
        ];
        assert_eq!(
            double(input).into_data().try_to_vec::<f32>().unwrap(),
            expected
        );
    }
}
