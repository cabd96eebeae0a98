//! The page and the plots of a study: report.html, divergence.json and one SVG for each plot.

use std::path::Path;

use super::channels::ChannelReport;
use super::grouping::listed;
use super::study::Study;
use super::study_charts::{
    divergence_histogram, group_chart, group_share_chart, scalar_chart, size_chart,
};
use crate::error::TrainError;
use crate::report::{Column, Histogram, KeyNumber, Quantity, Report, Table, Value};

pub use crate::report::REPORT_FILE;
/// Name of the file with all numbers.
pub const STUDY_FILE: &str = "divergence.json";

/// Writes the page, the numbers and the plots into a folder.
///
/// # Errors
/// When a file cannot be written.
pub fn write(study: &Study, name: &str, folder: &Path) -> Result<(), TrainError> {
    std::fs::create_dir_all(folder).map_err(TrainError::io("create", folder))?;
    for (file, svg) in plots(study) {
        smalti_data::atomic::write(&folder.join(file), svg.as_bytes())?;
    }
    crate::json::write(&folder.join(STUDY_FILE), study)?;
    let page = page(study, name);
    Ok(smalti_data::atomic::write(
        &folder.join(REPORT_FILE),
        page.as_bytes(),
    )?)
}

/// Each plot as an SVG file.
fn plots(study: &Study) -> Vec<(&'static str, String)> {
    let charts = [
        ("large-errors.svg", scalar_chart(study).svg()),
        ("large-errors-by-size.svg", size_chart(study).svg()),
        ("group-errors.svg", group_chart(study).svg()),
        ("group-large-errors.svg", group_share_chart(study).svg()),
        ("group-divergence.svg", histogram(study).svg()),
    ];
    let drawn = charts.into_iter();
    drawn.filter_map(|(file, svg)| Some((file, svg?))).collect()
}

