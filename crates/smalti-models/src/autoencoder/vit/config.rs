//! The shape of a transformer network.

use serde::Serialize;

use crate::autoencoder::transformer::{StackConfig, Start};

/// Deviation of fresh weights. The published code truncates the normal distribution at ±2, a hundred
/// deviations, which is no truncation.
pub(super) const DEVIATION: f32 = 0.02;

/// The encoder and decoder of BSQ-ViT.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VitConfig {
    /// Side of the training images in pixels. There is a learned position for each of its patches;
    /// for images of other sizes the positions are interpolated.
    pub resolution: usize,
    /// Side of a patch in pixels: as many share one latent, in each direction.
    pub patch_size: usize,
    /// Width of the patches' vectors.
    pub width: usize,
    /// Transformer blocks of the encoder, and of the decoder.
    pub layers: usize,
    /// Attention heads of a block.
    pub heads: usize,
    /// Hidden width of a block's perceptron, in units of `width`; rounded down to a whole number.
    pub mlp_ratio: f64,
    /// Hidden width of the decoder's output layers. All published models have 3072, whatever
    /// their `width`.
    pub output_width: usize,
    /// Channels of the decoder's input, and of the encoder's output for each number that the
    /// quantizer wants of them: twice as many for means and variances.
    pub z_channels: usize,
    /// Probability of dropping an element of what a perceptron adds, in training.
    pub dropout: f64,
}

impl VitConfig {
    /// `mlp_ratio` of all published models.
    pub const PUBLISHED_MLP_RATIO: f64 = 4.0;
    /// `output_width` of all published models.
    pub const PUBLISHED_OUTPUT_WIDTH: usize = 3072;

    /// Patches in one row of a training image.
    pub(super) fn grid(&self) -> usize {
        self.resolution / self.patch_size
    }

    /// Numbers of one patch.
    pub(super) fn patch_elements(&self) -> usize {
        3 * self.patch_size * self.patch_size
    }

    /// The blocks of the encoder, and of the decoder.
    pub(super) fn stack(&self) -> StackConfig {
        StackConfig {
            layers: self.layers,
            width: self.width,
            heads: self.heads,
            hidden: self.mlp_width(),
            dropout: self.dropout,
            start: Start::Normal(DEVIATION),
        }
    }

    /// Hidden width of a block's perceptron.
    fn mlp_width(&self) -> usize {
        (self.width as f64 * self.mlp_ratio) as usize
    }

    pub(in crate::autoencoder) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, value) in [
            ("patch_size", self.patch_size),
            ("layers", self.layers),
            ("heads", self.heads),
            ("output_width", self.output_width),
            ("z_channels", self.z_channels),
        ] {
            if value == 0 {
                problems.push(format!("{name} must be at least 1, got 0"));
            }
        }
        let mut require = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        require(
            self.resolution > 0
                && (self.patch_size == 0 || self.resolution.is_multiple_of(self.patch_size)),
            format!(
                "resolution ({}) must be a positive multiple of patch_size ({})",
                self.resolution, self.patch_size
            ),
        );
        require(
            self.width > 0 && (self.heads == 0 || self.width.is_multiple_of(self.heads)),
            format!(
                "width ({}) must be a positive multiple of heads ({})",
                self.width, self.heads
            ),
        );
        require(
            self.mlp_ratio.is_finite() && (self.width == 0 || self.mlp_width() > 0),
            format!(
                "mlp_ratio ({}) times width ({}) must be at least 1",
                self.mlp_ratio, self.width
            ),
        );
        require(
            (0.0..1.0).contains(&self.dropout),
            format!("dropout must lie in [0, 1), got {}", self.dropout),
        );
        problems
    }
}
