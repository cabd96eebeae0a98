//! Which time steps training looks at: those whose loss is large, more often.
//!
//! `p(t) ∝ √(L²_t + 1e-10) + 1e-4`, `L²_t` a moving average of the squared loss at step `t` (decay 0.9);
//! step 0, whose loss is another one, is drawn as often as step 1. Uniform until every step was seen
//! more than ten times (VQ-Diffusion's code; Nichol, Dhariwal 2021, arXiv 2102.09672, section 3.3).
//! A loss is divided by `p(t)`, so that its mean is the whole bound.
//!
//! State: the averages and how often each step was seen. They are buffers of the model, so that
//! checkpoints hold them and a resumed run draws what the uninterrupted one would have drawn.
//!
//! Different from the published code: where several samples of a batch have the same step, each
//! moves the average, in their order; there one of them, which is not said, does.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use smalti_nn::state::{host_values, replace};
use smalti_nn::{Init, Noise};

use crate::generators::lesson::TimeLoss;

/// How often each step must have been seen before some are preferred.
const SEEN: f32 = 10.0;
/// Part of the average that stays.
const DECAY: f32 = 0.9;
/// Beyond this `f32` no longer counts in ones.
const MOST: f32 = 16_777_216.0;

/// The losses seen at each time step.
#[derive(Module, Debug)]
pub struct TimeImportance {
    /// Moving averages of the squared losses, `[steps]`.
    pub lt_history: Param<Tensor<1>>,
    /// How often each step was seen, `[steps]`.
    pub lt_count: Param<Tensor<1>>,
}

impl TimeImportance {
    /// Of a chain of so many steps, none of which was seen.
    pub fn new(steps: usize, init: &mut Init) -> Self {
        Self {
            lt_history: init.buffer([steps], vec![0.0; steps]),
            lt_count: init.buffer([steps], vec![0.0; steps]),
        }
    }

    /// The probability of each step.
    pub fn probabilities(&self) -> Vec<f64> {
        let counts = host_values(self.lt_count.val());
        if counts.iter().any(|&count| count <= SEEN) {
            return vec![1.0 / counts.len() as f64; counts.len()];
        }
        let squares = host_values(self.lt_history.val());
        let size = |square: &f32| (f64::from(*square) + 1e-10).sqrt() + 1e-4;
        let mut sizes: Vec<f64> = squares.iter().map(size).collect();
        sizes[0] = sizes[1];
        let total: f64 = sizes.iter().sum();
        sizes.iter().map(|size| size / total).collect()
    }

    /// A time step for each of `count` samples, with its probability.
    pub fn draw(&self, count: usize, noise: &mut Noise) -> Vec<(usize, f64)> {
        let probabilities = self.probabilities();
        let pick = |draw: f32| {
            let mut left = f64::from(draw);
            let found = probabilities.iter().position(|p| {
                left -= p;
                left < 0.0
            });
            // Rounding can leave a rest of 1e-16: it belongs to the last step.
            let time = found.unwrap_or(probabilities.len() - 1);
            (time, probabilities[time])
        };
        noise.uniform_values(count).into_iter().map(pick).collect()
    }

    /// Takes the losses of a batch into account, in their order.
    pub fn note(&mut self, seen: &[TimeLoss]) {
        let mut squares = host_values(self.lt_history.val());
        let mut counts = host_values(self.lt_count.val());
        for &TimeLoss { time, loss } in seen {
            squares[time] = (1.0 - DECAY) * (loss * loss) + DECAY * squares[time];
            counts[time] = (counts[time] + 1.0).min(MOST);
        }
        for (param, values) in [
            (&mut self.lt_history, squares),
            (&mut self.lt_count, counts),
        ] {
            let shape = [values.len()];
            *param = replace(param.clone(), TensorData::new(values, shape));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn seen(losses: &[f32], times: usize) -> Vec<TimeLoss> {
        let once = losses.iter().enumerate();
        let once = once.map(|(time, &loss)| TimeLoss { time, loss });
        once.collect::<Vec<_>>().repeat(times)
    }

    #[test]
    fn steps_are_drawn_alike_until_all_were_seen_often_enough() {
        for device in [Device::flex(), Device::flex().autodiff()] {
            let mut importance = TimeImportance::new(4, &mut Init::new(&device, 1));
            importance.note(&seen(&[9.0, 1.0, 2.0, 5.0], 10));
            assert_eq!(importance.probabilities(), [0.25; 4]);
            importance.note(&seen(&[9.0, 1.0, 2.0, 5.0], 1));
            let got = importance.probabilities();
            let expected = [1.0 / 9.0, 1.0 / 9.0, 2.0 / 9.0, 5.0 / 9.0];
            for (got, want) in got.iter().zip(expected) {
                assert!((got - want).abs() < 1e-3, "{got} for {want}");
            }
        }
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let mut importance = TimeImportance::new(3, &mut Init::new(&Device::flex(), 1));
        importance.note(&seen(&[7.0, 1.0, 3.0], 80));
        let drawn = importance.draw(20_000, &mut Noise::from_seed(2));
        let probabilities = importance.probabilities();
        for (time, &probability) in probabilities.iter().enumerate() {
            let count = drawn.iter().filter(|(t, _)| *t == time).count();
            assert!((count as f64 / 20_000.0 - probability).abs() < 0.02);
        }
        assert!(drawn.iter().all(|(time, p)| *p == probabilities[*time]));
    }

    #[test]
    fn several_losses_of_one_step_move_the_average_one_after_the_other() {
        let mut importance = TimeImportance::new(2, &mut Init::new(&Device::flex(), 1));
        let at = |loss| TimeLoss { time: 1, loss };
        importance.note(&[at(2.0), at(1.0)]);
        let squares = host_values(importance.lt_history.val());
        assert!(squares[0] == 0.0 && (squares[1] - (0.1 + 0.9 * 0.4)).abs() < 1e-6);
        assert_eq!(host_values(importance.lt_count.val()), [0.0, 2.0]);
    }
}
