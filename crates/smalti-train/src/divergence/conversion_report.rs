//! The page of a conversion: what was converted, how its channels and groups fit, what theory predicts and what came
//! out.

use std::path::Path;

use super::conversion::{Conversion, Converted};
use super::grouping::listed;
use super::prior::Normalize;
use super::quality::Exhibit;
use super::study_charts::divergence_histogram;
use crate::error::TrainError;
use crate::report::{
    Column, Exhibit as Shown, Gallery, KeyNumber, Picture, Quantity, Report, Section, Table, Value,
};

pub use crate::report::REPORT_FILE;
/// Name of the file with all numbers.
pub const CONVERSION_FILE: &str = "conversion.json";

/// Writes the tokenizer with the page and the numbers of its conversion into a folder.
///
/// # Errors
/// When a file cannot be written.
pub fn write(converted: &Converted, folder: &Path) -> Result<(), TrainError> {
    converted.model.save(folder)?;
    crate::json::write(&folder.join(CONVERSION_FILE), &converted.conversion)?;
    let page = page(converted);
    Ok(smalti_data::atomic::write(
        &folder.join(REPORT_FILE),
        page.as_bytes(),
    )?)
}

/// The page.
pub fn page(converted: &Converted) -> String {
    let conversion = &converted.conversion;
    let mut report = Report::new("A VAE as a tokenizer");
    report.subtitle(
        "The network is as it was; its latents are written with the codes of a random codebook.",
    );
    report.fact("converted", Value::text(conversion.source.clone()));
    let fingerprint = crate::model_dir::short(&converted.model.fingerprint);
    report.fact("tokenizer", Value::text(fingerprint));
    report.fact("images measured", conversion.images);
    report.fact("positions measured", conversion.positions);
    key_numbers(&mut report, conversion);
    let section = report.section("Does it fit?");
    for warning in conversion.warnings() {
        section.paragraph(format!("Warning: {warning}."));
    }
    fit(section, conversion);
    let section = report.section("Reconstructions");
    section.paragraph("The original, what the VAE makes of the posterior's mean, and what the tokenizer makes of the codes. What the last loses against the second is the price of the codes.");
    section.add(gallery(&converted.exhibits));
    let section = report.section("Channels");
    section.paragraph(normalization(conversion));
    section.add(channel_table(conversion));
    let section = report.section("Other group sizes");
    section.paragraph("The same number of codes for fewer or more channels at a time: more bits for each channel, or fewer.");
    section.add(alternative_table(conversion));
    let model = &converted.model.description.model;
    report.configuration(serde_json::to_string_pretty(model).expect("a configuration serialises"));
    report.render()
}

fn key_numbers(report: &mut Report, conversion: &Conversion) {
    let (quality, codes) = (&conversion.quality, &conversion.quality.tokenizer);
    let db = |value: f64| Value::number(value, 2).unit("dB");
    report.key_number(
        KeyNumber::new("PSNR of the tokenizer", db(codes.psnr_db)).note("from the codes"),
    );
    report.key_number(
        KeyNumber::new("PSNR of the VAE", db(quality.vae_psnr_db)).note("from the mean"),
    );
    report.key_number(
        KeyNumber::new(
            "rate",
            Value::number(codes.bits_per_pixel, 4).unit("bits per pixel"),
        )
        .note("24 uncompressed"),
    );
    report.key_number(
        KeyNumber::new(
            "divergence of a group",
            Value::number(conversion.group_bits.mean, 2).unit("bits"),
        )
        .note(format!("mean; log2 K is {:.0}", conversion.codebook_bits())),
    );
    report.key_number(
        KeyNumber::new("groups above log2 K", Value::percent(conversion.above(), 1))
            .note(format!("by more than {} bits", conversion.tolerance)),
    );
    report.key_number(
        KeyNumber::new("codebook used", Value::percent(codes.usage, 1))
            .note("codes seen at least once"),
    );
}

fn fit(section: &mut Section, conversion: &Conversion) {
    section.paragraph("A group of channels is written well where its divergence is near log2 K at every position. Above, no code lies close enough: the error grows beyond what the decoder was trained on. Below, bits are wasted.");
    let sizes = conversion.groups.iter().map(|group| group.codebook_bits);
    section.add(divergence_histogram(&conversion.group_bits, sizes));
    section.add(group_table(conversion));
    section.paragraph("An error is large where the mean of ((ẑ − μ)/σ)² over the group is 1 or more, which is what a sample of the posterior has on average. Predicted are the bounds of Theorems 3.2 (at least) and 3.1 (at most), carried over to groups, averaged over the positions, for independent codes of which the nearest is taken. The tokenizer's codes are spread more evenly, and with beta above 0 one farther from the origin may be preferred.");
}

