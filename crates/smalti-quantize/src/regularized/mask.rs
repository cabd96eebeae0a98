//! Which positions take a drawn code instead of the best one.
//!
//! Of L positions of every image `L − ⌊L·(1 − ratio)⌋` are drawn, independently for every image: those with the
//! largest of L uniform numbers. At 0.4 that is 103 of 256.

use smalti_nn::Noise;

/// Positions of an image that keep their best code.
pub(super) fn kept(positions: usize, ratio: f64) -> usize {
    // 100·(1 − 0.9) is a little less than 10.
    ((positions as f64 * (1.0 - ratio) + 1e-9).floor() as usize).min(positions)
}

/// Whether each position is drawn, image after image.
pub(super) fn drawn(images: usize, positions: usize, ratio: f64, noise: &mut Noise) -> Vec<bool> {
    let mut drawn = vec![false; images * positions];
    let kept = kept(positions, ratio);
    if kept == positions {
        return drawn;
    }
    for image in drawn.chunks_exact_mut(positions) {
        let ranks = noise.uniform_values(positions);
        let mut order: Vec<usize> = (0..positions).collect();
        order.sort_by(|&a, &b| ranks[a].total_cmp(&ranks[b]));
        for &position in &order[kept..] {
            image[position] = true;
        }
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_of_every_image_is_exact() {
        for (positions, ratio, expected) in [
            (256, 0.4, 103),
            (256, 0.0, 0),
            (256, 1.0, 256),
            (64, 0.5, 32),
            (100, 0.9, 90),
            (1, 0.4, 1),
        ] {
            let drawn = drawn(7, positions, ratio, &mut Noise::from_seed(3));
            for image in drawn.chunks(positions) {
                let count = image.iter().filter(|drawn| **drawn).count();
                assert_eq!(count, expected, "{ratio} of {positions}");
            }
        }
    }

    #[test]
    fn every_position_is_drawn_as_often_and_images_differ() {
        let drawn = drawn(4000, 8, 0.5, &mut Noise::from_seed(4));
        for position in 0..8 {
            let count = drawn.iter().skip(position).step_by(8).filter(|d| **d);
            let share = count.count() as f64 / 4000.0;
            assert!((share - 0.5).abs() < 0.03, "{position}: {share}");
        }
        assert_ne!(drawn[..8], drawn[8..16]);
    }
}
