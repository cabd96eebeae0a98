//! What every generator does alike when it samples: batches, random streams, maps, drawing.
//!
//! Every sample has a random stream of its own, a function of the seed and the sample's number, so
//! batches do not change what is drawn. That they do not change the logits either needs care: matrix
//! products of the CPU round in one way for up to [`FEW_ROWS`] rows and in another for more. Requests
//! of few samples are therefore computed with few rows throughout (a prefix one position at a time),
//! requests of many with many rows throughout (a small batch is filled up with copies): see [`Rows`].
//! So however a request is cut into batches, its codes are equal on the CPU; elsewhere, and between
//! requests of few and of many samples, up to the rounding of logits.

use std::ops::{ControlFlow, Range};

use burn::tensor::{Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use smalti_nn::linear::FEW_ROWS;
use smalti_nn::state::host_values;
use smalti_quantize::Codes;

use super::layout::CodeLayout;
use super::request::{GenerateError, GenerationRequest, Progress};
use super::sampling::CodeSampler;

/// Samples that are written together.
pub(super) struct Batch<'a> {
    /// Their numbers within the request.
    pub(super) samples: Range<usize>,
    /// Their maps.
    pub(super) maps: Maps<'a>,
    /// The first position to write.
    pub(super) start: usize,
    /// To be called after every position.
    pub(super) tick: &'a mut dyn FnMut() -> Result<(), GenerateError>,
}

/// Lets `write` fill the maps of a request that was checked, batch by batch.
pub(super) fn write_maps(
    request: &GenerationRequest,
    layout: &CodeLayout,
    device: &Device,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    mut write: impl FnMut(Batch) -> Result<(), GenerateError>,
) -> Result<Codes, GenerateError> {
    let samples = request.conditions.len();
    let start = request
        .prefix
        .as_ref()
        .map_or(0, |p| p.row * layout.width + p.column);
    let mut progress = Progress {
        done: 0,
        total: samples * (layout.positions() - start),
    };
    let mut codes = match &request.prefix {
        Some(prefix) => prefix.codes.values(),
        None => vec![0; samples * layout.codes()],
    };
    for samples in request.batches() {
        let count = samples.len();
        let part = samples.start * layout.codes()..samples.end * layout.codes();
        write(Batch {
            samples,
            maps: Maps {
                codes: &mut codes[part],
                depth: layout.depth(),
                positions: layout.positions(),
            },
            start,
            tick: &mut || {
                progress.done += count;
                match watch(progress) {
                    ControlFlow::Continue(()) => Ok(()),
                    ControlFlow::Break(()) => Err(GenerateError::Cancelled),
                }
            },
        })?;
    }
    let shape = [samples, layout.depth(), layout.height, layout.width];
    Ok(Codes::from_values(&codes, shape, device))
}

/// The code maps of a batch, `[samples, depth, positions]`.
pub(super) struct Maps<'a> {
    pub(super) codes: &'a mut [u32],
    pub(super) depth: usize,
    pub(super) positions: usize,
}

impl Maps<'_> {
    /// Sets the code of every sample at a place.
    pub(super) fn set(&mut self, depth: usize, position: usize, codes: &[u32]) {
        for (sample, &code) in codes.iter().enumerate() {
            self.codes[(sample * self.depth + depth) * self.positions + position] = code;
        }
    }

    /// The codes of some positions, `[rows, positions, depth]`; `rows` are samples of the batch.
    pub(super) fn given(
        &self,
        rows: impl Iterator<Item = usize>,
        positions: Range<usize>,
    ) -> Vec<u32> {
        let mut ids = Vec::new();
        for sample in rows {
            for position in positions.clone() {
                let place = |d| (sample * self.depth + d) * self.positions + position;
                ids.extend((0..self.depth).map(|d| self.codes[place(d)]));
            }
        }
        ids
    }
}

/// How many rows the tensors of a batch have, so that batches do not change how they round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    /// Rows of one copy of the batch: its samples, then copies of the last.
    pub(super) count: usize,
    /// Whether what is given is read one position at a time.
    pub(super) by_steps: bool,
    samples: usize,
}

impl Rows {
    /// Of a batch of `samples` of a request for `total`, of which every tensor holds so many `copies`.
    pub(super) fn new(samples: usize, total: usize, copies: usize) -> Self {
        let few = total * copies <= FEW_ROWS;
        let least = if few {
            1
        } else {
            (FEW_ROWS + 1).div_ceil(copies)
        };
        Self {
            count: samples.max(least),
            by_steps: few,
            samples,
        }
    }

