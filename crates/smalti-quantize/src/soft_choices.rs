//! What a training step tells of choices that are made by logits: whether they settle.

use burn::tensor::{Int, Tensor};
use smalti_nn::nearest::id_values;
use smalti_nn::state::host_values;

/// How decided the choices of one or more batches were.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SoftChoices {
    /// Positions that chose a code.
    pub positions: usize,
    /// The largest weight of a code in the soft choice `softmax((ℓ + g)/τ)`, its mean over positions: 1/N where nothing
    /// is preferred, 1 where all is decided and no gradient is left.
    pub certainty: f64,
    /// Positions whose code was drawn.
    pub drawn: usize,
    /// Those of them whose code is not the one with the largest logit.
    pub apart: usize,
    /// τ of the latest batch.
    pub temperature: f64,
}

impl SoftChoices {
    /// Of one batch: soft choices `[n, codes]`; of every row whether its code was drawn, the code and the best one.
    pub(crate) fn of(
        soft: &Tensor<2>,
        drawn: &[bool],
        [codes, best]: [&Tensor<1, Int>; 2],
        temperature: f64,
    ) -> Self {
        let largest = host_values(soft.clone().inner().max_dim(1));
        let sum: f64 = largest.iter().map(|&weight| f64::from(weight)).sum();
        let pairs = id_values(codes.clone())
            .into_iter()
            .zip(id_values(best.clone()));
        let apart = pairs
            .zip(drawn)
            .filter(|((code, best), drawn)| **drawn && code != best);
        Self {
            positions: drawn.len(),
            certainty: sum / drawn.len().max(1) as f64,
            drawn: drawn.iter().filter(|drawn| **drawn).count(),
            apart: apart.count(),
            temperature,
        }
    }

    /// Adds another codebook's choices, or the next batch's.
    pub fn merge(&mut self, other: &Self) {
        let positions = self.positions + other.positions;
        let share = other.positions as f64 / positions.max(1) as f64;
        *self = Self {
            positions,
            certainty: self.certainty + (other.certainty - self.certainty) * share,
            drawn: self.drawn + other.drawn,
            apart: self.apart + other.apart,
            temperature: other.temperature,
        };
    }

    /// Share of the drawn codes that are not the best ones; none where nothing was drawn.
    pub fn apart_share(&self) -> Option<f64> {
        (self.drawn > 0).then(|| self.apart as f64 / self.drawn as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn batches_count_by_their_positions() {
        let device = Device::flex();
        let ids = |ids: [i32; 2]| Tensor::<1, Int>::from_data(ids, &device);
        let soft = Tensor::<2>::from_data([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]], &device);
        let codes = [&ids([0, 2]), &ids([0, 1])];
        let mut all = SoftChoices::of(&soft, &[false, true], codes, 1.0);
        let expected = SoftChoices {
            positions: 2,
            certainty: 0.625,
            drawn: 1,
            apart: 1,
            temperature: 1.0,
        };
        assert_eq!(all, expected);
        all.merge(&SoftChoices {
            positions: 6,
            certainty: 0.225,
            drawn: 3,
            apart: 0,
            temperature: 0.5,
        });
        assert_eq!((all.positions, all.temperature), (8, 0.5));
        assert!((all.certainty - 0.325).abs() < 1e-12, "{}", all.certainty);
        assert_eq!(all.apart_share(), Some(0.25));
        assert_eq!(SoftChoices::default().apart_share(), None);
    }
}
