//! What each sample of a batch is conditioned on, and the codes that go with it.

use burn::tensor::{Device, Int, Tensor};
use smalti_nn::nearest::id_tensor;
use smalti_quantize::Codes;

use super::config::{Condition, RqTransformerConfig};

/// The condition of every sample; its length is the number of samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conditions {
    /// As many samples of an unconditional model.
    Unconditional(usize),
    /// A class for each sample.
    Classes(Vec<u32>),
    /// Text tokens for each sample, padded to the model's length.
    Texts(Vec<Vec<u32>>),
}

/// Conditions or codes that a model has no place for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidInput(pub String);

impl Conditions {
    /// Number of samples.
    pub fn len(&self) -> usize {
        match self {
            Self::Unconditional(count) => *count,
            Self::Classes(classes) => classes.len(),
            Self::Texts(texts) => texts.len(),
        }
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks that these are conditions of the kind `model`, with ids in range.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, model: &Condition) -> Result<(), InvalidInput> {
        let below = |name: &str, mut ids: std::slice::Iter<u32>| {
            let vocab = model.vocab_size();
            match ids.find(|&&id| id as usize >= vocab) {
                Some(wrong) => Err(format!("{name}: expected ids below {vocab}, got {wrong}")),
                None => Ok(()),
            }
        };
        let result = match (self, model) {
            (Self::Unconditional(_), Condition::Unconditional {}) => Ok(()),
            (Self::Classes(classes), Condition::Class { .. }) => below("classes", classes.iter()),
            (Self::Texts(texts), &Condition::Text { length, .. }) => {
                texts.iter().try_for_each(|text| match text.len() {
                    got if got == length => below("texts", text.iter()),
                    got => Err(format!("texts: expected {length} tokens each, got {got}")),
                })
            }
            (got, Condition::Unconditional {}) => Err(got.unexpected("no conditions")),
            (got, Condition::Class { .. }) => Err(got.unexpected("classes")),
            (got, Condition::Text { .. }) => Err(got.unexpected("texts")),
        };
        result.map_err(InvalidInput)
    }

    fn unexpected(&self, expected: &str) -> String {
        let got = match self {
            Self::Unconditional(_) => "none",
            Self::Classes(_) => "classes",
            Self::Texts(_) => "texts",
        };
        format!("conditions: expected {expected}, got {got}")
    }

    /// The conditions of the samples with these numbers.
    pub fn pick(&self, samples: &[usize]) -> Self {
        match self {
            Self::Unconditional(_) => Self::Unconditional(samples.len()),
            Self::Classes(classes) => Self::Classes(samples.iter().map(|&i| classes[i]).collect()),
            Self::Texts(texts) => Self::Texts(samples.iter().map(|&i| texts[i].clone()).collect()),
        }
    }

    /// The ids `[samples, condition length]`; zeros where there is no condition.
    pub(super) fn ids(&self, device: &Device) -> Tensor<2, Int> {
        let ids = match self {
            Self::Unconditional(count) => vec![0; *count],
            Self::Classes(classes) => classes.clone(),
            Self::Texts(texts) => texts.concat(),
        };
        id_tensor(&ids, [self.len(), ids.len() / self.len().max(1)], device)
    }
}

impl RqTransformerConfig {
    /// Checks that codes have the model's shape and are below its codebooks' sizes.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check_codes(&self, codes: &Codes) -> Result<(), InvalidInput> {
        let [batch, ..] = codes.dims();
        let expected = [batch, self.depth, self.height, self.width];
        if codes.dims() != expected {
            let got = codes.dims();
            return Err(InvalidInput(format!(
                "codes: expected the shape {expected:?}, got {got:?}"
            )));
        }
        let sizes = self.codebook_sizes();
        for (i, map) in codes.values().chunks_exact(self.positions()).enumerate() {
            let depth = i % self.depth;
            if let Some(wrong) = map.iter().find(|&&id| id as usize >= sizes[depth]) {
                let size = sizes[depth];
                let text =
                    format!("codes: expected ids below {size} at depth {depth}, got {wrong}");
                return Err(InvalidInput(text));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::rq_transformer::testing::{tiny, tiny_uneven};

    #[test]
    fn conditions_of_another_kind_length_or_range_are_refused() {
        let class = Condition::Class { classes: 4 };
        let text = Condition::Text {
            vocab_size: 9,
            length: 2,
        };
        let cases = [
            (
                Conditions::Classes(vec![0, 4]),
                &class,
                "expected ids below 4, got 4",
            ),
            (
                Conditions::Unconditional(2),
                &class,
                "expected classes, got none",
            ),
            (
                Conditions::Classes(vec![1]),
                &text,
                "expected texts, got classes",
            ),
            (
                Conditions::Texts(vec![vec![1, 2]]),
                &Condition::Unconditional {},
                "got texts",
            ),
            (
                Conditions::Texts(vec![vec![1, 2], vec![3]]),
                &text,
                "expected 2 tokens each, got 1",
            ),
            (
                Conditions::Texts(vec![vec![1, 9]]),
                &text,
                "expected ids below 9, got 9",
            ),
        ];
        for (conditions, model, part) in cases {
            let message = conditions.check(model).unwrap_err().to_string();
            assert!(message.contains(part), "{part} is not in {message}");
        }
        assert_eq!(Conditions::Texts(vec![vec![1, 8]]).check(&text), Ok(()));
        assert_eq!(Conditions::Classes(vec![3, 0]).check(&class), Ok(()));
        assert_eq!(
            Conditions::Unconditional(3).check(&Condition::Unconditional {}),
            Ok(())
        );
    }

    #[test]
    fn picked_samples_keep_their_ids() {
        let device = Device::flex();
        let ids = |c: Conditions| c.ids(&device).try_into_vec_as::<i32>().unwrap();
        let texts = Conditions::Texts(vec![vec![1, 2], vec![3, 4], vec![5, 6]]);
        assert_eq!(ids(texts.pick(&[1, 2])), [3, 4, 5, 6]);
        assert_eq!(ids(Conditions::Classes(vec![7, 8]).pick(&[1, 1])), [8, 8]);
        assert_eq!(ids(Conditions::Unconditional(5).pick(&[1, 2])), [0, 0]);
    }

    #[test]
    fn codes_of_another_shape_or_range_are_refused() {
        let device = Device::flex();
        let codes = |value, shape: [usize; 4]| {
            Codes::from_values(&vec![value; shape.iter().product()], shape, &device)
        };
        let shape = [2, 3, 2, 3];
        assert_eq!(tiny().check_codes(&codes(11, shape)), Ok(()));
        let message = tiny()
            .check_codes(&codes(0, [2, 2, 2, 3]))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("expected the shape [2, 3, 2, 3], got [2, 2, 2, 3]"),
            "{message}"
        );
        let message = tiny_uneven()
            .check_codes(&codes(5, shape))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("expected ids below 5 at depth 1, got 5"),
            "{message}"
        );
    }
}
