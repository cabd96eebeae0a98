//! Ids made of digits, one for each channel: mixed radix, in whole numbers only.
//!
//! A position with the digits `k_1 … k_m` of `L_1 … L_m` levels has the id `Σ k_i · Π_{j<i} L_j`
//! when the first channel is the least significant, `Σ k_i · Π_{j>i} L_j` when it is the most
//! significant. Published codes disagree about which it is, so every configuration says it.
//!
//! Shapes: digits `[batch, depth · m, height, width]`, ids `[batch, depth, height, width]`; the
//! channels of one code lie side by side.

use serde::{Deserialize, Serialize};

/// What the first channel of a code counts for in its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Significance {
    /// It is the least significant digit (little-endian).
    Lowest,
    /// It is the most significant digit (big-endian).
    Highest,
}

/// Numbers of levels, first channel first.
#[derive(Clone, Debug)]
pub(crate) struct Radix {
    levels: Vec<u32>,
    first: Significance,
}

impl Radix {
    pub(crate) fn new(levels: &[usize], first: Significance) -> Self {
        let level = |&level: &usize| u32::try_from(level).expect("validated to be below 2^31");
        Self {
            levels: levels.iter().map(level).collect(),
            first,
        }
    }

    /// Digits of two levels.
    pub(crate) fn bits(count: usize, first: Significance) -> Self {
        Self {
            levels: vec![2; count],
            first,
        }
    }

    /// Channels from the most to the least significant.
    fn by_significance(&self) -> impl DoubleEndedIterator<Item = usize> {
        let (count, first) = (self.levels.len(), self.first);
        (0..count).map(move |i| match first {
            Significance::Highest => i,
            Significance::Lowest => count - 1 - i,
        })
    }

    /// The id of the digits that `digit` gives for each channel.
    fn pack(&self, digit: impl Fn(usize) -> u32) -> u32 {
        self.by_significance()
            .fold(0, |id, channel| id * self.levels[channel] + digit(channel))
    }

    /// Hands the digits of `id` to `put`.
    fn unpack(&self, id: u32, mut put: impl FnMut(usize, u32)) {
        let mut rest = id;
        for channel in self.by_significance().rev() {
            put(channel, rest % self.levels[channel]);
            rest /= self.levels[channel];
        }
    }

    /// Ids of a map of digits; `shape` is that of the ids.
    pub(crate) fn pack_map(&self, digits: &[u32], shape: [usize; 4]) -> Vec<u32> {
        let [batch, depth, height, width] = shape;
        let (positions, channels) = (height * width, self.levels.len());
        let mut ids = Vec::with_capacity(batch * depth * positions);
        for code in 0..batch * depth {
            let first = code * channels * positions;
            ids.extend((0..positions).map(|position| {
                self.pack(|channel| digits[first + channel * positions + position])
            }));
        }
        ids
    }

    /// The inverse of [`pack_map`](Self::pack_map).
    pub(crate) fn unpack_map(&self, ids: &[u32], shape: [usize; 4]) -> Vec<u32> {
        let [_, _, height, width] = shape;
        let (positions, channels) = (height * width, self.levels.len());
        let mut digits = vec![0; ids.len() * channels];
        for (i, &id) in ids.iter().enumerate() {
            let (code, position) = (i / positions, i % positions);
            let first = code * channels * positions + position;
            self.unpack(id, |channel, digit| {
                digits[first + channel * positions] = digit;
            });
        }
        digits
    }
}

/// Number of ids that these levels make, or what is wrong with it.
pub(crate) fn product(levels: &[usize]) -> Result<usize, String> {
    let product = levels
        .iter()
        .try_fold(1usize, |product, &level| product.checked_mul(level))
        .filter(|product| *product <= i32::MAX as usize);
    // Ids are 32-bit integers on every device.
    product.ok_or_else(|| {
        "a code must have fewer than 2^31 values: spread the channels over more depth".into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_channel_counts_least_or_most() {
        let digits = [1, 2, 3];
        let pack = |first| Radix::new(&[8, 5, 4], first).pack(|i| digits[i]);
        assert_eq!(pack(Significance::Lowest), 1 + 8 * (2 + 5 * 3));
        assert_eq!(pack(Significance::Highest), 3 + 4 * (2 + 5));
        assert_eq!(
            Radix::bits(4, Significance::Highest).pack(|i| u32::from(i == 0)),
            8
        );
    }

    #[test]
    fn products_beyond_the_ids_are_refused_even_where_they_wrap() {
        assert_eq!(product(&[8, 8, 8, 5, 5, 5]), Ok(64_000));
        assert_eq!(product(&[2; 30]), Ok(1 << 30));
        for levels in [
            vec![2; 31],
            vec![2; 64],
            vec![1 << 32, 1 << 32],
            vec![16; 16],
        ] {
            assert!(product(&levels).unwrap_err().contains("2^31"), "{levels:?}");
        }
    }

    proptest! {
        #[test]
        fn unpacking_undoes_packing(
            levels in proptest::collection::vec(2usize..9, 1..6), seed: u32, depth in 1usize..3,
            highest: bool,
        ) {
            let first = if highest { Significance::Highest } else { Significance::Lowest };
            let radix = Radix::new(&levels, first);
            let (size, shape) = (product(&levels).unwrap() as u32, [2, depth, 3, 2]);
            let count = shape.iter().product::<usize>() as u32;
            let ids: Vec<u32> =
                (0..count).map(|i| seed.wrapping_mul(i.wrapping_add(7)) % size).collect();
            let digits = radix.unpack_map(&ids, shape);
            prop_assert_eq!(digits.len(), ids.len() * levels.len());
            for (i, digit) in digits.iter().enumerate() {
                prop_assert!((*digit as usize) < levels[i / 6 % levels.len()]);
            }
            prop_assert_eq!(radix.pack_map(&digits, shape), ids);
        }
    }
}
