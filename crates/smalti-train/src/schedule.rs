//! The learning rate over the steps of a run.

use serde::{Deserialize, Serialize};

/// How the learning rate falls after its warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Stays.
    Constant,
    /// Half a cosine down to the floor at the last step.
    Cosine,
    /// A straight line down to the floor at the last step.
    Linear,
}

/// A learning rate as a function of the step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// Steps of linear rise from zero; the first of them has the rate `1/warmup_steps`.
    pub warmup_steps: u64,
    /// What follows.
    pub decay: Decay,
    /// The lowest rate, as a fraction of the highest.
    pub floor: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            warmup_steps: 0,
            decay: Decay::Cosine,
            floor: 0.0,
        }
    }
}

impl Schedule {
    /// The factor of step `step` (from 0) of `steps`.
    pub fn factor(&self, step: u64, steps: u64) -> f64 {
        if step < self.warmup_steps {
            return (step + 1) as f64 / self.warmup_steps as f64;
        }
        let length = steps.saturating_sub(self.warmup_steps).max(1);
        let progress = ((step - self.warmup_steps) as f64 / length as f64).min(1.0);
        let height = match self.decay {
            Decay::Constant => 1.0,
            Decay::Linear => 1.0 - progress,
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        };
        self.floor + (1.0 - self.floor) * height
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_then_falls_to_the_floor() {
        let schedule = Schedule {
            warmup_steps: 10,
            decay: Decay::Cosine,
            floor: 0.1,
        };
        assert!((schedule.factor(0, 110) - 0.1).abs() < 1e-12);
        assert!((schedule.factor(9, 110) - 1.0).abs() < 1e-12);
        assert!((schedule.factor(60, 110) - 0.55).abs() < 1e-12);
        assert!((schedule.factor(110, 110) - 0.1).abs() < 1e-12);
        let steady = Schedule {
            decay: Decay::Constant,
            ..Schedule::default()
        };
        assert_eq!(steady.factor(7, 10), 1.0);
    }
}
