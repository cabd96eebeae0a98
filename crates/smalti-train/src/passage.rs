//! A batch through an autoencoder and back, its halves side by side on the way.
//!
//! ```text
//! images ┬ encoder ┐              ┌ decoder ┬ hidden → losses on images
//!        └ encoder ┴ cut quantizer cut ┴ decoder ┘
//! ```
//!
//! Encoder and decoder see each image by itself, and so take the two [`halves`] of a batch at once,
//! each in a graph of its own. The quantizer, whose codebook learns and whose losses may look at the
//! whole batch, has them together. Between these parts the graph is cut: on the way back each part is
//! given the gradient at its output, and passes on the one at its input. The last layer is left to
//! whoever compares images, who may balance losses by their gradients there.

use burn::module::Module;
use burn::tensor::Tensor;
use smalti_models::autoencoder::Autoencoder;
use smalti_nn::Noise;
use smalti_quantize::{NamedLoss, QuantizeError, Quantized, UpdateReport};

use crate::gradients::Gradients;
use crate::halves;

/// A batch that has come as far as the decoder's last layer.
#[derive(Debug)]
pub struct Passage {
    halves: Vec<Half>,
    /// A leaf: what the quantizer was given.
    latents: Tensor<4>,
    quantized: Quantized,
}

/// A part of the batch, and the copy of the network that saw it.
#[derive(Debug)]
struct Half {
    model: Autoencoder,
    latents: Tensor<4>,
    /// A leaf: what the decoder was given.
    quantized: Tensor<4>,
    hidden: Tensor<4>,
}

impl Passage {
    /// Images `[batch, 3, height, width]` in [−1, 1] up to the last layer; the codebook learns.
    ///
    /// Dropout draws from `noise`, and so may the quantizer.
    ///
    /// # Errors
    /// When the images do not fit the network or the latents are not finite; the codebook has not
    /// changed then.
    pub fn forward(
        model: &mut Autoencoder,
        images: &Tensor<4>,
        noise: &mut Noise,
    ) -> Result<(Self, UpdateReport), QuantizeError> {
        model.check(images)?;
        let device = images.device();
        let parts = split(
            images.clone().inner(),
            &halves::sizes(images.dims()[0], &device),
        );
        let parts = parts.into_iter().map(|part| (part, noise.fork())).collect();
        let whole: &Autoencoder = model;
        let encoded = halves::each(parts, |(images, mut noise): (Tensor<4>, Noise)| {
            // Not a clone, whose graph would be the same one, behind one lock.
            let model = whole.clone().fork(&device);
            let latents = model.latents(Tensor::from_inner(images), Some(&mut noise));
            (model, noise, latents)
        });
        let latents = encoded.iter().map(|(_, _, latents)| latents.clone());
        let latents = leaf(Tensor::cat(latents.map(Tensor::inner).collect(), 0));
        let (quantized, report) = model.quantize_and_update(latents.clone(), noise)?;

        let counts: Vec<usize> = encoded.iter().map(|(_, _, l)| l.dims()[0]).collect();
        let parts = split(quantized.quantized.clone().inner(), &counts);
        let parts = encoded.into_iter().zip(parts).collect();
        let halves = halves::each(parts, |((model, mut noise, latents), quantized)| {
            let quantized = leaf(quantized);
            let hidden = model.hidden(quantized.clone(), Some(&mut noise));
            Half {
                model,
                latents,
                quantized,
                hidden,
            }
        });
        let passage = Self {
            halves,
            latents,
            quantized,
        };
        Ok((passage, report))
    }

    /// What the last layer sees, outside of every graph: the input of [`Autoencoder::finish`].
    pub fn hidden(&self) -> Tensor<4> {
        let hidden = self.halves.iter().map(|half| half.hidden.clone().inner());
        Tensor::cat(hidden.collect(), 0)
    }

    /// The quantized latents of the batch, codes and the losses of the quantizer, in its graph.
    pub fn quantized(&self) -> &Quantized {
        &self.quantized
    }

    /// The quantizer's losses, unweighted.
    pub fn losses(&self) -> &[NamedLoss] {
        &self.quantized.losses
    }

    /// The gradient of the parameters before the last layer.
    ///
    /// `slope` is that of the losses on images at [`hidden`](Self::hidden), `inner` the weighted sum of
    /// what is computed from the [`quantized`](Self::quantized) latents.
    pub fn backward(
        self,
        model: &Autoencoder,
        slope: Tensor<4>,
        inner: Option<Tensor<1>>,
    ) -> Gradients {
        let counts: Vec<usize> = self.halves.iter().map(|h| h.latents.dims()[0]).collect();
        let parts = self.halves.into_iter().zip(split(slope, &counts)).collect();
        let decoded = halves::each(parts, |(half, slope): (Half, Tensor<4>)| {
            let graph = along(half.hidden, slope).backward();
            let slope = half.quantized.grad(&graph).expect("the cut is a leaf");
            let gradients = Gradients::of(&half.model, &graph);
            ((half.model, half.latents), slope, gradients)
        });
        let slopes = decoded.iter().map(|(_, slope, _)| slope.clone()).collect();
        let mut rest = along(self.quantized.quantized, Tensor::cat(slopes, 0));
        if let Some(inner) = inner {
            rest = rest + inner;
        }
        let graph = rest.backward();
        let mut gradients = Gradients::of(model, &graph);
        let slope = self.latents.grad(&graph);
        drop(graph);

        let mut encoders = Vec::new();
        for (encoder, _, of_decoder) in decoded {
            gradients.add(of_decoder);
            encoders.push(encoder);
        }
        if let Some(slope) = slope {
            let parts = encoders.into_iter().zip(split(slope, &counts)).collect();
            let encoded = halves::each(parts, |((model, latents), slope)| {
                Gradients::of(&model, &along(latents, slope).backward())
            });
            encoded.into_iter().for_each(|of| gradients.add(of));
        }
        gradients
    }
}

/// A number whose gradient at `output` is `slope`.
fn along(output: Tensor<4>, slope: Tensor<4>) -> Tensor<1> {
    (output * Tensor::from_inner(slope)).sum()
}

/// The start of a new graph.
pub(crate) fn leaf(values: Tensor<4>) -> Tensor<4> {
    Tensor::from_inner(values).require_grad()
}

/// Parts of a batch of so many images each.
fn split(batch: Tensor<4>, counts: &[usize]) -> Vec<Tensor<4>> {
    if let [_] = counts {
        return vec![batch];
    }
    let mut start = 0;
    let part = |&count: &usize| {
        start += count;
        batch.clone().narrow(0, start - count, count)
    };
    counts.iter().map(part).collect()
}
