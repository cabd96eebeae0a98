//! `smalti decode`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use smalti::{Observer, TokenFile, Tokenizer};

use super::encode::TOKENS;
use super::files::{Job, has_ending, jobs, make_parent};
use crate::arguments::DecodeOptions;
use crate::device::DeviceChoice;
use crate::terminal::Terminal;

pub(crate) fn run(
    options: &DecodeOptions,
    device: &DeviceChoice,
    terminal: &mut Terminal,
) -> anyhow::Result<ExitCode> {
    let tokenizer = Tokenizer::load(&options.model, &device.open()?)?;
    let jobs = jobs(
        &options.tokens,
        &options.out,
        |path| has_ending(path, &[TOKENS]),
        picture_name,
    )?;
    if jobs.len() > 1 {
        terminal.begin("decoding", "file", jobs.len() as u64);
    }
    for (done, job) in jobs.iter().enumerate() {
        if terminal.stop_requested() {
            anyhow::bail!(
                "stopped after {done} of {} files; those are complete",
                jobs.len()
            );
        }
        decode(&tokenizer, job)
            .map_err(|error| error.context(format!("cannot decode {}", job.input.display())))?;
        terminal.advance(done as u64 + 1, "");
    }
    terminal.end();
    terminal.note(&format!(
        "{} files decoded to {}",
        jobs.len(),
        options.out.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// `a/b.jpg.tokens` becomes `a/b.jpg.png`: two images that differ in their ending stay two.
fn picture_name(path: &Path) -> PathBuf {
    path.with_extension("png")
}

fn decode(tokenizer: &Tokenizer, job: &Job) -> anyhow::Result<()> {
    let tokens = TokenFile::read(&job.input)?;
    let images = tokenizer.decode(&tokens)?;
    make_parent(&job.output)?;
    if let [image] = &images[..] {
        return Ok(image.save_png(&job.output)?);
    }
    for (number, image) in images.iter().enumerate() {
        let stem = job.output.file_stem().unwrap_or_default().to_string_lossy();
        image.save_png(&job.output.with_file_name(format!("{stem}-{number}.png")))?;
    }
    Ok(())
}
