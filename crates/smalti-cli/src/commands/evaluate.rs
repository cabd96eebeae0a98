//! `smalti evaluate`

use std::process::ExitCode;

use smalti::data::{Dataset, ImageSource};
use smalti::{Evaluation, Observer, Tokenizer};

use super::{images, table};
use crate::arguments::EvaluateOptions;
use crate::device::DeviceChoice;
use crate::terminal::Terminal;

pub(crate) fn run(
    options: &EvaluateOptions,
    device: &DeviceChoice,
    terminal: &mut Terminal,
) -> anyhow::Result<ExitCode> {
    let tokenizer = Tokenizer::load(&options.model, &device.open()?)?;
    let datasets = images::open(&options.images, options.strict, terminal)?;
    let preprocess = options.resize.map(images::square).unwrap_or_default();
    let total: usize = datasets.iter().map(Dataset::len).sum();
    terminal.begin("evaluating", "image", total as u64);
    let images = datasets.iter().flat_map(|dataset| {
        (0..dataset.len()).map(|index| {
            let image = preprocess.apply_fixed(&dataset.image(index)?)?;
            Ok((dataset.name(index).into_owned(), image))
        })
    });
    let evaluation = tokenizer.evaluate(images, |done| terminal.advance(done as u64, ""))?;
    terminal.end();
    let text = match options.json {
        true => serde_json::to_string_pretty(&evaluation)? + "\n",
        false => describe(&evaluation),
    };
    terminal.data(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn describe(evaluation: &Evaluation) -> String {
    let mut rows = vec![
        ("images".to_owned(), evaluation.images.to_string()),
        ("PSNR".to_owned(), format!("{:.2} dB", evaluation.psnr_db)),
    ];
    rows.extend(
        evaluation
            .ssim
            .map(|ssim| ("SSIM".to_owned(), format!("{ssim:.4}"))),
    );
    rows.extend([
        (
            "rate".to_owned(),
            format!("{:.4} bits per pixel", evaluation.bits_per_pixel),
        ),
        (
            "entropy".to_owned(),
            format!("{:.4} bits per pixel", evaluation.entropy_bits_per_pixel),
        ),
        (
            "codes used".to_owned(),
            format!("{:.2} %", 100.0 * evaluation.usage),
        ),
    ]);
    for (d, depth) in evaluation.depths.iter().enumerate() {
        let value = format!(
            "{:.2} % of {} codes used, perplexity {:.1}, {:.2} bits per code",
            100.0 * depth.usage,
            depth.codebook_size,
            depth.perplexity,
            depth.entropy_bits
        );
        rows.push((format!("depth {}", d + 1), value));
    }
    table::facts(&rows)
}
