//! Precision and recall of a set of generated images.
//!
//! A set covers the balls around its vectors that reach to their k-th nearest neighbours in the set. Precision is the
//! share of generated vectors within a ball of the reference, recall the share of reference vectors within a ball of the
//! generated ones (Kynkäänniemi et al. 2019, arXiv 1904.06991, section 3; k = 3 there). A vector on the
//! surface is within. torch-fidelity and the evaluator of ADM (Dhariwal, Nichol 2021, arXiv 2105.05233) state
//! the same with the (k + 1)-th smallest distance, a vector's own counted, the latter by squares.
//!
//! Distances are `|x|² + |y|² − 2·x·y` in `f64` about the reference's mean. Two of them that differ by less than
//! that formula's rounding count as equal, so that copies lie on each other. Both shares depend on how many images
//! there are: compare sets of equal size.

use crate::MetricError;
use crate::features::Features;
use crate::matrix::{Matrix, dot};

/// Vectors whose distances to all others are taken together.
const BLOCK: usize = 512;
/// Rounding of a squared distance, in parts of the squares that it is the difference of.
const ROUNDING: f64 = 1e-13;

/// What of each set the other covers, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionRecall {
    /// Share of the generated vectors that the reference covers.
    pub precision: f64,
    /// Share of the reference vectors that the generated ones cover.
    pub recall: f64,
}

/// Precision and recall by balls that reach to so many neighbours.
///
/// # Errors
/// When widths differ, `neighbours` is 0, or a set does not have more vectors.
pub fn precision_recall(
    reference: &Features,
    generated: &Features,
    neighbours: usize,
) -> Result<PrecisionRecall, MetricError> {
    crate::psnr::positive("the number of neighbours", neighbours as f64)?;
    reference.require_comparable(
        generated,
        ("the measure of precision and recall", neighbours + 1),
    )?;
    let origin = mean(reference);
    let sets = [
        Centred::new(reference, &origin),
        Centred::new(generated, &origin),
    ];
    let [reference, generated] = &sets;
    Ok(PrecisionRecall {
        precision: covered(generated, reference, &radii(reference, neighbours)),
        recall: covered(reference, generated, &radii(generated, neighbours)),
    })
}

/// A set about an origin.
struct Centred<'a> {
    features: &'a Features,
    origin: &'a [f64],
    /// `|x|²`
    squares: Vec<f64>,
}

impl<'a> Centred<'a> {
    fn new(features: &'a Features, origin: &'a [f64]) -> Self {
        let mut set = Self {
            features,
            origin,
            squares: Vec::new(),
        };
        for part in set.blocks() {
            let rows = set.rows(part);
            let squares = (0..rows.rows()).map(|row| dot(rows.row(row), rows.row(row)));
            set.squares.extend(squares);
        }
        set
    }

    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let count = self.features.len();
        (0..count)
            .step_by(BLOCK)
            .map(move |from| (from, (from + BLOCK).min(count)))
    }

    fn rows(&self, part: (usize, usize)) -> Matrix {
        self.features.block(part, self.origin)
    }
}

fn mean(features: &Features) -> Vec<f64> {
    let mut mean = vec![0.0; features.width()];
    for row in features.values().chunks_exact(features.width()) {
        for (m, &v) in mean.iter_mut().zip(row) {
            *m += f64::from(v) / features.len() as f64;
        }
    }
    mean
}

/// Calls with the number of each vector and its squared distances to all of `others`.
fn for_each(set: &Centred<'_>, others: &Centred<'_>, mut call: impl FnMut(usize, &mut [f64])) {
    let mut distances = vec![0.0; others.features.len()];
    for part in set.blocks() {
        let rows = set.rows(part);
        // All products of a block with the others, part by part.
        let products: Vec<Matrix> = others
            .blocks()
            .map(|part| rows.times_transposed(&others.rows(part)))
            .collect();
        for row in 0..rows.rows() {
            let (number, mut start) = (part.0 + row, 0);
            for block in &products {
                let products = block.row(row);
                let squares = &others.squares[start..][..products.len()];
                let distances = &mut distances[start..][..products.len()];
                for ((distance, product), square) in distances.iter_mut().zip(products).zip(squares)
                {
                    *distance = set.squares[number] + square - 2.0 * product;
                }
                start += products.len();
            }
            call(number, &mut distances);
        }
    }
}

