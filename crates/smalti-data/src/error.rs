//! What can be wrong with images, data sets and their configuration. Errors of token files are in
//! [`crate::TokenFileError`].

use std::path::PathBuf;

/// An error about images or data sets. Messages name the file and say what to do where that is not
/// obvious.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried, as a verb: read, write, list.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of no bytes where an image was expected.
    #[error(
        "{name} is empty (0 bytes), expected an image; the copy or download that made it probably failed"
    )]
    EmptyImage {
        /// The file.
        name: String,
    },
    /// Neither PNG, JPEG nor WebP.
    #[error(
        "{name} is not an image this program reads (PNG, JPEG, WebP), it looks like {looks_like}; convert it first"
    )]
    UnknownImageFormat {
        /// The file.
        name: String,
        /// The format by its first bytes.
        looks_like: String,
    },
    /// More pixels than allowed.
    #[error(
        "{name} has {width} x {height} pixels, more than the limit of {max_pixels}; raise the limit if you trust the file, or scale it down"
    )]
    ImageTooLarge {
        /// The file.
        name: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The limit.
        max_pixels: u64,
    },
    /// The data ends before the image does.
    #[error("{name} is cut off: the data ends before the image does; copy or download it again")]
    TruncatedImage {
        /// The file.
        name: String,
    },
    /// The decoder found something else wrong.
    #[error("{name} cannot be decoded: {source}")]
    CorruptImage {
        /// The file.
        name: String,
        /// What the decoder said.
        source: image::ImageError,
    },
    /// A pixel buffer that does not fit its size.
    #[error("an image of {width} x {height} needs {expected} {what}, got {got}")]
    WrongBuffer {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// What is counted.
        what: &'static str,
        /// How many there should be.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// An image without pixels.
    #[error("an image needs at least one pixel, got {width} x {height}")]
    NoPixels {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// A NaN where a pixel value was expected.
    #[error(
        "value {index} of an image of {width} x {height} is not a number; the network that made it has diverged or its weights are broken"
    )]
    NotANumber {
        /// Position in the buffer.
        index: usize,
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// A crop larger than the image it is cut from.
    #[error(
        "cannot cut {crop_width} x {crop_height} out of an image of {width} x {height}; put a resize step before the crop"
    )]
    CropTooLarge {
        /// Width wanted.
        crop_width: usize,
        /// Height wanted.
        crop_height: usize,
        /// Width there is.
        width: usize,
        /// Height there is.
        height: usize,
    },
    /// Settings that make no sense, every problem at once.
    #[error("the configuration of {what} is wrong: {}", problems.join("; "))]
    Config {
        /// Which part of the configuration.
        what: &'static str,
        /// Every problem found.
        problems: Vec<String>,
    },
    /// A folder, archive or atlas that does not have the expected layout.
    #[error("{path}: {problem}")]
    Layout {
        /// The file or folder.
        path: PathBuf,
        /// What was expected and what is there.
        problem: String,
    },
    /// An image of a data set that failed in a step after decoding.
    #[error("{name}: {source}")]
    InSample {
        /// The image.
        name: String,
        /// What went wrong.
        source: Box<DataError>,
    },
    /// Strict reading refused a data set with broken files.
    #[error("{broken} of {found} files of {path} cannot be used; the first is {first}")]
    Broken {
        /// The data set.
        path: PathBuf,
        /// Number of broken files.
        broken: usize,
        /// Number of files found.
        found: usize,
        /// The first one with its reason.
        first: String,
    },
}

impl DataError {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    pub(crate) fn layout(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Layout {
            path: path.into(),
            problem: problem.into(),
        }
    }

    #[allow(dead_code)]
    pub(crate) fn in_sample(self, name: &str) -> Self {
        Self::InSample {
            name: name.to_owned(),
            source: Box::new(self),
        }
    }
}
