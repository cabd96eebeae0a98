//! What can be wrong with a token file; one variant for each way.

use std::path::PathBuf;

use safetensors::Dtype;

/// An error about a token file or token cache.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The operating system refused to read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Writing failed.
    #[error(transparent)]
    Write(#[from] crate::DataError),
    /// Not a safetensors file.
    #[error("{path} is not a safetensors file: {reason}")]
    NotSafetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file is shorter or longer than its header says.
    #[error(
        "{path} should have {expected} bytes by its header, it has {got}; copy or download it again"
    )]
    WrongLength {
        /// The file.
        path: PathBuf,
        /// Bytes by the header.
        expected: u64,
        /// Bytes there are.
        got: u64,
    },
    /// A safetensors file of someone else.
    #[error("{path} holds no tokens of this program: its header has no entry \"smalti\"")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The description in the header is not understood.
    #[error("the description in the header of {path} is wrong: {reason}")]
    Description {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Another kind of file of this program.
    #[error("{path} is a file of format {got:?}, expected {expected:?}")]
    WrongFormat {
        /// The file.
        path: PathBuf,
        /// The format that can be read here.
        expected: &'static str,
        /// The format of the file.
        got: String,
    },
    /// A version this program does not know.
    #[error("{path} has version {got} of its format, this program reads version {expected}")]
    WrongVersion {
        /// The file.
        path: PathBuf,
        /// The version that can be read.
        expected: u32,
        /// The version of the file.
        got: u32,
    },
    /// A tensor that must be there is not.
    #[error("{path} has no tensor {name:?}")]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: &'static str,
    },
    /// Tensors that do not belong here.
    #[error("{path} has tensors that do not belong into it: {}", names.join(", "))]
    UnexpectedTensors {
        /// The file.
        path: PathBuf,
        /// Their names.
        names: Vec<String>,
    },
    /// A tensor of another number type.
    #[error("tensor {name:?} of {path} must hold {expected:?}, it holds {got:?}")]
    WrongType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: &'static str,
        /// The type it must have.
        expected: Dtype,
        /// The type it has.
        got: Dtype,
    },
    /// A tensor of another shape.
    #[error("tensor {name:?} of {path} must have {expected}, its shape is {got:?}")]
    WrongShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: &'static str,
        /// What it must have.
        expected: String,
        /// The shape it has.
        got: Vec<usize>,
    },
    /// A code outside of its codebook.
    #[error(
        "the code {code} at {position:?} (image, depth, row, column) of {path} is outside of its codebook of {codebook_size} codes"
    )]
    CodeOutOfRange {
        /// The file.
        path: PathBuf,
        /// The code.
        code: u32,
        /// Image, depth, row, column.
        position: [usize; 4],
        /// Size of the codebook at this depth.
        codebook_size: u32,
    },
    /// A value of the description or of an argument that cannot be.
    #[error("{path}: {reason}")]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// Codes of another tokenizer.
    #[error(
        "{path} was written by the tokenizer {got}, it cannot be decoded by the tokenizer {expected}: the codes mean other things there"
    )]
    WrongTokenizer {
        /// The file.
        path: PathBuf,
        /// Fingerprint of the tokenizer at hand.
        expected: String,
        /// Fingerprint in the file.
        got: String,
    },
}
