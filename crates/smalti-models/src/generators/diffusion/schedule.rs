//! How codes are worn away: the rates of the forward chain.
//!
//! In a step a code stays with probability `α`, is drawn anew among all `K` codes with probability
//! `K·β`, and becomes the mask with probability `γ`; the mask stays. What has happened after step `t`
//! has the same form with `ᾱ_t`, `K·β̄_t`, `γ̄_t` (VQ-Diffusion, arXiv 2111.14822, section 4.1, equations 7
//! and 8). The schedule is the published "alpha1": over `T` steps
//!
//! ```text
//! ᾱ_t   linear from 0.99999 to 0.000009      α_t = ᾱ_t / ᾱ_{t−1}
//! γ̄_t   linear from 0.000009 to 0.99999      γ_t = 1 − (1−γ̄_t)/(1−γ̄_{t−1})
//! K·β̄_t = 1 − ᾱ_t − γ̄_t
//! ```
//!
//! with `ᾱ_{−1} = 1`, `γ̄_{−1} = 0`. Here `K·β̄_t` is 1e-6 throughout: a chain that masks, in practice.
//! Several steps at once are again a step of this form, [`Schedule::between`].
//!
//! All rates are `f64`; networks see their logarithms as `f32`. They do not depend on `K`, which
//! differs from depth to depth where codebooks do.

/// What becomes of a code on the way from one time to a later one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Probability that it stays (`α`).
    pub keep: f64,
    /// Probability that it is drawn anew among all codes, itself included (`K·β`).
    pub renew: f64,
    /// Probability that it becomes the mask (`γ`).
    pub mask: f64,
}

impl Rates {
    fn new(keep: f64, mask: f64) -> Self {
        let renew = (1.0 - keep - mask).max(0.0);
        Self { keep, renew, mask }
    }
}

/// The rates of a chain of so many steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    steps: usize,
}

/// `ᾱ` after the first step, and `γ̄` after the last.
const NEARLY_ALL: f64 = 0.99999;
/// `ᾱ` after the last step, and `γ̄` after the first.
const NEARLY_NOTHING: f64 = 0.000_009;

impl Schedule {
    /// A chain of `steps` steps, at least 2.
    pub fn new(steps: usize) -> Self {
        assert!(steps > 1, "a schedule needs two steps, got {steps}");
        Self { steps }
    }

    /// Number of steps, `T`.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// What has become of the codes after step `time`; `None` is before the first.
    pub fn after(&self, time: Option<usize>) -> Rates {
        let Some(time) = time else {
            return Rates::new(1.0, 0.0);
        };
        let share = time as f64 / (self.steps - 1) as f64;
        let way = share * (NEARLY_NOTHING - NEARLY_ALL);
        Rates::new(NEARLY_ALL + way, NEARLY_NOTHING - way)
    }

    /// What becomes of codes behind step `from` until after step `to`.
    pub fn between(&self, from: Option<usize>, to: usize) -> Rates {
        let (early, late) = (self.after(from), self.after(Some(to)));
        Rates::new(
            late.keep / early.keep,
            1.0 - (1.0 - late.mask) / (1.0 - early.mask),
        )
    }

    /// What becomes of codes in step `time`.
    pub fn step(&self, time: usize) -> Rates {
        self.between(time.checked_sub(1), time)
    }

    /// The times at which a chain back in so many steps asks the network, evenly spread, the last one
    /// first. It goes from each to the next, and from the last before the first step.
    pub fn visits(&self, count: usize) -> Vec<usize> {
        let count = count.clamp(1, self.steps);
        let time = |visit: usize| (count - visit) * self.steps / count - 1;
        (0..count).map(time).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_the_published_ones() {
        // Of T = 100, K = 1024, from the definition in exact arithmetic.
        let schedule = Schedule::new(100);
        let near = |got: f64, want: f64| {
            assert!((got / want - 1.0).abs() < 1e-6, "{got} for {want}");
        };
        let first = schedule.step(0);
        near(first.keep, 0.99999);
        near(first.mask, 9e-6);
        let second = schedule.step(1);
        near(second.keep, 0.98989908);
        near(second.renew / 1024.0, 9.86427e-12);
        near(second.mask, 0.010100909);
        let after = schedule.after(Some(1));
        near(after.keep, 0.98988918);
        near(after.mask, 0.010109818);
        near(schedule.step(49).keep, 0.9803925);
        near(schedule.step(49).mask, 0.019607463);
        near(schedule.after(Some(49)).keep, 0.50504991);
        near(schedule.after(Some(49)).mask, 0.49494909);
        let last = schedule.step(99);
        near(last.keep, 0.00089022372);
        near(last.renew / 1024.0, 9.64999e-08);
        near(last.mask, 0.99901096);
        near(schedule.after(Some(99)).keep, 9e-6);
        near(schedule.after(Some(99)).mask, 0.99999);
    }

    #[test]
    fn steps_one_after_the_other_are_the_way_as_a_whole() {
        let schedule = Schedule::new(10);
        for (from, to) in [(None, 0), (None, 6), (Some(2), 7), (Some(8), 9)] {
            let (mut keep, mut free) = (1.0, 1.0);
            let start = from.map_or(0, |from| from + 1);
            for time in start..=to {
                keep *= schedule.step(time).keep;
                free *= 1.0 - schedule.step(time).mask;
            }
            let whole = schedule.between(from, to);
            assert!((whole.keep - keep).abs() < 1e-12, "{whole:?}");
            assert!((1.0 - whole.mask - free).abs() < 1e-12, "{whole:?}");
            assert!((whole.keep + whole.renew + whole.mask - 1.0).abs() < 1e-12);
            assert!(whole.renew > 0.0);
        }
    }

    #[test]
    fn a_chain_back_visits_the_last_step_and_spreads_the_others() {
        let schedule = Schedule::new(10);
        assert_eq!(schedule.visits(10), [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
        assert_eq!(schedule.visits(5), [9, 7, 5, 3, 1]);
        assert_eq!(schedule.visits(3), [9, 5, 2]);
        assert_eq!(schedule.visits(1), [9]);
        assert_eq!(schedule.visits(99), schedule.visits(10));
    }
}
