//! A table of codes with the state of its learning.
//!
//! Shapes: `weight [K, code_dim]`, `cluster_size_ema [K]`, `embed_ema [K, code_dim]`, `updates [1]`.
//! The last three are state that no gradient reaches; their names are those of the published RQ-VAE,
//! whose table has one more row, of zeros, that is never searched: it is dropped when reading.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData};
use smalti_nn::nearest::nearest_codes;
use smalti_nn::state::{host_values, replace};
use smalti_nn::{Init, Noise};

use crate::kmeans::start_codes;
use crate::learning::{Averages, Draws, Start};
use crate::{Learning, QuantizeError, Revival, UpdateReport};

/// A table of codes.
#[derive(Module, Debug)]
pub struct Codebook {
    weight: Param<Tensor<2>>,
    cluster_size_ema: Param<Tensor<1>>,
    embed_ema: Param<Tensor<2>>,
    updates: Param<Tensor<1>>,
}

impl Codebook {
    /// Standard normal codes that learn by moving averages only.
    ///
    /// The moving counts start at one; at zero, as published, when the published revival will
    /// replace every code anyway (without it the first rewrite would multiply codes by
    /// 1/(1 − γ)).
    pub fn new(size: usize, code_dim: usize, learning: &Learning, init: &mut Init) -> Self {
        let start = if learning.revival == (Revival::BelowOne {}) { 0.0 } else { 1.0 };
        let codes = host_values(init.normal([size, code_dim], 1.0).val());
        Self {
            weight: init.buffer([size, code_dim], codes.clone()),
            cluster_size_ema: init.buffer([size], vec![start; size]),
            embed_ema: init.buffer([size, code_dim], codes),
            updates: init.buffer([1], vec![0.0]),
        }
    }

    /// Codes that the optimiser learns, with standard deviation `1/√code_dim`.
    pub fn trained(size: usize, code_dim: usize, init: &mut Init) -> Self {
        let weight = init.normal([size, code_dim], 1.0 / (code_dim as f32).sqrt());
        let codes = host_values(weight.val());
        Self {
            weight,
            cluster_size_ema: init.buffer([size], vec![1.0; size]),
            embed_ema: init.buffer([size, code_dim], codes),
            updates: init.buffer([1], vec![0.0]),
        }
    }

    /// Number of codes.
    pub fn size(&self) -> usize {
        self.weight.val().dims()[0]
    }

    /// Width of a code.
    pub fn code_dim(&self) -> usize {
        self.weight.val().dims()[1]
    }

    /// The codes, `[K, code_dim]`.
    pub fn table(&self) -> Tensor<2> {
        self.weight.val()
    }

    /// The codes of `ids`, `[n, code_dim]`.
    pub fn lookup(&self, ids: Tensor<1, Int>) -> Tensor<2> {
        select_rows(self.table(), ids)
    }

    /// The code nearest to each row, `[n]`.
    ///
    /// # Errors
    /// When a row is not finite.
    pub fn nearest(&self, rows: Tensor<2>) -> Result<Tensor<1, Int>, QuantizeError> {
        nearest_codes(rows, self.table()).map_err(|_| QuantizeError::NonFinite)
    }

    /// Whether the codes still wait for the first vectors to be placed on.
    pub(crate) fn awaits_start(&self, learning: &Learning) -> Option<usize> {
        match learning.start {
            Start::KMeans { iterations } if host_values(self.updates.val())[0] == 0.0 => Some(iterations),
            _ => None,
        }
    }

    /// Places codes `from..to` on `vectors` by k-means. Call once, before the first update.
    pub(crate) fn start_on(&mut self, vectors: &[f32], part: std::ops::Range<usize>, iterations: usize, noise: &mut Noise) {
        let mut averages = self.averages();
        let width = averages.width;
        let codes = start_codes(vectors, width, part.len(), iterations, noise.rng());
        averages.table[part.start * width..part.end * width].copy_from_slice(&codes);
        averages.sums = averages.table.clone();
        averages.sizes.fill(1.0);
        self.store(averages);
    }

    /// The state on the host, to be changed there and given back to [`store`](Self::store).
    pub(crate) fn averages(&self) -> Averages {
        Averages {
            table: host_values(self.table()),
            sizes: host_values(self.cluster_size_ema.val()),
            sums: host_values(self.embed_ema.val()),
            width: self.code_dim(),
        }
    }

    /// Takes over state that was changed on the host.
    pub(crate) fn store(&mut self, averages: Averages) {
        let shape = self.table().dims();
        set(&mut self.weight, averages.table, shape);
        set(&mut self.cluster_size_ema, averages.sizes, [shape[0]]);
        set(&mut self.embed_ema, averages.sums, shape);
    }

    /// Counts an update.
    pub(crate) fn count_update(&mut self) {
        let updates = host_values(self.updates.val())[0] + 1.0;
        set(&mut self.updates, vec![updates], [1]);
    }

    /// One update by moving averages: absorb the vectors, then rewrite the table.
    pub(crate) fn update(
        &mut self,
        vectors: &[f32],
        ids: &[u32],
        learning: &Learning,
        draws: &mut dyn Draws,
    ) -> UpdateReport {
        let mut averages = self.averages();
        let report = averages.absorb(vectors, ids, learning, draws);
        averages.rewrite(learning.epsilon);
        self.store(averages);
        self.count_update();
        report
    }
}

/// Rows of a table that may be tracked while the ids are not.
fn select_rows(table: Tensor<2>, ids: Tensor<1, Int>) -> Tensor<2> {
    let ids = if table.device().is_autodiff() { Tensor::from_inner(ids) } else { ids };
    table.select(0, ids)
}

fn set<const D: usize>(param: &mut Param<Tensor<D>>, values: Vec<f32>, shape: [usize; D]) {
    *param = replace(param.clone(), TensorData::new(values, shape));
}
