//! What can be wrong with the arguments of a metric.

/// Wrong input to a metric.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MetricError {
    /// The two images to compare differ in size.
    #[error(
        "images to compare must have one shape (channels, height, width), got {left:?} and {right:?}"
    )]
    ShapeMismatch {
        /// Shape of the first image.
        left: [usize; 3],
        /// Shape of the second image.
        right: [usize; 3],
    },
    /// The buffer does not hold as many values as the shape says.
    #[error("{what}: the shape {shape:?} needs {expected} values, got {got}")]
    WrongLength {
        /// Which argument.
        what: &'static str,
        /// The shape given.
        shape: Vec<usize>,
        /// Product of the shape.
        expected: usize,
        /// Values in the buffer.
        got: usize,
    },
    /// A shape without any value.
    #[error("{what}: there is nothing to measure in shape {shape:?}")]
    Empty {
        /// Which argument.
        what: &'static str,
        /// The shape given.
        shape: Vec<usize>,
    },
    /// The window of the metric does not fit into the image.
    #[error("{metric} needs sides of at least {needed} pixels, got {height} x {width}")]
    TooSmall {
        /// Name of the metric.
        metric: &'static str,
        /// Smallest side that works.
        needed: usize,
        /// Height of the image.
        height: usize,
        /// Width of the image.
        width: usize,
    },
    /// A number that must be positive and finite is not.
    #[error("{what} must be positive and finite, got {got}")]
    NotPositive {
        /// Which argument.
        what: &'static str,
        /// Its value.
        got: f64,
    },
    /// The uniform window of SSIM must have a centre and more than one pixel.
    #[error("the uniform window of SSIM must be odd and at least 3 pixels wide, got {got}")]
    BadWindow {
        /// The width given.
        got: usize,
    },
    /// A code outside its codebook.
    #[error("code {code} at depth {depth} is outside of its codebook of {codebook_size} codes")]
    CodeOutOfRange {
        /// The code.
        code: u32,
        /// Depth at which it stands.
        depth: usize,
        /// Size of the codebook at this depth.
        codebook_size: usize,
    },
    /// Codes or statistics whose depth is not the one of the accumulator.
    #[error("expected codes of codebook sizes {expected:?} (one per depth), got {got:?}")]
    LayoutMismatch {
        /// Codebook sizes of the accumulator.
        expected: Vec<usize>,
        /// What came.
        got: Vec<usize>,
    },
    /// Vectors of different networks, or of different layers.
    #[error("vectors to compare must be of one width, got {left} and {right}")]
    WidthMismatch {
        /// Width of the first set's.
        left: usize,
        /// Width of the second set's.
        right: usize,
    },
    /// A set too small for a metric.
    #[error("{metric} needs at least {needed} images, got {got} in {set}")]
    TooFew {
        /// Name of the metric.
        metric: &'static str,
        /// Which set.
        set: &'static str,
        /// Fewest that work.
        needed: u64,
        /// How many there are.
        got: u64,
    },
    /// A NaN or an infinity where there must be none.
    #[error("{what} holds a NaN or an infinity")]
    NotFinite {
        /// Which argument.
        what: &'static str,
    },
}
