//! What each sample of a batch is conditioned on.

use burn::tensor::{Device, Int, Tensor};
use smalti_nn::nearest::id_tensor;

/// The condition of every sample; its length is the number of samples.
#[derive(Clone, Debug, PartialEq)]
pub enum Conditions {
    /// As many samples of an unconditional model.
    Unconditional(usize),
    /// A class for each sample.
    Classes(Vec<u32>),
    /// Text tokens for each sample, padded to the model's length.
    Texts(Vec<Vec<u32>>),
    /// What a language model makes of a text, for each sample.
    Captions(Vec<Caption>),
}

/// The features of a text's tokens, `[tokens, width]`, without those of padding.
#[derive(Clone, Debug, PartialEq)]
pub struct Caption {
    /// Row by row.
    pub values: Vec<f32>,
    /// Width of one token's features.
    pub width: usize,
}

impl Caption {
    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.values.len() / self.width.max(1)
    }
}

/// What a model wants of conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// None.
    Nothing,
    /// Numbers of classes below this one.
    Classes(usize),
    /// So many tokens of a vocabulary.
    Texts {
        /// Number of different tokens.
        vocab_size: usize,
        /// Tokens of a text.
        length: usize,
    },
    /// Features of at least one and at most so many tokens.
    Captions {
        /// The most tokens of a text.
        tokens: usize,
        /// Width of a token's features.
        width: usize,
    },
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
            Self::Captions(captions) => captions.len(),
        }
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks that these are what a model wants, with ids in range.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, wanted: Wanted) -> Result<(), InvalidInput> {
        let below = |name: &str, limit: usize, ids: &[u32]| match ids
            .iter()
            .find(|&&id| id as usize >= limit)
        {
            Some(wrong) => Err(format!("{name}: expected ids below {limit}, got {wrong}")),
            None => Ok(()),
        };
        let result = match (self, wanted) {
            (Self::Unconditional(_), Wanted::Nothing) => Ok(()),
            (Self::Classes(ids), Wanted::Classes(count)) => below("classes", count, ids),
            (Self::Texts(texts), Wanted::Texts { vocab_size, length }) => {
                texts.iter().try_for_each(|text| match text.len() {
                    got if got == length => below("texts", vocab_size, text),
                    got => Err(format!("texts: expected {length} tokens each, got {got}")),
                })
            }
            (Self::Captions(captions), Wanted::Captions { tokens, width }) => captions
                .iter()
                .try_for_each(|caption| caption.check(tokens, width)),
            (got, Wanted::Nothing) => Err(got.unexpected("no conditions")),
            (got, Wanted::Classes(_)) => Err(got.unexpected("classes")),
            (got, Wanted::Texts { .. }) => Err(got.unexpected("texts")),
            (got, Wanted::Captions { .. }) => Err(got.unexpected("captions")),
        };
        result.map_err(InvalidInput)
    }

    fn unexpected(&self, expected: &str) -> String {
        let got = match self {
            Self::Unconditional(_) => "none",
            Self::Classes(_) => "classes",
            Self::Texts(_) => "texts",
            Self::Captions(_) => "captions",
        };
        format!("conditions: expected {expected}, got {got}")
    }

    /// Whether two samples may stand in one batch: captions must be of the same length.
    pub(super) fn go_together(&self, a: usize, b: usize) -> bool {
        match self {
            Self::Captions(captions) => captions[a].tokens() == captions[b].tokens(),
            _ => true,
        }
    }

    /// The conditions of the samples with these numbers.
    pub fn pick(&self, samples: &[usize]) -> Self {
        match self {
            Self::Unconditional(_) => Self::Unconditional(samples.len()),
            Self::Classes(classes) => Self::Classes(samples.iter().map(|&i| classes[i]).collect()),
            Self::Texts(texts) => Self::Texts(samples.iter().map(|&i| texts[i].clone()).collect()),
            Self::Captions(captions) => {
                Self::Captions(samples.iter().map(|&i| captions[i].clone()).collect())
            }
        }
    }

    /// The ids `[samples, condition length]`; zeros where there is no condition.
    ///
    /// # Panics
    /// For captions, which have no ids.
    pub(super) fn ids(&self, device: &Device) -> Tensor<2, Int> {
        let ids = match self {
            Self::Unconditional(count) => vec![0; *count],
            Self::Classes(classes) => classes.clone(),
            Self::Texts(texts) => texts.concat(),
            Self::Captions(_) => panic!("captions have no ids"),
        };
        id_tensor(&ids, [self.len(), ids.len() / self.len().max(1)], device)
    }
}

