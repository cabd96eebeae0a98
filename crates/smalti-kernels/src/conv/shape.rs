//! The shape of a convolution: sizes, padding, and what they add up to.

/// Zeros around an image. Sides may differ: the downsampling of the VQGAN family pads one column on
/// the right and one row at the bottom only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Columns on the left.
    pub left: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns on the right.
    pub right: usize,
}

impl Padding {
    /// The same on all four sides.
    pub fn same(size: usize) -> Self {
        Self {
            top: size,
            left: size,
            bottom: size,
            right: size,
        }
    }
}

/// A 2-D convolution: input `[batch, in_channels, height, width]`, weight `[out_channels,
/// in_channels, kernel, kernel]`, output `[batch, out_channels, out_height, out_width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvShape {
    /// Number of images.
    pub batch: usize,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Height of the input.
    pub height: usize,
    /// Width of the input.
    pub width: usize,
    /// Height and width of the kernel.
    pub kernel: usize,
    /// Pixels from one window to the next, in both directions.
    pub stride: usize,
    /// Zeros around the input.
    pub padding: Padding,
}

/// Why a [`ConvShape`] describes no convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvShapeError {
    /// The kernel, the stride or a side of the image is 0.
    #[error(
        "a convolution needs an image, a kernel and a stride of at least 1, got {height}x{width}, {kernel} and {stride}"
    )]
    Zero {
        /// The height given.
        height: usize,
        /// The width given.
        width: usize,
        /// The kernel given.
        kernel: usize,
        /// The stride given.
        stride: usize,
    },
    /// The padded input is smaller than the kernel.
    #[error("a kernel of {kernel}x{kernel} does not fit a padded input of {height}x{width}")]
    TooSmall {
        /// The kernel given.
        kernel: usize,
        /// Height with padding.
        height: usize,
        /// Width with padding.
        width: usize,
    },
}

impl ConvShape {
    /// Says whether this is a convolution at all: sizes of at least 1, one window that fits.
    ///
    /// # Errors
    /// When it is not.
    pub fn validate(&self) -> Result<(), ConvShapeError> {
        let Self {
            height,
            width,
            kernel,
            stride,
            ..
        } = *self;
        if height == 0 || width == 0 || kernel == 0 || stride == 0 {
            return Err(ConvShapeError::Zero {
                height,
                width,
                kernel,
                stride,
            });
        }
        let (height, width) = (self.padded_height(), self.padded_width());
        if height < kernel || width < kernel {
            return Err(ConvShapeError::TooSmall {
                kernel,
                height,
                width,
            });
        }
        Ok(())
    }

    /// Height of the output.
    pub fn out_height(&self) -> usize {
        (self.padded_height() - self.kernel) / self.stride + 1
    }

    /// Width of the output.
    pub fn out_width(&self) -> usize {
        (self.padded_width() - self.kernel) / self.stride + 1
    }

    /// Values of the input.
    pub fn input_len(&self) -> usize {
        self.batch * self.in_channels * self.height * self.width
    }

    /// Values of the weight.
    pub fn weight_len(&self) -> usize {
        self.out_channels * self.in_channels * self.kernel * self.kernel
    }

    /// Values of the output.
    pub fn output_len(&self) -> usize {
        self.batch * self.out_channels * self.out_height() * self.out_width()
    }

    /// Multiplications, each with an addition, of the forward pass or of either gradient.
    pub fn multiply_adds(&self) -> usize {
        self.output_len() * self.in_channels * self.kernel * self.kernel
    }

    fn padded_height(&self) -> usize {
        self.height + self.padding.top + self.padding.bottom
    }

    fn padded_width(&self) -> usize {
        self.width + self.padding.left + self.padding.right
    }

    /// Panics with a sentence unless the shape is valid and each slice has its length: the check
    /// behind every entry.
    pub(super) fn check(&self, input: usize, weight: usize, output: usize) {
        if let Err(error) = self.validate() {
            panic!("{error}");
        }
        assert_eq!(
            input,
            self.input_len(),
            "the input of {self:?} has {} values, not {input}",
            self.input_len()
        );
        assert_eq!(
            weight,
            self.weight_len(),
            "the weight of {self:?} has {} values, not {weight}",
            self.weight_len()
        );
        assert_eq!(
            output,
            self.output_len(),
            "the output of {self:?} has {} values, not {output}",
            self.output_len()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ConvShape = ConvShape {
        batch: 2,
        in_channels: 3,
        out_channels: 5,
        height: 8,
        width: 6,
        kernel: 3,
        stride: 2,
        padding: Padding {
            top: 0,
            left: 0,
            bottom: 1,
            right: 1,
        },
    };

    #[test]
    fn sizes_add_up() {
        assert_eq!((SHAPE.out_height(), SHAPE.out_width()), (4, 3));
        assert_eq!(
            (SHAPE.input_len(), SHAPE.weight_len(), SHAPE.output_len()),
            (288, 135, 120)
        );
        assert_eq!(SHAPE.multiply_adds(), 120 * 27);
        assert_eq!(SHAPE.validate(), Ok(()));
        let same = ConvShape {
            stride: 1,
            padding: Padding::same(1),
            ..SHAPE
        };
        assert_eq!((same.out_height(), same.out_width()), (8, 6));
    }

    #[test]
    fn impossible_shapes_are_refused() {
        let zero = ConvShape { stride: 0, ..SHAPE };
        assert_eq!(
            zero.validate(),
            Err(ConvShapeError::Zero {
                height: 8,
                width: 6,
                kernel: 3,
                stride: 0
            })
        );
        let small = ConvShape { width: 1, ..SHAPE };
        assert_eq!(
            small.validate(),
            Err(ConvShapeError::TooSmall {
                kernel: 3,
                height: 9,
                width: 2
            })
        );
    }
}
