//! `smalti distance`

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use smalti::data::{Dataset, ImageSource, Preprocess};
use smalti::set_distance::{Features, Gathering, set_distance};
use smalti::{
    DataError, FeatureConfig, FeatureExtractor, Image, Observer, SetDistance, SetDistanceConfig,
};

use super::{images, table};
use crate::arguments::{DistanceOptions, NetworkKind};
use crate::device::DeviceChoice;
use crate::hints::Misuse;
use crate::terminal::Terminal;

pub(crate) fn run(
    options: &DistanceOptions,
    device: &DeviceChoice,
    terminal: &mut Terminal,
) -> anyhow::Result<ExitCode> {
    let of = &options.features;
    let network = network(of.file.clone(), of.network, of.heads);
    let extractor = FeatureExtractor::load(&network, &device.open()?)?;
    let preprocess = options.resize.map(images::square).unwrap_or_default();
    let mut gathering = Gathering::new(&extractor);
    let mut sets = Vec::new();
    for path in [&options.reference, &options.generated] {
        let mut datasets = images::open(&[path.to_owned()], options.strict, terminal)?;
        let set = Set {
            path,
            images: datasets.pop().expect("a data set for each path"),
            preprocess: &preprocess,
        };
        // Known before thousands of images are looked at.
        set.require(options.neighbours as usize, &mut gathering)?;
        sets.push(set);
    }
    let reference = sets[0].vectors(&mut gathering, terminal)?;
    let generated = sets[1].vectors(&mut gathering, terminal)?;
    let config = SetDistanceConfig {
        neighbours: options.neighbours as usize,
        seed: options.seed,
        ..SetDistanceConfig::default()
    };
    let distance = set_distance(extractor.title(), (&reference, &generated), &config)?;
    for (set, count) in distance.too_few() {
        let path = match set {
            "reference" => &options.reference,
            _ => &options.generated,
        };
        let begin = format!("{} holds only", path.display());
        terminal.warn(&too_few(&begin, count, distance.width));
    }
    let text = match options.json {
        true => serde_json::to_string_pretty(&distance)? + "\n",
        false => describe(&distance),
    };
    terminal.data(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// One of the two sets.
struct Set<'a> {
    path: &'a Path,
    images: Dataset,
    preprocess: &'a Preprocess,
}

impl Set<'_> {
    /// Refuses too few images, and a first one that does not fit those of the other set.
    fn require(&self, neighbours: usize, gathering: &mut Gathering<'_>) -> anyhow::Result<()> {
        let (path, count) = (self.path.display(), self.images.len());
        if count <= neighbours {
            anyhow::bail!(Misuse(format!(
                "{path} holds {count} images, and precision and recall by {neighbours} neighbours need at least {}",
                neighbours + 1
            )));
        }
        let (name, image) = self.image(0)?;
        Ok(gathering.require_alike(&name, &image)?)
    }

    fn image(&self, index: usize) -> Result<(String, Image), DataError> {
        let image = self.preprocess.apply_fixed(&self.images.image(index)?)?;
        let name = self.path.join(&*self.images.name(index));
        Ok((name.display().to_string(), image))
    }

    fn vectors(
        &self,
        gathering: &mut Gathering<'_>,
        terminal: &mut Terminal,
    ) -> anyhow::Result<Features> {
        let count = self.images.len();
        let phase = format!("looking at {}", self.path.display());
        terminal.begin(&phase, "image", count as u64);
        let images = (0..count).map(|index| self.image(index));
        let features = gathering.set(images, |done| {
            terminal.advance(done as u64, "");
            match terminal.stop_requested() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        terminal.end();
        Ok(features)
    }
}

/// The network that a file is said to hold.
pub(crate) fn network(file: PathBuf, kind: NetworkKind, heads: Option<usize>) -> FeatureConfig {
    match kind {
        NetworkKind::Vgg16 => FeatureConfig::Vgg16 { file },
        NetworkKind::Vgg19 => FeatureConfig::Vgg19 { file },
        NetworkKind::Alexnet => FeatureConfig::Alexnet { file },
        NetworkKind::StLpips => FeatureConfig::StLpips { file },
        NetworkKind::Clip => FeatureConfig::Clip { file, heads },
        NetworkKind::Dino => FeatureConfig::Dino { file, heads },
    }
}

/// What too few images do to a Fréchet distance.
pub(crate) fn too_few(begin: &str, count: usize, width: usize) -> String {
    format!(
        "{begin} {count} images, and a vector has {width} numbers: the covariance is singular and the Fréchet distance too large; it compares with those of as many images only"
    )
}

fn describe(distance: &SetDistance) -> String {
    let kernel = &distance.kernel_distance;
    let deviation = kernel
        .deviation
        .map(|deviation| format!(" ± {}", table::distance(deviation)));
    let rows = [
        ("network", distance.network.clone()),
        ("reference", format!("{} images", distance.reference)),
        ("generated", format!("{} images", distance.generated)),
        (
            "Fréchet distance",
            table::distance(distance.frechet_distance),
        ),
        (
            "kernel distance",
            table::distance(kernel.mean) + &deviation.unwrap_or_default(),
        ),
        ("precision", format!("{:.4}", distance.precision)),
        ("recall", format!("{:.4}", distance.recall)),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    table::facts(&rows)
}
