//! Codes of a table that have shrunk to nothing.
//!
//! A code that training has left at zero (a table started near zero, weight decay, a moving average of nothing) stands
//! for no latent: its row is shorter than [`NEAR_ZERO`] of the median of all rows' lengths.

/// Share of the median length below which a row counts as zero.
pub const NEAR_ZERO: f64 = 1e-3;

/// How many rows of a table `[codes, width]` are near zero: `|Z_n| < 1e-3·median |Z|`. Where half of the rows or more
/// are exactly zero, these are counted.
///
/// # Panics
/// When the values are no rows of this width.
pub fn near_zero_rows(values: &[f32], width: usize) -> usize {
    assert!(
        width > 0 && values.len().is_multiple_of(width),
        "{} values are no rows of {width}",
        values.len()
    );
    let length = |row: &[f32]| {
        let squares = row.iter().map(|&v| f64::from(v).powi(2));
        squares.sum::<f64>().sqrt()
    };
    let mut lengths: Vec<f64> = values.chunks_exact(width).map(length).collect();
    lengths.sort_by(f64::total_cmp);
    let Some(median) = lengths.get(lengths.len() / 2) else {
        return 0;
    };
    let least = NEAR_ZERO * median;
    match least > 0.0 {
        true => lengths.partition_point(|length| *length < least),
        false => lengths.partition_point(|length| *length == 0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_held_against_the_median() {
        // Lengths 5, 1, 0.0009 and 0; the median is the third of four in order, 1.
        let table = [3.0, 4.0, 0.0, 1.0, 0.0009, 0.0, 0.0, 0.0];
        assert_eq!(near_zero_rows(&table, 2), 2);
        assert_eq!(near_zero_rows(&[0.1; 8], 2), 0);
        assert_eq!(near_zero_rows(&[], 2), 0);
    }

    #[test]
    fn a_table_of_zeros_is_near_zero() {
        assert_eq!(near_zero_rows(&[0.0, 0.0, 0.0, 1.0], 1), 3);
        assert_eq!(near_zero_rows(&[0.0; 4], 2), 2);
    }
}