    /// The sample of the batch that each row of a copy belongs to.
    pub(super) fn samples(&self) -> impl Iterator<Item = usize> + use<> {
        let last = self.samples - 1;
        (0..self.count).map(move |row| row.min(last))
    }

    /// A value for each row of one copy from one for each sample.
    pub(super) fn spread(&self, values: &[u32]) -> Vec<u32> {
        self.samples().map(|sample| values[sample]).collect()
    }
}

/// The random stream of each of some samples of a request.
pub(super) fn streams(request: &GenerationRequest, samples: Range<usize>) -> Vec<ChaCha8Rng> {
    let stream = |sample: usize| {
        let mut rng = ChaCha8Rng::seed_from_u64(request.seed);
        rng.set_stream(request.first_sample.wrapping_add(sample as u64));
        rng
    };
    samples.map(stream).collect()
}

/// What draws the codes of each depth.
pub(super) fn samplers(request: &GenerationRequest, layout: &CodeLayout) -> Vec<CodeSampler> {
    let depths = 0..layout.depth();
    depths.map(|depth| request.sampling.at(depth)).collect()
}

/// Draws the codes of a batch.
pub(super) struct Draws {
    samplers: Vec<CodeSampler>,
    streams: Vec<ChaCha8Rng>,
    /// Number of the batch's first sample.
    first: usize,
    /// Columns of the map.
    width: usize,
}

impl Draws {
    /// Of some samples of a request.
    pub(super) fn new(
        request: &GenerationRequest,
        samples: Range<usize>,
        layout: &CodeLayout,
    ) -> Self {
        let first = samples.start;
        Self {
            samplers: samplers(request, layout),
            streams: streams(request, samples),
            first,
            width: layout.width,
        }
    }

    /// A code for each sample from `logits [rows, codes]`, whose further rows are not looked at.
    pub(super) fn draw(
        &mut self,
        logits: Tensor<2>,
        depth: usize,
        position: usize,
    ) -> Result<Vec<u32>, GenerateError> {
        let [_, size] = logits.dims();
        let values = host_values(logits);
        let sampler = self.samplers[depth];
        let rows = values.par_chunks_exact(size).zip(&mut self.streams);
        // Short rows are not worth a task of their own.
        let rows = rows.with_min_len((1 << 13) / size.min(1 << 13));
        let drawn: Vec<_> = rows.map(|(row, rng)| sampler.draw(row, rng)).collect();
        let (row, column) = (position / self.width, position % self.width);
        let located = drawn.into_iter().enumerate().map(|(i, code)| {
            let sample = self.first + i;
            code.map_err(|source| GenerateError::Logits {
                sample,
                row,
                column,
                depth,
                source,
            })
        });
        located.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_computed_with_few_rows_or_with_many_throughout() {
        for (total, copies) in [(3, 1), (FEW_ROWS, 1), (FEW_ROWS / 2, 2), (40, 1), (20, 2)] {
            let few = total * copies <= FEW_ROWS;
            for samples in 1..=total {
                let rows = Rows::new(samples, total, copies);
                assert_eq!(rows.by_steps, few);
                assert_eq!(rows.count * copies <= FEW_ROWS, few, "{samples} of {total}");
                assert!(rows.count >= samples);
            }
        }
        let rows = Rows::new(2, 40, 2);
        let spread = rows.spread(&[7, 9]);
        assert_eq!(spread.len(), rows.count);
        assert!(spread[0] == 7 && spread[1..].iter().all(|code| *code == 9));
    }

    #[test]
    fn maps_are_read_as_they_were_written() {
        let mut codes = vec![0; 2 * 3 * 4];
        let mut maps = Maps {
            codes: &mut codes,
            depth: 3,
            positions: 4,
        };
        for (depth, position) in [(0, 1), (2, 1), (1, 2)] {
            let code = (10 * depth + position) as u32;
            maps.set(depth, position, &[code, 100 + code]);
        }
        let given = maps.given([1, 0].into_iter(), 1..3);
        assert_eq!(given, [101, 0, 121, 0, 112, 0, 1, 0, 21, 0, 12, 0]);
    }
}
