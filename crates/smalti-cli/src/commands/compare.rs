//! `smalti compare`

use std::process::ExitCode;

use smalti::comparison::{EntryResult, Outcome, REPORT_FILE, RESULTS_FILE, Results};
use smalti::{ComparisonConfig, ComparisonOutcome, Evaluation, Observer};

use super::{files, table};
use crate::arguments::CompareOptions;
use crate::device::DeviceChoice;
use crate::terminal::Terminal;

/// A column of numbers that not every comparison has.
struct Judge {
    title: &'static str,
    number: fn(&Evaluation) -> Option<f64>,
}

const JUDGES: [Judge; 2] = [
    Judge {
        title: "perceptual",
        number: |evaluation| evaluation.perceptual,
    },
    Judge {
        title: "Fréchet",
        number: Evaluation::frechet_distance,
    },
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
    let judges: Vec<&Judge> = JUDGES
        .iter()
        .filter(|judge| results.have(judge.number))
        .collect();
    let rows = rows(&results, &judges);
    terminal.data(&format!(
        "{}\nresults  {}\nreport   {}\n",
        table::columns(&header(&judges), &rows),
        folder.join(RESULTS_FILE).display(),
        folder.join(REPORT_FILE).display()
    ))?;
    Ok(match diverged {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

fn header(judges: &[&Judge]) -> Vec<&'static str> {
    let judged = judges.iter().map(|judge| judge.title);
    ["method", "rate", "entropy", "PSNR (dB)", "SSIM"]
        .into_iter()
        .chain(judged)
        .chain(["codes used", "time (s)"])
        .collect()
}

/// One line for each entry, those of one rate together.
fn rows(results: &Results, judges: &[&Judge]) -> Vec<Vec<String>> {
    let rates = results.rates();
    let ordered = rates.iter().flat_map(|&rate| results.at(rate));
    ordered.map(|entry| row(entry, judges)).collect()
}

fn row(entry: &EntryResult, judges: &[&Judge]) -> Vec<String> {
    let Outcome::Measured(measured) = &entry.outcome else {
        let mut row = vec![
            entry.name.clone(),
            entry.rate.to_string(),
            "diverged".to_owned(),
        ];
        row.resize(header(judges).len(), String::new());
        return row;
    };
    let evaluation = &measured.evaluation;
    let number = |value: Option<f64>, digits: usize| {
        value.map_or(String::new(), |value| format!("{value:.digits$}"))
    };
    let mut row = vec![
        entry.name.clone(),
        format!("{:.3}", evaluation.bits_per_pixel),
        format!("{:.3}", evaluation.entropy_bits_per_pixel),
        format!("{:.2}", evaluation.psnr_db),
        number(evaluation.ssim, 3),
    ];
    let judged = judges.iter().map(|judge| (judge.number)(evaluation));
    row.extend(judged.map(|value| value.map_or(String::new(), table::distance)));
    row.push(format!("{:.1} %", 100.0 * evaluation.usage));
    row.push(number(measured.training_seconds, 1));
    row
}
