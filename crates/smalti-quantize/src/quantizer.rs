//! What every quantizer does.

use burn::tensor::Tensor;
use smalti_nn::Noise;

use crate::{CodeSpec, Codes, UpdateReport};

/// Why latents could not be quantized, or codes not decoded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum QuantizeError {
    /// A latent is NaN or infinite.
    #[error("latents are not finite (NaN or infinity): they have no nearest code")]
    NonFinite,
    /// A code is NaN or infinite.
    #[error("the codebook holds a NaN or an infinity: nothing is nearest to it")]
    NonFiniteCodebook,
    /// Finite latents whose residuals or sums are not.
    #[error(
        "latents are too large: a residual, or a sum over them or their squares, leaves the range of f32"
    )]
    TooLarge,
    /// No latents at all.
    #[error("latents hold no position: there is nothing to learn from")]
    Empty,
    /// A temperature that gives no distribution.
    #[error("temperature must be positive and finite, got {got}")]
    Temperature {
        /// The temperature.
        got: f64,
    },
    /// Depths to decode that do not exist, or none.
    #[error("expected a range of depths within 0..{depth} that is not empty, got {start}..{end}")]
    Depths {
        /// First depth.
        start: usize,
        /// One after the last depth.
        end: usize,
        /// Depths of the quantizer.
        depth: usize,
    },
    /// The latents have another number of channels.
    #[error("latents need {expected} channels, got {got}")]
    Channels {
        /// Channels the quantizer works on.
        expected: usize,
        /// Channels of the latents.
        got: usize,
    },
    /// The grid does not divide.
    #[error("a latent grid of {height}x{width} cannot be folded by {fold}")]
    Fold {
        /// Rows of the grid.
        height: usize,
        /// Columns of the grid.
        width: usize,
        /// What has to divide both.
        fold: usize,
    },
    /// The sides of images do not divide.
    #[error(
        "images of {width}x{height} pixels have no whole number of code positions: both sides must be multiples of {factor}"
    )]
    Sides {
        /// Rows of pixels.
        height: usize,
        /// Columns of pixels.
        width: usize,
        /// Pixels, in each direction, that share one position.
        factor: usize,
    },
    /// The codes have another number of depths.
    #[error("codes need a depth of {expected}, got {got}")]
    Depth {
        /// Depths of the quantizer.
        expected: usize,
        /// Depths of the codes.
        got: usize,
    },
    /// An id names no code.
    #[error("code {id} at depth {depth} is outside the codebook of {codebook_size}")]
    OutOfRange {
        /// The id.
        id: u32,
        /// Where it stands.
        depth: usize,
        /// Number of codes there.
        codebook_size: usize,
    },
}

