//! `smalti train`

use std::path::Path;
use std::process::ExitCode;

use smalti::{Observer, RunConfig, RunOutcome};

use super::files;
use crate::arguments::TrainOptions;
use crate::device::DeviceChoice;
use crate::hints::Misuse;
use crate::terminal::Terminal;

pub(crate) fn run(
    options: &TrainOptions,
    device: &DeviceChoice,
    terminal: &mut Terminal,
) -> anyhow::Result<ExitCode> {
    let (config, folder) = match (&options.resume, &options.config) {
        (Some(run), _) => (
            strict(resumed(run, &options.settings)?, options.strict),
            run.clone(),
        ),
        (None, Some(path)) => {
            let config = strict(RunConfig::read(path, &options.settings)?, options.strict);
            let folder = options
                .out
                .clone()
                .unwrap_or_else(|| files::run_folder(path));
            smalti::require_same_run(&config, path, &folder)?;
            (config, folder)
        }
        (None, None) => unreachable!("clap asks for one of the two"),
    };
    let device = device.open()?;
    match smalti::train(&config, &folder, &device, terminal)? {
        RunOutcome::Finished(model) => {
            let report = folder.join("report.html");
            terminal.data(&format!(
                "model   {}\nreport  {}\n",
                model.display(),
                report.display()
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        RunOutcome::Stopped { step, checkpoint } => {
            let folder = folder.display();
            terminal.note(&format!(
                "stopped after step {step}; the checkpoint is {}\ngo on with: smalti train --resume {folder}",
                checkpoint.display()
            ));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The configuration with `--strict` in it, where it was given.
fn strict(mut config: RunConfig, strict: bool) -> RunConfig {
    let data = match &mut config {
        RunConfig::Tokenizer(run) => &mut run.data,
        RunConfig::Generator(run) => &mut run.data,
    };
    data.strict |= strict;
    config
}

fn resumed(run: &Path, settings: &[String]) -> anyhow::Result<RunConfig> {
    let config = run.join("config.toml");
    if !config.is_file() {
        anyhow::bail!(Misuse(format!(
            "{} is no run to go on with: it has no config.toml",
            run.display()
        )));
    }
    Ok(RunConfig::read(&config, settings)?)
}