fn group_table(conversion: &Conversion) -> Table {
    let bits = |name: &str| Column::new(Quantity::new(name).unit("bits"));
    let share = |name: &str| Column::new(Quantity::new(name).unit("of positions"));
    let columns = [
        Column::new("depth"),
        Column::new("channels"),
        bits("log2 K"),
        bits("divergence"),
        bits("5 %"),
        bits("95 %"),
        share("above log2 K"),
        share("large errors, at least"),
        share("at most"),
        share("counted"),
        Column::new("mean error"),
    ];
    let caption = format!(
        "Divergence of each group, the share of positions more than {} bits above log2 K, large errors as predicted and as counted, and the mean of ((ẑ − μ)/σ)².",
        conversion.tolerance
    );
    let mut table = Table::new(caption, columns);
    for (depth, group) in conversion.groups.iter().enumerate() {
        table.row([
            Value::count(depth as u64 + 1),
            Value::text(listed(&group.channels)),
            Value::number(group.codebook_bits, 0),
            Value::number(group.bits.mean, 2),
            Value::number(group.bits.p05, 2),
            Value::number(group.bits.p95, 2),
            Value::percent(group.above, 1),
            Value::percent(group.at_least, 1),
            Value::percent(group.at_most, 1),
            Value::percent(group.large_errors, 1),
            Value::significant(group.error, 3),
        ]);
    }
    table
}

fn gallery(exhibits: &[Exhibit]) -> Gallery {
    let mut gallery = Gallery::new("With the PSNR of the VAE and of the tokenizer.");
    for (number, exhibit) in exhibits.iter().enumerate() {
        let db = |value: f64| Value::number(value, 1).unit("dB");
        gallery.exhibit(
            Shown::new(format!("{}", number + 1))
                .picture("original", Picture::from(&exhibit.original))
                .picture("VAE", Picture::from(&exhibit.vae))
                .picture("tokenizer", Picture::from(&exhibit.tokenizer))
                .value("VAE", db(exhibit.psnr_db[0]))
                .value("tokenizer", db(exhibit.psnr_db[1])),
        );
    }
    gallery
}

/// What was done to the channels, and why.
fn normalization(conversion: &Conversion) -> String {
    let misfit = format!("{:.2} %", 100.0 * conversion.misfit);
    let begin = format!(
        "With the prior that the model came with, {misfit} of the divergence was there only because the channels did not fit it."
    );
    let end = match conversion.normalize {
        Normalize::Measured => {
            "Each channel is therefore shifted and scaled to mean 0 and variance 1 on these images, which is the shift and scale with the least divergence."
        }
        Normalize::Off => "The tokenizer shifts and scales nothing.",
        Normalize::Keep | Normalize::Auto => "That was kept.",
    };
    format!("{begin} {end}")
}

fn channel_table(conversion: &Conversion) -> Table {
    let bits = |name: &str| Column::new(Quantity::new(name).unit("bits"));
    let columns = [
        Column::new("channel"),
        bits("divergence"),
        bits("as it came"),
        Column::new("mean of μ"),
        Column::new("variance of μ"),
        Column::new("mean of σ²"),
        Column::new("shift"),
        Column::new("scale"),
    ];
    let caption = "Divergence in the tokenizer and with the prior that the model came with; means and variances as the encoder gives them; the tokenizer's shift and scale.";
    let mut table = Table::new(caption, columns);
    for channel in &conversion.channels {
        table.row([
            Value::count(channel.raw.channel as u64),
            Value::number(channel.bits, 3),
            Value::number(channel.kept_bits, 3),
            Value::significant(channel.raw.mean, 4),
            Value::significant(channel.raw.mean_variance, 4),
            Value::significant(channel.raw.variance, 3),
            Value::significant(f64::from(channel.shift), 4),
            Value::significant(f64::from(channel.scale), 4),
        ]);
    }
    table
}

fn alternative_table(conversion: &Conversion) -> Table {
    let bits = |name: &str| Column::new(Quantity::new(name).unit("bits"));
    let columns = [
        Column::new("channels in a group"),
        bits("at each position"),
        bits("divergence of a group"),
        bits("95 %"),
        Column::new(Quantity::new("above log2 K").unit("of groups")),
    ];
    let mut table = Table::new("Groups of other sizes.", columns);
    for other in &conversion.alternatives {
        table.row([
            Value::count(other.group as u64),
            Value::number(other.bits_per_position, 0),
            Value::number(other.mean_bits, 2),
            Value::number(other.p95_bits, 2),
            Value::percent(other.above, 1),
        ]);
    }
    table
}
