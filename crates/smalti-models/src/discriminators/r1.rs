//! R1: the squared length of a discriminator's slope at real images; Mescheder et al., ICML 2018, arXiv
//! 1801.04406, equation 9.
//!
//! `R = mean_n ‖∇_{x_n} S(x)‖²`, `S` the sum of all logits of the batch. Trainings add `γ/2·R` to the
//! discriminator's loss; StyleGAN2 does it every 16 steps, and then 16 times as much.
//!
//! The gradient of `R` needs second derivatives, which the engine's backward pass does not have. With
//! `g = ∇ₓS` held constant, `∂‖g‖²/∂θ = 2·gᵀ·∂g/∂θ = 2·∂(gᵀ∇ₓS)/∂θ`, and `gᵀ∇ₓS` is how the logits change along `g`:
//! the discriminator's [`tangent`](Discriminator::tangent), one forward pass of the chain rule, whose gradient
//! the backward pass has. What is returned has the value of `R` and exactly that gradient.
//!
//! (A difference of parameter gradients at `x ± h·g` will not do: between the two, rectifiers pass their
//! corners, and however small `h` is, what jumps there outweighs the rest.)

use burn::module::Module;
use burn::tensor::Tensor;

use super::Discriminator;

/// The penalty `[1]`, unweighted, at real `images`.
///
/// # Panics
/// When the images are not on an autodiff device, or do not fit the discriminator.
pub fn r1_penalty(discriminator: &Discriminator, images: Tensor<4>) -> Tensor<1> {
    let [batch, ..] = images.dims();
    let images = images.detach();
    let leaf = images.clone().require_grad();
    // The slope alone is wanted here, and no gradient of a parameter.
    let (logits, _) = discriminator.clone().no_grad().forward_batch(leaf.clone());
    let gradients = logits.sum().backward();
    let Some(slope) = leaf.grad(&gradients) else {
        unreachable!("the logits are made of the images")
    };
    let square: f32 = slope.clone().square().sum().into_scalar();
    let direction = Tensor::from_inner(slope);
    let along = discriminator.tangent(images, direction).sum();
    let surrogate = along.mul_scalar(2.0 / batch as f64);
    let value = surrogate.clone().detach();
    surrogate - value + square / batch as f32
}
