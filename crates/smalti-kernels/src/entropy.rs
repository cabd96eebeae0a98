//! Entropies of choices among codes, with their slopes: of every choice, and of how the codes are
//! used on the whole.
//!
//! A row gives code k the probability `p_k`. The entropy of its choice is `Σ −p_k·ln p_k`; the use
//! of a code is the sum of its probabilities over rows, of which the caller takes the entropy. Both
//! need slopes over the row that all probabilities came from: `Σ_k w_k·∂p_k` for weights `w` that
//! are `−(ln p_k + 1)` for the choice, and the caller's for the use.
//!
//! [`Signs`]: codes are signs, `p(c) ∝ exp(s·x·c)`, whose bits are independent given the row.
//! [`choices`] and [`weighted`]: `p` is the softmax of a row of logits.
//!
//! Rows are split into a fixed number of tasks, whose sums are added in order: results do not depend
//! on the number of threads.

mod signs;
mod softmax;
#[cfg(test)]
mod tests;

pub use signs::Signs;
pub use softmax::{choices, weighted};

/// Most tasks that rows are split into; each holds a table of uses.
const TASKS: usize = 16;

/// Numbers that a task should at least have.
const TASK: usize = 16 << 10;

/// How the logarithm of a probability near zero is kept finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Logarithm {
    /// `ln p`, where `0·ln 0` is 0.
    Exact,
    /// `ln(p + ε)`.
    Added(f32),
    /// `ln(max(p, ε))`.
    Clamped(f32),
}

/// What a pass over rows finds.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The entropies of all choices, summed.
    pub entropy: f64,
    /// Probabilities of each code, summed over rows.
    pub usage: Vec<f32>,
}

impl Logarithm {
    /// `−p·ln p`, and its slope over p.
    #[inline(always)]
    pub fn term(self, p: f32) -> (f32, f32) {
        let (logarithm, rest) = match self {
            Self::Exact => (p.max(f32::MIN_POSITIVE).ln(), 1.0),
            Self::Added(epsilon) => ((p + epsilon).ln(), p / (p + epsilon)),
            Self::Clamped(epsilon) => (p.max(epsilon).ln(), if p < epsilon { 0.0 } else { 1.0 }),
        };
        (-p * logarithm, -(logarithm + rest))
    }
}

/// Rows of one task, for rows that cost `numbers` each.
fn rows_per_task(rows: usize, numbers: usize) -> usize {
    TASK.div_ceil(numbers.max(1))
        .max(rows.div_ceil(TASKS))
        .max(1)
}

/// What tasks found, added in order.
fn gather(tasks: Vec<Found>, codes: usize) -> Found {
    let mut all = Found {
        entropy: 0.0,
        usage: vec![0.0; codes],
    };
    for task in tasks {
        all.entropy += task.entropy;
        add(&mut all.usage, &task.usage);
    }
    all
}

#[inline(always)]
fn add(to: &mut [f32], values: &[f32]) {
    for (to, value) in to.iter_mut().zip(values) {
        *to += value;
    }
}

/// The sum of a slice, in an order that is its length's alone and that vectors can follow.
#[inline(always)]
fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (blocks, rest) = values.as_chunks::<16>();
    for block in blocks {
        add(&mut lanes, block);
    }
    lanes.iter().sum::<f32>() + rest.iter().sum::<f32>()
}
