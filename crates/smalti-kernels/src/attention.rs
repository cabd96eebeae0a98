//! Scaled dot-product attention (Vaswani et al. 2017, equation 1), forward and backward.
//!
//! `o_i = Σ_j softmax_j(scale · q_i·k_j) · v_j` for each of `heads` independent problems (batch times
//! heads). `q` is `[heads, queries, head_dim]`, `k` and `v` are `[heads, keys, head_dim]`; causal
//! attention lets query `i` see the keys up to `i + offset`.
//!
//! Scores exist for 64 queries and 64 keys at a time (Dao et al. 2022, algorithms 1 and 4): the
//! running maximum and sum of each query are corrected from block to block, and for the way back only
//! `ln Σ e^score` of each query is kept. With `P` the weights,
//!
//! ```text
//! dV = Pᵀ dO,  dP = dO Vᵀ,  dS = P ∘ (dP - rowsum(dO ∘ O)) · scale,  dQ = dS K,  dK = dSᵀ Q
//! ```
//!
//! Up to 16 queries and keys the whole row of a query's scores is at hand instead, without blocks.
//!
//! Forward is split over heads and blocks of queries, backward over heads; every sum runs in a fixed
//! order, so results do not depend on the number of threads. [`decode()`] is the single query of
//! step-by-step generation against a cache.

mod backward;
mod blocks;
mod decode;
mod forward;
mod small;
#[cfg(test)]
mod tests;

use crate::Simd;
use crate::lanes::dispatch;
use rayon::prelude::*;
use small::SHORT;

pub use decode::{DecodeShape, decode, decode_on};

/// Queries, and keys, of one block.
const BLOCK: usize = 64;

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mask {
    /// All of them.
    None,
    /// Query `i` sees keys `0..=i + offset`.
    Causal {
        /// Keys that came before the first query.
        offset: usize,
    },
}

/// Shape and constants of an attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Independent problems: batch times heads.
    pub heads: usize,
    /// Queries in each.
    pub queries: usize,
    /// Keys in each.
    pub keys: usize,
    /// Width of a query, a key and a value.
    pub head_dim: usize,
    /// Factor of the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Which keys a query sees.
    pub mask: Mask,
}

/// Queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// `[heads, queries, head_dim]`
    pub q: &'a [f32],
    /// `[heads, keys, head_dim]`
    pub k: &'a [f32],
    /// `[heads, keys, head_dim]`
    pub v: &'a [f32],
}

/// What the way back knows of the way forward.
#[derive(Clone, Copy, Debug)]
pub struct Results<'a> {
    /// The output, `[heads, queries, head_dim]`.
    pub output: &'a [f32],
    /// `ln Σ e^score`, `[heads, queries]`.
    pub log_sums: &'a [f32],
    /// The gradient of the output.
    pub grad_output: &'a [f32],
}

/// Where the gradients go; what was there is overwritten.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// `[heads, queries, head_dim]`
    pub q: &'a mut [f32],
    /// `[heads, keys, head_dim]`
    pub k: &'a mut [f32],
    /// `[heads, keys, head_dim]`
    pub v: &'a mut [f32],
}

impl Attention {
    /// Writes the output; returns `ln Σ e^score` of each query for the way back.
    ///
    /// # Panics
    /// When lengths do not fit the shape, or a query sees no key.
    pub fn forward(&self, inputs: Inputs<'_>, output: &mut [f32]) -> Vec<f32> {
        self.forward_on(Simd::active(), inputs, output)
    }

