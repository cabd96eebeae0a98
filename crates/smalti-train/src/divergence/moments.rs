//! The posteriors of many positions, on the host: what every measurement here begins with.
//!
//! A network with a Gaussian posterior gives a mean and a logarithm of the variance for every channel of every
//! position of its latent grid. Where images have more positions than are wanted, each image contributes an
//! equal number, drawn without replacement from a seed.

use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use smalti_quantize::QuantizeError;

use super::theory::{Scalar, divergence_bits};

/// ln σ² is held in this range, as by the quantizers.
pub const LOG_VARIANCES: (f32, f32) = (-30.0, 20.0);

/// Means and log-variances, `[position, channel]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    channels: usize,
    means: Vec<f32>,
    log_variances: Vec<f32>,
}

impl Moments {
    /// None yet.
    pub fn new(channels: usize) -> Self {
        Self {
            channels,
            means: Vec::new(),
            log_variances: Vec::new(),
        }
    }

    /// Adds positions of one latent map, `[2 · channels, positions]` with the means first.
    ///
    /// # Errors
    /// When a number is not finite.
    ///
    /// # Panics
    /// When the map has another number of channels.
    pub fn push(
        &mut self,
        map: &[f32],
        positions: impl IntoIterator<Item = usize>,
    ) -> Result<(), QuantizeError> {
        if map.iter().any(|value| !value.is_finite()) {
            return Err(QuantizeError::NonFinite);
        }
        let all = map.len() / (2 * self.channels);
        assert_eq!(map.len(), 2 * self.channels * all, "a map of all channels");
        let (means, log_variances) = map.split_at(self.channels * all);
        for position in positions {
            for channel in 0..self.channels {
                let place = channel * all + position;
                let (low, high) = LOG_VARIANCES;
                self.means.push(means[place]);
                self.log_variances
                    .push(log_variances[place].clamp(low, high));
            }
        }
        Ok(())
    }

    /// Channels of a position.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// How many there are.
    pub fn positions(&self) -> usize {
        self.means.len() / self.channels
    }

    /// The posterior of one channel at one position.
    pub fn scalar(&self, position: usize, channel: usize) -> Scalar {
        let place = position * self.channels + channel;
        Scalar {
            mean: f64::from(self.means[place]),
            deviation: (0.5 * f64::from(self.log_variances[place])).exp(),
        }
    }

    /// The divergence of one channel at one position, in bits.
    pub fn bits(&self, position: usize, channel: usize) -> f64 {
        let place = position * self.channels + channel;
        divergence_bits(
            f64::from(self.means[place]),
            f64::from(self.log_variances[place]),
        )
    }

    /// The posterior of some channels at one position.
    pub fn group(&self, position: usize, channels: &[usize]) -> Vec<Scalar> {
        let scalar = |&channel: &usize| self.scalar(position, channel);
        channels.iter().map(scalar).collect()
    }

    /// The divergence of some channels at every position, in bits.
    pub fn group_bits(&self, channels: &[usize]) -> Vec<f64> {
        let sum = |position| {
            channels
                .iter()
                .map(|&channel| self.bits(position, channel))
                .sum()
        };
        (0..self.positions()).map(sum).collect()
    }

    /// Some channels at some positions as a latent map `[2 · channels, positions]`, as a quantizer takes it.
    pub fn map(&self, places: &[(usize, &[usize])]) -> Vec<f32> {
        let width = places.first().map_or(0, |(_, channels)| channels.len());
        let part = |values: &[f32], map: &mut Vec<f32>| {
            for channel in 0..width {
                let row = places.iter().map(|(position, channels)| {
                    values[position * self.channels + channels[channel]]
                });
                map.extend(row);
            }
        };
        let mut map = Vec::with_capacity(2 * width * places.len());
        part(&self.means, &mut map);
        part(&self.log_variances, &mut map);
        map
    }

