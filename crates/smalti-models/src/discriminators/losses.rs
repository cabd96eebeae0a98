//! The losses of the game between a discriminator and the network whose images it judges.
//!
//! With logits `r` of real images and `f` of made ones:
//!
//! | [`AdversarialLoss`] | discriminator | generator |
//! |---|---|---|
//! | `hinge` (Lim, Ye 2017) | ½(mean max(0, 1 − r) + mean max(0, 1 + f)) | −mean f |
//! | `vanilla` (taming-transformers) | ½(mean softplus(−r) + mean softplus(f)) | −mean f |
//! | `non_saturating` (Goodfellow et al. 2014) | ½(mean softplus(−r) + mean softplus(f)) | mean softplus(−f) |
//!
//! All are unweighted scalars `[1]`. Code that calls its last row "vanilla" exists as well (BSQ-ViT); so does
//! code that hands logits and targets to the cross entropy the wrong way round (LlamaGen), whose
//! discriminator has no gradient: `softplus` here is the cross entropy with targets 1 and 0.

use burn::tensor::{Tensor, activation::log_sigmoid};
use serde::{Deserialize, Serialize};
use smalti_nn::relu;

/// Added to the generator's norm in [`balance`].
const SMALLEST_NORM: f64 = 1e-4;
/// The largest ratio of norms.
pub const PUBLISHED_LIMIT: f64 = 1e4;

/// Which pair of losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdversarialLoss {
    /// Margins of 1.
    #[default]
    Hinge,
    /// Cross entropy for the discriminator, the mean logit for the generator.
    Vanilla,
    /// Cross entropy for both.
    NonSaturating,
}

impl AdversarialLoss {
    /// What the discriminator minimises, `[1]`.
    pub fn discriminator<const D: usize>(self, real: Tensor<D>, fake: Tensor<D>) -> Tensor<1> {
        match self {
            Self::Hinge => hinge(real, fake),
            Self::Vanilla | Self::NonSaturating => cross_entropy(real, fake),
        }
    }

    /// What the generator minimises, `[1]`.
    pub fn generator<const D: usize>(self, fake: Tensor<D>) -> Tensor<1> {
        match self {
            Self::Hinge | Self::Vanilla => -fake.mean(),
            Self::NonSaturating => softplus(-fake).mean(),
        }
    }
}

/// `½(mean max(0, 1 − real) + mean max(0, 1 + fake))`.
pub fn hinge<const D: usize>(real: Tensor<D>, fake: Tensor<D>) -> Tensor<1> {
    let real = relu(real.neg().add_scalar(1.0)).mean();
    (real + relu(fake.add_scalar(1.0)).mean()).mul_scalar(0.5)
}

/// `½(mean softplus(−real) + mean softplus(fake))`: the cross entropy with targets 1 and 0.
pub fn cross_entropy<const D: usize>(real: Tensor<D>, fake: Tensor<D>) -> Tensor<1> {
    (softplus(-real).mean() + softplus(fake).mean()).mul_scalar(0.5)
}

/// `log(1 + eˣ)` without overflow, in value and gradient.
fn softplus<const D: usize>(input: Tensor<D>) -> Tensor<D> {
    -log_sigmoid(-input)
}

/// The weight that makes the generator's loss pull at the decoder's last layer as hard as the other losses,
/// times `weight` (Esser et al., CVPR 2021, arXiv 2012.09841, equation 7):
/// `weight · clamp(‖∇L‖ / (‖∇G‖ + 1e-4), 0, 1e4)`, norms of the gradients of that layer's weight.
pub fn adaptive_weight(loss_norm: f32, generator_norm: f32, weight: f32) -> f32 {
    let norms = (f64::from(loss_norm), f64::from(generator_norm));
    balance(norms.0, norms.1, PUBLISHED_LIMIT) as f32 * weight
}

