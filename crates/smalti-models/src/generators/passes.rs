//! What generators of whole maps do alike when they sample: passes over all codes at once.
//!
//! The maps of a sample stand one behind the other, depth by depth ("tokens"); what is not written yet
//! is the mask, the id behind a depth's last code. A pass shows the tokens to the network and lets
//! the host change them, each sample with the random stream of its own. What is given (the start of a
//! request) is shown as it is and never changed.
//!
//! Batches change nothing: matrix products of the CPU round in one way for up to [`FEW_ROWS`] rows and in
//! another for more, so a small batch is filled up with copies of its last sample until it always has
//! more.

use std::ops::Range;

use burn::tensor::Tensor;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use smalti_nn::linear::FEW_ROWS;
use smalti_nn::state::host_values;

use super::class_condition::ClassCondition;
use super::drawing::{Batch, streams};
use super::layout::CodeLayout;
use super::request::{GenerateError, GenerationRequest};
use super::sampling::NoChoice;

/// What a network says about all codes: `[rows, positions, codebook_size]` for each depth.
pub(super) type DepthLogits = Vec<Tensor<3>>;

/// The maps of a batch on their way.
pub(super) struct Passes {
    layout: CodeLayout,
    samples: Range<usize>,
    /// Rows of the network's batch: the samples, then copies of the last.
    rows: usize,
    /// Rows of a table of classes, of every row.
    classes: Vec<u32>,
    /// The same with the classes hidden.
    hidden: Vec<u32>,
    /// `[samples, tokens]`
    tokens: Vec<u32>,
    streams: Vec<ChaCha8Rng>,
    /// The first position that is written.
    start: usize,
    /// Positions that progress was told of.
    told: usize,
}

/// One sample in a pass.
pub(super) struct Sheet<'a> {
    /// Its tokens.
    pub(super) tokens: &'a mut [u32],
    /// Its random stream.
    pub(super) stream: &'a mut ChaCha8Rng,
    /// Its number in the batch.
    pub(super) sample: usize,
    logits: &'a [Vec<f32>],
    layout: &'a CodeLayout,
    start: usize,
}

/// Where no code could be drawn.
type Failure = (usize, NoChoice);

impl Passes {
    /// The maps of a batch of a request that was checked: what is given, and masks.
    pub(super) fn new(
        request: &GenerationRequest,
        layout: &CodeLayout,
        condition: &ClassCondition,
        batch: &Batch,
    ) -> Self {
        let samples = batch.samples.clone();
        let least = FEW_ROWS / layout.positions() + 1;
        let rows = samples.len().max(least);
        let shown: Vec<usize> = (0..rows)
            .map(|row| samples.start + row.min(samples.len() - 1))
            .collect();
        let conditions = request.conditions.pick(&shown);
        let mut tokens = batch.maps.codes.to_vec();
        for (i, token) in tokens.iter_mut().enumerate() {
            let place = i % layout.codes();
            if place % layout.positions() >= batch.start {
                *token = layout.codebook_sizes[layout.depth_of(place)] as u32;
            }
        }
        Self {
            classes: condition.shown(&conditions, None),
            hidden: condition.hidden(rows),
            streams: streams(request, samples.clone()),
            layout: layout.clone(),
            start: batch.start,
            told: 0,
            samples,
            rows,
            tokens,
        }
    }

    /// The places of the tokens to write, in their order.
    pub(super) fn free(&self) -> Vec<usize> {
        free(&self.layout, self.start).collect()
    }

    /// A number below `limit` for each sample, from its random stream.
    pub(super) fn draw(&mut self, limit: usize) -> Vec<usize> {
        let streams = self.streams.iter_mut();
        streams
            .map(|stream| stream.random_range(0..limit))
            .collect()
    }

    /// What the network says, led away from what it says without the classes where `scale` is not 1:
    /// `u + scale·(c − u)`. `network` takes the tokens `[rows, tokens]` and a class for each row.
    pub(super) fn ask(
        &self,
        scale: f32,
        network: impl Fn(&[u32], &[u32]) -> DepthLogits,
    ) -> Vec<Vec<f32>> {
        let mut tokens = self.tokens.clone();
        let last = self.tokens[(self.samples.len() - 1) * self.layout.codes()..].to_vec();
        tokens.extend(last.repeat(self.rows - self.samples.len()));
        let logits = match scale {
            1.0 => network(&tokens, &self.classes),
            _ => {
                let classes = [self.classes.as_slice(), &self.hidden].concat();
                let both = network(&tokens.repeat(2), &classes);
                let half =
                    |all: &Tensor<3>, half| all.clone().narrow(0, half * self.rows, self.rows);
                let lead = |all: Tensor<3>| {
                    let without = half(&all, 1);
                    without.clone() + (half(&all, 0) - without).mul_scalar(scale)
                };
                both.into_iter().map(lead).collect()
            }
        };
        logits.into_iter().map(host_values).collect()
    }

    /// Lets `change` write every sample, given what the network said.
    pub(super) fn change(
        &mut self,
        logits: &[Vec<f32>],
        change: impl Fn(Sheet) -> Result<(), Failure> + Sync,
    ) -> Result<(), GenerateError> {
        let Self { layout, start, .. } = self;
        let (layout, start) = (&*layout, *start);
        let sheets = self.tokens.par_chunks_exact_mut(layout.codes());
        let sheets = sheets.zip(&mut self.streams).enumerate();
        let results: Vec<_> = sheets
            .map(|(sample, (tokens, stream))| {
                change(Sheet {
                    tokens,
                    stream,
                    sample,
                    logits,
                    layout,
                    start,
                })
            })
            .collect();
        for (sample, result) in results.into_iter().enumerate() {
            result.map_err(|(token, source)| {
                let position = token % layout.positions();
                GenerateError::Logits {
                    sample: self.samples.start + sample,
                    row: position / layout.width,
                    column: position % layout.width,
                    depth: layout.depth_of(token),
                    source,
                }
            })?;
        }
        Ok(())
    }

    /// Tells the progress of `done` of `all` passes, in positions.
    pub(super) fn tell(
        &mut self,
        (done, all): (usize, usize),
        batch: &mut Batch,
    ) -> Result<(), GenerateError> {
        let positions = self.layout.positions() - self.start;
        let now = positions * done / all;
        while self.told < now {
            self.told += 1;
            (batch.tick)()?;
        }
        Ok(())
    }

    /// Hands the maps over.
    pub(super) fn finish(self, batch: Batch) {
        batch.maps.codes.copy_from_slice(&self.tokens);
    }
}

impl Sheet<'_> {
    /// The places of the tokens to write, in their order.
    pub(super) fn free(&self) -> impl Iterator<Item = usize> + use<> {
        free(self.layout, self.start)
    }

    /// The id of the mask at a place.
    pub(super) fn mask(&self, token: usize) -> u32 {
        self.layout.codebook_sizes[self.layout.depth_of(token)] as u32
    }

    /// What the network said about the code at a place.
    pub(super) fn logits(&self, token: usize) -> &[f32] {
        let (depth, positions) = (self.layout.depth_of(token), self.layout.positions());
        let size = self.layout.codebook_sizes[depth];
        let row = self.sample * positions + token % positions;
        &self.logits[depth][row * size..][..size]
    }

    /// The depth of a place.
    pub(super) fn depth(&self, token: usize) -> usize {
        self.layout.depth_of(token)
    }
}

fn free(layout: &CodeLayout, start: usize) -> impl Iterator<Item = usize> + use<> {
    let positions = layout.positions();
    (0..layout.codes()).filter(move |token| token % positions >= start)
}