impl Caption {
    fn check(&self, tokens: usize, width: usize) -> Result<(), String> {
        let got = self.width;
        if got != width {
            return Err(format!(
                "captions: expected features of width {width}, got {got}"
            ));
        }
        let count = self.values.len();
        if !count.is_multiple_of(width) {
            return Err(format!("captions: {count} numbers are no rows of {width}"));
        }
        match self.tokens() {
            got if (1..=tokens).contains(&got) => Ok(()),
            got => Err(format!(
                "captions: expected 1 to {tokens} tokens each, got {got}"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_of_another_kind_length_or_range_are_refused() {
        let class = Wanted::Classes(4);
        let text = Wanted::Texts {
            vocab_size: 9,
            length: 2,
        };
        let caption = Wanted::Captions {
            tokens: 2,
            width: 3,
        };
        let captions = |count: usize, width| {
            let values = vec![0.5; count];
            Conditions::Captions(vec![Caption { values, width }])
        };
        let cases = [
            (
                Conditions::Classes(vec![0, 4]),
                class,
                "expected ids below 4, got 4",
            ),
            (
                Conditions::Unconditional(2),
                class,
                "expected classes, got none",
            ),
            (
                Conditions::Classes(vec![1]),
                text,
                "expected texts, got classes",
            ),
            (
                Conditions::Texts(vec![vec![1, 2]]),
                Wanted::Nothing,
                "got texts",
            ),
            (
                Conditions::Texts(vec![vec![1, 2], vec![3]]),
                text,
                "expected 2 tokens each, got 1",
            ),
            (
                Conditions::Texts(vec![vec![1, 9]]),
                text,
                "expected ids below 9, got 9",
            ),
            (captions(6, 3), class, "expected classes, got captions"),
            (captions(6, 2), caption, "width 3, got 2"),
            (captions(7, 3), caption, "7 numbers are no rows of 3"),
            (
                captions(0, 3),
                caption,
                "expected 1 to 2 tokens each, got 0",
            ),
            (
                captions(9, 3),
                caption,
                "expected 1 to 2 tokens each, got 3",
            ),
        ];
        for (conditions, model, part) in cases {
            let message = conditions.check(model).unwrap_err().to_string();
            assert!(message.contains(part), "{part} is not in {message}");
        }
        for (conditions, wanted) in [
            (Conditions::Texts(vec![vec![1, 8]]), text),
            (Conditions::Classes(vec![3, 0]), class),
            (Conditions::Unconditional(3), Wanted::Nothing),
            (captions(6, 3), caption),
        ] {
            assert_eq!(conditions.check(wanted), Ok(()));
        }
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
    fn captions_of_one_length_go_together() {
        let caption = |tokens: usize| Caption {
            values: vec![0.0; 2 * tokens],
            width: 2,
        };
        let captions = Conditions::Captions(vec![caption(3), caption(3), caption(1)]);
        assert!(captions.go_together(0, 1) && !captions.go_together(1, 2));
        assert!(Conditions::Unconditional(2).go_together(0, 1));
        assert_eq!(captions.pick(&[2, 0]).len(), 2);
        assert!(!captions.pick(&[2, 0]).go_together(0, 1));
    }
}
