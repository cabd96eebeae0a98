//! Where codes start: k-means over the first vectors seen.

use rand::RngExt;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use smalti_nn::nearest::nearest_rows;

/// `count` rows spread over `vectors` (rows of `width` numbers): `count` of them drawn at random,
/// then moved `iterations` times to the mean of the vectors nearest to them.
///
/// With fewer vectors than codes the vectors are repeated with a little noise, so that no two codes
/// are equal.
pub fn start_codes(
    vectors: &[f32],
    width: usize,
    count: usize,
    iterations: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<f32> {
    let available = vectors.len() / width;
    let row = |i: usize| &vectors[i * width..(i + 1) * width];
    if available <= count {
        let jitter = 0.01 / (width as f32).sqrt() * deviation(vectors);
        let mut codes = Vec::with_capacity(count * width);
        for i in 0..count {
            let noise = if i < available { 0.0 } else { jitter };
            codes.extend(row(i % available).iter().map(|v| v + noise * (2.0 * rng.random::<f32>() - 1.0)));
        }
        return codes;
    }
    let chosen = index::sample(rng, available, count);
    let mut codes: Vec<f32> = chosen.iter().flat_map(|i| row(i).iter().copied()).collect();
    for _ in 0..iterations {
        let nearest = nearest_rows(vectors, &codes, width);
        let (counts, sums) = group(vectors, width, &nearest, count);
        for (k, &n) in counts.iter().enumerate().filter(|(_, n)| **n > 0.0) {
            for j in 0..width {
                codes[k * width + j] = sums[k * width + j] / n;
            }
        }
    }
    codes
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

fn deviation(values: &[f32]) -> f32 {
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / values.len() as f32).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn finds_separate_clusters() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let centres = [-8.0f32, -1.0, 2.0, 9.0];
        let vectors: Vec<f32> = (0..400).map(|i| centres[i % 4] + rng.random::<f32>() * 0.2).collect();
        // Random starts may share a cluster; among a few seeds one must find all four.
        let found = (0..8).any(|seed| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut codes = start_codes(&vectors, 1, 4, 20, &mut rng);
            codes.sort_by(f32::total_cmp);
            codes.iter().zip(centres).all(|(code, centre)| (code - centre - 0.1).abs() < 0.05)
        });
        assert!(found);
    }

    #[test]
    fn few_vectors_still_give_distinct_codes() {
        let codes = start_codes(&[0.0, 1.0, 4.0, 2.0], 2, 5, 3, &mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!(codes[..4], [0.0, 1.0, 4.0, 2.0]);
        for i in 0..5 {
            for j in 0..i {
                assert_ne!(codes[2 * i..2 * i + 2], codes[2 * j..2 * j + 2]);
            }
        }
    }
}
