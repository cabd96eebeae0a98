//! What is asked of a generator, and why it may not be done.

use std::ops::Range;

use smalti_quantize::Codes;

use super::conditions::{Conditions, Wanted};
use super::layout::CodeLayout;
use super::sampling::{InvalidSampling, NoChoice, SamplingConfig};
use super::writing::Writing;

/// What to generate.
#[derive(Clone, Debug)]
pub struct GenerationRequest {
    /// One condition for each sample.
    pub conditions: Conditions,
    /// How codes are drawn.
    pub sampling: SamplingConfig,
    /// Determines all random numbers.
    pub seed: u64,
    /// Number of the first sample: sample `i` draws from stream `first_sample + i` of the seed.
    pub first_sample: u64,
    /// Samples computed at a time, at least 1.
    pub batch_size: usize,
    /// The start of the images, where it is given.
    pub prefix: Option<Prefix>,
}

/// Codes that are given: of all positions before (`row`, `column`) in raster order.
#[derive(Clone, Debug)]
pub struct Prefix {
    /// Codes of every sample; from the start on they are not used.
    pub codes: Codes,
    /// Row of the first position to generate.
    pub row: usize,
    /// Column of the first position to generate.
    pub column: usize,
}

/// How far a generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Positions done, over all samples.
    pub done: usize,
    /// Positions to generate, over all samples.
    pub total: usize,
}

/// Why nothing was generated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GenerateError {
    /// The request does not fit the model.
    #[error("the request does not fit the generator:{}", .0.iter().map(|p| format!("\n  {p}")).collect::<String>())]
    Request(Vec<String>),
    /// The sampling settings make no sense.
    #[error(transparent)]
    Sampling(#[from] InvalidSampling),
    /// The model's logits are not numbers.
    #[error("sample {sample}, row {row}, column {column}, depth {depth}: {source}")]
    Logits {
        /// Number of the sample within the request.
        sample: usize,
        /// Row of the position.
        row: usize,
        /// Column of the position.
        column: usize,
        /// Depth of the code.
        depth: usize,
        /// What is wrong.
        source: NoChoice,
    },
    /// The caller asked to stop.
    #[error("the generation was cancelled")]
    Cancelled,
}

impl GenerationRequest {
    /// Samples of the model's own distribution, all at once.
    pub fn new(conditions: Conditions, seed: u64) -> Self {
        let batch_size = conditions.len().max(1);
        let sampling = SamplingConfig::default();
        Self {
            conditions,
            sampling,
            seed,
            first_sample: 0,
            batch_size,
            prefix: None,
        }
    }

    /// Everything about this request that does not fit a model that writes code by code.
    pub(super) fn check(&self, model: &Capability) -> Result<(), GenerateError> {
        self.check_for(Writing::Raster, model)
    }

    /// Everything about this request that does not fit a model that writes like this.
    pub(super) fn check_for(
        &self,
        writing: Writing,
        model: &Capability,
    ) -> Result<(), GenerateError> {
        self.sampling.validate(model.layout.depth())?;
        let mut problems = self.sampling.misplaced(writing);
        let conditions = self.conditions.check(model.conditions);
        problems.extend(conditions.err().map(|e| e.to_string()));
        if self.batch_size == 0 {
            problems.push("batch_size: expected at least 1, got 0".into());
        }
        if self.sampling.is_guided() && !model.guidance {
            problems.push(
                "guidance: this generator was not trained without its condition, so there is nothing to guide away from; leave guidance out".into(),
            );
        }
        if let Some(prefix) = &self.prefix {
            prefix.check(&model.layout, self.conditions.len(), &mut problems);
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(GenerateError::Request(problems))
        }
    }

    /// The samples that are computed together.
    pub(super) fn batches(&self) -> Vec<Range<usize>> {
        let mut batches = Vec::new();
        let (count, mut start) = (self.conditions.len(), 0);
        for end in 1..=count {
            let full = end - start == self.batch_size;
            if full || end == count || !self.conditions.go_together(end - 1, end) {
                batches.push(start..end);
                start = end;
            }
        }
        batches
    }
}

