//! Codes that are signs: a table of 2ᵇ probabilities is made by doubling, and taken apart again by
//! halving, at 2·2ᵇ multiplications or additions each.

use super::{Found, Logarithm, add, gather, rows_per_task, sum};
use crate::Simd;
use crate::lanes::{Kernel, Lanes, dispatch};
use rayon::prelude::*;

/// Arguments beyond this are certain.
const CERTAIN: f32 = 200.0;

/// Groups of bits: a row has `groups · bits` numbers, and `p(c) ∝ exp(sharpness · x·c)` for the signs
/// c of each group. Bit i of a code's number is set where the sign of channel i is positive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Signs {
    /// Bits of a group.
    pub bits: usize,
    /// Groups of a row.
    pub groups: usize,
    /// s: a bit is set with the probability `1 / (1 + e^(−2·s·x))`.
    pub sharpness: f32,
}

impl Signs {
    /// The entropies of all choices and the use of all codes, `[groups, 2^bits]`; writes the slopes of
    /// the summed entropy over the rows.
    ///
    /// # Panics
    /// When lengths do not fit together.
    pub fn choices(&self, rows: &[f32], logarithm: Logarithm, slopes: &mut [f32]) -> Found {
        self.choices_on(Simd::active(), rows, logarithm, slopes)
    }

    /// [`choices`](Self::choices) with the instructions of `simd`.
    ///
    /// # Panics
    /// As [`choices`](Self::choices).
    pub fn choices_on(
        &self,
        simd: Simd,
        rows: &[f32],
        logarithm: Logarithm,
        slopes: &mut [f32],
    ) -> Found {
        let task = self.task(rows, slopes);
        let found = rows.par_chunks(task).zip(slopes.par_chunks_mut(task));
        let found = found.map(|(rows, slopes)| {
            let signs = self;
            dispatch(
                simd,
                Choices {
                    signs,
                    rows,
                    logarithm,
                    slopes,
                },
            )
        });
        gather(found.collect(), self.groups << self.bits)
    }

    /// Writes the slopes of `Σ weight · p` over the rows, for a weight of every code, `[groups, 2^bits]`.
    ///
    /// # Panics
    /// When lengths do not fit together.
    pub fn weighted(&self, rows: &[f32], weights: &[f32], slopes: &mut [f32]) {
        self.weighted_on(Simd::active(), rows, weights, slopes);
    }

    /// [`weighted`](Self::weighted) with the instructions of `simd`.
    ///
    /// # Panics
    /// As [`weighted`](Self::weighted).
    pub fn weighted_on(&self, simd: Simd, rows: &[f32], weights: &[f32], slopes: &mut [f32]) {
        assert_eq!(
            weights.len(),
            self.groups << self.bits,
            "entropy: a weight for every code of every group"
        );
        let task = self.task(rows, slopes);
        rows.par_chunks(task)
            .zip(slopes.par_chunks_mut(task))
            .for_each(|(rows, slopes)| {
                let signs = self;
                dispatch(
                    simd,
                    Weighted {
                        signs,
                        rows,
                        weights,
                        slopes,
                    },
                )
            });
    }

    /// Numbers of a task.
    fn task(&self, rows: &[f32], slopes: &[f32]) -> usize {
        let width = self.groups * self.bits;
        assert!(
            width > 0 && rows.len().is_multiple_of(width),
            "entropy: {} numbers are no rows of {width}",
            rows.len()
        );
        assert_eq!(rows.len(), slopes.len(), "entropy: lengths differ");
        rows_per_task(rows.len() / width, self.groups << self.bits) * width
    }

    /// Fills `table` with the probabilities of all codes of one group.
    #[inline(always)]
    fn fill(&self, group: &[f32], bits: &mut [Bit], table: &mut [f32]) {
        table[0] = 1.0;
        for (i, (bit, x)) in bits.iter_mut().zip(group).enumerate() {
            *bit = Bit::new(2.0 * self.sharpness * x);
            let (clear, set) = table[..2 << i].split_at_mut(1 << i);
            for (clear, set) in clear.iter_mut().zip(set) {
                *set = *clear * bit.set;
                *clear *= bit.clear;
            }
        }
    }

