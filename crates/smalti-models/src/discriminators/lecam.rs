//! LeCAM's penalty, which keeps a discriminator from running away where images are few; Tseng et al., CVPR
//! 2021, arXiv 2104.03310, equation 6.
//!
//! With moving averages `α_R`, `α_F` of the mean logits of real and made images:
//! `mean (r − α_F)² + mean (f − α_R)²`, unweighted. Logits of any shape.
//!
//! State: both averages and how many batches they have seen, changed by [`Lecam::update`] only and to be
//! saved by whoever trains. Differences: the first batch sets the averages (the released code begins at a
//! fixed number and waits); the released code also rectifies both differences, the paper does not.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// Moving averages of logits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lecam {
    /// How much of the old averages stays with each batch.
    pub decay: f32,
    /// Of the logits of real images.
    pub real: f32,
    /// Of the logits of made images.
    pub fake: f32,
    /// Batches seen.
    pub updates: u64,
}

impl Lecam {
    /// Averages that have seen nothing yet. The published decay is 0.99.
    pub fn new(decay: f32) -> Self {
        Self {
            decay,
            real: 0.0,
            fake: 0.0,
            updates: 0,
        }
    }

    /// The penalty `[1]`, which belongs to the discriminator's loss; 0 before the first update.
    pub fn penalty<const D: usize>(&self, real: Tensor<D>, fake: Tensor<D>) -> Tensor<1> {
        if self.updates == 0 {
            return Tensor::zeros([1], &real.device());
        }
        let real = real.sub_scalar(self.fake).square().mean();
        real + fake.sub_scalar(self.real).square().mean()
    }

    /// Takes the logits of a batch into the averages.
    pub fn update<const D: usize>(&mut self, real: Tensor<D>, fake: Tensor<D>) {
        let decay = if self.updates == 0 { 0.0 } else { self.decay };
        for (average, logits) in [(&mut self.real, real), (&mut self.fake, fake)] {
            let mean: f32 = logits.detach().mean().into_scalar();
            *average = decay * *average + (1.0 - decay) * mean;
        }
        self.updates += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn averages_follow_and_the_penalty_pulls_to_the_other_side() {
        let device = Device::flex().autodiff();
        let leaf = |values: [f32; 2]| Tensor::<1>::from_data(values, &device).require_grad();
        let (real, fake) = (leaf([1.0, 3.0]), leaf([-1.0, 0.0]));
        let mut lecam = Lecam::new(0.75);
        let none: f32 = lecam.penalty(real.clone(), fake.clone()).into_scalar();
        assert_eq!(none, 0.0);
        lecam.update(real.clone(), fake.clone());
        assert_eq!((lecam.real, lecam.fake), (2.0, -0.5));
        lecam.update(leaf([4.0, 4.0]), leaf([0.0, 0.0]));
        assert_eq!((lecam.real, lecam.fake, lecam.updates), (2.5, -0.375, 2));

        let penalty = lecam.penalty(real.clone(), fake.clone());
        let grads = penalty.clone().backward();
        let host = |t: Option<Tensor<1>>| t.unwrap().try_into_vec_as::<f32>().unwrap();
        // r + 0.375 and f − 2.5.
        let value = (1.375f32.powi(2) + 3.375f32.powi(2) + 3.5f32.powi(2) + 2.5f32.powi(2)) / 2.0;
        assert!((penalty.into_scalar::<f32>() - value).abs() < 1e-5);
        assert_eq!(host(real.grad(&grads)), [1.375, 3.375]);
        assert_eq!(host(fake.grad(&grads)), [-3.5, -2.5]);
    }
}
