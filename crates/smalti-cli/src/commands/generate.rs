//! `smalti generate`

use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

use smalti::{Generator, Guidance, Image, Observer, PerDepth, Request, SamplingConfig};

use super::files::make_parent;
use crate::arguments::GenerateOptions;
use crate::device::DeviceChoice;
use crate::terminal::Terminal;

pub(crate) fn run(
    options: &GenerateOptions,
    device: &DeviceChoice,
    terminal: &mut Terminal,
) -> anyhow::Result<ExitCode> {
    let generator = Generator::load(&options.model, &device.open()?)?;
    let request = Request {
        class: options.class.clone(),
        count: options.count as usize,
        seed: options.seed,
        sampling: Some(sampling(options, &generator)),
        batch_size: options.batch_size as usize,
    };
    let positions = generator.model().description.model.layout().positions();
    let mut begun = false;
    let mut watch = |progress: smalti::Progress| {
        // Only now is it known that nothing is wrong with the request.
        if !std::mem::replace(&mut begun, true) {
            terminal.begin("generating", "position", (request.count * positions) as u64);
        }
        terminal.advance(progress.done as u64, "");
        if terminal.stop_requested() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let images = match (&options.complete, options.keep_rows) {
        (Some(path), Some(rows)) => {
            generator.complete(&request, &Image::open(path)?, rows, &mut watch)?
        }
        _ => generator.generate(&request, &mut watch)?,
    };
    terminal.end();
    write(&images, &options.out)?;
    terminal.note(&format!(
        "{} images in {}",
        images.len(),
        options.out.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// The generator's own settings where the user gave none.
fn sampling(options: &GenerateOptions, generator: &Generator) -> SamplingConfig {
    let mut sampling = generator.model().description.sampling.clone();
    if let Some(temperature) = options.temperature {
        sampling.temperature = temperature;
    }
    if !options.top_k.is_empty() {
        sampling.top_k = Some(per_depth(&options.top_k));
    }
    if !options.top_p.is_empty() {
        sampling.top_p = Some(per_depth(&options.top_p));
    }
    if let Some(scale) = options.guidance {
        let interval = options.guidance_interval;
        sampling.guidance = Some(Guidance { scale, interval });
    }
    sampling
}

fn per_depth<T: Copy>(values: &[T]) -> PerDepth<T> {
    match values {
        [one] => PerDepth::Same(*one),
        several => PerDepth::Each(several.to_vec()),
    }
}

/// One PNG of all images in a near-square grid, or one PNG each in a folder.
fn write(images: &[Image], out: &Path) -> anyhow::Result<()> {
    if out.extension().is_none() {
        std::fs::create_dir_all(out).map_err(|error| {
            anyhow::Error::new(error).context(format!("cannot create {}", out.display()))
        })?;
        for (number, image) in images.iter().enumerate() {
            image.save_png(&out.join(format!("{number:05}.png")))?;
        }
        return Ok(());
    }
    make_parent(out)?;
    let columns = (images.len() as f64).sqrt().ceil() as usize;
    let rows: Vec<Vec<Image>> = images.chunks(columns).map(<[Image]>::to_vec).collect();
    Ok(smalti::samples::save_grid(&rows, out)?)
}
