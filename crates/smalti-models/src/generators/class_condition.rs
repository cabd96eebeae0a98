//! What generators of whole maps are conditioned on: nothing, or a class.
//!
//! One more row of every table of classes stands for "no class". A class is hidden behind it now and
//! then in training, so that guidance has something to lead away from.

use serde::{Deserialize, Serialize};
use smalti_nn::Noise;

use super::conditions::{Conditions, Wanted};

/// What images are conditioned on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClassCondition {
    /// Nothing.
    Unconditional {},
    /// A class.
    Class {
        /// Number of classes.
        classes: usize,
        /// Probability that a class is hidden in training, which guidance needs.
        dropout: f64,
    },
}

impl ClassCondition {
    /// Rows of a table of classes: one for each and one for none; `None` without classes.
    pub const fn rows(&self) -> Option<usize> {
        match self {
            Self::Unconditional {} => None,
            Self::Class { classes, .. } => Some(*classes + 1),
        }
    }

    /// Probability that it is hidden in training.
    pub const fn dropout(&self) -> f64 {
        match self {
            Self::Unconditional {} => 0.0,
            Self::Class { dropout, .. } => *dropout,
        }
    }

    pub(super) const fn wanted(&self) -> Wanted {
        match *self {
            Self::Unconditional {} => Wanted::Nothing,
            Self::Class { classes, .. } => Wanted::Classes(classes),
        }
    }

    /// Everything that is wrong with it.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Self::Class { classes: 0, .. } = self {
            problems.push("condition.classes: expected at least 1, got 0".into());
        }
        let dropout = self.dropout();
        if !(0.0..1.0).contains(&dropout) {
            problems.push(format!(
                "condition.dropout: expected a probability in [0, 1), got {dropout}"
            ));
        }
        problems
    }

    /// The row of each sample; some become "no class" where there is noise. Empty without classes.
    ///
    /// # Panics
    /// For conditions of another kind.
    pub(super) fn shown(&self, conditions: &Conditions, noise: Option<&mut Noise>) -> Vec<u32> {
        match (self, conditions) {
            (Self::Unconditional {}, Conditions::Unconditional(_)) => Vec::new(),
            (Self::Class { classes, dropout }, Conditions::Classes(of_samples)) => {
                let draws = match noise {
                    Some(noise) if *dropout > 0.0 => noise.uniform_values(of_samples.len()),
                    _ => vec![1.0; of_samples.len()],
                };
                let rows = of_samples.iter().zip(draws);
                rows.map(|(&class, draw)| match f64::from(draw) < *dropout {
                    true => *classes as u32,
                    false => class,
                })
                .collect()
            }
            (_, got) => panic!("conditions of another kind than {got:?}"),
        }
    }

    /// The row of "no class" for so many samples. Empty without classes.
    pub(super) fn hidden(&self, samples: usize) -> Vec<u32> {
        match self {
            Self::Unconditional {} => Vec::new(),
            Self::Class { classes, .. } => vec![*classes as u32; samples],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_hidden_as_often_as_asked_and_only_with_noise() {
        let condition = ClassCondition::Class {
            classes: 3,
            dropout: 0.25,
        };
        let classes = Conditions::Classes(vec![1; 4000]);
        assert_eq!(condition.shown(&classes, None), vec![1; 4000]);
        let shown = condition.shown(&classes, Some(&mut Noise::from_seed(1)));
        let hidden = shown.iter().filter(|&&row| row == 3).count() as f64 / 4000.0;
        assert!((hidden - 0.25).abs() < 0.03, "{hidden}");
        assert!(shown.iter().all(|&row| row == 1 || row == 3));
        assert_eq!(condition.hidden(2), [3, 3]);
        assert_eq!(condition.rows(), Some(4));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let wrong = ClassCondition::Class {
            classes: 0,
            dropout: 1.0,
        };
        let problems = wrong.problems().join("\n");
        assert!(problems.contains("condition.classes: expected at least 1"));
        assert!(problems.contains("condition.dropout: expected a probability"));
        assert!((ClassCondition::Unconditional {}).problems().is_empty());
    }
}
