//! The codebook as the search reads it: panels of 32 codes, one dimension after the other.

use super::Metric;
use rayon::prelude::*;

/// Codes in a panel: two registers of the widest path.
pub(super) const PANEL: usize = 32;

/// Bytes of codes that a chunk may have, so that it stays in a core's cache while queries pass by.
const CHUNK_BYTES: usize = 256 << 10;

/// A codebook in panels, with what is needed to bound the errors of its scores.
#[derive(Clone, Debug)]
pub(super) struct Panels {
    pub(super) metric: Metric,
    pub(super) size: usize,
    pub(super) code_dim: usize,
    /// The codes as they were given, for exact comparisons.
    pub(super) codes: Vec<f32>,
    /// What is subtracted from codes and queries: the mean code, or zero for inner products.
    pub(super) centre: Vec<f32>,
    /// From `columns_start` on `[panel, code_dim, 32]`, centred; zero past the last code.
    columns: Vec<f32>,
    /// Where the columns start: at a cache line, since registers that straddle two load at half speed.
    columns_start: usize,
    /// `‖c‖²/2` of the centred codes, or zero for inner products; infinite past the last code.
    pub(super) bias: Vec<f32>,
    /// Panels in a chunk.
    pub(super) chunk_panels: usize,
    /// An upper bound on the length of the centred codes of each chunk.
    pub(super) chunk_radius: Vec<f32>,
}

impl Panels {
    pub(super) fn new(codes: &[f32], code_dim: usize, metric: Metric) -> Self {
        let size = codes.len() / code_dim;
        let centre = match metric {
            Metric::Euclidean => mean_row(codes, code_dim),
            Metric::InnerProduct => vec![0.0; code_dim],
        };
        let count = size.div_ceil(PANEL);
        let mut columns = vec![0.0; count * PANEL * code_dim + PANEL];
        let columns_start = columns.as_ptr().align_offset(64).min(PANEL);
        let mut bias = vec![f32::INFINITY; count * PANEL];
        let mut lengths = vec![0.0_f32; count * PANEL];
        columns[columns_start..]
            .par_chunks_mut(PANEL * code_dim)
            .zip(
                bias.par_chunks_mut(PANEL)
                    .zip(lengths.par_chunks_mut(PANEL)),
            )
            .zip(codes.par_chunks(PANEL * code_dim))
            .for_each(|((columns, (bias, lengths)), codes)| {
                for (lane, code) in codes.chunks_exact(code_dim).enumerate() {
                    let mut square = 0.0_f64;
                    for (k, (value, middle)) in code.iter().zip(&centre).enumerate() {
                        let value = value - middle;
                        columns[k * PANEL + lane] = value;
                        square += f64::from(value) * f64::from(value);
                    }
                    lengths[lane] = (square.sqrt() * (1.0 + 1e-6)) as f32;
                    bias[lane] = match metric {
                        Metric::Euclidean => (square / 2.0) as f32,
                        Metric::InnerProduct => 0.0,
                    };
                }
            });
        let chunk_panels = chunk_panels(count, code_dim);
        let longest = |part: &[f32]| part.iter().copied().fold(0.0, f32::max);
        let chunk_radius = lengths.chunks(chunk_panels * PANEL).map(longest).collect();
        let codes = codes.to_vec();
        Self {
            metric,
            size,
            code_dim,
            codes,
            centre,
            columns,
            columns_start,
            bias,
            chunk_panels,
            chunk_radius,
        }
    }

    /// One code as it was given.
    pub(super) fn code(&self, index: usize) -> &[f32] {
        &self.codes[index * self.code_dim..][..self.code_dim]
    }

    pub(super) fn chunks(&self) -> usize {
        self.chunk_radius.len()
    }

    /// Columns and biases of the panels of one chunk.
    pub(super) fn chunk(&self, chunk: usize) -> (&[f32], &[f32]) {
        let first = chunk * self.chunk_panels;
        let end = (first + self.chunk_panels).min(self.bias.len() / PANEL);
        let width = PANEL * self.code_dim;
        let columns = &self.columns[self.columns_start..];
        (
            &columns[first * width..end * width],
            &self.bias[first * PANEL..end * PANEL],
        )
    }
}

/// The mean code, or zero where the sum overflows.
fn mean_row(codes: &[f32], code_dim: usize) -> Vec<f32> {
    let mut sum = vec![0.0_f64; code_dim];
    for code in codes.chunks_exact(code_dim) {
        for (sum, value) in sum.iter_mut().zip(code) {
            *sum += f64::from(*value);
        }
    }
    let rows = (codes.len() / code_dim) as f64;
    sum.iter().map(|sum| (sum / rows) as f32).collect()
}

/// Panels in a chunk. For each query a chunk costs a reduction, and one chunk is read twice: the sum
/// of both is smallest near the square root of the number of panels.
fn chunk_panels(panels: usize, code_dim: usize) -> usize {
    let balanced = ((panels as f64).sqrt() / 2.0).ceil() as usize;
    let fitting = CHUNK_BYTES / (PANEL * code_dim * size_of::<f32>());
    balanced.min(fitting).clamp(1, 64)
}
