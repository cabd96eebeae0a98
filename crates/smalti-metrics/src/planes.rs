//! One image as planes of `f64`: the form in which every metric of this crate computes.
//!
//! Values keep the scale of their source (0 to 255 for bytes, -1 to 1 for the library's float
//! images); each metric is told the width of that range as `data_range`.

use crate::MetricError;

/// An image `[channels, height, width]` in `f64`.
#[derive(Debug, Clone, PartialEq)]
pub struct Planes {
    shape: [usize; 3],
    data: Vec<f64>,
}

impl Planes {
    /// From interleaved bytes `[height, width, channels]`; values 0 to 255.
    pub fn from_u8_interleaved(
        pixels: &[u8],
        height: usize,
        width: usize,
        channels: usize,
    ) -> Result<Self, MetricError> {
        check(
            "interleaved bytes",
            &[height, width, channels],
            pixels.len(),
        )?;
        let mut data = Vec::with_capacity(pixels.len());
        for channel in 0..channels {
            data.extend(
                pixels
                    .iter()
                    .skip(channel)
                    .step_by(channels)
                    .map(|&value| f64::from(value)),
            );
        }
        Ok(Self {
            shape: [channels, height, width],
            data,
        })
    }

    /// From float planes `[channels, height, width]`; values as they are.
    pub fn from_f32(
        planes: &[f32],
        channels: usize,
        height: usize,
        width: usize,
    ) -> Result<Self, MetricError> {
        check("float planes", &[channels, height, width], planes.len())?;
        let data = planes.iter().map(|&value| f64::from(value)).collect();
        Ok(Self {
            shape: [channels, height, width],
            data,
        })
    }

    /// From double planes `[channels, height, width]`; values as they are.
    pub fn from_f64(
        data: Vec<f64>,
        channels: usize,
        height: usize,
        width: usize,
    ) -> Result<Self, MetricError> {
        check("double planes", &[channels, height, width], data.len())?;
        Ok(Self {
            shape: [channels, height, width],
            data,
        })
    }

    /// `[channels, height, width]`.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// All values, plane after plane, row after row.
    pub fn data(&self) -> &[f64] {
        &self.data
    }

    /// The planes one by one, each `height * width` values.
    pub fn planes(&self) -> impl Iterator<Item = &[f64]> {
        self.data.chunks_exact(self.shape[1] * self.shape[2])
    }

    /// The shape both have, or an error.
    pub(crate) fn common_shape(&self, other: &Self) -> Result<[usize; 3], MetricError> {
        if self.shape != other.shape {
            return Err(MetricError::ShapeMismatch {
                left: self.shape,
                right: other.shape,
            });
        }
        Ok(self.shape)
    }
}

fn check(what: &'static str, shape: &[usize], got: usize) -> Result<(), MetricError> {
    let expected = shape.iter().product();
    if expected == 0 {
        return Err(MetricError::Empty {
            what,
            shape: shape.to_vec(),
        });
    }
    if expected != got {
        return Err(MetricError::WrongLength {
            what,
            shape: shape.to_vec(),
            expected,
            got,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_bytes_become_planes() {
        let planes = Planes::from_u8_interleaved(&[1, 2, 3, 4, 5, 6], 1, 2, 3).unwrap();
        assert_eq!(planes.shape(), [3, 1, 2]);
        assert_eq!(planes.data(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }

    #[test]
    fn wrong_sizes_are_errors() {
        assert!(matches!(
            Planes::from_f32(&[0.0; 5], 1, 2, 3),
            Err(MetricError::WrongLength {
                expected: 6,
                got: 5,
                ..
            })
        ));
        assert!(matches!(
            Planes::from_f64(vec![], 3, 0, 4),
            Err(MetricError::Empty { .. })
        ));
    }
}
