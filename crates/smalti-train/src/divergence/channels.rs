//! What single channels hold, and the shift and scale that fit them to the prior.
//!
//! **Normalisation.** The codes are drawn from N(0, 1), so a channel's posteriors should, taken together, be
//! distributed like that. A VAE that was trained with enough weight on its divergence is (the paper measures a
//! mismatch of about a thousandth of the rate); the usual image VAEs, trained with a weight of 1e-6, are not, and
//! the paper, which always trains its own, says nothing of them. Here each channel becomes
//! z' = (z − shift) · scale with
//!
//! shift = E\[μ\], scale = (Var\[μ\] + E\[σ²\])^(−½),
//!
//! means over all positions. That gives the posteriors together mean 0 and variance 1, and of all shifts and
//! scales it is the one with the least mean divergence: E\[KL\] = ½(s² E\[(μ − b)² + σ²\] − 1 − ln s² − E\[ln σ²\]) is
//! least at b = E\[μ\] and s² = 1/E\[(μ − b)² + σ²\]. It is never worse than no normalisation, and the difference
//! tells how badly the prior fits. Decoding undoes it.

use serde::{Deserialize, Serialize};

use super::moments::Moments;

/// One channel over all positions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChannelReport {
    /// Its number.
    pub channel: usize,
    /// Mean divergence in bits, as measured.
    pub bits: f64,
    /// Mean divergence in bits once shifted and scaled as below.
    pub fitted_bits: f64,
    /// E\[μ\]
    pub mean: f64,
    /// Var\[μ\]
    pub mean_variance: f64,
    /// E\[σ²\]
    pub variance: f64,
    /// The shift that fits it to the prior.
    pub shift: f32,
    /// The scale that fits it to the prior.
    pub scale: f32,
}

/// Measures every channel.
///
/// # Panics
/// When there is no position.
pub fn channel_reports(moments: &Moments) -> Vec<ChannelReport> {
    let positions = moments.positions();
    assert!(positions > 0, "posteriors of at least one position");
    let average =
        |value: &dyn Fn(usize) -> f64| (0..positions).map(value).sum::<f64>() / positions as f64;
    let report = |channel: usize| {
        let mean = average(&|position| moments.scalar(position, channel).mean);
        let mean_variance =
            average(&|position| (moments.scalar(position, channel).mean - mean).powi(2));
        let variance = average(&|position| moments.scalar(position, channel).deviation.powi(2));
        let bits = average(&|position| moments.bits(position, channel));
        let scale = (mean_variance + variance).powf(-0.5);
        // E[KL] is a function of these averages: what changes is ½(E[μ²] + E[σ²] − 1) and ln of the scale.
        let before = 0.5 * (mean * mean + mean_variance + variance - 1.0);
        let fitted_bits = bits - (before + scale.ln()) / std::f64::consts::LN_2;
        ChannelReport {
            channel,
            bits,
            fitted_bits,
            mean,
            mean_variance,
            variance,
            shift: mean as f32,
            scale: scale as f32,
        }
    };
    (0..moments.channels()).map(report).collect()
}

/// The share of the divergence that is there only because the channels do not fit the prior.
pub fn mismatch(reports: &[ChannelReport]) -> f64 {
    let sum = |bits: fn(&ChannelReport) -> f64| reports.iter().map(bits).sum::<f64>();
    let (measured, fitted) = (sum(|report| report.bits), sum(|report| report.fitted_bits));
    match measured > 0.0 {
        true => ((measured - fitted) / measured).max(0.0),
        false => 0.0,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use smalti_nn::Noise;

    /// Positions whose channel i has mean `3i + N(0, 1) · 2^i / 4` and a variance of about `0.1 · 4^i`.
    pub(in crate::divergence) fn drawn(channels: usize, positions: usize, seed: u64) -> Moments {
        let mut noise = Noise::from_seed(seed);
        let mut map = Vec::new();
        for channel in 0..channels {
            let size = (channel as f32).exp2();
            let values = noise.normal_values(positions);
            map.extend(
                values
                    .iter()
                    .map(|v| 3.0 * channel as f32 + 0.25 * size * v),
            );
        }
        for channel in 0..channels {
            let log = (0.1f32).ln() + 2.0 * (channel as f32).exp2().ln();
            let values = noise.normal_values(positions);
            map.extend(values.iter().map(|v| log + 0.3 * v));
        }
        let mut moments = Moments::new(channels);
        moments.push(&map, 0..positions).unwrap();
        moments
    }

    #[test]
    fn fitted_channels_have_mean_zero_and_variance_one() {
        let moments = drawn(4, 500, 1);
        let reports = channel_reports(&moments);
        let shift: Vec<f32> = reports.iter().map(|report| report.shift).collect();
        let scale: Vec<f32> = reports.iter().map(|report| report.scale).collect();
        let fitted = channel_reports(&moments.normalized(&shift, &scale));
        for (before, after) in reports.iter().zip(&fitted) {
            assert!(after.mean.abs() < 1e-5, "{after:?}");
            assert!(
                (after.mean_variance + after.variance - 1.0).abs() < 1e-5,
                "{after:?}"
            );
            assert!(
                (after.bits - before.fitted_bits).abs() < 1e-4,
                "{before:?} {after:?}"
            );
            assert!(after.shift.abs() < 1e-5 && (after.scale - 1.0).abs() < 1e-5);
            assert!(after.bits <= before.bits + 1e-9);
        }
        assert!(mismatch(&reports) > 0.5);
        assert!(mismatch(&fitted) < 1e-6);
    }

    #[test]
    fn no_other_shift_and_scale_has_a_smaller_divergence() {
        let moments = drawn(2, 300, 2);
        let reports = channel_reports(&moments);
        for (shift_by, scale_by) in [(0.05, 1.0), (-0.05, 1.0), (0.0, 1.05), (0.0, 0.95)] {
            let shift: Vec<f32> = reports.iter().map(|r| r.shift + shift_by).collect();
            let scale: Vec<f32> = reports.iter().map(|r| r.scale * scale_by).collect();
            let other = channel_reports(&moments.normalized(&shift, &scale));
            for (best, other) in reports.iter().zip(&other) {
                assert!(other.bits > best.fitted_bits, "{best:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_posterior_that_is_the_prior_has_no_divergence() {
        let mut moments = Moments::new(1);
        moments.push(&[0.0, 0.0], [0]).unwrap();
        let reports = channel_reports(&moments);
        assert_eq!((reports[0].bits, reports[0].scale), (0.0, 1.0));
        assert_eq!(mismatch(&reports), 0.0);
    }
}
