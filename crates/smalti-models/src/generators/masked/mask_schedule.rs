//! How many codes are masked: in training by chance, in sampling step by step.
//!
//! In training a share `γ(r)` of the codes is masked, `r` uniform in [0, 1); in sampling `⌊N·γ(u)⌋` of `N`
//! codes are still masked after the part `u` of the steps (MaskGIT, arXiv 2202.04200, sections 3.2 and
//! 3.3, whose `γ` is the cosine). With `arccos` training is that of valeoai/Maskgit-pytorch, and sampling
//! its own rule: step `i` of `S` reveals codes in proportion to `arccos(1 − i/(S−1))`, rounded.
//!
//! Different from both: every step reveals at least one code, and no step takes the codes of the
//! steps behind it, however few codes there are.

use serde::{Deserialize, Serialize};

/// The share of codes that is masked over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaskSchedule {
    /// `cos(πr/2)`: most steps have many masks (MaskGIT).
    #[default]
    Cosine,
    /// `arccos(r)·2/π` (valeoai/Maskgit-pytorch).
    Arccos,
    /// `1 − r`.
    Linear,
    /// `1 − r²`.
    Square,
}

impl MaskSchedule {
    /// The share that is masked, `γ(r)`.
    pub fn share(self, r: f64) -> f64 {
        use std::f64::consts::FRAC_PI_2;
        match self {
            Self::Cosine => (FRAC_PI_2 * r).cos(),
            Self::Arccos => r.acos() / FRAC_PI_2,
            Self::Linear => 1.0 - r,
            Self::Square => 1.0 - r * r,
        }
    }

    /// The mean of the share over all `r`.
    pub fn mean_share(self) -> f64 {
        match self {
            Self::Cosine | Self::Arccos => std::f64::consts::FRAC_2_PI,
            Self::Linear => 0.5,
            Self::Square => 2.0 / 3.0,
        }
    }

    /// How many of `codes` codes each of `steps` steps reveals; there are at most as many steps as codes.
    pub fn counts(self, steps: usize, codes: usize) -> Vec<usize> {
        assert!(
            (1..=codes).contains(&steps),
            "{steps} steps for {codes} codes"
        );
        let mut left = codes;
        let mut counts = Vec::with_capacity(steps);
        for step in 0..steps {
            let behind = steps - 1 - step;
            let wanted = match self {
                Self::Arccos => arccos_count(step, steps, codes),
                _ => {
                    let share = self.share((step + 1) as f64 / steps as f64);
                    // A cosine of π/2 that is not quite zero must not count as one less.
                    let masked = (codes as f64 * share + 1e-9).floor() as usize;
                    left.saturating_sub(masked)
                }
            };
            let count = match behind {
                0 => left,
                _ => wanted.clamp(1, left - behind),
            };
            counts.push(count);
            left -= count;
        }
        counts
    }
}

/// The rounded share of a step.
fn arccos_count(step: usize, steps: usize, codes: usize) -> usize {
    if steps == 1 {
        return codes;
    }
    let weight = |step: usize| (1.0 - step as f64 / (steps - 1) as f64).acos();
    let total: f64 = (0..steps).map(weight).sum();
    (weight(step) / total * codes as f64).round() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_the_published_ones() {
        let counts = |schedule: MaskSchedule, steps| schedule.counts(steps, 256);
        let arccos = MaskSchedule::Arccos;
        assert_eq!(counts(arccos, 8), [1, 18, 26, 32, 38, 43, 48, 50]);
        let twelve = [1, 9, 13, 17, 19, 22, 24, 26, 28, 30, 32, 35];
        assert_eq!(counts(arccos, 12), twelve);
        let cosine = MaskSchedule::Cosine;
        assert_eq!(counts(cosine, 8), [5, 15, 24, 31, 39, 45, 48, 49]);
        let twelve = [3, 6, 11, 15, 18, 22, 26, 27, 31, 31, 33, 33];
        assert_eq!(counts(cosine, 12), twelve);
        assert_eq!(counts(MaskSchedule::Linear, 4), [64; 4]);
    }

    #[test]
    fn every_step_reveals_something_and_all_is_revealed() {
        use MaskSchedule::{Arccos, Cosine, Linear, Square};
        for schedule in [Cosine, Arccos, Linear, Square] {
            for codes in [1, 2, 5, 16, 100] {
                for steps in 1..=codes {
                    let counts = schedule.counts(steps, codes);
                    assert_eq!(counts.len(), steps);
                    assert_eq!(
                        counts.iter().sum::<usize>(),
                        codes,
                        "{schedule:?} {counts:?}"
                    );
                    assert!(!counts.contains(&0), "{schedule:?} {counts:?}");
                }
            }
        }
    }

    #[test]
    fn shares_fall_from_all_to_nothing_with_the_stated_mean() {
        use MaskSchedule::{Arccos, Cosine, Linear, Square};
        for schedule in [Cosine, Arccos, Linear, Square] {
            assert!((schedule.share(0.0) - 1.0).abs() < 1e-12);
            assert!(schedule.share(1.0).abs() < 1e-12);
            let draws = 100_000;
            let mean: f64 = (0..draws)
                .map(|i| schedule.share((f64::from(i) + 0.5) / f64::from(draws)))
                .sum();
            let mean = mean / f64::from(draws);
            assert!((mean - schedule.mean_share()).abs() < 1e-5, "{schedule:?}");
        }
    }
}
