//! Which shift and scale fit the latents of a VAE to the prior of the codes.
//!
//! [`Normalize::Auto`] keeps what the model has (nothing for a VAE trained on N(0, 1), the scaling factor of a
//! published one) unless more than [`MISFIT`] of the divergence is there only because the prior does not fit. The
//! paper measures a misfit of 0.1 % for VAEs trained under the constraint; the limit is twenty times that.

use serde::{Deserialize, Serialize};
use smalti_quantize::Normalization;

use super::channels::{channel_reports, mismatch};
use super::moments::Moments;
use super::scheme::Scheme;

/// The share of the divergence that a prior which does not fit may cost before channels are normalised.
pub const MISFIT: f64 = 0.02;

/// Whether and how channels are fitted to the prior.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// As measured where the model's own fits badly.
    #[default]
    Auto,
    /// As measured on the images.
    Measured,
    /// As the model has it.
    Keep,
    /// Not at all.
    Off,
}

/// What fits the latents to the prior.
pub(super) struct Prior {
    /// The share of the divergence that came from the prior the model came with.
    pub(super) misfit: f64,
    /// What was chosen; never [`Normalize::Auto`].
    pub(super) normalize: Normalize,
    /// None shifts and scales nothing.
    pub(super) normalization: Option<Normalization>,
}

impl Prior {
    /// Chooses for these posteriors, which are as the encoder gives them.
    pub(super) fn fit(raw: &Moments, scheme: &Scheme, wanted: Normalize) -> Self {
        let misfit = mismatch(&channel_reports(&scheme.normalized(raw)));
        let normalize = match wanted {
            Normalize::Auto if misfit > MISFIT => Normalize::Measured,
            Normalize::Auto => Normalize::Keep,
            chosen => chosen,
        };
        let normalization = match normalize {
            Normalize::Measured => Some(measured(raw)),
            Normalize::Off => None,
            _ => scheme.normalization.clone(),
        };
        Self {
            misfit,
            normalize,
            normalization,
        }
    }

    /// Posteriors with this shift and scale.
    pub(super) fn moments(&self, raw: &Moments) -> Moments {
        match &self.normalization {
            Some(to) => raw.normalized(&to.shift, &to.scale),
            None => raw.clone(),
        }
    }

    /// The shift and the scale of one channel.
    pub(super) fn of_channel(&self, channel: usize) -> (f32, f32) {
        match &self.normalization {
            Some(to) => (to.shift[channel], to.scale[channel]),
            None => (0.0, 1.0),
        }
    }
}

fn measured(raw: &Moments) -> Normalization {
    let reports = channel_reports(raw);
    Normalization {
        shift: reports.iter().map(|report| report.shift).collect(),
        scale: reports.iter().map(|report| report.scale).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::channels::tests::drawn;
    use super::*;
    use smalti_quantize::{GaussianConfig, QuantizerConfig};

    fn fitted(normalization: Option<Normalization>, wanted: Normalize) -> Prior {
        let config = GaussianConfig {
            normalization,
            ..GaussianConfig::new(16, 2, 2)
        };
        let scheme = Scheme::of(&QuantizerConfig::Gaussian(config)).expect("it is Gaussian");
        Prior::fit(&drawn(2, 400, 9), &scheme, wanted)
    }

    #[test]
    fn auto_measures_where_the_models_own_fits_badly_and_keeps_it_where_it_fits() {
        let raw = fitted(None, Normalize::Auto);
        assert!(raw.misfit > MISFIT, "{}", raw.misfit);
        assert_eq!(raw.normalize, Normalize::Measured);
        // What was measured fits, to the last digits.
        let again = fitted(raw.normalization.clone(), Normalize::Auto);
        assert!(again.misfit < 1e-4, "{}", again.misfit);
        assert_eq!(again.normalize, Normalize::Keep);
        assert_eq!(again.normalization, raw.normalization);
        let (shift, scale) = again.of_channel(1);
        assert!((shift - 3.0).abs() < 0.1 && scale > 0.5, "{shift} {scale}");
    }

    #[test]
    fn what_is_asked_for_is_done_whatever_fits() {
        let own = Normalization {
            shift: vec![0.0; 2],
            scale: vec![0.5; 2],
        };
        let kept = fitted(Some(own.clone()), Normalize::Keep);
        assert_eq!(kept.normalization, Some(own.clone()));
        assert_eq!(kept.of_channel(0), (0.0, 0.5));
        let off = fitted(Some(own), Normalize::Off);
        assert_eq!(
            (off.normalization.as_ref(), off.of_channel(0)),
            (None, (0.0, 1.0))
        );
        let raw = drawn(2, 400, 9);
        assert_eq!(off.moments(&raw), raw);
    }
}
