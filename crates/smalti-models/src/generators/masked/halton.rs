//! An order of positions in which neighbours come far apart.
//!
//! The points of the two-dimensional Halton sequence (bases 2 and 3: rows, columns) fall into the cells of
//! the map; a cell's place in the order is that of its first point. Codes that are written at once
//! then are as far from one another as can be (Halton-MaskGIT of valeoai, arXiv 2503.17076). After step `i` of `S`
//! the first `⌊N·(1 − 2/π·arccos((i+1)/S))⌋` codes are written, at least `i + 1`.

/// Points for each cell that are tried before what is left is appended in raster order.
const TRIES: usize = 64;

/// Every position once, in Halton's order.
pub fn halton_order(height: usize, width: usize) -> Vec<usize> {
    let cells = height * width;
    let mut seen = vec![false; cells];
    let mut order = Vec::with_capacity(cells);
    for point in 1..=TRIES * cells {
        let place = |base, size: usize| (radical_inverse(point, base) * size as f64) as usize;
        let cell = place(2, height) * width + place(3, width);
        if !std::mem::replace(&mut seen[cell], true) {
            order.push(cell);
        }
        if order.len() == cells {
            break;
        }
    }
    order.extend((0..cells).filter(|&cell| !seen[cell]));
    order
}

/// The digits of a number mirrored at the point.
fn radical_inverse(mut number: usize, base: usize) -> f64 {
    let (mut value, mut digit) = (0.0, 1.0);
    while number > 0 {
        digit /= base as f64;
        value += digit * (number % base) as f64;
        number /= base;
    }
    value
}

/// How many of `codes` codes are written after each of `steps` steps, of which there are at most as many
/// as codes.
pub fn halton_totals(steps: usize, codes: usize) -> Vec<usize> {
    let total = |step: usize| {
        let share = 1.0 - ((step + 1) as f64 / steps as f64).acos() / std::f64::consts::FRAC_PI_2;
        let wanted = (codes as f64 * share) as usize;
        // At least one in every step, this one and those behind it.
        wanted.clamp(step + 1, codes - (steps - 1 - step))
    };
    let mut totals: Vec<usize> = (0..steps).map(total).collect();
    totals[steps - 1] = codes;
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_position_comes_once_and_neighbours_far_apart() {
        for (height, width) in [(1, 1), (4, 4), (16, 16), (3, 5), (1, 9)] {
            let order = halton_order(height, width);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..height * width).collect::<Vec<_>>());
        }
        // (1/2, 1/3), (1/4, 2/3), (3/4, 1/9), (1/8, 4/9) of 4 rows and 4 columns.
        assert_eq!(halton_order(4, 4)[..4], [9, 6, 12, 1]);
    }

    #[test]
    fn totals_grow_to_the_whole() {
        for codes in [1, 7, 64, 256] {
            for steps in [1, 5, 32].into_iter().filter(|&steps| steps <= codes) {
                let totals = halton_totals(steps, codes);
                assert!(totals[0] > 0 && totals.windows(2).all(|pair| pair[0] < pair[1]));
                assert_eq!(totals[steps - 1], codes);
            }
        }
        // 256·(1 − 2/π·arccos(1/2)) is a third.
        assert_eq!(halton_totals(2, 256), [85, 256]);
    }
}
