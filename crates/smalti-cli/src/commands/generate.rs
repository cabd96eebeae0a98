//! `smalti generate`

use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::process::ExitCode;

use smalti::{Generator, Guidance, Image, Observer, PerDepth, Progress, Request, SamplingConfig};

use super::files::make_parent;
use crate::arguments::{GenerateOptions, Order};
use crate::device::DeviceChoice;
use crate::terminal::Terminal;

/// Images that are kept before they are written.
const PART: usize = 256;

pub(crate) fn run(
    options: &GenerateOptions,
    device: &DeviceChoice,
    terminal: &mut Terminal,
) -> anyhow::Result<ExitCode> {
    let generator = Generator::load(&options.model, &device.open()?)?;
    let start = options.complete.as_deref().map(Image::open).transpose()?;
    let whole = Request {
        class: options.class.clone(),
        count: options.count as usize,
        seed: options.seed,
        first: 0,
        sampling: Some(sampling(options, &generator)),
        batch_size: options.batch_size as usize,
    };
    let is_folder = options.out.extension().is_none();
    let mut sheet = Vec::new();
    let mut done = Positions {
        total: whole.count * generator.model().description.model.layout().positions(),
        before: 0,
        begun: false,
    };
    for part in parts(whole.count) {
        let request = Request {
            first: part.start as u64,
            count: part.len(),
            ..whole.clone()
        };
        let mut watch = |progress| done.watch(progress, terminal);
        let images = match (&start, options.keep_rows) {
            (Some(image), Some(rows)) => generator.complete(&request, image, rows, &mut watch),
            _ => generator.generate(&request, &mut watch),
        };
        let images = images.map_err(|error| kept(error, part.start, options))?;
        done.before = done.total * part.end / whole.count;
        match is_folder {
            true => write_each(&images, part.start, &options.out)?,
            false => sheet.extend(images),
        }
    }
    terminal.end();
    if !is_folder {
        write_grid(&sheet, &options.out)?;
    }
    terminal.note(&format!(
        "{} images in {}",
        whole.count,
        options.out.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// How far all parts are together.
struct Positions {
    total: usize,
    before: usize,
    begun: bool,
}

impl Positions {
    fn watch(&mut self, progress: Progress, terminal: &mut Terminal) -> ControlFlow<()> {
        // Only now is it known that nothing is wrong with the request.
        if !std::mem::replace(&mut self.begun, true) {
            terminal.begin("generating", "position", self.total as u64);
        }
        terminal.advance((self.before + progress.done) as u64, "");
        if terminal.stop_requested() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

/// Equal parts: a small one at the end would be computed in another order than the others, and its images
/// depend, in the last bit, on how many there are.
fn parts(count: usize) -> impl Iterator<Item = Range<usize>> {
    let parts = count.div_ceil(PART);
    (0..parts).map(move |part| part * count / parts..(part + 1) * count / parts)
}

/// The error with what an earlier part has left.
fn kept(error: smalti::Error, written: usize, options: &GenerateOptions) -> anyhow::Error {
    let error = anyhow::Error::new(error);
    match written > 0 && options.out.extension().is_none() {
        true => error.context(format!(
            "{written} of {} images are in {}",
            options.count,
            options.out.display()
        )),
        false => error,
    }
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
    if options
        .order
        .is_some_and(|order| order != Order::Confidence)
    {
        // What the generator has for its own order means nothing in a fixed one.
        (sampling.choice_temperature, sampling.reveal) = (None, None);
    }
    sampling.steps = options.steps.or(sampling.steps);
    sampling.choice_temperature = options.choice_temperature.or(sampling.choice_temperature);
    sampling.reveal = options.reveal.map(Into::into).or(sampling.reveal);
    sampling.order = options.order.map(Into::into).or(sampling.order);
    sampling
}

fn per_depth<T: Copy>(values: &[T]) -> PerDepth<T> {
    match values {
        [one] => PerDepth::Same(*one),
        several => PerDepth::Each(several.to_vec()),
    }
}

/// One PNG each in a folder; `first` is the number of the first.
fn write_each(images: &[Image], first: usize, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).map_err(|error| {
        anyhow::Error::new(error).context(format!("cannot create {}", folder.display()))
    })?;
    for (number, image) in (first..).zip(images) {
        image.save_png(&folder.join(format!("{number:05}.png")))?;
    }
    Ok(())
}

/// One PNG of all images in a near-square grid.
fn write_grid(images: &[Image], out: &Path) -> anyhow::Result<()> {
    make_parent(out)?;
    let columns = (images.len() as f64).sqrt().ceil() as usize;
    let rows: Vec<Vec<Image>> = images.chunks(columns).map(<[Image]>::to_vec).collect();
    Ok(smalti::samples::save_grid(&rows, out)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_equal_and_cover_all() {
        for count in [1, 256, 257, 1000, 100_000] {
            let all: Vec<Range<usize>> = parts(count).collect();
            assert_eq!((all[0].start, all[all.len() - 1].end), (0, count));
            assert!(all.windows(2).all(|pair| pair[0].end == pair[1].start));
            let sizes = all.iter().map(ExactSizeIterator::len);
            let (least, most) = (sizes.clone().min().unwrap(), sizes.max().unwrap());
            assert!(
                most <= PART && most - least <= 1,
                "{count}: {least} to {most}"
            );
        }
    }
}