/// The page; `name` says what was measured.
pub fn page(study: &Study, name: &str) -> String {
    let mut report = Report::new("Divergence of a Gaussian VAE");
    report.subtitle(
        "How many bits its posteriors hold, and how codes of a random codebook follow from that.",
    );
    report.fact("model", Value::text(name));
    report.fact("images", study.images);
    report.fact("positions", study.positions);
    key_numbers(&mut report, study);
    let section = report.section("Large errors appear where log2 K falls below R");
    section.paragraph("A channel's posterior N(μ, σ²) is quantized to the nearest of K codes that are drawn from N(0, 1). R is its divergence from N(0, 1). The error is large where it is σ or more. Theorem 3.1 bounds the share of large errors from above, doubly exponentially in log2 K − R; Theorem 3.2 bounds it from below.");
    section.add(scalar_chart(study));
    section.paragraph(
        "Codebooks of any size lie on the same curve: only the distance of log2 K from R counts.",
    );
    section.add(size_chart(study));
    let section = report.section("The same with the model's own groups and codes");
    section.paragraph(format!("Groups of {} channels, quantized with the codes and the search of the model's quantizer at other codebook sizes. The error is Σ((ẑ − μ)/σ)²/m, which is 1 on average for a sample of the posterior: what the decoder was trained on.", study.group_curve.size));
    section.add(group_chart(study));
    section.add(group_share_chart(study));
    section.add(size_table(study));
    let section = report.section("Divergence of the groups");
    section.add(histogram(study));
    section.add(group_table(study));
    let section = report.section("Divergence of the channels");
    section.paragraph(format!("Fitted are the bits that remain once every channel is shifted and scaled to mean 0 and variance 1. The difference, {} of the divergence, is there only because the channels do not fit the prior.", percent(study.mismatch)));
    section.add(channel_table(&study.channels));
    report.render()
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

fn key_numbers(report: &mut Report, study: &Study) {
    let codes = study.groups.iter().map(|group| group.codebook_bits);
    let available = codes.sum::<f64>() / study.groups.len() as f64;
    let bits = |value: f64| Value::number(value, 2).unit("bits");
    report.key_number(
        KeyNumber::new("divergence of a group", bits(study.group_bits.mean)).note("mean"),
    );
    report.key_number(KeyNumber::new("log2 K", bits(available)).note("bits of a code"));
    let (low, high) = (study.group_bits.p05, study.group_bits.p95);
    report.key_number(
        KeyNumber::new(
            "nine in ten groups",
            Value::text(format!("{low:.1} to {high:.1} bits")),
        )
        .note("5 % and 95 % quantile"),
    );
    report.key_number(
        KeyNumber::new("misfit of the prior", Value::percent(study.mismatch, 2))
            .note("of the divergence"),
    );
}

fn histogram(study: &Study) -> Histogram {
    let sizes = study.groups.iter().map(|group| group.codebook_bits);
    divergence_histogram(&study.group_bits, sizes)
}

fn size_table(study: &Study) -> Table {
    let bits = |name: &str| Column::new(Quantity::new(name).unit("bits"));
    let share = |name: &str| Column::new(Quantity::new(name).unit("of groups"));
    let columns = [
        bits("log2 K"),
        bits("log2 K − R"),
        Column::new("mean error"),
        share("1 or more"),
        share("at least"),
        share("at most"),
    ];
    let caption = "The same groups at every codebook size, averaged: log2 K − R, the error Σ((ẑ − μ)/σ)²/m, how many have 1 or more of it, and the bounds on that.";
    let mut table = Table::new(caption, columns);
    for size in &study.group_curve.sizes {
        let all = &size.all;
        table.row([
            Value::count(u64::from(size.codebook_bits)),
            Value::number(all.excess_bits, 2),
            Value::significant(all.error, 3),
            Value::percent(all.large_errors, 1),
            Value::percent(all.at_least, 1),
            Value::percent(all.at_most, 1),
        ]);
    }
    table
}

fn group_table(study: &Study) -> Table {
    let bits = |name: &str| Column::new(Quantity::new(name).unit("bits"));
    let columns = [
        Column::new("depth"),
        Column::new("channels"),
        bits("log2 K"),
        bits("mean"),
        bits("least"),
        bits("5 %"),
        bits("median"),
        bits("95 %"),
        bits("most"),
    ];
    let mut table = Table::new("Divergence of each group over all positions.", columns);
    for (depth, group) in study.groups.iter().enumerate() {
        let of = &group.bits;
        let numbers = [of.mean, of.min, of.p05, of.median, of.p95, of.max];
        let head = [
            Value::count(depth as u64 + 1),
            Value::text(listed(&group.channels)),
            Value::number(group.codebook_bits, 0),
        ];
        let numbers = numbers.map(|number| Value::number(number, 2));
        table.row(head.into_iter().chain(numbers));
    }
    table
}

fn channel_table(channels: &[ChannelReport]) -> Table {
    let columns = [
        Column::new("channel"),
        Column::new(Quantity::new("divergence").unit("bits")),
        Column::new(Quantity::new("fitted").unit("bits")),
        Column::new("mean of μ"),
        Column::new("variance of μ"),
        Column::new("mean of σ²"),
    ];
    let mut table = Table::new("Every channel over all positions.", columns);
    for channel in channels {
        table.row([
            Value::count(channel.channel as u64),
            Value::number(channel.bits, 3),
            Value::number(channel.fitted_bits, 3),
            Value::number(channel.mean, 3),
            Value::number(channel.mean_variance, 4),
            Value::significant(channel.variance, 3),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::channels::channel_reports;
    use super::super::channels::tests::drawn;
    use super::super::distribution::Distribution;
    use super::super::groups::GroupExperiment;
    use super::super::scalars::ScalarExperiment;
    use super::super::study::GroupReport;
    use super::*;

    fn study() -> Study {
        let moments = drawn(2, 4000, 3);
        let group = vec![0, 1];
        let bits = Distribution::of(moments.group_bits(&group));
        let scalar = ScalarExperiment {
            codebook_bits: 0..=9,
            scalars: 500,
            codebooks: 3,
            seed: 1,
        };
        let groups = GroupExperiment {
            codebook_bits: 3..=4,
            groups: 4000,
            seed: 1,
        };
        let zeros = &mut |_: u32, map: &[f32]| Ok(vec![0.0; map.len() / 2]);
        Study {
            images: 7,
            positions: 4000,
            channels: channel_reports(&moments),
            mismatch: 0.125,
            groups: vec![GroupReport {
                channels: group.clone(),
                codebook_bits: 11.0,
                bits: bits.clone(),
            }],
            group_bits: bits,
            scalar_curve: scalar.run(&moments),
            group_curve: groups.run(&moments, &[group], zeros).unwrap(),
        }
    }

    #[test]
    fn the_page_shows_curves_bounds_and_tables() {
        let study = study();
        let page = page(&study, "runs/<vae>");
        for part in [
            "runs/&lt;vae&gt;",
            "Theorem 3.1",
            "Theorem 3.2",
            "log2 K = R",
            "log2 K = 11",
            "K = 2^9",
            "0, 1",
            "12.50 % of the divergence",
            "The same groups at every codebook size",
        ] {
            assert!(page.contains(part), "{part:?} is not in the page");
        }
        assert!(!page.contains("No values to draw"));
    }

    #[test]
    fn a_folder_has_the_page_the_numbers_and_the_plots() {
        let folder = tempfile::tempdir().unwrap();
        let study = study();
        write(&study, "vae", &folder.path().join("out")).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join("out").join(name));
        let back: Study = serde_json::from_str(&read(STUDY_FILE).unwrap()).unwrap();
        // Reading numbers from JSON may move their last digit.
        assert_eq!(
            back.scalar_curve.points.len(),
            study.scalar_curve.points.len()
        );
        assert!((back.group_bits.mean - study.group_bits.mean).abs() < 1e-9);
        assert!(read(REPORT_FILE).unwrap().starts_with("<!doctype html>"));
        for name in [
            "large-errors",
            "large-errors-by-size",
            "group-errors",
            "group-large-errors",
            "group-divergence",
        ] {
            let svg = read(&format!("{name}.svg")).unwrap();
            assert!(svg.starts_with("<svg xmlns"), "{name}");
        }
    }
}
