//! Activation normalisation: a scale and a shift that begin as those of the first batch.
//!
//! `y = scale·(x + loc)` per channel; Kingma, Dhariwal 2018, arXiv 1807.03039, section 3.1. On the first batch
//! `loc = −mean`, `scale = 1/(σ + 1e-6)` over images and positions, σ the unbiased estimate (the family of
//! taming-transformers); after that both are ordinary parameters.
//!
//! Shapes: `[batch, channels, height, width]`, `loc` and `scale` `[1, channels, 1, 1]`. State: `initialized`, one
//! number that is 0 before the first batch and 1 after it. Difference: the published layer starts itself in
//! its first forward pass in training; here [`ActNorm::start`] does, when it is told.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};

use crate::Init;
use crate::state::{host_values, replace};

/// A scale and shift of channels.
#[derive(Module, Debug)]
pub struct ActNorm {
    /// Added before scaling, `[1, channels, 1, 1]`
    pub loc: Param<Tensor<4>>,
    /// `[1, channels, 1, 1]`
    pub scale: Param<Tensor<4>>,
    /// 1 once a batch was seen, `[1]`
    pub initialized: Param<Tensor<1>>,
}

impl ActNorm {
    /// The identity, waiting for its first batch.
    pub fn new(channels: usize, init: &mut Init) -> Self {
        Self {
            loc: init.constant([1, channels, 1, 1], 0.0),
            scale: init.constant([1, channels, 1, 1], 1.0),
            initialized: init.buffer([1], vec![0.0]),
        }
    }

    /// Shifts and scales.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        (input + self.loc.val()) * self.scale.val()
    }

    /// Whether a batch was seen.
    pub fn is_started(&self) -> bool {
        host_values(self.initialized.val())[0] != 0.0
    }

    /// Makes `input` come out with mean 0 and deviation 1, unless a batch was seen before.
    pub fn start(&mut self, input: Tensor<4>) {
        if self.is_started() {
            return;
        }
        let [batch, channels, height, width] = input.dims();
        let count = batch * height * width;
        let rows = input
            .detach()
            .permute([1, 0, 2, 3])
            .reshape([channels, count]);
        let mean = rows.clone().mean_dim(1);
        let squares = host_values((rows - mean.clone()).square().sum_dim(1));
        // One number has no spread; it is only shifted.
        let degrees = (count as f32 - 1.0).max(1.0);
        let scale = squares.iter().map(|s| match count {
            1 => 1.0,
            _ => 1.0 / ((s / degrees).sqrt() + 1e-6),
        });
        let loc = host_values(mean).into_iter().map(|m| -m);
        self.loc = set(&self.loc, loc.collect());
        self.scale = set(&self.scale, scale.collect());
        self.initialized = set(&self.initialized, vec![1.0]);
    }
}

fn set<const D: usize>(param: &Param<Tensor<D>>, values: Vec<f32>) -> Param<Tensor<D>> {
    let shape = param.val().dims();
    replace(param.clone(), TensorData::new(values, shape))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Noise;
    use burn::tensor::Device;

    #[test]
    fn the_first_batch_comes_out_normal_and_later_ones_change_nothing() {
        for device in [Device::flex(), Device::flex().autodiff()] {
            let mut norm = ActNorm::new(2, &mut Init::new(&device, 1));
            let batch = Noise::from_seed(1).standard_normal([3, 2, 5, 4], &device) * 3.0 + 2.0;
            assert!(!norm.is_started());
            norm.start(batch.clone());
            assert!(norm.is_started());
            let output = norm.forward(batch.clone());
            for values in host_values(output.permute([1, 0, 2, 3])).chunks(60) {
                let mean = values.iter().sum::<f32>() / 60.0;
                let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 59.0;
                assert!(
                    mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-4,
                    "{mean} {variance}"
                );
            }
            let before = host_values(norm.loc.val());
            norm.start(batch * 2.0);
            assert_eq!(host_values(norm.loc.val()), before);
            assert_eq!(norm.scale.is_require_grad(), device.is_autodiff());
        }
    }
}
