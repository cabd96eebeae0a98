//! `smalti evaluate`

use std::process::ExitCode;

use smalti::data::{Dataset, ImageSource};
use smalti::{Backbone, Evaluation, JudgesConfig, Observer, PerceptualConfig, Tokenizer};

use super::{distance, images, table};
use crate::arguments::{EvaluateOptions, JudgeOptions, LpipsBackbone};
use crate::device::DeviceChoice;
use crate::terminal::Terminal;

pub(crate) fn run(
    options: &EvaluateOptions,
    device: &DeviceChoice,
    terminal: &mut Terminal,
) -> anyhow::Result<ExitCode> {
    let device = device.open()?;
    let tokenizer = Tokenizer::load(&options.model, &device)?;
    let judges = judges(&options.judges).load(&device)?;
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
    let watch = |done| terminal.advance(done as u64, "");
    let evaluation = tokenizer.evaluate(images, &judges, watch)?;
    terminal.end();
    if let Some((count, width)) = evaluation.too_few() {
        terminal.warn(&distance::too_few("there are only", count, width));
    }
    let text = match options.json {
        true => serde_json::to_string_pretty(&evaluation)? + "\n",
        false => describe(&evaluation),
    };
    terminal.data(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The networks that are asked for.
fn judges(options: &JudgeOptions) -> JudgesConfig {
    let lpips = options.lpips_trunk.clone().zip(options.lpips_heads.clone());
    let lpips = lpips.map(|(trunk, heads)| PerceptualConfig::Lpips {
        backbone: match options.lpips_backbone {
            LpipsBackbone::Vgg16 => Backbone::Vgg16,
            LpipsBackbone::Alexnet => Backbone::Alexnet,
        },
        trunk,
        heads,
    });
    let shift_tolerant = options.st_lpips.clone();
    let features = options.features.clone().zip(options.network);
    JudgesConfig {
        perceptual: lpips.or(shift_tolerant.map(|file| PerceptualConfig::StLpips { file })),
        features: features.map(|(file, kind)| distance::network(file, kind, options.heads)),
    }
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
    rows.extend(
        evaluation
            .perceptual
            .map(|distance| ("perceptual distance".to_owned(), format!("{distance:.4}"))),
    );
    rows.extend(evaluation.frechet.as_ref().map(|frechet| {
        let distance = table::distance(frechet.distance);
        let value = format!("{distance} ({})", frechet.network);
        ("Fréchet distance".to_owned(), value)
    }));
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
        let mut value = format!(
            "{:.2} % of {} codes used, {} dead, perplexity {:.1}, {:.2} bits per code",
            100.0 * depth.usage,
            depth.codebook_size,
            depth.dead,
            depth.perplexity,
            depth.entropy_bits
        );
        if let Some(rows @ 1..) = depth.near_zero {
            value.push_str(&format!(", {rows} near zero"));
        }
        rows.push((format!("depth {}", d + 1), value));
    }
    for pair in &evaluation.correlations {
        let [a, b] = pair.depths.map(|depth| depth + 1);
        let value = format!("mean squared cosine {:.4}", pair.mean_squared_cosine);
        rows.push((format!("depths {a}, {b}"), value));
    }
    table::facts(&rows)
}