    /// The moments of (z − shift) · scale, one shift and scale for each channel.
    ///
    /// # Panics
    /// When there is another number of them.
    pub fn normalized(&self, shift: &[f32], scale: &[f32]) -> Self {
        assert!(shift.len() == self.channels && scale.len() == self.channels);
        let mut normalized = self.clone();
        let (low, high) = LOG_VARIANCES;
        let rows = normalized
            .means
            .chunks_exact_mut(self.channels)
            .zip(normalized.log_variances.chunks_exact_mut(self.channels));
        for (means, log_variances) in rows {
            for channel in 0..self.channels {
                let factor = scale[channel];
                means[channel] = (means[channel] - shift[channel]) * factor;
                let log_variance = log_variances[channel] + 2.0 * factor.abs().ln();
                log_variances[channel] = log_variance.clamp(low, high);
            }
        }
        normalized
    }
}

/// Which positions of an image are kept, in order: all where there are no more than `wanted`.
pub fn chosen(positions: usize, wanted: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    if positions <= wanted {
        return (0..positions).collect();
    }
    let mut chosen = index::sample(rng, positions, wanted).into_vec();
    chosen.sort_unstable();
    chosen
}

/// The stream from which positions are drawn.
pub fn stream(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two channels, three positions.
    fn moments() -> Moments {
        let map = [
            1.0, 2.0, 3.0, 10.0, 20.0, 30.0, // means
            0.0, -1.0, -2.0, -40.0, 0.5, 50.0, // log-variances
        ];
        let mut moments = Moments::new(2);
        moments.push(&map, [0, 2]).unwrap();
        moments.push(&map, [1]).unwrap();
        moments
    }

    #[test]
    fn positions_are_gathered_and_variances_held_in_range() {
        let moments = moments();
        assert_eq!((moments.positions(), moments.channels()), (3, 2));
        assert_eq!(moments.means, [1.0, 10.0, 3.0, 30.0, 2.0, 20.0]);
        assert_eq!(moments.log_variances, [0.0, -30.0, -2.0, 20.0, -1.0, 0.5]);
        assert_eq!(moments.scalar(1, 0).mean, 3.0);
        assert!((moments.scalar(1, 0).deviation - (-1f64).exp()).abs() < 1e-15);
        let bits = moments.group_bits(&[1, 0]);
        assert_eq!(bits[2], moments.bits(2, 1) + moments.bits(2, 0));
    }

    #[test]
    fn what_is_not_finite_is_refused_wherever_it_stands() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in 0..4 {
                let mut map = [0.0; 4];
                map[place] = wrong;
                assert_eq!(
                    Moments::new(1).push(&map, [0]),
                    Err(QuantizeError::NonFinite)
                );
            }
        }
    }

    #[test]
    fn a_map_has_the_means_first() {
        let moments = moments();
        let map = moments.map(&[(2, &[1]), (0, &[0])]);
        assert_eq!(map, [20.0, 1.0, 0.5, 0.0]);
        let both = moments.map(&[(0, &[1, 0])]);
        assert_eq!(both, [10.0, 1.0, -30.0, 0.0]);
    }

    #[test]
    fn normalizing_shifts_and_scales_the_distribution() {
        let moments = moments();
        let same = moments.normalized(&[0.0, 0.0], &[1.0, 1.0]);
        assert_eq!(same, moments);
        let moved = moments.normalized(&[1.0, 0.0], &[2.0, 1.0]);
        let (before, after) = (moments.scalar(2, 0), moved.scalar(2, 0));
        assert_eq!(after.mean, (before.mean - 1.0) * 2.0);
        assert!((after.deviation - 2.0 * before.deviation).abs() < 1e-7);
        // A mirrored channel has the same deviation.
        assert_eq!(
            moments.normalized(&[0.0; 2], &[-1.0; 2]).scalar(2, 0).mean,
            -2.0
        );
    }

    #[test]
    fn the_choice_is_without_repetition_and_the_seeds() {
        let mut first = chosen(1000, 40, &mut stream(3));
        assert_eq!(first, chosen(1000, 40, &mut stream(3)));
        assert_ne!(first, chosen(1000, 40, &mut stream(4)));
        first.dedup();
        assert!(first.len() == 40 && first.iter().all(|&position| position < 1000));
        assert_eq!(chosen(5, 9, &mut stream(3)), [0, 1, 2, 3, 4]);
    }
}
