//! The Inception score of generated images, from the logits of a classifier.
//!
//! `exp(mean_x KL(p(y|x) ‖ p(y)))` with `p(y)` the mean of the set (Salimans et al. 2016, arXiv 1606.03498, section 4): high
//! where each image is of one class and the classes are many. It is taken of parts of the set, whose mean and deviation
//! (of the population) are given; how a set is parted differs and changes the number. `f64` throughout.

use std::ops::Range;

use crate::MetricError;
use crate::features::{Features, enough};

/// How a set is parted. Order matters: shuffle with [`Features::select`] where it should not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Splits {
    /// So many parts, part i from `i·N/n` rounded down to the next one's begin, as torch-fidelity has it (n = 10,
    /// shuffled).
    Count(usize),
    /// Parts of so many images, the last of what is left, as the evaluator of ADM has it (5000).
    Size(usize),
}

/// Mean and deviation over the parts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InceptionScore {
    /// 1 to the number of classes.
    pub mean: f64,
    /// Root of the mean squared difference from it; 0 for a single part.
    pub deviation: f64,
}

/// The score of images by their logits, one row each.
///
/// # Errors
/// When there are no images, or fewer than parts, or parts of no image are asked for.
pub fn inception_score(logits: &Features, splits: Splits) -> Result<InceptionScore, MetricError> {
    let scores: Vec<f64> = parts(logits.len(), splits)?
        .into_iter()
        .map(|part| score(logits, part))
        .collect();
    let count = scores.len() as f64;
    let mean = scores.iter().sum::<f64>() / count;
    let squares: f64 = scores.iter().map(|score| (score - mean).powi(2)).sum();
    Ok(InceptionScore {
        mean,
        deviation: (squares / count).sqrt(),
    })
}

fn parts(count: usize, splits: Splits) -> Result<Vec<Range<usize>>, MetricError> {
    let (Splits::Count(number) | Splits::Size(number)) = splits;
    crate::psnr::positive("the number of parts, or of images in one,", number as f64)?;
    let least = match splits {
        Splits::Count(parts) => parts,
        Splits::Size(_) => 1,
    };
    enough(
        "the Inception score",
        "the set",
        (count as u64, least as u64),
    )?;
    Ok(match splits {
        Splits::Count(n) => (0..n).map(|i| i * count / n..(i + 1) * count / n).collect(),
        Splits::Size(size) => (0..count)
            .step_by(size)
            .map(|from| from..(from + size).min(count))
            .collect(),
    })
}

fn score(logits: &Features, part: Range<usize>) -> f64 {
    let logs: Vec<Vec<f64>> = part.map(|i| log_softmax(logits.row(i))).collect();
    let count = logs.len() as f64;
    let mut mean = vec![0.0; logits.width()];
    for row in &logs {
        for (m, log) in mean.iter_mut().zip(row) {
            *m += log.exp() / count;
        }
    }
    let divergence = |row: &Vec<f64>| -> f64 {
        let terms = row.iter().zip(&mean);
        // Where p is 0 in f64 its term is: the mean may be 0 there as well.
        let terms = terms.filter(|(log, _)| log.exp() > 0.0);
        terms.map(|(log, mean)| log.exp() * (log - mean.ln())).sum()
    };
    (logs.iter().map(divergence).sum::<f64>() / count).exp()
}

fn log_softmax(row: &[f32]) -> Vec<f64> {
    let row = row.iter().map(|&v| f64::from(v));
    let most = row.clone().fold(f64::NEG_INFINITY, f64::max);
    let total = row.clone().map(|v| (v - most).exp()).sum::<f64>().ln();
    row.map(|v| v - most - total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;

    #[test]
    fn golden_scores_of_every_parting() {
        let golden = Golden::sets();
        let logits = golden.features("logits");
        let order: Vec<usize> = golden
            .integers("isc_permutation_seed2020")
            .into_iter()
            .map(|i| i as usize)
            .collect();
        let close = |name: &str, got: f64, expected: f64| {
            assert!((got - expected).abs() < 1e-10, "{name}: {got} {expected}");
        };
        for (set, splits, name) in [
            (
                logits.select(&order),
                Splits::Count(10),
                "isc_split10_shuffled_f64",
            ),
            (logits.clone(), Splits::Count(10), "isc_split10_order_f64"),
            (logits.clone(), Splits::Count(3), "isc_split3_order_f64"),
            (logits.clone(), Splits::Count(1), "isc_split1_f64"),
        ] {
            let score = inception_score(&set, splits).unwrap();
            let expected = golden.numbers(name);
            close(name, score.mean, expected[0]);
            close(name, score.deviation, expected[1]);
        }
        let adm = golden.numbers("isc_adm_split_size_f64");
        let score = inception_score(&logits, Splits::Size(adm[0] as usize)).unwrap();
        close("isc_adm_split_size_f64", score.mean, adm[1]);
    }

    #[test]
    fn certain_images_of_all_classes_score_their_number() {
        let mut logits = Features::new(4);
        for class in 0..4 {
            let mut row = [0.0; 4];
            row[class] = 2000.0;
            logits.extend(&row).unwrap();
        }
        let score = inception_score(&logits, Splits::Count(1)).unwrap();
        assert!((score.mean - 4.0).abs() < 1e-12);
        let one = logits.select(&[2, 2, 2]);
        assert_eq!(inception_score(&one, Splits::Size(2)).unwrap().mean, 1.0);
    }

    #[test]
    fn parts_must_hold_images() {
        let mut logits = Features::new(2);
        assert!(inception_score(&logits, Splits::Size(5)).is_err());
        logits.extend(&[0.0, 1.0, 1.0, 0.0]).unwrap();
        for splits in [Splits::Count(0), Splits::Count(3), Splits::Size(0)] {
            assert!(inception_score(&logits, splits).is_err(), "{splits:?}");
        }
        assert_eq!(parts(7, Splits::Size(3)).unwrap(), [0..3, 3..6, 6..7]);
        assert_eq!(parts(7, Splits::Count(2)).unwrap(), [0..3, 3..7]);
    }
}
