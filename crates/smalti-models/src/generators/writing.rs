//! How a generator writes, and so which sampling settings mean something to it.

use serde::{Deserialize, Serialize};

use super::sampling::{Guidance, SamplingConfig};

/// How a generator writes its codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// One after the other.
    Raster,
    /// All at once, back along a chain of so many steps (kind "diffusion").
    Denoised {
        /// The most passes.
        steps: usize,
    },
    /// All at once, of which every pass keeps some (kind "masked").
    Unmasked {
        /// Codes of a map: the most passes.
        codes: usize,
    },
}

/// Which codes a pass of a masked generator keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnmaskingOrder {
    /// Those that it is surest of.
    #[default]
    Confidence,
    /// The next ones in Halton's order, in which neighbours are far apart.
    Halton,
    /// The same, every image beginning at another place of it.
    RolledHalton,
}

impl SamplingConfig {
    /// Settings that mean nothing to a generator that writes like this, or are out of its range.
    pub fn misplaced(&self, writing: Writing) -> Vec<String> {
        let mut problems = match writing {
            Writing::Raster => self.given_of("writes its codes one after the other", true, true),
            Writing::Denoised { .. } => self.given_of("has no choice to make", false, true),
            Writing::Unmasked { .. } => {
                let in_order = self.order.unwrap_or_default() != UnmaskingOrder::Confidence;
                self.given_of("writes in a fixed order here", false, in_order)
                    .into_iter()
                    .filter(|problem| !problem.starts_with("order"))
                    .collect()
            }
        };
        if let (Some(got), Writing::Denoised { steps: most } | Writing::Unmasked { codes: most }) =
            (self.steps, writing)
            && !(1..=most).contains(&got)
        {
            problems.push(format!("steps: expected 1 to {most}, got {got}"));
        }
        let has_interval = |guidance: &Guidance| guidance.interval.is_some();
        if writing != Writing::Raster && self.guidance.as_ref().is_some_and(has_interval) {
            problems.push(
                "guidance: this generator writes all positions at once; leave the interval out"
                    .into(),
            );
        }
        problems
    }

    /// The settings of others that are given: those of passes, those of a choice.
    fn given_of(&self, reason: &str, passes: bool, choice: bool) -> Vec<String> {
        let given = [
            ("steps", passes && self.steps.is_some()),
            (
                "choice_temperature",
                choice && self.choice_temperature.is_some(),
            ),
            ("reveal", choice && self.reveal.is_some()),
            ("order", choice && self.order.is_some()),
        ];
        let given = given.into_iter().filter(|(_, given)| *given);
        given
            .map(|(name, _)| format!("{name}: this generator {reason}; leave {name} out"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::masked::MaskSchedule;

    fn all() -> SamplingConfig {
        SamplingConfig {
            steps: Some(9),
            choice_temperature: Some(1.0),
            reveal: Some(MaskSchedule::Linear),
            order: Some(UnmaskingOrder::Confidence),
            guidance: Some(Guidance {
                scale: 2.0,
                interval: Some([0, 3]),
            }),
            ..SamplingConfig::default()
        }
    }

    fn names(config: &SamplingConfig, writing: Writing) -> Vec<String> {
        let problems = config.misplaced(writing).into_iter();
        problems
            .map(|problem| problem.split(':').next().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn settings_that_mean_nothing_are_refused() {
        let choice = ["choice_temperature", "reveal", "order"];
        let raster = [&["steps"], choice.as_slice()].concat();
        assert_eq!(names(&all(), Writing::Raster), raster);
        let denoised = [choice.as_slice(), &["steps", "guidance"]].concat();
        assert_eq!(names(&all(), Writing::Denoised { steps: 8 }), denoised);
        let unmasked = Writing::Unmasked { codes: 8 };
        assert_eq!(names(&all(), unmasked), ["steps", "guidance"]);
        let ordered = SamplingConfig {
            order: Some(UnmaskingOrder::Halton),
            steps: Some(8),
            guidance: Some(Guidance::new(2.0)),
            ..all()
        };
        assert_eq!(names(&ordered, unmasked), ["choice_temperature", "reveal"]);
        for writing in [Writing::Raster, Writing::Denoised { steps: 8 }, unmasked] {
            assert!(SamplingConfig::default().misplaced(writing).is_empty());
        }
    }
}
