//! A discriminator of whichever kind the configuration names.

use burn::module::Module;
use burn::tensor::Tensor;
use smalti_nn::BatchStatistics;

use super::{PatchDiscriminator, StyleDiscriminator};

/// Images to logits.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "a training has one")]
pub enum Discriminator {
    /// PatchGAN's.
    Patch(PatchDiscriminator),
    /// StyleGAN2's.
    Style(StyleDiscriminator),
}

/// What the norms of one pass in training saw, in the order of the layers; empty without such norms.
#[derive(Clone, Debug, Default)]
pub struct Statistics(pub Vec<BatchStatistics>);

impl Discriminator {
    /// Logits by what earlier batches left: for looking at, and for tests.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Patch(network) => network.forward(images),
            Self::Style(network) => network.forward(images),
        }
    }

    /// Logits by the statistics of the batch at hand, which come with them: what a training step uses.
    /// Nothing is changed.
    pub fn forward_batch(&self, images: Tensor<4>) -> (Tensor<4>, Statistics) {
        match self {
            Self::Patch(network) => network.forward_batch(images),
            Self::Style(network) => (network.forward(images), Statistics::default()),
        }
    }

    /// How the logits of [`forward_batch`](Self::forward_batch) change when the images change by `direction`:
    /// the product of the direction with the slope, differentiable in the parameters.
    pub fn tangent(&self, images: Tensor<4>, direction: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Patch(network) => network.tangent(images, direction),
            Self::Style(network) => network.tangent(images, direction),
        }
    }

    /// Mixes the statistics of a batch into what [`forward`](Self::forward) uses.
    ///
    /// Published trainings do it after every pass, that of the generator's step included.
    pub fn absorb(&mut self, statistics: &Statistics) {
        if let Self::Patch(network) = self {
            network.absorb(statistics);
        }
    }

    /// Starts norms that begin as the statistics of their first batch; to be called once with it before
    /// anything is judged, and without effect on other norms.
    pub fn start(&mut self, images: Tensor<4>) {
        if let Self::Patch(network) = self {
            network.start(images);
        }
    }
}
