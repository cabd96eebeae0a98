//! Vectors of images: what sets of images are compared by.

use crate::MetricError;
use crate::matrix::Matrix;

/// One vector for each image, in `f32` as networks give them.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    width: usize,
    values: Vec<f32>,
}

impl Features {
    /// No vectors yet, of so many numbers each.
    pub fn new(width: usize) -> Self {
        Self {
            width,
            values: Vec::new(),
        }
    }

    /// Adds vectors, one behind the other. Nothing is added when one of them cannot be.
    pub fn extend(&mut self, rows: &[f32]) -> Result<(), MetricError> {
        check_rows(rows, self.width)?;
        self.values.extend_from_slice(rows);
        Ok(())
    }

    /// Numbers of a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How many vectors.
    pub fn len(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All vectors, one behind the other.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// A vector. Panics when there are not so many.
    pub fn row(&self, number: usize) -> &[f32] {
        &self.values[number * self.width..][..self.width]
    }

    /// Some of the vectors, in the order of their numbers here. Panics when there are not so many.
    pub fn select(&self, numbers: &[usize]) -> Self {
        let rows = numbers.iter().flat_map(|&number| self.row(number));
        Self {
            width: self.width,
            values: rows.copied().collect(),
        }
    }

    /// Vectors `from..to` in `f64`, less `origin`.
    pub(crate) fn block(&self, (from, to): (usize, usize), origin: &[f64]) -> Matrix {
        let rows = self.values[from * self.width..to * self.width].chunks_exact(self.width);
        let shifted = rows.flat_map(|row| row.iter().zip(origin).map(|(&v, o)| f64::from(v) - o));
        Matrix::from_rows(shifted.collect(), self.width)
    }

    /// Refuses generated vectors of other widths than this reference's, and fewer than `least` of either.
    pub(crate) fn require_comparable(
        &self,
        generated: &Self,
        (metric, least): (&'static str, usize),
    ) -> Result<(), MetricError> {
        same_width(self.width, generated.width)?;
        for (set, features) in [("the reference", self), ("the generated set", generated)] {
            enough(metric, set, (features.len() as u64, least as u64))?;
        }
        Ok(())
    }
}

/// Refuses what are no whole vectors of finite numbers.
pub(crate) fn check_rows(rows: &[f32], width: usize) -> Result<(), MetricError> {
    crate::psnr::positive("the width of vectors", width as f64)?;
    if !rows.len().is_multiple_of(width) {
        return Err(MetricError::WrongLength {
            what: "vectors of images",
            shape: vec![rows.len().div_ceil(width), width],
            expected: rows.len().next_multiple_of(width),
            got: rows.len(),
        });
    }
    if rows.iter().all(|value| value.is_finite()) {
        Ok(())
    } else {
        Err(MetricError::NotFinite {
            what: "a vector of an image",
        })
    }
}

pub(crate) fn same_width(left: usize, right: usize) -> Result<(), MetricError> {
    if left == right {
        Ok(())
    } else {
        Err(MetricError::WidthMismatch { left, right })
    }
}

pub(crate) fn enough(
    metric: &'static str,
    set: &'static str,
    (got, needed): (u64, u64),
) -> Result<(), MetricError> {
    if got >= needed {
        Ok(())
    } else {
        Err(MetricError::TooFew {
            metric,
            set,
            needed,
            got,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_finite_vectors_are_taken() {
        let mut features = Features::new(2);
        features.extend(&[1.0, 2.0, 3.0, 4.0]).unwrap();
        let before = features.clone();
        assert!(matches!(
            features.extend(&[1.0, 2.0, 3.0]),
            Err(MetricError::WrongLength { expected: 4, .. })
        ));
        let nan = features.extend(&[1.0, f32::NAN]);
        assert!(matches!(nan, Err(MetricError::NotFinite { .. })));
        assert_eq!(features, before);
        assert!(Features::new(0).extend(&[]).is_err());
    }

    #[test]
    fn vectors_are_counted_and_chosen() {
        let mut features = Features::new(2);
        assert!(features.is_empty());
        features.extend(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        assert_eq!((features.len(), features.row(1)), (3, &[3.0, 4.0][..]));
        let chosen = features.select(&[2, 0]);
        assert_eq!(chosen.values(), [5.0, 6.0, 1.0, 2.0]);
        let block = features.block((1, 3), &[1.0, 0.5]);
        assert_eq!(block.values(), [2.0, 3.5, 4.0, 5.5]);
    }
}
