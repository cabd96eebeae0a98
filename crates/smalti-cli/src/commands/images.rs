//! Images that a command measures on: folders and tar archives.

use std::path::PathBuf;

use smalti::data::{Dataset, Filter, ImageSource, Preprocess, Step};
use smalti::{DatasetConfig, Image, Observer, OpenOptions, Vae};

use crate::arguments::SampleOptions;
use crate::hints::Misuse;
use crate::terminal::Terminal;

/// Opens folders and archives; broken files are named and skipped, or refused when `strict`.
pub(crate) fn open(
    paths: &[PathBuf],
    strict: bool,
    terminal: &mut Terminal,
) -> anyhow::Result<Vec<Dataset>> {
    let mut datasets = Vec::new();
    for path in paths {
        let is_archive = path.is_file() && path.to_string_lossy().contains(".tar");
        if path.is_file() && !is_archive {
            anyhow::bail!(Misuse(format!(
                "{} is neither a folder of images nor a tar archive",
                path.display()
            )));
        }
        let source = match is_archive {
            true => DatasetConfig::Shards {
                path: path.clone(),
                classes: Vec::new(),
            },
            false => DatasetConfig::Folder { path: path.clone() },
        };
        let (dataset, report) = source.open(&OpenOptions {
            strict,
            ..OpenOptions::default()
        })?;
        for file in &report.broken {
            terminal.warn(&format!("skipped {}: {}", file.name, file.reason));
        }
        datasets.push(dataset);
    }
    Ok(datasets)
}

/// The shorter side to so many pixels, then the middle square.
pub(crate) fn square(size: usize) -> Preprocess {
    Preprocess {
        steps: vec![
            Step::ResizeShorter {
                size,
                filter: Filter::Bilinear,
            },
            Step::CenterCrop { size },
        ],
    }
}

/// At most `limit` images, evenly spread over all, each made a square of `side` pixels.
fn squares(
    datasets: &[Dataset],
    side: usize,
    limit: usize,
    terminal: &mut Terminal,
) -> anyhow::Result<Vec<Image>> {
    let preprocess = square(side);
    let places: Vec<(usize, usize)> = (0..datasets.len())
        .flat_map(|dataset| (0..datasets[dataset].len()).map(move |index| (dataset, index)))
        .collect();
    let count = places.len().min(limit);
    terminal.begin("reading", "image", count as u64);
    let mut images = Vec::with_capacity(count);
    for i in 0..count {
        let (dataset, index) = places[i * places.len() / count];
        images.push(preprocess.apply_fixed(&datasets[dataset].image(index)?)?);
        terminal.advance(i as u64 + 1, "");
    }
    terminal.end();
    Ok(images)
}

/// The images that a VAE is measured on.
pub(crate) fn sample(
    vae: &Vae,
    paths: &[PathBuf],
    options: &SampleOptions,
    terminal: &mut Terminal,
) -> anyhow::Result<Vec<Image>> {
    let (side, factor) = (options.resize.unwrap_or(vae.side()), vae.factor());
    if side == 0 || !side.is_multiple_of(factor) {
        let below = side / factor * factor;
        let near = match below {
            0 => factor.to_string(),
            _ => format!("{below} or {}", below + factor),
        };
        anyhow::bail!(Misuse(format!(
            "--resize {side} is no multiple of the {factor} pixels that share a position of this model; {near} would do"
        )));
    }
    let datasets = open(paths, options.strict, terminal)?;
    squares(&datasets, side, options.limit as usize, terminal)
}