/// The quotient of that weight with a limit of one's own: `clamp(‖∇L‖ / (‖∇G‖ + 1e-4), 0, limit)`.
pub fn balance(loss_norm: f64, generator_norm: f64, limit: f64) -> f64 {
    (loss_norm / (generator_norm + SMALLEST_NORM)).clamp(0.0, limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    const KINDS: [AdversarialLoss; 3] = [
        AdversarialLoss::Hinge,
        AdversarialLoss::Vanilla,
        AdversarialLoss::NonSaturating,
    ];
    /// Away from the corners of the hinge, far out, and at zero.
    const REAL: [f32; 4] = [-60.0, 0.0, 0.5, 70.0];
    const FAKE: [f32; 4] = [-80.0, 0.0, 0.25, 90.0];

    fn truth(kind: AdversarialLoss, real: &[f64; 4], fake: &[f64; 4]) -> (f64, f64) {
        let mean = |values: &[f64; 4], f: &dyn Fn(f64) -> f64| {
            values.iter().map(|&x| f(x)).sum::<f64>() / 4.0
        };
        let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
        let discriminator = match kind {
            AdversarialLoss::Hinge => {
                mean(real, &|x| (1.0 - x).max(0.0)) + mean(fake, &|x| (1.0 + x).max(0.0))
            }
            _ => mean(real, &|x| softplus(-x)) + mean(fake, &softplus),
        };
        let generator = match kind {
            AdversarialLoss::NonSaturating => mean(fake, &|x| softplus(-x)),
            _ => -mean(fake, &|x| x),
        };
        (0.5 * discriminator, generator)
    }

    fn slope(i: usize, of: impl Fn(&[f64; 4]) -> f64, at: &[f32; 4]) -> f64 {
        let moved = |step: f64| {
            let mut at = at.map(f64::from);
            at[i] += step;
            of(&at)
        };
        (moved(1e-5) - moved(-1e-5)) / 2e-5
    }

    #[test]
    fn values_and_gradients_agree_with_f64() {
        let device = Device::flex().autodiff();
        let wide = |values: [f32; 4]| values.map(f64::from);
        for kind in KINDS {
            let leaf = |values| Tensor::<1>::from_data(values, &device).require_grad();
            let (real, fake) = (leaf(REAL), leaf(FAKE));
            let loss = kind.discriminator(real.clone(), fake.clone());
            let grads = loss.clone().backward();
            let host = |t: Option<Tensor<1>>| t.unwrap().try_into_vec_as::<f32>().unwrap();
            let (of_real, of_fake) = (host(real.grad(&grads)), host(fake.grad(&grads)));
            let (discriminator, generator) = truth(kind, &wide(REAL), &wide(FAKE));
            let close = |got: f32, want: f64| {
                let error = (f64::from(got) - want).abs();
                assert!(
                    error < 1e-5 * want.abs().max(1.0),
                    "{kind:?}: {got} for {want}"
                );
            };
            close(loss.into_scalar(), discriminator);
            let own = leaf(FAKE);
            let loss = kind.generator(own.clone());
            let grads = loss.clone().backward();
            let of_own = host(own.grad(&grads));
            close(loss.into_scalar(), generator);
            for i in 0..4 {
                close(
                    of_real[i],
                    slope(i, |real| truth(kind, real, &wide(FAKE)).0, &REAL),
                );
                close(
                    of_fake[i],
                    slope(i, |fake| truth(kind, &wide(REAL), fake).0, &FAKE),
                );
                close(
                    of_own[i],
                    slope(i, |fake| truth(kind, &wide(REAL), fake).1, &FAKE),
                );
            }
        }
    }

    #[test]
    fn the_adaptive_weight_is_a_bounded_ratio() {
        assert_eq!(adaptive_weight(3.0, 2.0 - 1e-4, 0.5), 0.75);
        assert_eq!(adaptive_weight(5.0, 0.0, 0.8), 0.8 * 1e4);
        assert_eq!(adaptive_weight(0.0, 1.0, 0.8), 0.0);
    }
}
