//! `smalti demo`

use std::process::ExitCode;

use smalti::Observer;

use super::table;
use crate::arguments::DemoOptions;
use crate::device::DeviceChoice;
use crate::terminal::Terminal;

pub(crate) fn run(
    options: &DemoOptions,
    device: &DeviceChoice,
    terminal: &mut Terminal,
) -> anyhow::Result<ExitCode> {
    let device = device.open()?;
    let Some(summary) = smalti::demo::run(&options.out, &options.settings, &device, terminal)?
    else {
        terminal.note(&format!(
            "stopped; the same command goes on: smalti demo --out {}",
            options.out.display()
        ));
        return Ok(ExitCode::FAILURE);
    };
    let evaluation = &summary.evaluation;
    let mut rows = vec![
        (
            "images measured on".to_owned(),
            format!("{}, none of them trained on", evaluation.images),
        ),
        ("PSNR".to_owned(), format!("{:.2} dB", evaluation.psnr_db)),
    ];
    rows.extend(
        evaluation
            .ssim
            .map(|ssim| ("SSIM".to_owned(), format!("{ssim:.3}"))),
    );
    rows.extend([
        (
            "rate".to_owned(),
            format!("{:.3} bits per pixel", evaluation.bits_per_pixel),
        ),
        (
            "codes used".to_owned(),
            format!("{:.1} %", 100.0 * evaluation.usage),
        ),
        (
            "tokenizer".to_owned(),
            format!(
                "{} ({:.0} s)",
                summary.tokenizer.display(),
                summary.seconds[0]
            ),
        ),
        (
            "generator".to_owned(),
            format!(
                "{} ({:.0} s)",
                summary.generator.display(),
                summary.seconds[1]
            ),
        ),
        ("report".to_owned(), summary.report.display().to_string()),
    ]);
    terminal.data(&table::facts(&rows))?;
    Ok(ExitCode::SUCCESS)
}
