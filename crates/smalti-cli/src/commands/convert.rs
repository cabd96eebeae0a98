//! `smalti convert`

use std::path::Path;
use std::process::ExitCode;

use smalti::divergence::conversion::{Conversion, ConvertedGroup};
use smalti::divergence::conversion_config::ConversionConfig;
use smalti::divergence::conversion_report::{CONVERSION_FILE, REPORT_FILE, write};
use smalti::model_dir::{TOKENIZER_FILE, WEIGHTS_FILE};
use smalti::{Observer, Vae};

use super::{images, table};
use crate::arguments::ConvertOptions;
use crate::device::DeviceChoice;
use crate::hints::Misuse;
use crate::terminal::Terminal;

pub(crate) fn run(
    options: &ConvertOptions,
    device: &DeviceChoice,
    terminal: &mut Terminal,
) -> anyhow::Result<ExitCode> {
    require_room(&options.out)?;
    let config = config(options);
    let vae = Vae::load(&options.vae, &device.open()?)?;
    // Before any image is read.
    config.quantizer(vae.channels())?;
    let images = images::sample(&vae, &options.images, &options.sample, terminal)?;
    let converted = vae.convert(&images, &config, terminal)?;
    for warning in converted.conversion.warnings() {
        terminal.warn(&warning);
    }
    write(&converted, &options.out)?;
    let text = match options.json {
        true => serde_json::to_string_pretty(&converted.conversion)? + "\n",
        false => describe(&converted.conversion, &options.out),
    };
    terminal.data(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Refuses to write over a model or a report.
fn require_room(out: &Path) -> anyhow::Result<()> {
    let written = [TOKENIZER_FILE, WEIGHTS_FILE, CONVERSION_FILE, REPORT_FILE];
    let problem = if out.is_file() {
        "is a file, a folder is needed".to_owned()
    } else if let Some(name) = written.into_iter().find(|name| out.join(name).exists()) {
        format!("holds {name} already; choose another folder")
    } else {
        return Ok(());
    };
    anyhow::bail!(Misuse(format!("{} {problem}", out.display())))
}

fn config(options: &ConvertOptions) -> ConversionConfig {
    ConversionConfig {
        codebook_sizes: options.codebook_size.clone(),
        generator: options.generator,
        seed: options.seed,
        beta: options.beta,
        grouping: options.grouping.clone(),
        normalize: options.normalize,
        tolerance: options.tolerance,
        ..ConversionConfig::new(2, options.group)
    }
}

fn describe(conversion: &Conversion, out: &Path) -> String {
    let (bits, quality) = (&conversion.group_bits, &conversion.quality);
    let facts = [
        ("converted", conversion.source.clone()),
        ("images", conversion.images.to_string()),
        ("bits of a group", bits.to_string()),
        (
            "above log2 K",
            format!(
                "{:.1} % of the groups, by more than {} bits",
                100.0 * conversion.above(),
                conversion.tolerance
            ),
        ),
        ("PSNR", format!("{:.2} dB", quality.tokenizer.psnr_db)),
        ("PSNR of the VAE", format!("{:.2} dB", quality.vae_psnr_db)),
        (
            "rate",
            format!("{:.4} bits per pixel", quality.tokenizer.bits_per_pixel),
        ),
        ("tokenizer", out.display().to_string()),
        ("report", out.join(REPORT_FILE).display().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    format!("{}\n{}", table::facts(&facts), groups(conversion))
}

fn groups(conversion: &Conversion) -> String {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let row = |(depth, group): (usize, &ConvertedGroup)| {
        let channels: Vec<String> = group.channels.iter().map(ToString::to_string).collect();
        vec![
            (depth + 1).to_string(),
            channels.join(","),
            format!("{}", group.codebook_bits),
            format!("{:.2}", group.bits.mean),
            percent(group.above),
            percent(group.at_least),
            percent(group.large_errors),
        ]
    };
    let rows: Vec<Vec<String>> = conversion.groups.iter().enumerate().map(row).collect();
    let header = [
        "depth",
        "channels",
        "log2 K",
        "bits",
        "above",
        "predicted",
        "large errors",
    ];
    table::columns(&header, &rows)
}
