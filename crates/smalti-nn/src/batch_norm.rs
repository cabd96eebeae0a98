//! Batch normalisation; Ioffe, Szegedy 2015, arXiv 1502.03167.
//!
//! In training each channel is normalised by its mean and population variance over the batch and all
//! positions ([`BatchNorm::forward_batch`]), which come back with the result; [`BatchNorm::absorb`] mixes them into the
//! running statistics, `running ← (1 − momentum)·running + momentum·batch`, the variance as the unbiased
//! estimate `n/(n − 1)·σ²`. [`BatchNorm::forward`] normalises by the running statistics. Then `γ·x̂ + β`.
//!
//! Shapes: `[batch, channels, height, width]`. State: `running_mean`, `running_var`, which no gradient
//! reaches and only `absorb` changes: PyTorch's layer does it whenever it runs in training mode. Its counter
//! `num_batches_tracked` has no use with a fixed momentum and is not kept.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use smalti_kernels::batch_norm::{BatchNorm as Kernel, ChannelMoments, channel_moments};

use crate::Init;
use crate::hook::{self, CpuOp, CpuTensor, cpu_tensor, dims, elements, writable};
use crate::state::{host_values, replace};

/// Added to the variance, PyTorch's default.
const EPSILON: f32 = 1e-5;
/// Share of a batch in the running statistics, PyTorch's default.
const MOMENTUM: f32 = 0.1;

/// Batch normalisation with running statistics.
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// γ, `[channels]`
    pub weight: Param<Tensor<1>>,
    /// β, `[channels]`
    pub bias: Param<Tensor<1>>,
    /// `[channels]`
    pub running_mean: Param<Tensor<1>>,
    /// `[channels]`
    pub running_var: Param<Tensor<1>>,
}

/// Mean and population variance of each channel over one batch, outside any graph of gradients.
#[derive(Clone, Debug)]
pub struct BatchStatistics {
    /// `[channels]`
    pub mean: Tensor<1>,
    /// `[channels]`
    pub variance: Tensor<1>,
    /// Numbers of a channel: batch times positions.
    pub count: usize,
}

impl BatchNorm {
    /// Scales normal round 1 with the given deviation, shifts 0, running statistics 0 and 1.
    pub fn new(channels: usize, deviation: f32, init: &mut Init) -> Self {
        let weight = init.normal([channels], deviation);
        let scales = host_values(weight.val()).iter().map(|v| 1.0 + v).collect();
        Self {
            weight: replace(weight, TensorData::new::<f32, _>(scales, [channels])),
            bias: init.constant([channels], 0.0),
            running_mean: init.buffer([channels], vec![0.0; channels]),
            running_var: init.buffer([channels], vec![1.0; channels]),
        }
    }

    /// By the running statistics.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let variance = self.running_var.val().add_scalar(EPSILON);
        let scale = self.weight.val() / variance.sqrt();
        let shift = self.bias.val() - self.running_mean.val() * scale.clone();
        let channels = scale.dims()[0];
        let [scale, shift] = [scale, shift].map(|t| t.reshape([1, channels, 1, 1]));
        input * scale + shift
    }

    /// By the statistics of `input`, which are returned; nothing is changed.
    pub fn forward_batch(&self, input: Tensor<4>) -> (Tensor<4>, BatchStatistics) {
        batch_norm(input, self.weight.val(), self.bias.val(), EPSILON)
    }

    /// How [`forward_batch`](Self::forward_batch) changes at `input` when it changes by `tangent`, the change of
    /// its statistics included: `γ·r·(ẋ − mean ẋ − x̂·mean(x̂·ẋ))`, `r = 1/√(σ² + ε)`. Differentiable in everything.
    pub fn tangent(&self, input: Tensor<4>, tangent: Tensor<4>) -> Tensor<4> {
        let channels = self.weight.val().dims()[0];
        let centred = input.clone() - mean_of(input);
        let variance = mean_of(centred.clone().square());
        let deviation = variance.add_scalar(EPSILON).sqrt();
        let hat = centred / deviation.clone();
        let moved = tangent.clone() - mean_of(tangent);
        let along = mean_of(hat.clone() * moved.clone());
        let scale = self.weight.val().reshape([1, channels, 1, 1]) / deviation;
        (moved - hat * along) * scale
    }

    /// Mixes the statistics of a batch into the running ones.
    pub fn absorb(&mut self, statistics: &BatchStatistics) {
        let count = statistics.count as f32;
        // One number has no spread to estimate; PyTorch refuses it.
        let unbiased = count / (count - 1.0).max(1.0);
        mix(&mut self.running_mean, &statistics.mean, 1.0);
        mix(&mut self.running_var, &statistics.variance, unbiased);
    }
}

