//! `smalti divergence`

use std::path::Path;
use std::process::ExitCode;

use smalti::divergence::channels::ChannelReport;
use smalti::divergence::groups::GroupSize;
use smalti::divergence::study::{GroupReport, Study, StudyConfig};
use smalti::divergence::study_report::{REPORT_FILE, STUDY_FILE, write};
use smalti::{Observer, Vae};

use super::{images, table};
use crate::arguments::DivergenceOptions;
use crate::device::DeviceChoice;
use crate::hints::Misuse;
use crate::terminal::Terminal;

pub(crate) fn run(
    options: &DivergenceOptions,
    device: &DeviceChoice,
    terminal: &mut Terminal,
) -> anyhow::Result<ExitCode> {
    options.out.as_deref().map_or(Ok(()), require_room)?;
    let vae = Vae::load(&options.model, &device.open()?)?;
    let images = images::sample(&vae, &options.images, &options.sample, terminal)?;
    let config = StudyConfig {
        largest: options.largest_bits,
        ..StudyConfig::default()
    };
    let study = vae.study(&images, &config, terminal)?;
    if let Some(folder) = &options.out {
        write(&study, vae.name(), folder)?;
        terminal.note(&format!("report: {}", folder.join(REPORT_FILE).display()));
    }
    let text = match options.json {
        true => serde_json::to_string_pretty(&study)? + "\n",
        false => describe(&study),
    };
    terminal.data(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Refuses to write over the report of something else; a study may be repeated.
fn require_room(folder: &Path) -> anyhow::Result<()> {
    let problem = if folder.is_file() {
        "is a file, a folder is needed".to_owned()
    } else if folder.join(REPORT_FILE).exists() && !folder.join(STUDY_FILE).exists() {
        format!("holds the {REPORT_FILE} of something else; choose another folder")
    } else {
        return Ok(());
    };
    anyhow::bail!(Misuse(format!("{} {problem}", folder.display())))
}

fn describe(study: &Study) -> String {
    let (count, size) = (study.groups.len(), study.group_curve.size);
    let misfit = 100.0 * study.mismatch;
    let facts = [
        ("images", study.images.to_string()),
        ("positions", study.positions.to_string()),
        ("groups", format!("{count} of {size} channels")),
        ("bits of a group", study.group_bits.to_string()),
        (
            "misfit",
            format!("{misfit:.2} % of them come from a prior that does not fit"),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    [
        table::facts(&facts),
        groups(study),
        channels(study),
        sizes(study),
    ]
    .join("\n")
}

fn groups(study: &Study) -> String {
    let row = |(depth, group): (usize, &GroupReport)| {
        let of = &group.bits;
        let numbers = [of.mean, of.min, of.p05, of.median, of.p95, of.max];
        let head = [(depth + 1).to_string(), format!("{}", group.codebook_bits)];
        let numbers = numbers.map(|number| format!("{number:.2}"));
        head.into_iter().chain(numbers).collect()
    };
    let rows: Vec<Vec<String>> = study.groups.iter().enumerate().map(row).collect();
    let header = [
        "depth", "log2 K", "bits", "least", "5 %", "median", "95 %", "most",
    ];
    table::columns(&header, &rows)
}

fn channels(study: &Study) -> String {
    let row = |channel: &ChannelReport| {
        vec![
            channel.channel.to_string(),
            format!("{:.3}", channel.bits),
            format!("{:.3}", channel.fitted_bits),
            format!("{:.4}", channel.mean_variance),
            format!("{:.4}", channel.variance),
        ]
    };
    let rows: Vec<Vec<String>> = study.channels.iter().map(row).collect();
    let header = ["channel", "bits", "fitted", "variance of μ", "mean of σ²"];
    table::columns(&header, &rows)
}

/// The model's groups, quantized with codebooks of every size.
fn sizes(study: &Study) -> String {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let row = |size: &GroupSize| {
        let all = &size.all;
        vec![
            size.codebook_bits.to_string(),
            format!("{:.2}", all.excess_bits),
            format!("{:.3}", all.error),
            percent(all.large_errors),
            percent(all.at_least),
            percent(all.at_most),
        ]
    };
    let rows: Vec<Vec<String>> = study.group_curve.sizes.iter().map(row).collect();
    let header = [
        "log2 K",
        "log2 K − R",
        "error",
        "large errors",
        "at least",
        "at most",
    ];
    table::columns(&header, &rows)
}