/// A loss with the name under which the configuration weighs it. It is not weighted yet.
pub type NamedLoss = (&'static str, Tensor<1>);

/// The result of quantizing in training.
#[derive(Debug)]
pub struct Quantized {
    /// The value of `decode(encode(latents))`, with the gradient estimator's gradient; or a sample,
    /// where a quantizer of distributions is trained on such.
    pub quantized: Tensor<4>,
    /// The codes.
    pub codes: Codes,
    /// Losses of the quantizer, unweighted.
    pub losses: Vec<NamedLoss>,
    /// For a quantizer that draws codes in training: how far the code drawn at each position lies from the
    /// best one, `‖z_drawn − z_best‖²`, `[batch, height', width']`, without gradient. Zero where none was drawn.
    pub perturbation: Option<Tensor<3>>,
}

impl Quantized {
    /// Of a quantizer that takes the best code everywhere.
    pub fn new(quantized: Tensor<4>, codes: Codes, losses: Vec<NamedLoss>) -> Self {
        Self {
            quantized,
            codes,
            losses,
            perturbation: None,
        }
    }
}

/// Maps latents to codes and back. Pure: nothing here changes the quantizer.
pub trait Quantizer {
    /// What the codes mean.
    fn spec(&self) -> CodeSpec;

    /// `[batch, channels, height, width]` to codes `[batch, depth, height', width']`.
    ///
    /// # Errors
    /// When the latents are not finite or have the wrong shape.
    fn encode(&self, latents: Tensor<4>) -> Result<Codes, QuantizeError>;

    /// Codes `[batch, depth, height', width']` to `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// When the depth differs or an id is out of range.
    fn decode(&self, codes: &Codes) -> Result<Tensor<4>, QuantizeError>;

    /// The training path: decode(encode(x)) with its gradient estimator and unweighted, named
    /// losses. What codes are worth is to be measured with [`encode`](Self::encode) and
    /// [`decode`](Self::decode): quantizers of distributions may be trained on samples.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    fn quantize(&self, latents: Tensor<4>, noise: &mut Noise) -> Result<Quantized, QuantizeError>;
}

/// A quantizer whose codebooks learn outside the optimiser.
pub trait Learn: Quantizer {
    /// Quantizes as training sees it and moves the codes toward the latents.
    ///
    /// Both in one call, because the first call may first place the codes on the latents, and
    /// because the published order of RQ-VAE searches depth d + 1 in the table that depth d has
    /// just rewritten.
    ///
    /// # Errors
    /// As [`Quantizer::encode`]; nothing has changed then.
    fn quantize_and_update(
        &mut self,
        latents: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<(Quantized, UpdateReport), QuantizeError>;
}

/// The losses of parts that produce the same ones, averaged by name.
pub(crate) fn mean_losses(parts: Vec<Vec<NamedLoss>>) -> Vec<NamedLoss> {
    let count = parts.len() as f64;
    let sums = parts.into_iter().reduce(|sums, part| {
        let pairs = sums.into_iter().zip(part);
        let add = |((name, sum), (other, loss)): (NamedLoss, NamedLoss)| {
            assert_eq!(name, other, "parts of one kind produce the same losses");
            (name, sum + loss)
        };
        pairs.map(add).collect()
    });
    let mean = |(name, sum): NamedLoss| (name, sum.div_scalar(count));
    sums.unwrap_or_default().into_iter().map(mean).collect()
}

/// The squared distances of parts that work on channels of their own, or one on what others left over, summed by
/// position; `None` where no part draws codes.
pub(crate) fn sum_perturbations(
    parts: impl IntoIterator<Item = Option<Tensor<3>>>,
) -> Option<Tensor<3>> {
    parts.into_iter().flatten().reduce(|sum, part| sum + part)
}

/// Refuses latents with another number of channels.
pub(crate) fn check_channels(latents: &Tensor<4>, expected: usize) -> Result<(), QuantizeError> {
    let [_, got, _, _] = latents.dims();
    if got == expected {
        Ok(())
    } else {
        Err(QuantizeError::Channels { expected, got })
    }
}

/// Refuses NaN and infinities.
pub(crate) fn check_finite(values: &[f32]) -> Result<(), QuantizeError> {
    if values.iter().all(|value| value.is_finite()) {
        Ok(())
    } else {
        Err(QuantizeError::NonFinite)
    }
}

/// Refuses codes with another depth or with ids that name no code.
pub(crate) fn check_codes(codes: &Codes, spec: &CodeSpec) -> Result<(), QuantizeError> {
    let [_, depth, height, width] = codes.dims();
    if depth != spec.depth() {
        return Err(QuantizeError::Depth {
            expected: spec.depth(),
            got: depth,
        });
    }
    let positions = height * width;
    for (i, &id) in codes.values().iter().enumerate() {
        let depth = i / positions % depth;
        let codebook_size = spec.codebook_sizes[depth];
        if id as usize >= codebook_size {
            return Err(QuantizeError::OutOfRange {
                id,
                depth,
                codebook_size,
            });
        }
    }
    Ok(())
}
