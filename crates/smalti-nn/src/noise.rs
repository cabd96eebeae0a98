//! Randomness that is always seeded and passed in.
//!
//! A [`Noise`] is a ChaCha8 stream. Training derives a fresh one for every step from the run's seed
//! and the step's number ([`Noise::for_step`]), so nothing random has to be saved in a checkpoint:
//! a resumed run draws what the uninterrupted one would have drawn. Numbers are drawn on the host
//! and moved to the device, hence equal on every device.

use burn::tensor::{Device, Shape, Tensor, TensorData};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A seeded source of random tensors.
#[derive(Clone, Debug)]
pub struct Noise {
    rng: ChaCha8Rng,
}

impl Noise {
    /// The stream that belongs to `seed`.
    pub fn from_seed(seed: u64) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// The stream of one training step: a function of the run's seed and the step alone.
    pub fn for_step(seed: u64, step: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(step.wrapping_add(1));
        Self { rng }
    }

    /// A stream of its own, seeded from this one.
    pub fn fork(&mut self) -> Self {
        Self::from_seed(self.rng.next_u64())
    }

    /// The generator itself, for draws that are not tensors (orders, crops, categories).
    pub fn rng(&mut self) -> &mut ChaCha8Rng {
        &mut self.rng
    }

    /// `count` numbers, uniform in [0, 1).
    pub fn uniform_values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.rng.random::<f32>()).collect()
    }

    /// A tensor of numbers uniform in [0, 1).
    pub fn uniform<const D: usize>(&mut self, shape: [usize; D], device: &Device) -> Tensor<D> {
        let values = self.uniform_values(shape.iter().product());
        Tensor::from_data(TensorData::new(values, Shape::from(shape)), device)
    }

    /// A tensor of standard normal numbers (Box and Muller's transform).
    pub fn standard_normal<const D: usize>(
        &mut self,
        shape: [usize; D],
        device: &Device,
    ) -> Tensor<D> {
        let values = self.normal_values(shape.iter().product());
        Tensor::from_data(TensorData::new(values, Shape::from(shape)), device)
    }

    /// `count` standard normal numbers.
    pub fn normal_values(&mut self, count: usize) -> Vec<f32> {
        let mut values = Vec::with_capacity(count + 1);
        while values.len() < count {
            // 1 − u lies in (0, 1], so the logarithm is finite.
            let radius = (-2.0 * (1.0 - self.rng.random::<f64>()).ln()).sqrt();
            let angle = std::f64::consts::TAU * self.rng.random::<f64>();
            values.push((radius * angle.cos()) as f32);
            values.push((radius * angle.sin()) as f32);
        }
        values.truncate(count);
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_draw_equal_numbers_and_steps_differ() {
        let draw = |mut noise: Noise| noise.uniform_values(8);
        assert_eq!(draw(Noise::for_step(7, 3)), draw(Noise::for_step(7, 3)));
        assert_ne!(draw(Noise::for_step(7, 3)), draw(Noise::for_step(7, 4)));
        assert_ne!(draw(Noise::for_step(7, 3)), draw(Noise::for_step(8, 3)));
    }

    #[test]
    fn normal_numbers_have_mean_zero_and_variance_one() {
        let values = Noise::from_seed(1).normal_values(40_001);
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
        let variance = values
            .iter()
            .map(|&v| (f64::from(v) - mean).powi(2))
            .sum::<f64>()
            / values.len() as f64;
        assert_eq!(values.len(), 40_001);
        assert!(
            mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03,
            "{mean} {variance}"
        );
    }
}
