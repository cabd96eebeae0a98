//! Group normalisation, alone or followed by SiLU.
//!
//! For every image and group of channels: `x̂ = (x − mean) / √(variance + ε)` over the group's
//! channels and all positions, then `y = γ·x̂ + β` per channel, then optionally `y·σ(y)`.
//! Variance is the biased one, as in PyTorch.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::silu;
use smalti_kernels::group_norm::{GroupNorm as Kernel, Moments};

use crate::Init;
use crate::hook::{self, CpuOp, CpuTensor, cpu_tensor, dims, elements, writable};

/// Group normalisation of `[batch, channels, height, width]`.
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// γ, `[channels]`
    pub weight: Param<Tensor<1>>,
    /// β, `[channels]`
    pub bias: Param<Tensor<1>>,
    groups: usize,
    epsilon: f64,
}

impl GroupNorm {
    /// γ = 1 and β = 0. The number of groups must divide the number of channels.
    pub fn new(groups: usize, channels: usize, epsilon: f64, init: &mut Init) -> Self {
        assert!(
            channels.is_multiple_of(groups),
            "{groups} groups do not divide {channels} channels"
        );
        Self {
            weight: init.constant([channels], 1.0),
            bias: init.constant([channels], 0.0),
            groups,
            epsilon,
        }
    }

    /// Normalises.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        group_norm(
            input,
            self.weight.val(),
            self.bias.val(),
            self.groups,
            self.epsilon,
        )
    }

    /// Normalises and applies SiLU, in one pass where there is a kernel.
    pub fn forward_silu(&self, input: Tensor<4>) -> Tensor<4> {
        group_norm_silu(
            input,
            self.weight.val(),
            self.bias.val(),
            self.groups,
            self.epsilon,
        )
    }
}

/// Group normalisation; see the [module's documentation](self).
pub fn group_norm(
    input: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    groups: usize,
    epsilon: f64,
) -> Tensor<4> {
    let op = Normalization {
        groups,
        epsilon,
        silu: false,
    };
    match hook::call(
        op,
        [
            input.into_dispatch(),
            gamma.into_dispatch(),
            beta.into_dispatch(),
        ],
    ) {
        Ok(output) => output,
        Err([input, gamma, beta]) => {
            let [gamma, beta] = [gamma, beta].map(Tensor::from_dispatch);
            composed(Tensor::from_dispatch(input), gamma, beta, groups, epsilon)
        }
    }
}

/// Group normalisation followed by SiLU; see the [module's documentation](self).
pub fn group_norm_silu(
    input: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    groups: usize,
    epsilon: f64,
) -> Tensor<4> {
    let op = Normalization {
        groups,
        epsilon,
        silu: true,
    };
    match hook::call(
        op,
        [
            input.into_dispatch(),
            gamma.into_dispatch(),
            beta.into_dispatch(),
        ],
    ) {
        Ok(output) => output,
        Err([input, gamma, beta]) => {
            let [gamma, beta] = [gamma, beta].map(Tensor::from_dispatch);
            silu(composed(
                Tensor::from_dispatch(input),
                gamma,
                beta,
                groups,
                epsilon,
            ))
        }
    }
}

/// Group normalisation of the CPU, with or without SiLU; inputs are the image, γ and β.
#[derive(Clone, Copy, Debug)]
struct Normalization {
    groups: usize,
    epsilon: f64,
    silu: bool,
}

impl Normalization {
    fn kernel<'a>(&self, [input, gamma, beta]: &'a [CpuTensor; 3]) -> Kernel<'a> {
        let [_, _, height, width] = dims(input);
        let Self {
            groups,
            epsilon,
            silu,
        } = *self;
        let (gamma, beta) = (elements(gamma), elements(beta));
        Kernel {
            groups,
            spatial: height * width,
            eps: epsilon as f32,
            silu,
            gamma,
            beta,
        }
    }
}

impl CpuOp<3> for Normalization {
    type Saved = Vec<Moments>;
    // A pass over memory; what it makes is as large as what it reads.
    const CHEAP: bool = true;