    /// [`forward`](Self::forward) with the instructions of `simd`.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_on(&self, simd: Simd, inputs: Inputs<'_>, output: &mut [f32]) -> Vec<f32> {
        self.check(inputs, output.len());
        let mut log_sums = vec![0.0; self.heads * self.queries];
        let rows = self.queries * self.head_dim;
        if self.is_short() {
            let task = self.heads_per_task();
            output
                .par_chunks_mut(task * rows)
                .zip(log_sums.par_chunks_mut(task * self.queries))
                .enumerate()
                .for_each(|(i, (output, log_sums))| {
                    let inputs = self.part(inputs, i * task, output.len() / rows);
                    dispatch(
                        simd,
                        small::Forward {
                            shape: self,
                            inputs,
                            output,
                            log_sums,
                        },
                    );
                });
            return log_sums;
        }
        // Blocks of queries do not cross heads.
        output
            .par_chunks_mut(rows)
            .zip(log_sums.par_chunks_mut(self.queries))
            .enumerate()
            .for_each(|(head, (output, log_sums))| {
                let inputs = self.part(inputs, head, 1);
                output
                    .par_chunks_mut(BLOCK * self.head_dim)
                    .zip(log_sums.par_chunks_mut(BLOCK))
                    .enumerate()
                    .for_each(|(block, (output, log_sums))| {
                        let first = block * BLOCK;
                        dispatch(
                            simd,
                            forward::Forward {
                                shape: self,
                                inputs,
                                first,
                                output,
                                log_sums,
                            },
                        );
                    });
            });
        log_sums
    }

    /// Writes the gradients of queries, keys and values.
    ///
    /// # Panics
    /// When lengths do not fit the shape, or a query sees no key.
    pub fn backward(&self, inputs: Inputs<'_>, results: Results<'_>, gradients: Gradients<'_>) {
        self.backward_on(Simd::active(), inputs, results, gradients);
    }

    /// [`backward`](Self::backward) with the instructions of `simd`.
    ///
    /// # Panics
    /// As [`backward`](Self::backward).
    pub fn backward_on(
        &self,
        simd: Simd,
        inputs: Inputs<'_>,
        results: Results<'_>,
        gradients: Gradients<'_>,
    ) {
        self.check(inputs, results.output.len());
        assert_eq!(
            results.log_sums.len(),
            self.heads * self.queries,
            "attention: log sums"
        );
        assert_eq!(
            results.grad_output.len(),
            inputs.q.len(),
            "attention: gradient of the output"
        );
        let Gradients { q, k, v } = gradients;
        let lengths = [q.len(), k.len(), v.len()];
        let wanted = [inputs.q.len(), inputs.k.len(), inputs.v.len()];
        assert_eq!(lengths, wanted, "attention: lengths of the gradients");
        let (rows, key_rows) = (self.queries * self.head_dim, self.keys * self.head_dim);
        let short = self.is_short();
        let task = if short { self.heads_per_task() } else { 1 };
        q.par_chunks_mut(task * rows)
            .zip(
                k.par_chunks_mut(task * key_rows)
                    .zip(v.par_chunks_mut(task * key_rows)),
            )
            .enumerate()
            .for_each(|(i, (q, (k, v)))| {
                let (place, count) = (i * task * rows..i * task * rows + q.len(), q.len() / rows);
                let results = Results {
                    output: &results.output[place.clone()],
                    log_sums: &results.log_sums[i * task * self.queries..][..count * self.queries],
                    grad_output: &results.grad_output[place],
                };
                let inputs = self.part(inputs, i * task, count);
                let gradients = Gradients { q, k, v };
                if short {
                    dispatch(
                        simd,
                        small::Backward {
                            shape: self,
                            inputs,
                            results,
                            gradients,
                        },
                    );
                } else {
                    dispatch(
                        simd,
                        backward::Backward {
                            shape: self,
                            inputs,
                            results,
                            gradients,
                        },
                    );
                }
            });
    }

    fn is_short(&self) -> bool {
        self.queries <= SHORT && self.keys <= SHORT
    }

    fn heads_per_task(&self) -> usize {
        (8192 / (self.queries * self.head_dim)).max(1)
    }

    fn check(&self, inputs: Inputs<'_>, output: usize) {
        let Self {
            heads,
            queries,
            keys,
            head_dim,
            ..
        } = *self;
        assert!(
            heads * queries * keys * head_dim > 0,
            "attention: an empty dimension in {self:?}"
        );
        let lengths = [inputs.q.len(), output, inputs.k.len(), inputs.v.len()];
        let (rows, key_rows) = (heads * queries * head_dim, heads * keys * head_dim);
        assert_eq!(
            lengths,
            [rows, rows, key_rows, key_rows],
            "attention: lengths of q, output, k, v"
        );
    }

    /// The inputs of `count` heads.
    fn part<'a>(&self, inputs: Inputs<'a>, first: usize, count: usize) -> Inputs<'a> {
        let part = |values: &'a [f32], rows: usize| {
            &values[first * rows * self.head_dim..][..count * rows * self.head_dim]
        };
        Inputs {
            q: part(inputs.q, self.queries),
            k: part(inputs.k, self.keys),
            v: part(inputs.v, self.keys),
        }
    }

    /// How many keys a query sees.
    #[inline(always)]
    fn visible(&self, query: usize) -> usize {
        match self.mask {
            Mask::None => self.keys,
            Mask::Causal { offset } => self.keys.min(query + offset + 1),
        }
    }
}