/// What a model can do.
#[derive(Clone, Debug)]
pub(super) struct Capability {
    /// The maps it writes.
    pub(super) layout: CodeLayout,
    /// What it is conditioned on.
    pub(super) conditions: Wanted,
    /// Whether it also knows images without their condition.
    pub(super) guidance: bool,
}

impl Prefix {
    fn check(&self, layout: &CodeLayout, samples: usize, problems: &mut Vec<String>) {
        let CodeLayout { height, width, .. } = *layout;
        let Self { row, column, .. } = *self;
        if row >= height || column >= width {
            let place = format!("got row {row}, column {column}");
            problems.push(format!(
                "prefix: expected a start within {height} x {width}, {place}"
            ));
        }
        problems.extend(
            layout
                .check(&self.codes)
                .err()
                .map(|e| format!("prefix: {e}")),
        );
        let [got, ..] = self.codes.dims();
        if got != samples {
            problems.push(format!(
                "prefix: expected codes of {samples} samples, got {got}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::conditions::Caption;
    use crate::generators::sampling::Guidance;
    use burn::tensor::Device;

    fn model() -> Capability {
        Capability {
            layout: CodeLayout {
                height: 2,
                width: 3,
                codebook_sizes: vec![12; 3],
            },
            conditions: Wanted::Classes(4),
            guidance: false,
        }
    }

    fn prefix(code: u32, shape: [usize; 4], row: usize) -> Option<Prefix> {
        let codes = vec![code; shape.iter().product()];
        let codes = Codes::from_values(&codes, shape, &Device::flex());
        Some(Prefix {
            codes,
            row,
            column: 0,
        })
    }

    #[test]
    fn wrong_requests_are_refused() {
        let good = || GenerationRequest::new(Conditions::Classes(vec![0, 3]), 1);
        let with = |prefix| GenerationRequest { prefix, ..good() };
        let shape = [2, 3, 2, 3];
        let guided = || {
            let mut request = good();
            request.sampling.guidance = Some(Guidance::new(2.0));
            request
        };
        assert_eq!(good().check(&model()), Ok(()));
        let able = Capability {
            guidance: true,
            ..model()
        };
        assert_eq!(guided().check(&able), Ok(()));
        assert_eq!(with(prefix(11, shape, 1)).check(&model()), Ok(()));
        let cold = SamplingConfig {
            temperature: -1.0,
            ..SamplingConfig::default()
        };
        let cases = [
            (
                GenerationRequest::new(Conditions::Classes(vec![4]), 1),
                "expected ids below 4, got 4",
            ),
            (
                GenerationRequest {
                    batch_size: 0,
                    ..good()
                },
                "batch_size",
            ),
            (
                GenerationRequest {
                    sampling: cold,
                    ..good()
                },
                "temperature",
            ),
            (guided(), "leave guidance out"),
            (with(prefix(0, shape, 2)), "a start within 2 x 3"),
            (with(prefix(0, [2, 3, 3, 2], 1)), "expected the shape"),
            (
                with(prefix(0, [1, 3, 2, 3], 1)),
                "expected codes of 2 samples, got 1",
            ),
            (
                with(prefix(12, shape, 1)),
                "expected ids below 12 at depth 0, got 12",
            ),
        ];
        for (request, part) in cases {
            let message = request.check(&model()).unwrap_err().to_string();
            assert!(message.contains(part), "{part} is not in {message}");
        }
    }

    #[test]
    fn batches_end_where_they_are_full_or_captions_change_their_length() {
        let caption = |tokens: usize| Caption {
            values: vec![0.0; tokens],
            width: 1,
        };
        let lengths = [2, 2, 2, 1, 1, 3];
        let captions = Conditions::Captions(lengths.map(caption).to_vec());
        let mut request = GenerationRequest::new(captions, 1);
        assert_eq!(request.batches(), [0..3, 3..5, 5..6]);
        request.batch_size = 2;
        assert_eq!(request.batches(), [0..2, 2..3, 3..5, 5..6]);
        request.conditions = Conditions::Unconditional(5);
        assert_eq!(request.batches(), [0..2, 2..4, 4..5]);
        request.conditions = Conditions::Unconditional(0);
        assert!(request.batches().is_empty());
    }
}
