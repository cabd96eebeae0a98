//! The adversary of stage 1: a discriminator that learns to tell images from reconstructions.
//!
//! Two functions, one for each side: [`opinion`](Adversary::opinion) is what the tokenizer wants to
//! lower, [`lesson`](Adversary::lesson) what the discriminator learns from the same reconstructions,
//!
//! `L_D = ℓ(D(x), D(x̂)) + w·LeCAM + γ/2·R1`,
//!
//! and neither changes the other's network. Real and reconstructed images pass the discriminator
//! apart, so that batch norms see one kind at a time, as in the published code. State: the
//! discriminator with its running statistics, its optimiser, LeCAM's averages; all of it is in the
//! checkpoint.

mod config;

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use smalti_models::discriminators::{Discriminator, Lecam, r1_penalty};
use smalti_nn::Init;
use smalti_nn::state::{Array, Weights};
use smalti_quantize::NamedLoss;

pub use config::{AdversarialConfig, Balance, LecamConfig, SlopePenaltyConfig};

use crate::error::TrainError;
use crate::gradients::Gradients;
use crate::journal::Measures;
use crate::learner::Learner;
use crate::optimizer::OptimizerConfig;
use crate::trainer::{StepSums, read_losses};

/// The name of the tokenizer's loss.
pub const LOSS: &str = "adversarial";
/// Where its arrays are in a checkpoint.
pub(crate) const PART: &str = "adversary";

/// A discriminator in training.
#[derive(Debug)]
pub struct Adversary {
    config: AdversarialConfig,
    learner: Learner<Discriminator>,
    lecam: Option<Lecam>,
}

/// Images and their reconstructions, untracked: `[batch, 3, height, width]` each.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The images.
    pub images: Tensor<4>,
    /// What the tokenizer made of them.
    pub reconstructions: Tensor<4>,
}

impl Adversary {
    /// A discriminator that has learned nothing; `optimizer` is the tokenizer's.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn new(
        config: &AdversarialConfig,
        optimizer: &OptimizerConfig,
        init: &mut Init,
    ) -> Result<Self, TrainError> {
        TrainError::unless_empty(config.problems())?;
        let network = config
            .discriminator
            .build(init)
            .expect("validated with the rest");
        let optimizer = config.optimizer.as_ref().unwrap_or(optimizer).clone();
        Ok(Self {
            config: config.clone(),
            learner: Learner::new(network, optimizer, None),
            lecam: config.lecam.map(|lecam| Lecam::new(lecam.decay as f32)),
        })
    }

    /// When it joins and how it is weighed.
    pub fn config(&self) -> &AdversarialConfig {
        &self.config
    }

    /// Whether the discriminator learns in a step.
    pub fn learns_at(&self, step: u64) -> bool {
        step >= self.config.first_step()
    }

    /// What the tokenizer wants to lower, `[1]`; tracked reconstructions get its gradient.
    pub fn opinion(&self, reconstructions: Tensor<4>) -> Tensor<1> {
        // No gradient of the discriminator's own parameters is wanted here.
        let frozen = self.learner.model().clone().no_grad();
        let (logits, _) = frozen.forward_batch(reconstructions);
        self.config.loss.generator(logits)
    }

    /// What the discriminator learns from a batch of step `step`: its gradient and its losses. The
    /// running statistics and averages move; the weights wait for the end of the step.
    ///
    /// # Errors
    /// When a loss is not finite.
    pub fn lesson(&mut self, pair: &Pair, step: u64) -> Result<(Gradients, Measures), TrainError> {
        let (images, reconstructions) = (
            Tensor::from_inner(pair.images.clone()),
            Tensor::from_inner(pair.reconstructions.clone()),
        );
        if step == self.config.first_step() {
            self.learner.model_mut().start(images.clone());
        }
        let network = self.learner.model();
        let (real, of_real) = network.forward_batch(images.clone());
        let (fake, of_fake) = network.forward_batch(reconstructions);
        let own = self.config.loss.discriminator(real.clone(), fake.clone());
        let mut losses: Vec<NamedLoss> = vec![("discriminator", own.clone())];
        let mut total = own;
        if let (Some(config), Some(lecam)) = (self.config.lecam, &mut self.lecam) {
            let penalty = lecam.penalty(real.clone(), fake.clone());
            lecam.update(real, fake);
            total = total + penalty.clone().mul_scalar(config.weight);
            losses.push(("lecam", penalty));
        }
        if let Some(config) = self.config.slope_penalty
            && step.is_multiple_of(config.every)
        {
            let penalty = r1_penalty(network, images);
            // It counts for the steps that leave it out.
            let weight = 0.5 * config.weight * config.every as f64;
            total = total + penalty.clone().mul_scalar(weight);
            losses.push(("slope_penalty", penalty));
        }
        let measures = read_losses(&losses, step)?;
        let gradients = Gradients::of(network, &total.backward());
        let network = self.learner.model_mut();
        network.absorb(&of_real);
        network.absorb(&of_fake);
        Ok((gradients, measures))
    }

    /// The discriminator's step along the gradients of its lessons.
    ///
    /// # Errors
    /// When their norm is NaN or infinite; nothing has changed then.
    pub(crate) fn step(
        &mut self,
        sums: StepSums,
        step: u64,
        factor: f64,
    ) -> Result<Measures, TrainError> {
        sums.apply(
            &mut self.learner,
            ("discriminator_gradient_norm", step),
            factor,
        )
    }

    /// Everything that a checkpoint keeps of it.
    pub fn weights(&self) -> Weights {
        let mut weights = self.learner.weights();
        if let Some(lecam) = &self.lecam {
            // Counts of updates above 2²⁴ are not exact in f32, and it is only asked whether there was one.
            let values = vec![lecam.real, lecam.fake, lecam.updates as f32];
            let shape = vec![values.len()];
            weights
                .0
                .insert("lecam.averages".into(), Array { shape, values });
        }
        weights
    }

    /// Takes over what [`weights`](Self::weights) gave after `steps` steps of the run.
    ///
    /// # Errors
    /// When they are of another discriminator.
    pub fn restore(
        &mut self,
        mut weights: Weights,
        steps: u64,
        path: &Path,
        device: &Device,
    ) -> Result<(), TrainError> {
        if let Some(lecam) = &mut self.lecam {
            let stored = weights.0.remove("lecam.averages");
            match stored.as_ref().map(|array| array.values.as_slice()) {
                Some(&[real, fake, updates]) => {
                    (lecam.real, lecam.fake, lecam.updates) = (real, fake, updates as u64);
                }
                _ => {
                    return Err(TrainError::layout(
                        path,
                        "adversary.lecam.averages, three numbers, is missing",
                    ));
                }
            }
        }
        let own = steps.saturating_sub(self.config.first_step());
        self.learner.restore(weights, own, path, device)
    }
}