/// The squared distance of each vector to its so-manieth neighbour in its own set.
fn radii(set: &Centred<'_>, neighbours: usize) -> Vec<f64> {
    let mut radii = vec![0.0; set.features.len()];
    for_each(set, set, |number, distances| {
        // The vector itself is the nearest.
        radii[number] = *distances
            .select_nth_unstable_by(neighbours, f64::total_cmp)
            .1;
    });
    radii
}

/// The share of `set` within a ball of `others`.
fn covered(set: &Centred<'_>, others: &Centred<'_>, radii: &[f64]) -> f64 {
    let mut within = 0;
    for_each(set, others, |number, distances| {
        let own = set.squares[number];
        let balls = distances.iter().zip(radii).zip(&others.squares);
        let mut reached = balls.map(|((d, r), square)| *d <= r + ROUNDING * (own + square));
        within += usize::from(reached.any(|reached| reached));
    });
    within as f64 / set.features.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;

    #[test]
    fn golden_shares_of_both_definitions() {
        let golden = Golden::sets();
        let (reference, generated) = (golden.features("feat_ref"), golden.features("feat_gen"));
        for (neighbours, name) in [
            (3, "prc_torch_fidelity_k3_f64"),
            (5, "prc_torch_fidelity_k5_f64"),
            (3, "adm_precision_recall_k3_f64"),
        ] {
            let shares = precision_recall(&reference, &generated, neighbours).unwrap();
            let expected = golden.numbers(name);
            // torch-fidelity's shares are f32: whole images must agree.
            let images = |share: f64| (share * 120.0 * 1e4).round() / 1e4;
            assert_eq!(images(shares.precision), images(expected[0]), "{name}");
            assert_eq!(images(shares.recall), images(expected[1]), "{name}");
            assert_eq!(images(shares.recall).fract(), 0.0);
        }
    }

    #[test]
    fn golden_radii() {
        let golden = Golden::sets();
        for set in ["ref", "gen"] {
            let features = golden.features(&format!("feat_{set}"));
            let origin = mean(&features);
            let radii = radii(&Centred::new(&features, &origin), 3);
            let expected = golden.floats(&format!("adm_radii_{set}_sq"));
            assert_eq!(radii.len(), expected.len());
            for (got, expected) in radii.iter().zip(expected) {
                // Kept in f32.
                assert!(
                    (got / f64::from(expected) - 1.0).abs() < 1e-6,
                    "{got} {expected}"
                );
            }
        }
    }

    /// `count` places on a line, `step` apart.
    fn line(count: usize, start: f32, step: f32) -> Features {
        let mut features = Features::new(1);
        let places: Vec<f32> = (0..count).map(|i| start + step * i as f32).collect();
        features.extend(&places).unwrap();
        features
    }

    #[test]
    fn copies_cover_each_other_and_strangers_do_not() {
        // More than a block, and far from zero, where squares lose digits.
        let many = line(BLOCK + 9, 1e4, 0.25);
        let same = precision_recall(&many, &many, 3).unwrap();
        assert_eq!((same.precision, same.recall), (1.0, 1.0));
        // All of one place: balls without extent.
        let points = line(5, 3.0, 0.0);
        let same = precision_recall(&points, &points, 2).unwrap();
        assert_eq!((same.precision, same.recall), (1.0, 1.0));
        let far = precision_recall(&line(9, 0.0, 1.0), &line(9, 100.0, 1.0), 2).unwrap();
        assert_eq!((far.precision, far.recall), (0.0, 0.0));
    }

    #[test]
    fn a_part_is_precise_and_recalls_a_part() {
        let (whole, part) = (line(100, 0.0, 1.0), line(20, 0.0, 1.0));
        let shares = precision_recall(&whole, &part, 1).unwrap();
        assert_eq!(shares.precision, 1.0);
        // Places 0 to 19 and, on the surface of the last ball, 20.
        assert!((shares.recall - 0.21).abs() < 1e-12, "{shares:?}");
    }

    #[test]
    fn sets_must_have_the_neighbours() {
        let error = precision_recall(&line(4, 0.0, 1.0), &line(3, 0.0, 1.0), 3);
        let message = error.unwrap_err().to_string();
        assert!(
            message.contains("at least 4 ") && message.contains("got 3"),
            "{message}"
        );
        assert!(precision_recall(&line(4, 0.0, 1.0), &line(4, 0.0, 1.0), 0).is_err());
    }
}
