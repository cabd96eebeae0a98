//! Points of a scrambled Sobol sequence, bit for bit those of PyTorch 2's `SobolEngine`.
//!
//! A Sobol sequence fills the unit cube more evenly than random points do. Dimension `d` has 30
//! direction numbers `V_d[j]`, made by the recurrence of a primitive polynomial over GF(2) from
//! initial numbers (both are Joe and Kuo's table new-joe-kuo-6, 2008). In Gray code order a point
//! is its predecessor with one direction number xored in:
//! `x_{n+1} = x_n ^ V[number of trailing ones of n]`.
//!
//! Scrambling (Matoušek's linear scramble with a digital shift) multiplies every direction number
//! with a random unit lower triangular matrix of bits and starts from a random point. The random
//! bits are the lowest bits of the Mersenne Twister's outputs: 30 a dimension for the start, lowest
//! first, then 30 × 30 a dimension for the matrices, row by row, of which only the part below the
//! diagonal is used.
//!
//! Points are integers below 2³⁰; divided by 2³⁰ they lie in [0, 1).

mod mersenne;
#[cfg(test)]
mod tests;

use mersenne::MersenneTwister;

/// Bits of a coordinate.
pub const BITS: u32 = 30;

/// Dimensions of which the table below knows.
pub const MAX_DIMS: usize = 32;

/// The primitive polynomials, highest coefficient first. The first dimension has none.
const POLYNOMIALS: [u32; MAX_DIMS] = [
    1, 3, 7, 11, 13, 19, 25, 37, 41, 47, 55, 59, 61, 67, 91, 97, 103, 109, 115, 131, 137, 143, 145,
    157, 167, 171, 185, 191, 193, 203, 211, 213,
];

/// As many initial numbers as the polynomial's degree.
const INITIAL: [&[u32]; MAX_DIMS] = [
    &[1],
    &[1],
    &[1, 3],
    &[1, 3, 1],
    &[1, 1, 1],
    &[1, 1, 3, 3],
    &[1, 3, 5, 13],
    &[1, 1, 5, 5, 17],
    &[1, 1, 5, 5, 5],
    &[1, 1, 7, 11, 19],
    &[1, 1, 5, 1, 1],
    &[1, 1, 1, 3, 11],
    &[1, 3, 5, 5, 31],
    &[1, 3, 3, 9, 7, 49],
    &[1, 1, 1, 15, 21, 21],
    &[1, 3, 1, 13, 27, 49],
    &[1, 1, 1, 15, 7, 5],
    &[1, 3, 1, 15, 13, 25],
    &[1, 1, 5, 5, 19, 61],
    &[1, 3, 7, 11, 23, 15, 103],
    &[1, 3, 7, 13, 13, 15, 69],
    &[1, 1, 3, 13, 7, 35, 63],
    &[1, 3, 5, 9, 1, 25, 53],
    &[1, 3, 1, 13, 9, 35, 107],
    &[1, 3, 1, 5, 27, 61, 31],
    &[1, 1, 5, 11, 19, 41, 61],
    &[1, 3, 5, 3, 3, 13, 69],
    &[1, 1, 7, 13, 1, 19, 1],
    &[1, 3, 7, 5, 13, 19, 59],
    &[1, 1, 3, 9, 25, 29, 41],
    &[1, 3, 5, 13, 23, 1, 55],
    &[1, 3, 7, 3, 13, 59, 17],
];

type Directions = [u32; BITS as usize];

/// The first `count` points in `dims` dimensions, one after the other.
///
/// # Panics
/// When `dims` is not within 1..=32 or `count` is above 2³⁰.
pub fn scrambled_points(dims: usize, count: usize, seed: u32) -> Vec<u32> {
    assert!(
        (1..=MAX_DIMS).contains(&dims),
        "Sobol points have 1 to {MAX_DIMS} dimensions, got {dims}"
    );
    assert!(count <= 1 << BITS, "a sequence has 2^30 points");
    let mut random = MersenneTwister::new(seed);
    let mut bit = || random.next_u32() & 1;
    let mut point: Vec<u32> = (0..dims)
        .map(|_| (0..BITS).fold(0, |start, k| start | bit() << k))
        .collect();
    let scrambled: Vec<Directions> = (0..dims)
        .map(|dim| scramble(&directions(dim), &mut bit))
        .collect();
    let mut points = Vec::with_capacity(count * dims);
    for n in 0..count {
        points.extend_from_slice(&point);
        // The last point of a full sequence has no successor.
        let place = n.trailing_ones().min(BITS - 1) as usize;
        for (x, directions) in point.iter_mut().zip(&scrambled) {
            *x ^= directions[place];
        }
    }
    points
}

/// The direction numbers of one dimension, aligned to the highest of 30 bits.
fn directions(dim: usize) -> Directions {
    let mut numbers = [1_u32; BITS as usize];
    if dim > 0 {
        let (polynomial, initial) = (POLYNOMIALS[dim], INITIAL[dim]);
        let degree = initial.len();
        numbers[..degree].copy_from_slice(initial);
        for j in degree..BITS as usize {
            numbers[j] = (0..degree)
                .filter(|k| polynomial >> (degree - 1 - k) & 1 == 1)
                .fold(numbers[j - degree], |sum, k| {
                    sum ^ numbers[j - k - 1] << (k + 1)
                });
        }
    }
    for (j, number) in numbers.iter_mut().enumerate() {
        *number <<= BITS as usize - 1 - j;
    }
    numbers
}

/// Multiplies the direction numbers of a dimension with a random lower triangular matrix.
fn scramble(directions: &Directions, bit: &mut impl FnMut() -> u32) -> Directions {
    let mut scrambled = [0; BITS as usize];
    for p in 0..BITS {
        let mut row = 1 << (BITS - 1 - p);
        for c in 0..BITS {
            // Drawn in any case: the stream goes on behind it.
            let bit = bit();
            if c < p {
                row |= bit << (BITS - 1 - c);
            }
        }
        for (to, from) in scrambled.iter_mut().zip(directions) {
            *to |= ((row & from).count_ones() & 1) << (BITS - 1 - p);
        }
    }
    scrambled
}
