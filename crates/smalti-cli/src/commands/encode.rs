//! `smalti encode`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use smalti::{Image, Observer, Tokenizer};

use super::files::{Job, has_ending, jobs, make_parent};
use crate::arguments::EncodeOptions;
use crate::device::DeviceChoice;
use crate::terminal::Terminal;

/// Endings of images that are looked for in folders.
const IMAGES: [&str; 4] = ["png", "jpg", "jpeg", "webp"];
/// Ending of token files.
pub(crate) const TOKENS: &str = "tokens";

pub(crate) fn run(
    options: &EncodeOptions,
    device: &DeviceChoice,
    terminal: &mut Terminal,
) -> anyhow::Result<ExitCode> {
    let tokenizer = Tokenizer::load(&options.model, &device.open()?)?;
    let rename = |path: &Path| PathBuf::from(format!("{}.{TOKENS}", path.display()));
    let jobs = jobs(
        &options.images,
        &options.out,
        |path| has_ending(path, &IMAGES),
        rename,
    )?;
    let several = jobs.len() > 1;
    let mut broken = 0;
    if several {
        terminal.begin("encoding", "image", jobs.len() as u64);
    }
    for (done, job) in jobs.iter().enumerate() {
        if terminal.stop_requested() {
            anyhow::bail!(
                "stopped after {done} of {} images; those are complete",
                jobs.len()
            );
        }
        match encode(&tokenizer, job) {
            Ok(()) => {}
            Err(error) if several && !options.strict && !is_disk(&error) => {
                broken += 1;
                terminal.warn(&format!("skipped: {error:#}"));
            }
            Err(error) => return Err(error),
        }
        terminal.advance(done as u64 + 1, "");
    }
    terminal.end();
    let written = jobs.len() - broken;
    terminal.note(&format!(
        "{written} of {} images encoded to {}",
        jobs.len(),
        options.out.display()
    ));
    Ok(if written > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn encode(tokenizer: &Tokenizer, job: &Job) -> anyhow::Result<()> {
    let image = Image::open(&job.input)?;
    let name = job
        .input
        .file_name()
        .unwrap_or(job.input.as_os_str())
        .to_string_lossy();
    let tokens = tokenizer.encode(&name, &image)?;
    make_parent(&job.output)?;
    Ok(tokens.write(&job.output)?)
}

/// Whether the error is the disk's and not the image's: then the next image would fail as well.
fn is_disk(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|io| {
            matches!(
                io.kind(),
                std::io::ErrorKind::StorageFull
                    | std::io::ErrorKind::QuotaExceeded
                    | std::io::ErrorKind::PermissionDenied
                    | std::io::ErrorKind::ReadOnlyFilesystem
            )
        })
}
