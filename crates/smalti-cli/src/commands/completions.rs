//! `smalti completions`

use std::process::ExitCode;

use clap::CommandFactory;

use crate::arguments::{Arguments, CompletionsOptions};
use crate::terminal::Terminal;

pub(crate) fn run(options: &CompletionsOptions, terminal: &Terminal) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(
        options.shell,
        &mut Arguments::command(),
        "smalti",
        &mut script,
    );
    terminal.data(&String::from_utf8(script)?)?;
    Ok(ExitCode::SUCCESS)
}
