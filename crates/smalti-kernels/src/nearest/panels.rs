//! The codebook as the search reads it: panels of 32 codes, one term of the score after the other.

use rayon::prelude::*;

/// Codes in a panel: two registers of the widest path.
pub(super) const PANEL: usize = 32;

/// Bytes of codes that a chunk may have, so that it stays in a core's cache while queries pass by.
const CHUNK_BYTES: usize = 256 << 10;

/// A codebook in panels: a code's score is its bias plus the sum over the terms of the query's
/// factor times the code's number.
#[derive(Clone, Debug)]
pub(super) struct Panels {
    /// Number of codes.
    pub(super) size: usize,
    /// Numbers of each code that a query is multiplied with.
    pub(super) terms: usize,
    /// From `columns_start` on `[panel, terms, 32]`; zero past the last code.
    columns: Vec<f32>,
    /// Where the columns start: at a cache line, since registers that straddle two load at half speed.
    columns_start: usize,
    /// What a score starts from; infinite past the last code.
    bias: Vec<f32>,
    /// Panels in a chunk.
    pub(super) chunk_panels: usize,
    /// The largest length of each chunk's codes.
    pub(super) chunk_radius: Vec<f32>,
}

/// What [`Panels::new`] has to know of one code besides its terms.
pub(super) struct Entry {
    /// What its score starts from.
    pub(super) bias: f32,
    /// An upper bound on its length, for those who bound errors by it.
    pub(super) length: f32,
}

impl Panels {
    /// Lays out `size` codes; `write` puts the terms of one code into a slice.
    pub(super) fn new(
        size: usize,
        terms: usize,
        write: impl Fn(usize, &mut [f32]) -> Entry + Sync,
    ) -> Self {
        let count = size.div_ceil(PANEL);
        let mut columns = vec![0.0; count * PANEL * terms + PANEL];
        let columns_start = columns.as_ptr().align_offset(64).min(PANEL);
        let mut bias = vec![f32::INFINITY; count * PANEL];
        let mut lengths = vec![0.0_f32; count * PANEL];
        columns[columns_start..]
            .par_chunks_mut(PANEL * terms)
            .zip(
                bias.par_chunks_mut(PANEL)
                    .zip(lengths.par_chunks_mut(PANEL)),
            )
            .enumerate()
            .for_each(|(panel, (columns, (bias, lengths)))| {
                let mut row = vec![0.0; terms];
                let first = panel * PANEL;
                for lane in 0..PANEL.min(size - first) {
                    let entry = write(first + lane, &mut row);
                    for (k, value) in row.iter().enumerate() {
                        columns[k * PANEL + lane] = *value;
                    }
                    (bias[lane], lengths[lane]) = (entry.bias, entry.length);
                }
            });
        let chunk_panels = chunk_panels(count, terms);
        let longest = |part: &[f32]| part.iter().copied().fold(0.0, f32::max);
        let chunk_radius = lengths.chunks(chunk_panels * PANEL).map(longest).collect();
        Self {
            size,
            terms,
            columns,
            columns_start,
            bias,
            chunk_panels,
            chunk_radius,
        }
    }

    pub(super) fn chunks(&self) -> usize {
        self.chunk_radius.len()
    }

    /// Columns and biases of the panels of one chunk.
    pub(super) fn chunk(&self, chunk: usize) -> (&[f32], &[f32]) {
        let first = chunk * self.chunk_panels;
        let end = (first + self.chunk_panels).min(self.bias.len() / PANEL);
        let width = PANEL * self.terms;
        let columns = &self.columns[self.columns_start..];
        (
            &columns[first * width..end * width],
            &self.bias[first * PANEL..end * PANEL],
        )
    }
}

/// Panels in a chunk. For each query a chunk costs a reduction, and one chunk is read twice: the sum
/// of both is smallest near the square root of the number of panels.
fn chunk_panels(panels: usize, terms: usize) -> usize {
    let balanced = ((panels as f64).sqrt() / 2.0).ceil() as usize;
    let fitting = CHUNK_BYTES / (PANEL * terms * size_of::<f32>());
    balanced.min(fitting).clamp(1, 64)
}
