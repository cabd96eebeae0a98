//! A table of codes with the state of its learning.
//!
//! Shapes: `weight [K, code_dim]`, `cluster_size_ema [K]`, `embed_ema [K, code_dim]`, `updates [1]` and,
//! under [`Revival::Unused`] only, `idle [K]`: updates since a code was last chosen. All but the
//! weight are state that no gradient reaches. The first three names are those of the published
//! RQ-VAE, whose table has one more row, of zeros, that is never searched: it is dropped when
//! reading.

use std::ops::Range;

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
    idle: Option<Param<Tensor<1>>>,
    updates: Param<Tensor<1>>,
}

impl Codebook {
    /// Standard normal codes that learn by moving averages only.
    ///
    /// The moving counts start at one; at zero, as published, when the published revival will
    /// replace every code anyway (without it the first rewrite would multiply codes by
    /// 1/(1 − γ)).
    pub fn new(size: usize, code_dim: usize, learning: &Learning, init: &mut Init) -> Self {
        let start = if learning.revival == (Revival::BelowOne {}) {
            0.0
        } else {
            1.0
        };
        let codes = host_values(init.normal([size, code_dim], 1.0).val());
        Self {
            weight: init.buffer([size, code_dim], codes.clone()),
            cluster_size_ema: init.buffer([size], vec![start; size]),
            embed_ema: init.buffer([size, code_dim], codes),
            idle: idle(size, learning, init),
            updates: init.buffer([1], vec![0.0]),
        }
    }

    /// Codes that the optimiser learns, with standard deviation `1/√code_dim`.
    pub fn trained(size: usize, code_dim: usize, learning: &Learning, init: &mut Init) -> Self {
        let weight = init.normal([size, code_dim], 1.0 / (code_dim as f32).sqrt());
        let codes = host_values(weight.val());
        Self {
            weight,
            cluster_size_ema: init.buffer([size], vec![1.0; size]),
            embed_ema: init.buffer([size, code_dim], codes),
            idle: idle(size, learning, init),
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
    /// When a row or a code is not finite.
    pub fn nearest(&self, rows: Tensor<2>) -> Result<Tensor<1, Int>, QuantizeError> {
        search(rows, self.table())
    }

    /// Whether the codes still wait for the first vectors to be placed on.
    pub(crate) fn awaits_start(&self, learning: &Learning) -> Option<usize> {
        match learning.start {
            Start::KMeans { iterations } if host_values(self.updates.val())[0] == 0.0 => {
                Some(iterations)
            }
            _ => None,
        }
    }

    /// Places the codes of `part` on `vectors` by k-means. Call once, before the first update.
    pub(crate) fn start_on(
        &mut self,
        vectors: &[f32],
        part: Range<usize>,
        iterations: usize,
        noise: &mut Noise,
    ) {
        let mut averages = self.averages();
        let width = averages.width;
        let codes = start_codes(vectors, width, part.len(), iterations, noise.rng());
        averages.table[part.start * width..part.end * width].copy_from_slice(&codes);
        averages.sums = averages.table.clone();
        averages.sizes.fill(1.0);
        self.set_table(averages.table.clone());
        self.set_averages(averages);
    }

    /// The state on the host, to be changed there and given back to
    /// [`set_averages`](Self::set_averages).
    pub(crate) fn averages(&self) -> Averages {
        Averages {
            table: host_values(self.table()),
            sizes: host_values(self.cluster_size_ema.val()),
            sums: host_values(self.embed_ema.val()),
            idle: self
                .idle
                .as_ref()
                .map_or_else(Vec::new, |idle| host_values(idle.val())),
            width: self.code_dim(),
        }
    }

    /// Takes over moving averages that were changed on the host, but not the table.
    fn set_averages(&mut self, averages: Averages) {
        let [size, width] = self.table().dims();
        set(&mut self.cluster_size_ema, averages.sizes, [size]);
        set(&mut self.embed_ema, averages.sums, [size, width]);
        if let Some(idle) = &mut self.idle {
            set(idle, averages.idle, [size]);
        }
    }

    fn set_table(&mut self, table: Vec<f32>) {
        let shape = self.table().dims();
        set(&mut self.weight, table, shape);
    }

    /// One update by moving averages: absorb the vectors, then rewrite the table.
    ///
    /// # Errors
    /// When a sum is not finite; nothing has changed then.
    pub(crate) fn update(
        &mut self,
        vectors: &[f32],
        ids: &[u32],
        learning: &Learning,
        draws: &mut dyn Draws,
    ) -> Result<UpdateReport, QuantizeError> {
        let mut averages = self.averages();
        let report = averages.absorb(vectors, ids, learning, draws);
        averages.rewrite(learning.epsilon);
        self.take(averages, true)?;
        Ok(report)
    }

    /// Watches which codes are chosen and revives dead ones; the others are the optimiser's to
    /// move.
    ///
    /// The table is replaced only when a code was revived. Gradients are kept by the tensor they
    /// were taken of, so this belongs before the forward pass.
    ///
    /// # Errors
    /// When a sum is not finite; nothing has changed then.
    pub(crate) fn watch(
        &mut self,
        vectors: &[f32],
        ids: &[u32],
        learning: &Learning,
        draws: &mut dyn Draws,
    ) -> Result<UpdateReport, QuantizeError> {
        let mut averages = self.averages();
        let report = averages.absorb(vectors, ids, learning, draws);
        self.take(averages, report.revived > 0)?;
        Ok(report)
    }

    fn take(&mut self, averages: Averages, with_table: bool) -> Result<(), QuantizeError> {
        if !averages.is_finite() {
            return Err(QuantizeError::TooLarge);
        }
        if with_table {
            self.set_table(averages.table.clone());
        }
        self.set_averages(averages);
        let updates = host_values(self.updates.val())[0] + 1.0;
        set(&mut self.updates, vec![updates], [1]);
        Ok(())
    }
}

/// The row of `table` nearest to each of `rows`.
pub(crate) fn search(rows: Tensor<2>, table: Tensor<2>) -> Result<Tensor<1, Int>, QuantizeError> {
    nearest_codes(rows.clone(), table).map_err(|_| blame(rows))
}

/// Which of the two is not finite, when a search says that one is.
pub(crate) fn blame(rows: Tensor<2>) -> QuantizeError {
    let finite = host_values(rows.inner()).iter().all(|v| v.is_finite());
    if finite {
        QuantizeError::NonFiniteCodebook
    } else {
        QuantizeError::NonFinite
    }
}

/// The counters that only [`Revival::Unused`] needs; other rules keep the published state.
fn idle(size: usize, learning: &Learning, init: &Init) -> Option<Param<Tensor<1>>> {
    let needed = matches!(learning.revival, Revival::Unused { .. });
    needed.then(|| init.buffer([size], vec![0.0; size]))
}

/// Rows of a table that may be tracked while the ids are not.
pub(crate) fn select_rows(table: Tensor<2>, ids: Tensor<1, Int>) -> Tensor<2> {
    let ids = if table.device().is_autodiff() {
        Tensor::from_inner(ids)
    } else {
        ids
    };
    table.select(0, ids)
}

fn set<const D: usize>(param: &mut Param<Tensor<D>>, values: Vec<f32>, shape: [usize; D]) {
    *param = replace(param.clone(), TensorData::new(values, shape));
}
