//! How a codebook is used: counts of codes, per depth.
//!
//! With `n_k` the count of code `k` of `K` and `p_k = n_k / Σ n`:
//!
//! - usage = fraction of codes seen at least once (0 to 1); dead codes = the others;
//! - entropy = `-Σ p_k log2 p_k` bits (0 to log2 K);
//! - perplexity = `2^entropy` codes (1 to K): the size of a uniformly used codebook of the same
//!   entropy.
//!
//! All depend on how much was observed: fewer positions than codes cannot show full usage.
//! Publications mean different things by "usage" (over a whole validation set, or over one batch):
//! say over what yours was counted.
//!
//! Only codes that were seen take memory: a codebook without a table may have 2^31 codes.

use std::collections::BTreeMap;

use crate::MetricError;

/// Counts of codes, one table per depth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeStatistics {
    tables: Vec<CodeCounts>,
}

/// Counts of the codes of one codebook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeCounts {
    codebook_size: usize,
    seen: BTreeMap<u32, u64>,
}

/// What the counts of one table say.
#[derive(Debug, Clone, PartialEq)]
pub struct DepthStatistics {
    /// Number of codes in the codebook.
    pub codebook_size: usize,
    /// Codes observed in all.
    pub observed: u64,
    /// Fraction of the codebook seen at least once.
    pub usage: f64,
    /// Codes never seen.
    pub dead: usize,
    /// Entropy in bits per code; 0 when nothing was observed.
    pub entropy_bits: f64,
    /// 2 to the entropy, in codes; 0 when nothing was observed.
    pub perplexity: f64,
}

impl CodeStatistics {
    /// Empty tables for these codebook sizes, one per depth.
    pub fn new(codebook_sizes: &[usize]) -> Self {
        let empty = |&codebook_size: &usize| CodeCounts {
            codebook_size,
            seen: BTreeMap::new(),
        };
        Self {
            tables: codebook_sizes.iter().map(empty).collect(),
        }
    }

    /// Counts codes `[batch, depth, height, width]`. Nothing is counted when one of them is out of
    /// range.
    pub fn observe(&mut self, codes: &[u32], shape: [usize; 4]) -> Result<(), MetricError> {
        let [batch, depth, height, width] = shape;
        if depth != self.tables.len() {
            return Err(MetricError::LayoutMismatch {
                expected: self.codebook_sizes(),
                got: vec![0; depth],
            });
        }
        let expected = batch * depth * height * width;
        if codes.len() != expected {
            return Err(MetricError::WrongLength {
                what: "codes",
                shape: shape.to_vec(),
                expected,
                got: codes.len(),
            });
        }
        if expected == 0 {
            return Ok(());
        }
        let plane = height * width;
        for (i, codes) in codes.chunks_exact(plane).enumerate() {
            let codebook_size = self.tables[i % depth].codebook_size;
            if let Some(&code) = codes.iter().find(|&&code| code as usize >= codebook_size) {
                return Err(MetricError::CodeOutOfRange {
                    code,
                    depth: i % depth,
                    codebook_size,
                });
            }
        }
        for (i, codes) in codes.chunks_exact(plane).enumerate() {
            let seen = &mut self.tables[i % depth].seen;
            codes
                .iter()
                .for_each(|&code| *seen.entry(code).or_insert(0) += 1);
        }
        Ok(())
    }

    /// Adds the counts of another accumulator over the same codebooks.
    pub fn merge(&mut self, other: &Self) -> Result<(), MetricError> {
        if self.codebook_sizes() != other.codebook_sizes() {
            return Err(MetricError::LayoutMismatch {
                expected: self.codebook_sizes(),
                got: other.codebook_sizes(),
            });
        }
        for (table, more) in self.tables.iter_mut().zip(&other.tables) {
            table.add(more);
        }
        Ok(())
    }

    /// Sizes of the codebooks, one per depth.
    pub fn codebook_sizes(&self) -> Vec<usize> {
        self.tables
            .iter()
            .map(|table| table.codebook_size)
            .collect()
    }

    /// Number of depths.
    pub fn depth(&self) -> usize {
        self.tables.len()
    }

    /// Counts of each code at a depth. Panics when there is no such depth.
    pub fn counts(&self, depth: usize) -> &CodeCounts {
        &self.tables[depth]
    }

    /// Statistics of every depth.
    pub fn per_depth(&self) -> Vec<DepthStatistics> {
        self.tables.iter().map(DepthStatistics::of).collect()
    }

    /// Statistics of one codebook that all depths share. `None` when their sizes differ.
    pub fn shared(&self) -> Option<DepthStatistics> {
        self.summed().as_ref().map(DepthStatistics::of)
    }

    /// The counts of all depths added. `None` when their sizes differ.
    pub fn summed(&self) -> Option<CodeCounts> {
        let (first, others) = self.tables.split_first()?;
        let mut sum = first.clone();
        for table in others {
            if table.codebook_size != sum.codebook_size {
                return None;
            }
            sum.add(table);
        }
        Some(sum)
    }
}

impl CodeCounts {
    /// Number of codes, seen or not.
    pub fn codebook_size(&self) -> usize {
        self.codebook_size
    }

    /// How often a code was seen.
    pub fn of(&self, code: u32) -> u64 {
        self.seen.get(&code).copied().unwrap_or(0)
    }