fn mix(running: &mut Param<Tensor<1>>, batch: &Tensor<1>, factor: f32) {
    let (old, new) = (host_values(running.val()), host_values(batch.clone()));
    let mixed = old
        .iter()
        .zip(&new)
        .map(|(old, new)| old + MOMENTUM * (new * factor - old));
    let mixed: Vec<f32> = mixed.collect();
    let length = [mixed.len()];
    *running = replace(running.clone(), TensorData::new(mixed, length));
}

/// Normalises by the statistics of `input [batch, channels, height, width]`, and returns them.
pub fn batch_norm(
    input: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f32,
) -> (Tensor<4>, BatchStatistics) {
    let plain = plain(&input);
    let moments = match hook::call_plain([plain.into_dispatch()], statistics_of) {
        Ok(moments) => moments,
        Err(_) => return composed(input, gamma, beta, epsilon),
    };
    let statistics = BatchStatistics::from_rows(moments, count(&input));
    let values = [&statistics.mean, &statistics.variance].map(|t| host_values(t.clone()));
    let [means, variances] = values;
    let moments = means.into_iter().zip(variances);
    let op = Normalization {
        moments: moments
            .map(|(mean, variance)| ChannelMoments { mean, variance })
            .collect(),
        epsilon,
    };
    let inputs = [
        input.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
    ];
    match hook::call(op, inputs) {
        Ok(output) => (output, statistics),
        Err([input, gamma, beta]) => {
            let [gamma, beta] = [gamma, beta].map(Tensor::from_dispatch);
            composed(Tensor::from_dispatch(input), gamma, beta, epsilon)
        }
    }
}

/// Means and variances as two rows.
fn statistics_of([input]: &[CpuTensor; 1]) -> CpuTensor {
    let [_, channels, height, width] = dims(input);
    let moments = channel_moments(elements(input), channels, height * width);
    let means = moments.iter().map(|m| m.mean);
    let values = means.chain(moments.iter().map(|m| m.variance)).collect();
    cpu_tensor(values, [2, channels])
}

impl BatchStatistics {
    fn from_rows(rows: Tensor<2>, count: usize) -> Self {
        let row = |i| rows.clone().narrow(0, i, 1).squeeze_dim::<1>(0);
        Self {
            mean: row(0),
            variance: row(1),
            count,
        }
    }
}

/// `tensor` without its history, on the device beneath autodiff.
fn plain<const D: usize>(tensor: &Tensor<D>) -> Tensor<D> {
    if tensor.device().is_autodiff() {
        tensor.clone().inner()
    } else {
        tensor.clone()
    }
}

/// Numbers of a channel.
fn count(input: &Tensor<4>) -> usize {
    let [batch, _, height, width] = input.dims();
    batch * height * width
}

/// Means of channels, `[1, channels, 1, 1]`.
fn mean_of(input: Tensor<4>) -> Tensor<4> {
    input.mean_dim(0).mean_dim(2).mean_dim(3)
}

/// The same made of burn's own operations.
fn composed(
    input: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f32,
) -> (Tensor<4>, BatchStatistics) {
    let count = count(&input);
    let channels = gamma.dims()[0];
    let mean = mean_of(input.clone());
    let centred = input - mean.clone();
    let variance = mean_of(centred.clone().square());
    let statistics = BatchStatistics {
        mean: plain(&mean).reshape([channels]),
        variance: plain(&variance).reshape([channels]),
        count,
    };
    let [gamma, beta] = [gamma, beta].map(|t| t.reshape([1, channels, 1, 1]));
    let output = centred / variance.add_scalar(epsilon).sqrt() * gamma + beta;
    (output, statistics)
}

/// The normalisation of the CPU by moments computed before; inputs are the image, γ and β.
#[derive(Clone, Debug)]
struct Normalization {
    moments: Arc<[ChannelMoments]>,
    epsilon: f32,
}

impl Normalization {
    fn kernel<'a>(&self, [input, gamma, beta]: &'a [CpuTensor; 3]) -> Kernel<'a> {
        let [_, _, height, width] = dims(input);
        Kernel {
            spatial: height * width,
            eps: self.epsilon,
            gamma: elements(gamma),
            beta: elements(beta),
        }
    }
}

impl CpuOp<3> for Normalization {
    type Saved = ();
    const CHEAP: bool = true;

