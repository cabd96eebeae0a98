//! `smalti compare`

use std::process::ExitCode;

use smalti::comparison::{EntryResult, Outcome, REPORT_FILE, RESULTS_FILE, Results};
use smalti::{ComparisonConfig, ComparisonOutcome, Observer};

use super::{files, table};
use crate::arguments::CompareOptions;
use crate::device::DeviceChoice;
use crate::terminal::Terminal;

const HEADER: [&str; 7] = [
    "method",
    "rate",
    "entropy",
    "PSNR (dB)",
    "SSIM",
    "codes used",
    "time (s)",
];

pub(crate) fn run(
    options: &CompareOptions,
    device: &DeviceChoice,
    terminal: &mut Terminal,
) -> anyhow::Result<ExitCode> {
    let mut config = ComparisonConfig::read(&options.config, &options.settings)?;
    config.base.data.strict |= options.strict;
    let folder = options
        .out
        .clone()
        .unwrap_or_else(|| files::run_folder(&options.config));
    let device = device.open()?;
    let results = match smalti::compare(&config, &folder, &device, terminal)? {
        ComparisonOutcome::Finished(results) => results,
        ComparisonOutcome::Stopped { done, entries } => {
            terminal.note(&format!(
                "stopped with {done} of {entries} entries measured; the same command goes on"
            ));
            return Ok(ExitCode::FAILURE);
        }
    };
    let diverged = results.entries.iter().any(|e| e.measured().is_none());
    terminal.data(&format!(
        "{}\nresults  {}\nreport   {}\n",
        table::columns(&HEADER, &rows(&results)),
        folder.join(RESULTS_FILE).display(),
        folder.join(REPORT_FILE).display()
    ))?;
    Ok(match diverged {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

/// One line for each entry, those of one rate together.
fn rows(results: &Results) -> Vec<Vec<String>> {
    let rates = results.rates();
    let ordered = rates.iter().flat_map(|&rate| results.at(rate));
    ordered.map(row).collect()
}

fn row(entry: &EntryResult) -> Vec<String> {
    let Outcome::Measured(measured) = &entry.outcome else {
        let missing = ["diverged", "", "", "", ""].map(str::to_owned);
        let named = [entry.name.clone(), entry.rate.to_string()];
        return named.into_iter().chain(missing).collect();
    };
    let evaluation = &measured.evaluation;
    vec![
        entry.name.clone(),
        format!("{:.3}", evaluation.bits_per_pixel),
        format!("{:.3}", evaluation.entropy_bits_per_pixel),
        format!("{:.2}", evaluation.psnr_db),
        evaluation
            .ssim
            .map_or(String::new(), |ssim| format!("{ssim:.3}")),
        format!("{:.1} %", 100.0 * evaluation.usage),
        measured
            .training_seconds
            .map_or(String::new(), |seconds| format!("{seconds:.1}")),
    ]
}