    fn forward(&self, inputs: &[CpuTensor; 3]) -> (CpuTensor, Vec<Moments>) {
        let input = elements(&inputs[0]);
        let mut output = hook::output(input.len());
        let moments = self.kernel(inputs).forward(input, &mut output);
        (cpu_tensor(output, dims::<4>(&inputs[0])), moments)
    }

    fn backward(
        &self,
        inputs: &[CpuTensor; 3],
        moments: Vec<Moments>,
        mut grad: CpuTensor,
        [of_input, of_gamma, of_beta]: [bool; 3],
    ) -> [Option<CpuTensor>; 3] {
        let kernel = self.kernel(inputs);
        let input = elements(&inputs[0]);
        let affine = match writable(&mut grad) {
            Some(grad) => kernel.backward_in_place(input, &moments, grad),
            None => {
                let mut values = hook::output(input.len());
                let affine = kernel.backward(input, &moments, elements(&grad), &mut values);
                grad = cpu_tensor(values, dims::<4>(&inputs[0]));
                affine
            }
        };
        let channels = [affine.gamma.len()];
        let grad_gamma = of_gamma.then(|| cpu_tensor(affine.gamma, channels));
        let grad_beta = of_beta.then(|| cpu_tensor(affine.beta, channels));
        [of_input.then_some(grad), grad_gamma, grad_beta]
    }
}

/// Group normalisation made of burn's own operations.
fn composed(
    input: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    groups: usize,
    epsilon: f64,
) -> Tensor<4> {
    let [batch, channels, height, width] = input.dims();
    let grouped = input.reshape([batch, groups, channels / groups * height * width]);
    let centred = grouped.clone() - grouped.mean_dim(2);
    let variance = centred.clone().square().mean_dim(2);
    let normal = (centred / (variance + epsilon).sqrt()).reshape([batch, channels, height, width]);
    normal * gamma.reshape([1, channels, 1, 1]) + beta.reshape([1, channels, 1, 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::agreement::{Inputs, assert_agree, assert_slopes};

    type Compute = fn(Tensor<4>, Tensor<1>, Tensor<1>, usize, f64) -> Tensor<4>;

    const EPSILON: f64 = 1e-3;

    fn of(compute: Compute, groups: usize) -> impl Fn(&Inputs) -> Tensor<4> {
        move |inputs| compute(inputs.get(0), inputs.get(1), inputs.get(2), groups, EPSILON)
    }

    fn composed_silu(
        input: Tensor<4>,
        gamma: Tensor<1>,
        beta: Tensor<1>,
        groups: usize,
        epsilon: f64,
    ) -> Tensor<4> {
        silu(composed(input, gamma, beta, groups, epsilon))
    }

    #[test]
    fn kernel_and_composition_agree() {
        let shapes: [&[usize]; 3] = [&[2, 6, 5, 7], &[6], &[6]];
        for groups in [1, 3, 6] {
            assert_agree(&shapes, 1e-5, of(group_norm, groups), of(composed, groups));
            assert_agree(
                &shapes,
                1e-5,
                of(group_norm_silu, groups),
                of(composed_silu, groups),
            );
        }
    }

    #[test]
    fn gradients_are_slopes() {
        let shapes: [&[usize]; 3] = [&[2, 4, 5, 3], &[4], &[4]];
        assert_slopes(&shapes, of(group_norm, 2));
        assert_slopes(&shapes, of(group_norm_silu, 2));
    }

    #[test]
    fn the_same_tensor_may_be_factor_and_offset() {
        let shapes: [&[usize]; 2] = [&[2, 4, 3, 3], &[4]];
        let twice = |compute: Compute| {
            move |inputs: &Inputs| compute(inputs.get(0), inputs.get(1), inputs.get(1), 2, EPSILON)
        };
        assert_agree(&shapes, 1e-5, twice(group_norm_silu), twice(composed_silu));
    }
}