    /// `Σ_k h_k · ∂ ln p_k` over the numbers of one group; `weighted` holds h and is used up.
    #[inline(always)]
    fn pull(&self, bits: &[Bit], weighted: &mut [f32], slopes: &mut [f32]) {
        for (i, slope) in slopes.iter_mut().enumerate().rev() {
            let (clear, set) = weighted[..2 << i].split_at_mut(1 << i);
            *slope = sum(set) - sum(clear);
            add(clear, set);
        }
        let total = weighted[0];
        for (slope, bit) in slopes.iter_mut().zip(bits) {
            *slope = self.sharpness * (*slope - total * (bit.set - bit.clear));
        }
    }
}

/// The two probabilities of a bit.
#[derive(Clone, Copy, Default)]
struct Bit {
    set: f32,
    clear: f32,
    argument: f32,
}

impl Bit {
    #[inline(always)]
    fn new(argument: f32) -> Self {
        let argument = argument.clamp(-CERTAIN, CERTAIN);
        let small = (-argument.abs()).exp();
        let (likely, unlikely) = (1.0 / (1.0 + small), small / (1.0 + small));
        let (set, clear) = if argument < 0.0 {
            (unlikely, likely)
        } else {
            (likely, unlikely)
        };
        Self {
            set,
            clear,
            argument,
        }
    }

    /// The entropy, and its slope over the argument.
    #[inline(always)]
    fn entropy(self) -> (f32, f32) {
        let distance = self.argument.abs();
        let unlikely = self.set.min(self.clear);
        let entropy = (-distance).exp().ln_1p() + distance * unlikely;
        (entropy, -self.argument * self.set * self.clear)
    }
}

struct Choices<'a> {
    signs: &'a Signs,
    rows: &'a [f32],
    logarithm: Logarithm,
    slopes: &'a mut [f32],
}

impl Kernel for Choices<'_> {
    type Output = Found;

    #[inline(always)]
    fn run<V: Lanes>(self) -> Found {
        let Self {
            signs,
            rows,
            logarithm,
            slopes,
        } = self;
        let (width, size) = (signs.bits, 1 << signs.bits);
        let mut usage = vec![0.0; signs.groups * size];
        let (mut table, mut bits) = (vec![0.0; size], vec![Bit::default(); width]);
        let mut entropy = 0.0;
        let groups = rows.chunks_exact(width).zip(slopes.chunks_exact_mut(width));
        for (place, (group, slopes)) in groups.enumerate() {
            signs.fill(group, &mut bits, &mut table);
            add(&mut usage[place % signs.groups * size..][..size], &table);
            if logarithm == Logarithm::Exact {
                // Independent bits: their entropies add up.
                for (bit, slope) in bits.iter().zip(slopes.iter_mut()) {
                    let (own, over_argument) = bit.entropy();
                    entropy += f64::from(own);
                    *slope = 2.0 * signs.sharpness * over_argument;
                }
                continue;
            }
            for p in &mut table {
                let (term, slope) = logarithm.term(*p);
                entropy += f64::from(term);
                *p *= slope;
            }
            signs.pull(&bits, &mut table, slopes);
        }
        Found { entropy, usage }
    }
}

struct Weighted<'a> {
    signs: &'a Signs,
    rows: &'a [f32],
    weights: &'a [f32],
    slopes: &'a mut [f32],
}

impl Kernel for Weighted<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self {
            signs,
            rows,
            weights,
            slopes,
        } = self;
        let (width, size) = (signs.bits, 1 << signs.bits);
        let (mut table, mut bits) = (vec![0.0; size], vec![Bit::default(); width]);
        let groups = rows.chunks_exact(width).zip(slopes.chunks_exact_mut(width));
        for (place, (group, slopes)) in groups.enumerate() {
            signs.fill(group, &mut bits, &mut table);
            let weights = &weights[place % signs.groups * size..][..size];
            for (p, weight) in table.iter_mut().zip(weights) {
                *p *= weight;
            }
            signs.pull(&bits, &mut table, slopes);
        }
    }
}
