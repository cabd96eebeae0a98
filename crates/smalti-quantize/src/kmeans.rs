//! Where codes start: k-means over the first vectors seen.

use rand::RngExt;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use smalti_nn::nearest::nearest_rows;

/// Vectors that each moved code should at least have, lest it stays where one vector lies.
const VECTORS_PER_CODE: usize = 4;

/// `count` rows spread over `vectors` (rows of `width` numbers): some of them drawn at random, then
/// moved `iterations` times to the mean of the vectors nearest to them.
///
/// With fewer than four vectors for each code, only a quarter as many codes as there are vectors is
/// placed this way. The others are their siblings, up to half the way from a code to a random
/// vector nearest to it; only one whose code has no other vector equals that code, and waits for
/// revival. A code on each vector would leave no residual to place the codes of further depths on,
/// and would be chosen by no other vector.
pub fn start_codes(
    vectors: &[f32],
    width: usize,
    count: usize,
    iterations: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<f32> {
    let available = vectors.len() / width;
    let row = |i: usize| i * width..(i + 1) * width;
    let centres = count.min(available.div_ceil(VECTORS_PER_CODE));
    let chosen = index::sample(rng, available, centres);
    let mut codes: Vec<f32> = chosen
        .iter()
        .flat_map(|i| vectors[row(i)].to_vec())
        .collect();
    for _ in 0..iterations {
        let nearest = nearest_rows(vectors, &codes, width);
        let (counts, sums) = group(vectors, width, &nearest, centres);
        for (k, &n) in counts.iter().enumerate().filter(|(_, n)| **n > 0.0) {
            for (code, sum) in codes[row(k)].iter_mut().zip(&sums[row(k)]) {
                *code = sum / n;
            }
        }
    }
    if centres < count {
        let nearest = nearest_rows(vectors, &codes, width);
        for _ in centres..count {
            let i = rng.random_range(0..available);
            let centre = codes[row(nearest[i] as usize)].to_vec();
            codes.extend(between(
                &centre,
                &vectors[row(i)],
                0.5 * rng.random::<f32>(),
            ));
        }
    }
    codes
}

/// The point at `fraction` of the way from `start` to `end`.
pub(crate) fn between(start: &[f32], end: &[f32], fraction: f32) -> impl Iterator<Item = f32> {
    start
        .iter()
        .zip(end)
        .map(move |(s, e)| s + fraction * (e - s))
}

/// How many vectors chose each code, and the sum of those that did.
pub fn group(vectors: &[f32], width: usize, ids: &[u32], count: usize) -> (Vec<f32>, Vec<f32>) {
    let mut counts = vec![0.0; count];
    let mut sums = vec![0.0; count * width];
    for (vector, &id) in vectors.chunks_exact(width).zip(ids) {
        let id = id as usize;
        counts[id] += 1.0;
        for (sum, v) in sums[id * width..(id + 1) * width].iter_mut().zip(vector) {
            *sum += v;
        }
    }
    (counts, sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn finds_separate_clusters() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let centres = [-8.0f32, -1.0, 2.0, 9.0];
        let vectors: Vec<f32> = (0..400)
            .map(|i| centres[i % 4] + rng.random::<f32>() * 0.2)
            .collect();
        // Random starts may share a cluster; among a few seeds one must find all four.
        let found = (0..8).any(|seed| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut codes = start_codes(&vectors, 1, 4, 20, &mut rng);
            codes.sort_by(f32::total_cmp);
            codes
                .iter()
                .zip(centres)
                .all(|(code, centre)| (code - centre - 0.1).abs() < 0.05)
        });
        assert!(found);
    }

    #[test]
    fn few_vectors_still_give_distinct_codes_near_them() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let vectors: Vec<f32> = (0..40).map(|_| 5.0 * rng.random::<f32>()).collect();
        let codes = start_codes(&vectors, 2, 30, 3, &mut rng);
        assert!(codes.len() == 60 && codes.iter().all(|v| (0.0..5.0).contains(v)));
        for i in 0..30 {
            for j in 0..i {
                assert_ne!(codes[2 * i..2 * i + 2], codes[2 * j..2 * j + 2]);
            }
        }
    }

    #[test]
    fn a_first_batch_leaves_residuals_for_the_next_depth() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let vectors: Vec<f32> = (0..64).map(|_| rng.random::<f32>()).collect();
        let codes = start_codes(&vectors, 2, 32, 5, &mut rng);
        let nearest = nearest_rows(&vectors, &codes, 2);
        let exact = vectors
            .chunks_exact(2)
            .zip(nearest)
            .filter(|(vector, id)| *vector == &codes[*id as usize * 2..][..2])
            .count();
        assert!(exact < 8, "{exact} of 32 vectors are codes");
    }
}
