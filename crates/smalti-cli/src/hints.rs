//! What to do about an error, and the exit code it ends with.

use smalti::{DataError, Error, GenerateError, ImportError, TokenFileError, TokenizerError};

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
    let wrong = error
        .chain()
        .any(|cause| cause.is::<Misuse>() || cause.downcast_ref::<Error>().is_some_and(is_misuse));
    if wrong { MISUSED } else { FAILED }
}

/// Whether the error lies in what was asked for, not in how it went.
fn is_misuse(error: &Error) -> bool {
    matches!(
        error,
        Error::Config(_)
            | Error::ConfigSyntax { .. }
            | Error::OtherRun { .. }
            | Error::Request(_)
            | Error::Autoencoder(_)
            | Error::Generator(_)
            | Error::Generate(GenerateError::Request(_) | GenerateError::Sampling(_))
            | Error::Data(DataError::Config { .. })
    )
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
        if let Some(ImportError::Tokenizer(error)) = cause.downcast_ref::<ImportError>() {
            return of_error(error);
        }
        if let Some(error) = cause.downcast_ref::<DataError>() {
            return of_data(error);
        }
        match cause.downcast_ref::<TokenFileError>() {
            Some(TokenFileError::Write(error)) => return of_data(error),
            Some(TokenFileError::NotSafetensors { .. } | TokenFileError::Foreign { .. }) => {
                return Some("`smalti encode` writes token files".into());
            }
            _ => {}
        }
        let io = cause.downcast_ref::<std::io::Error>()?;
        of_io(io.kind())
    })
}

fn of_error(error: &Error) -> Option<String> {
    let text = match error {
        Error::ConfigSyntax { reason, .. } if reason.contains("unknown variant `comparison`") => {
            "`smalti compare` carries this file out"
        }
        Error::ConfigSyntax { reason, .. } if reason.contains("expected `comparison`") => {
            "`smalti train` carries out a single run"
        }
        Error::ConfigSyntax { .. }
        | Error::Config(_)
        | Error::Autoencoder(_)
        | Error::Generator(_) => "configs/ has a commented file for every recipe",
        Error::OtherRun { .. } => {
            "--out ANOTHER begins another run; `smalti train --resume RUN` goes on with the one that is there"
        }
        Error::Layout { problem, .. }
            if problem.contains("no config.toml that says")
                || problem.contains("needs another folder") =>
        {
            "--out ANOTHER begins another run"
        }
        Error::Layout { problem, .. } if problem.contains("not finished") => {
            "go on with `smalti train --resume RUN`"
        }
        Error::Layout { problem, .. }
            if ["the folder has no", "neither a run", "no such folder"]
                .iter()
                .any(|part| problem.contains(part)) =>
        {
            "a model folder is what `smalti train` leaves in RUN/model, or `smalti demo` in smalti-demo/tokenizer/model"
        }
        Error::Layout { problem, .. } if problem.contains("no means and variances") => {
            "a VAE is what `smalti train` makes with kind = \"gaussian\" under [model.quantizer]; published ones can be converted, too"
        }
        Error::Published(_) => {
            "what can be read: the folder of a diffusers AutoencoderKL, a file of latent diffusion (.ckpt, .safetensors), or the yaml of Gaussian Quant with its weights beside it"
        }
        Error::NonFinite { .. } => {
            "lower the learning rate or clip gradients, for example `smalti train --resume RUN --set optimizer.learning_rate=1e-4 --set optimizer.clip_norm=1.0`"
        }
        Error::Checkpoint { .. } => {
            "remove or move away the file to go on from the checkpoint before it"
        }
        Error::Request(problem) if problem.contains("images of one size") => {
            "`--resize PIXELS` makes squares of that side of all images"
        }
        Error::Stopped => {
            "the same command goes on; what was tokenized completely is not tokenized again"
        }
        Error::Data(error) => return of_data(error),
        Error::Io { source, .. } => return of_io(source.kind()),
        _ => return None,
    };
    Some(text.into())
}

fn of_data(error: &DataError) -> Option<String> {
    match error {
        DataError::Io { source, .. } => of_io(source.kind()),
        DataError::Broken { .. } => {
            Some("without --strict broken files are named and skipped".into())
        }
        _ => None,
    }
}

fn of_io(kind: std::io::ErrorKind) -> Option<String> {
    use std::io::ErrorKind;
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            Some("free some space; files that were there before are unharmed, and a training goes on with `smalti train --resume RUN`".into())
        }
        ErrorKind::PermissionDenied => Some("choose another folder with --out".into()),
        _ => None,
    }
}
