//! What is asked of a generator, and why it may not be done.

use smalti_quantize::Codes;

use super::conditions::Conditions;
use super::config::RqTransformerConfig;
use crate::generators::sampling::{InvalidSampling, NoChoice, SamplingConfig};

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

    /// Everything about this request that does not fit `config`.
    pub(super) fn check(&self, config: &RqTransformerConfig) -> Result<(), GenerateError> {
        self.sampling.validate(config.depth)?;
        let mut problems = Vec::new();
        problems.extend(
            self.conditions
                .check(&config.condition)
                .err()
                .map(|e| e.to_string()),
        );
        if self.batch_size == 0 {
            problems.push("batch_size: expected at least 1, got 0".into());
        }
        if let Some(prefix) = &self.prefix {
            prefix.check(config, self.conditions.len(), &mut problems);
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(GenerateError::Request(problems))
        }
    }
}

impl Prefix {
    fn check(&self, config: &RqTransformerConfig, samples: usize, problems: &mut Vec<String>) {
        let RqTransformerConfig { height, width, .. } = *config;
        let Self { row, column, .. } = *self;
        if row >= height || column >= width {
            let place = format!("got row {row}, column {column}");
            problems.push(format!(
                "prefix: expected a start within {height} x {width}, {place}"
            ));
        }
        problems.extend(
            config
                .check_codes(&self.codes)
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
    use crate::generators::rq_transformer::testing::tiny;
    use burn::tensor::Device;

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
        assert_eq!(good().check(&tiny()), Ok(()));
        assert_eq!(with(prefix(11, shape, 1)).check(&tiny()), Ok(()));
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
            let message = request.check(&tiny()).unwrap_err().to_string();
            assert!(message.contains(part), "{part} is not in {message}");
        }
    }
}