    fn forward(&self, inputs: &[CpuTensor; 3]) -> (CpuTensor, ()) {
        let input = elements(&inputs[0]);
        let mut output = hook::output(input.len());
        self.kernel(inputs)
            .forward(&self.moments, input, &mut output);
        (cpu_tensor(output, dims::<4>(&inputs[0])), ())
    }

    fn backward(
        &self,
        inputs: &[CpuTensor; 3],
        _: (),
        mut grad: CpuTensor,
        [of_input, of_gamma, of_beta]: [bool; 3],
    ) -> [Option<CpuTensor>; 3] {
        let (kernel, input) = (self.kernel(inputs), elements(&inputs[0]));
        let affine = match writable(&mut grad) {
            Some(grad) => kernel.backward(&self.moments, input, grad),
            None => {
                let mut values = elements(&grad).to_vec();
                let affine = kernel.backward(&self.moments, input, &mut values);
                grad = cpu_tensor(values, dims::<4>(&inputs[0]));
                affine
            }
        };
        let channels = [affine.gamma.len()];
        [
            of_input.then_some(grad),
            of_gamma.then(|| cpu_tensor(affine.gamma, channels)),
            of_beta.then(|| cpu_tensor(affine.beta, channels)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Noise;
    use crate::hook::agreement::{assert_agree, assert_slopes};
    use burn::tensor::Device;

    #[test]
    fn kernel_and_composition_agree() {
        let shapes: [&[usize]; 3] = [&[3, 4, 5, 2], &[4], &[4]];
        type Compute = fn(Tensor<4>, Tensor<1>, Tensor<1>, f32) -> (Tensor<4>, BatchStatistics);
        let of = |compute: Compute| {
            move |i: &crate::hook::agreement::Inputs| {
                compute(i.get(0), i.get(1), i.get(2), EPSILON).0
            }
        };
        assert_agree(&shapes, 2e-5, of(batch_norm), of(composed));
        assert_slopes(&shapes, of(batch_norm));
        let input = Noise::from_seed(1).standard_normal([3, 4, 5, 2], &Device::flex());
        let ones = || Tensor::<1>::ones([4], &Device::flex());
        let [own, burns] =
            [batch_norm, composed].map(|f: Compute| f(input.clone(), ones(), ones(), EPSILON).1);
        assert!(own.mean.all_close(burns.mean, Some(1e-5), Some(1e-6)));
        assert!(
            own.variance
                .all_close(burns.variance, Some(1e-5), Some(1e-6))
        );
        assert_eq!((own.count, burns.count), (30, 30));
    }

    #[test]
    fn running_statistics_move_when_told_and_are_what_forward_uses() {
        for device in [Device::flex(), Device::flex().autodiff()] {
            let mut norm = BatchNorm::new(2, 0.02, &mut Init::new(&device, 1));
            let input = Noise::from_seed(2).standard_normal([4, 2, 3, 3], &device) * 3.0 + 1.0;
            let before = host_values(norm.forward(input.clone()));
            let (output, statistics) = norm.forward_batch(input.clone());
            assert_eq!(host_values(norm.running_mean.val()), [0.0; 2]);
            assert_eq!(host_values(norm.forward(input.clone())), before);
            norm.absorb(&statistics);
            let [mean, variance] =
                [&statistics.mean, &statistics.variance].map(|t| host_values(t.clone()));
            for c in 0..2 {
                let got = [&norm.running_mean, &norm.running_var].map(|p| host_values(p.val())[c]);
                assert!((got[0] - 0.1 * mean[c]).abs() < 1e-6);
                assert!((got[1] - (0.9 + 0.1 * variance[c] * 36.0 / 35.0)).abs() < 1e-5);
            }
            assert!(!norm.running_var.is_require_grad());
            // After many batches of one kind both ways agree but for the estimate of the variance.
            (0..200).for_each(|_| norm.absorb(&statistics));
            let running = norm.forward(input);
            assert!(running.all_close(output, Some(0.0), Some(0.1)));
        }
    }
    #[test]
    fn tangents_are_slopes() {
        let device = Device::flex();
        let norm = BatchNorm::new(2, 0.5, &mut Init::new(&device, 1));
        let mut noise = Noise::from_seed(3);
        let input = noise.standard_normal([3, 2, 4, 4], &device);
        let step = noise.standard_normal::<4>([3, 2, 4, 4], &device) * 1e-2;
        let at = |sign: f32| norm.forward_batch(input.clone() + step.clone() * sign).0;
        let slope = (at(1.0) - at(-1.0)) * 0.5;
        let tangent = norm.tangent(input.clone(), step.clone());
        assert!(tangent.all_close(slope, Some(1e-2), Some(1e-5)));
    }
}
