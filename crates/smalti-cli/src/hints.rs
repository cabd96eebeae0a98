//! What to do about an error, and the exit code it ends with.

use smalti::{DataError, Error, TokenFileError, TokenizerError};

/// Failed.
const FAILED: u8 = 1;
/// Used wrongly.
const MISUSED: u8 = 2;

/// The user asked for something that cannot be.
#[derive(Debug)]
pub(crate) struct Misuse(pub(crate) String);

impl std::fmt::Display for Misuse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misuse {}

/// 2 where the command or a configuration is wrong, 1 where the work failed.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    let wrong = error.chain().any(|cause| {
        cause.is::<Misuse>() || matches!(cause.downcast_ref::<Error>(), Some(Error::Config(_) | Error::ConfigSyntax { .. }))
    });
    if wrong { MISUSED } else { FAILED }
}

/// One line of advice, where there is any.
pub(crate) fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<Error>() {
            return of_error(error);
        }
        match cause.downcast_ref::<TokenizerError>() {
            Some(TokenizerError::OtherTokenizer { .. }) => {
                return Some("decode with the tokenizer that made the file: `smalti inspect FILE` names its fingerprint".into());
            }
            Some(TokenizerError::Other(error)) => return of_error(error),
            _ => {}
        }
        if let Some(error) = cause.downcast_ref::<DataError>() {
            return of_data(error);
        }
        if cause.is::<TokenFileError>() {
            return Some("`smalti encode` writes token files".into());
        }
        let io = cause.downcast_ref::<std::io::Error>()?;
        of_io(io.kind())
    })
}

fn of_error(error: &Error) -> Option<String> {
    let text = match error {
        Error::ConfigSyntax { .. } | Error::Config(_) => "configs/ has a commented file for every recipe",
        Error::Layout { problem, .. } if problem.contains("not finished") => "go on with `smalti train --resume RUN`",
        Error::Layout { problem, .. } if problem.contains("image_tokenizer.json") || problem.contains("no such folder") => {
            "a model folder is what `smalti train` leaves in RUN/model, or `smalti demo` in smalti-demo/tokenizer/model"
        }
        Error::NonFinite { .. } => "lower optimizer.learning_rate or set optimizer.clip_norm, then go on with `smalti train --resume RUN`",
        Error::Data(error) => return of_data(error),
        Error::Io { source, .. } => return of_io(source.kind()),
        _ => return None,
    };
    Some(text.into())
}

fn of_data(error: &DataError) -> Option<String> {
    match error {
        DataError::Io { source, .. } => of_io(source.kind()),
        DataError::Broken { .. } => Some("without --strict broken files are named and skipped".into()),
        _ => None,
    }
}

fn of_io(kind: std::io::ErrorKind) -> Option<String> {
    use std::io::ErrorKind;
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Some("free some space; what was there before is unharmed, and a training goes on with `smalti train --resume RUN`".into())
        }
        ErrorKind::PermissionDenied => Some("choose another folder with --out".into()),
        _ => None,
    }
}