    /// How often each code was seen that was, in the order of codes.
    pub fn seen(&self) -> impl Iterator<Item = u64> {
        self.seen.values().copied()
    }

    fn add(&mut self, other: &Self) {
        for (&code, count) in &other.seen {
            *self.seen.entry(code).or_insert(0) += count;
        }
    }
}

impl DepthStatistics {
    fn of(counts: &CodeCounts) -> Self {
        let (codebook_size, used) = (counts.codebook_size, counts.seen.len());
        let observed: u64 = counts.seen().sum();
        let terms = counts.seen().map(|count| {
            let p = count as f64 / observed as f64;
            -p * p.log2()
        });
        // A single used code gives -1 * log2(1) = -0.
        let entropy_bits = terms.sum::<f64>().max(0.0);
        Self {
            codebook_size,
            observed,
            usage: if codebook_size == 0 {
                0.0
            } else {
                used as f64 / codebook_size as f64
            },
            dead: codebook_size - used,
            entropy_bits,
            perplexity: if observed == 0 {
                0.0
            } else {
                entropy_bits.exp2()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_counts() {
        let mut statistics = CodeStatistics::new(&[4, 8]);
        // Depth 0: 0 0 1 1 0 0 1 1; depth 1: always 7.
        statistics
            .observe(
                &[0, 0, 1, 1, 7, 7, 7, 7, 0, 0, 1, 1, 7, 7, 7, 7],
                [2, 2, 2, 2],
            )
            .unwrap();
        let [first, second] = &statistics.per_depth()[..] else {
            panic!("two depths")
        };
        assert_eq!((first.usage, first.dead, first.observed), (0.5, 2, 8));
        assert!((first.entropy_bits - 1.0).abs() < 1e-12 && (first.perplexity - 2.0).abs() < 1e-12);
        assert_eq!(
            (
                second.usage,
                second.dead,
                second.entropy_bits,
                second.perplexity
            ),
            (0.125, 7, 0.0, 1.0)
        );
        assert_eq!(statistics.shared(), None);
        assert_eq!(
            (statistics.counts(1).of(7), statistics.counts(1).of(0)),
            (8, 0)
        );
    }

    #[test]
    fn shared_codebook_adds_depths() {
        let mut statistics = CodeStatistics::new(&[2, 2]);
        statistics.observe(&[0, 0, 1, 1], [1, 2, 1, 2]).unwrap();
        let shared = statistics.shared().unwrap();
        assert_eq!(
            (shared.usage, shared.entropy_bits, shared.observed),
            (1.0, 1.0, 4)
        );
    }

    #[test]
    fn codebooks_without_a_table_cost_nothing() {
        let mut statistics = CodeStatistics::new(&[1 << 31, 1 << 31]);
        let last = (1u32 << 31) - 1;
        statistics
            .observe(&[0, last, last, last], [1, 2, 1, 2])
            .unwrap();
        let [first, second] = &statistics.per_depth()[..] else {
            panic!("two depths")
        };
        assert_eq!((first.entropy_bits, first.dead), (1.0, (1 << 31) - 2));
        assert_eq!((second.perplexity, second.observed), (1.0, 2));
        let summed = statistics.summed().unwrap();
        assert_eq!(summed.seen().collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn wrong_input_changes_nothing() {
        let mut statistics = CodeStatistics::new(&[4, 2]);
        let before = statistics.clone();
        assert_eq!(
            statistics.observe(&[0, 2], [1, 2, 1, 1]),
            Err(MetricError::CodeOutOfRange {
                code: 2,
                depth: 1,
                codebook_size: 2
            })
        );
        assert!(matches!(
            statistics.observe(&[0], [1, 1, 1, 1]),
            Err(MetricError::LayoutMismatch { .. })
        ));
        assert!(matches!(
            statistics.observe(&[0], [1, 2, 1, 1]),
            Err(MetricError::WrongLength { .. })
        ));
        assert!(statistics.merge(&CodeStatistics::new(&[4, 3])).is_err());
        assert_eq!(statistics, before);
        let empty = &statistics.per_depth()[0];
        assert_eq!(
            (empty.usage, empty.entropy_bits, empty.perplexity),
            (0.0, 0.0, 0.0)
        );
    }

    proptest! {
        #[test]
        fn merging_parts_equals_the_whole(
            codes in proptest::collection::vec(0u32..16, 2..40),
            cut in 0usize..40,
        ) {
            let cut = cut.min(codes.len());
            let mut whole = CodeStatistics::new(&[16]);
            whole.observe(&codes, [1, 1, 1, codes.len()]).unwrap();
            let mut left = CodeStatistics::new(&[16]);
            let mut right = left.clone();
            left.observe(&codes[..cut], [1, 1, 1, cut]).unwrap();
            right.observe(&codes[cut..], [1, 1, 1, codes.len() - cut]).unwrap();
            left.merge(&right).unwrap();
            prop_assert_eq!(&left, &whole);
            let statistics = &whole.per_depth()[0];
            prop_assert!(statistics.perplexity >= 1.0 - 1e-9);
            prop_assert!(statistics.perplexity <= 16.0 * (statistics.usage + 1e-9));
        }
    }
}
