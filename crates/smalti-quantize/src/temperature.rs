//! The temperature of soft choices, and how it falls while a quantizer learns.
//!
//! After n batches, with `s = min(n/batches, 1)`:
//!
//! * `constant`: τ;
//! * `linear`: `from + (to − from)·s`;
//! * `cosine`: `to + ½·(from − to)·(1 + cos πs)`, the schedule of taming-transformers' Gumbel VQGAN (0.9 to 1e-6 over
//!   1,000,001 updates) and of DALL-E's tokenizer (1 to 1/16 over 150,000).
//!
//! State, `batches [1]`, of a temperature that falls: how many batches were learned from. It moves by one in
//! [`Learn::quantize_and_update`](crate::Learn::quantize_and_update) and nowhere else, is saved with the parameters,
//! and no gradient reaches it: an interrupted run goes on at the temperature it had. Where a step of the optimiser
//! accumulates several batches, each of them counts.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use smalti_nn::Init;
use smalti_nn::state::{host_values, replace};

/// Up to here an `f32` counts exactly.
const MOST_BATCHES: u32 = 1 << 24;

/// A temperature over the batches of a training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Temperature {
    /// The same always.
    Constant {
        /// τ.
        value: f64,
    },
    /// In equal steps.
    Linear {
        /// τ before the first batch.
        from: f64,
        /// τ in the end.
        to: f64,
        /// After how many batches the end is reached.
        batches: u32,
    },
    /// Along half a wave.
    Cosine {
        /// τ before the first batch.
        from: f64,
        /// τ in the end.
        to: f64,
        /// After how many batches the end is reached.
        batches: u32,
    },
}

impl Default for Temperature {
    fn default() -> Self {
        Self::Constant { value: 1.0 }
    }
}

impl Temperature {
    /// τ after so many batches.
    pub fn after(&self, batches: u32) -> f64 {
        let share = |all: u32| (f64::from(batches) / f64::from(all)).min(1.0);
        match *self {
            Self::Constant { value } => value,
            Self::Linear { from, to, batches } => from + (to - from) * share(batches),
            Self::Cosine { from, to, batches } => {
                let wave = (std::f64::consts::PI * share(batches)).cos();
                to + 0.5 * (from - to) * (1.0 + wave)
            }
        }
    }

    /// Everything that is wrong with the numbers.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut positive = |name: &str, value: f64| {
            if !(value.is_finite() && value > 0.0) {
                problems.push(format!(
                    "temperature: {name} must be positive and finite, got {value}"
                ));
            }
        };
        let batches = match *self {
            Self::Constant { value } => {
                positive("value", value);
                return problems;
            }
            Self::Linear { from, to, batches } | Self::Cosine { from, to, batches } => {
                positive("from", from);
                positive("to", to);
                batches
            }
        };
        if !(1..=MOST_BATCHES).contains(&batches) {
            problems.push(format!(
                "temperature: batches must lie between 1 and {MOST_BATCHES}, got {batches}"
            ));
        }
        problems
    }
}

/// A temperature and how far it has come.
#[derive(Module, Debug)]
pub(crate) struct FallingTemperature {
    batches: Option<Param<Tensor<1>>>,
    #[module(skip)]
    schedule: Temperature,
}

impl FallingTemperature {
    pub(crate) fn new(schedule: Temperature, init: &Init) -> Self {
        let falls = !matches!(schedule, Temperature::Constant { .. });
        Self {
            batches: falls.then(|| init.buffer([1], vec![0.0])),
            schedule,
        }
    }

    /// τ.
    pub(crate) fn now(&self) -> f64 {
        let batches = self.batches.as_ref().map(|count| host_values(count.val()));
        self.schedule.after(batches.map_or(0, |b| b[0] as u32))
    }

    /// Counts a batch.
    pub(crate) fn advance(&mut self) {
        if let Some(count) = &mut self.batches {
            let next = (host_values(count.val())[0] + 1.0).min(MOST_BATCHES as f32);
            *count = replace(count.clone(), TensorData::new(vec![next], [1]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use smalti_nn::state::Weights;

    /// Values of the published schedule, to the digits they were worked out to.
    #[test]
    fn the_published_schedule() {
        let schedule = Temperature::Cosine {
            from: 0.9,
            to: 1e-6,
            batches: 1_000_001,
        };
        for (batches, expected) in [
            (0, 0.9),
            (100_000, 0.877_976),
            (250_000, 0.768_198),
            (500_000, 0.450_001),
            (750_000, 0.131_804),
            (900_000, 0.022_026),
            (1_000_001, 1e-6),
            (2_000_000, 1e-6),
        ] {
            let found = schedule.after(batches);
            assert!((found - expected).abs() < 1e-6, "{batches}: {found}");
        }
    }

    #[test]
    fn it_falls_batch_by_batch_and_is_part_of_the_state() {
        let schedule = Temperature::Linear {
            from: 1.0,
            to: 0.5,
            batches: 4,
        };
        let init = Init::new(&Device::flex(), 1);
        let mut temperature = FallingTemperature::new(schedule, &init);
        let mut seen = Vec::new();
        for _ in 0..6 {
            seen.push(temperature.now());
            temperature.advance();
        }
        assert_eq!(seen, [1.0, 0.875, 0.75, 0.625, 0.5, 0.5]);

        temperature.advance();
        let state = Weights::of(&temperature);
        assert_eq!(state.0["batches"].values, [7.0]);
        let fresh = FallingTemperature::new(schedule, &init);
        assert_eq!(state.load_into(fresh).unwrap().now(), 0.5);
        let constant = FallingTemperature::new(Temperature::default(), &init);
        assert!(Weights::of(&constant).0.is_empty());
        assert_eq!(constant.now(), 1.0);
    }

    #[test]
    fn nonsense_is_listed() {
        let wrong = Temperature::Cosine {
            from: 0.0,
            to: f64::NAN,
            batches: 0,
        };
        let problems = wrong.problems();
        assert_eq!(problems.len(), 3, "{problems:?}");
        for (problem, part) in problems.iter().zip(["from", "to", "batches"]) {
            assert!(problem.contains(part), "{problem}");
        }
        assert_eq!(Temperature::Constant { value: -1.0 }.problems().len(), 1);
        assert!(Temperature::default().problems().is_empty());
    }
}
