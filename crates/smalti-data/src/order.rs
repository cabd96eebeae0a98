//! The order in which an epoch visits images: a shuffle that depends on nothing but length, seed
//! and epoch.
//!
//! Own Fisher-Yates on ChaCha8 with unbiased bounded draws, so that an order written down today is
//! the same after an update of any library and on every machine: a resumed training continues
//! exactly. [`sample_rng`] is the generator of one image in one epoch, so that random preprocessing
//! does not depend on batch sizes or threads.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A permutation of `0..len`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochOrder {
    indices: Vec<usize>,
}

impl EpochOrder {
    /// The order of one epoch.
    pub fn new(len: usize, seed: u64, epoch: u64) -> Self {
        let mut rng = derived(seed, epoch, 0, b"order   ");
        let mut indices: Vec<usize> = (0..len).collect();
        for last in (1..len).rev() {
            indices.swap(last, below(&mut rng, last as u64 + 1) as usize);
        }
        Self { indices }
    }

    /// All indices in order.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// The indices from a position on: what is left of an epoch that was interrupted there.
    pub fn starting_at(&self, position: usize) -> &[usize] {
        &self.indices[position.min(self.indices.len())..]
    }
}

/// The generator for the random preprocessing of one image in one epoch.
pub fn sample_rng(seed: u64, epoch: u64, index: usize) -> ChaCha8Rng {
    derived(seed, epoch, index as u64, b"sample  ")
}

/// Which of `count` views of an image a visit in one epoch sees.
pub fn chosen_view(seed: u64, epoch: u64, index: usize, count: usize) -> usize {
    below(
        &mut derived(seed, epoch, index as u64, b"view    "),
        count as u64,
    ) as usize
}

fn derived(seed: u64, epoch: u64, index: u64, purpose: &[u8; 8]) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&epoch.to_le_bytes());
    key[16..24].copy_from_slice(&index.to_le_bytes());
    key[24..].copy_from_slice(purpose);
    ChaCha8Rng::from_seed(key)
}

/// Uniform in `0..bound`, without bias: draws from the incomplete last stretch are thrown away.
fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    let usable = u64::MAX - u64::MAX % bound;
    loop {
        let draw = rng.next_u64();
        if draw < usable {
            return draw % bound;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_down_order() {
        // A change here breaks the resuming of trainings.
        assert_eq!(EpochOrder::new(8, 42, 0).indices(), WRITTEN_DOWN);
    }

    const WRITTEN_DOWN: [usize; 8] = [2, 5, 1, 4, 6, 7, 0, 3];

    #[test]
    fn every_epoch_is_another_permutation() {
        let orders: Vec<EpochOrder> = (0..4)
            .flat_map(|epoch| {
                [
                    EpochOrder::new(100, 1, epoch),
                    EpochOrder::new(100, 2, epoch),
                ]
            })
            .collect();
        for (i, order) in orders.iter().enumerate() {
            let mut sorted = order.indices().to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..100).collect::<Vec<_>>());
            assert!(orders[..i].iter().all(|other| other != order));
        }
    }

    #[test]
    fn first_places_are_uniform() {
        let mut counts = [0; 5];
        for epoch in 0..5000 {
            counts[EpochOrder::new(5, 7, epoch).indices()[0]] += 1;
        }
        // Four standard deviations of a binomial of 5000 and 1/5 are 113.
        assert!(
            counts.iter().all(|&count: &i32| (count - 1000).abs() < 113),
            "{counts:?}"
        );
    }

    #[test]
    fn views_are_chosen_evenly_and_anew_in_every_epoch() {
        let choices = |epoch| (0..5000).map(move |image| chosen_view(7, epoch, image, 5));
        let mut counts = [0; 5];
        choices(0).for_each(|view| counts[view] += 1);
        assert!(
            counts.iter().all(|&count: &i32| (count - 1000).abs() < 113),
            "{counts:?}"
        );
        let again = choices(0).zip(choices(1)).filter(|(a, b)| a == b).count();
        assert!((again as i32 - 1000).abs() < 113, "{again}");
        assert!(choices(0).eq(choices(0)));
        assert!((0..9).all(|image| chosen_view(7, 3, image, 1) == 0));
    }

    #[test]
    fn resuming_continues_the_same_order() {
        let order = EpochOrder::new(10, 3, 1);
        assert_eq!(order.starting_at(4), &order.indices()[4..]);
        assert!(order.starting_at(11).is_empty());
        assert!(EpochOrder::new(0, 3, 1).indices().is_empty());
    }

    #[test]
    fn sample_generators_differ_in_every_argument() {
        let draws: Vec<u64> = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
            .map(|(s, e, i)| sample_rng(s, e, i).next_u64())
            .into();
        assert!((0..4).all(|i| !draws[..i].contains(&draws[i])));
        assert_eq!(
            sample_rng(5, 6, 7).next_u64(),
            sample_rng(5, 6, 7).next_u64()
        );
    }
}
