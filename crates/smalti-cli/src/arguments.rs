//! The command line as the user writes it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::device::DeviceChoice;

mod import;
mod measuring;
mod vae;

pub(crate) use import::{ImportOptions, Kind};
pub(crate) use measuring::{
    DistanceOptions, EvaluateOptions, JudgeOptions, LpipsBackbone, NetworkKind,
};
pub(crate) use vae::{ConvertOptions, DivergenceOptions, SampleOptions};

const EXAMPLES: &str = "\
Examples:
  smalti demo                                     the whole path on bundled images, with a report
  smalti train configs/emoji-tokenizer.toml       train a tokenizer
  smalti encode --model RUN photos -o tokens      images to tokens
  smalti decode --model RUN tokens -o pictures    tokens to images
  smalti generate --model RUN --class Flags -o grid.png
  smalti convert VAE --images photos -o tokenizer";

/// Images to discrete tokens and tokens to images.
#[derive(Debug, Parser)]
#[command(name = "smalti", version, after_help = EXAMPLES, propagate_version = true)]
pub(crate) struct Arguments {
    /// What does the work: auto, cpu, cuda:N, rocm:N, vulkan:N or metal, where compiled in
    #[arg(long, global = true, default_value = "auto", value_name = "DEVICE")]
    pub(crate) device: DeviceChoice,

    /// Say nothing but warnings and errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a tokenizer and a generator on bundled images and show it all in a report
    Demo(DemoOptions),
    /// Train a tokenizer or a generator as a configuration file says
    Train(TrainOptions),
    /// Train several tokenizers alike and show which is best at which rate
    Compare(CompareOptions),
    /// Turn images into token files
    Encode(EncodeOptions),
    /// Turn token files into images
    Decode(DecodeOptions),
    /// Measure a tokenizer on images: fidelity, rate, use of its codebooks
    Evaluate(EvaluateOptions),
    /// Write new images
    Generate(GenerateOptions),
    /// Measure how far a set of images is from another: generated ones from real ones
    Distance(DistanceOptions),
    /// Measure the divergence of a Gaussian VAE and what its codes can be
    Divergence(DivergenceOptions),
    /// Make a tokenizer of a trained Gaussian VAE, without training
    Convert(ConvertOptions),
    /// Turn a published checkpoint into a model folder
    Import(ImportOptions),
    /// Say what a file or folder is that smalti wrote
    Inspect(InspectOptions),
    /// Print completions for a shell
    Completions(CompletionsOptions),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  smalti demo --out my-demo && xdg-open my-demo/report.html

An interrupted demo goes on where it was when it is called again.")]
pub(crate) struct DemoOptions {
    /// Folder for the runs, the models and report.html
    #[arg(long, short, default_value = "smalti-demo")]
    pub(crate) out: PathBuf,

    /// Set a value in both recipes, for example --set training.steps=50
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) settings: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  smalti train configs/emoji-tokenizer.toml
  smalti train configs/emoji-tokenizer.toml --set training.steps=200 --out runs/short
  smalti train --resume runs/short

The run's folder holds config.toml, metrics.jsonl, checkpoints, samples and, at the end,
model/ and report.html. Ctrl-C writes a checkpoint; a second Ctrl-C ends at once.")]
pub(crate) struct TrainOptions {
    /// The configuration file
    #[arg(required_unless_present = "resume", value_name = "CONFIG.toml")]
    pub(crate) config: Option<PathBuf>,

    /// Go on with a run from its newest checkpoint
    #[arg(long, value_name = "RUN", conflicts_with_all = ["config", "out"])]
    pub(crate) resume: Option<PathBuf>,

    /// Folder of the run [default: runs/NAME of the configuration file]
    #[arg(long, short)]
    pub(crate) out: Option<PathBuf>,

    /// Set a value of the configuration, for example --set training.steps=200
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) settings: Vec<String>,

    /// Refuse to train when an image is broken, instead of skipping it
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  smalti compare configs/compare-photos.toml --set base.data.source.path=photos.tar
  smalti compare configs/compare-photos.toml --set base.training.steps=50 --out runs/quick

The configuration holds a [base], a tokenizer's run without its quantizer, and one [[entry]] for
each method and rate. The folder gets results.json, report.html and a run folder for each entry.
Ctrl-C writes a checkpoint; the same command goes on, and does not train again what was measured.
An entry whose configuration was changed is trained in a new folder. A table [evaluation] names
networks that judge reconstructions, perceptual and features as in configs/compare-photos.toml;
naming others trains nothing again.")]
pub(crate) struct CompareOptions {
    /// The configuration file
    #[arg(value_name = "CONFIG.toml")]
    pub(crate) config: PathBuf,

    /// Folder of the comparison [default: runs/NAME of the configuration file]
    #[arg(long, short)]
    pub(crate) out: Option<PathBuf>,

    /// Set a value of the configuration, for example --set base.training.steps=200
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) settings: Vec<String>,

    /// Refuse to train when an image is broken, instead of skipping it
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  smalti encode --model runs/emoji-tokenizer cat.png -o cat.tokens
  smalti encode --model runs/emoji-tokenizer photos -o tokens

A folder is mirrored: photos/a/b.jpg becomes tokens/a/b.jpg.tokens. Images of any size work; what
does not fill a code position is padded and cut off again by decode.")]
pub(crate) struct EncodeOptions {
    /// Images, or folders of images
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<PathBuf>,

    /// Folder of the tokenizer, or of the run that trained it
    #[arg(long, short)]
    pub(crate) model: PathBuf,

    /// The token file of one image, or a folder for the token files of several
    #[arg(long, short)]
    pub(crate) out: PathBuf,

    /// End at the first broken image, instead of naming and skipping it
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  smalti decode --model runs/emoji-tokenizer cat.tokens -o cat.png
  smalti decode --model runs/emoji-tokenizer tokens -o pictures")]
pub(crate) struct DecodeOptions {
    /// Token files, or folders of token files
    #[arg(required = true, value_name = "TOKENS")]
    pub(crate) tokens: Vec<PathBuf>,

    /// Folder of the tokenizer, or of the run that trained it
    #[arg(long, short)]
    pub(crate) model: PathBuf,

    /// The PNG of one token file, or a folder for the PNGs of several
    #[arg(long, short)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  smalti generate --model runs/emoji-generator --class Flags --count 16 --seed 7 -o flags.png
  smalti generate --model runs/emoji-generator --class Flags --complete half.png --keep-rows 2 -o whole.png
  smalti generate --model runs/far-emoji --class Flags --guidance 2 -o clear.png
  smalti generate --model runs/masked-emoji --class Flags --steps 12 --order halton -o masked.png
  smalti generate --model runs/emoji-generator --class Flags --count 5000 -o generated/Flags

A folder gets its images batch by batch: after Ctrl-C those that are there are whole, and the same
as those of an uninterrupted call.")]
pub(crate) struct GenerateOptions {
    /// Folder of the generator, or of the run that trained it
    #[arg(long, short)]
    pub(crate) model: PathBuf,

    /// Class of the images, by name or number
    #[arg(long, short)]
    pub(crate) class: Option<String>,

    /// How many images
    #[arg(long, short = 'n', default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) count: u32,

    /// The same seed gives the same images
    #[arg(long, short, default_value_t = 0)]
    pub(crate) seed: u64,

    /// A PNG with all images, or a folder (without ending) for one PNG each
    #[arg(long, short)]
    pub(crate) out: PathBuf,

    /// Temperature of the draw; below 1 is more cautious [default: the generator's own]
    #[arg(long)]
    pub(crate) temperature: Option<f32>,

    /// Draw from so many likeliest codes; one number, or one for each depth
    #[arg(long, value_delimiter = ',', value_name = "K")]
    pub(crate) top_k: Vec<usize>,

    /// Draw from the fewest codes that together have this probability; one number, or one for each depth
    #[arg(long, value_delimiter = ',', value_name = "P")]
    pub(crate) top_p: Vec<f64>,

    /// Lead away from what would be written without a class: 1 not at all, 2 is usual [default: the
    /// generator's own]; for generators that learned images without their class too (kind = "far",
    /// "diffusion" or "masked")
    #[arg(long, value_name = "SCALE")]
    pub(crate) guidance: Option<f32>,

    /// Guide only positions from START up to but not including END, counted row by row from 0
    #[arg(long, value_name = "START..END", requires = "guidance", value_parser = interval)]
    pub(crate) guidance_interval: Option<[usize; 2]>,

    /// Passes over the whole map, for generators that write so (kind = "diffusion" or "masked"): fewer
    /// are quicker [default: the generator's own]
    #[arg(long, value_name = "PASSES")]
    pub(crate) steps: Option<usize>,

    /// How far kind = "masked" leaves to chance which codes it keeps, 0 not at all [default: the
    /// generator's own]
    #[arg(long, value_name = "TEMPERATURE")]
    pub(crate) choice_temperature: Option<f64>,

    /// How many codes the passes of kind = "masked" keep [default: the generator's own]
    #[arg(long, value_name = "SCHEDULE")]
    pub(crate) reveal: Option<Reveal>,

    /// Which codes the passes of kind = "masked" keep [default: the generator's own]
    #[arg(long)]
    pub(crate) order: Option<Order>,

    /// Go on from the upper part of this image
    #[arg(long, value_name = "IMAGE", requires = "keep_rows")]
    pub(crate) complete: Option<PathBuf>,

    /// Rows of the code map that are kept of the image to complete
    #[arg(long, value_name = "ROWS", requires = "complete")]
    pub(crate) keep_rows: Option<usize>,

    /// Images computed at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch_size: u32,
}

/// How many codes the passes of a masked generator keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Reveal {
    /// Few at first, many at last
    Cosine,
    /// In proportion to arccos
    Arccos,
    /// Always as many
    Linear,
    /// Few at first, many at last, by squares
    Square,
}

/// Which codes the passes of a masked generator keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Order {
    /// Those it is surest of
    Confidence,
    /// A fixed order in which neighbours are far apart
    Halton,
    /// The same, each image beginning at another place
    RolledHalton,
}

impl From<Reveal> for smalti::MaskSchedule {
    fn from(reveal: Reveal) -> Self {
        match reveal {
            Reveal::Cosine => Self::Cosine,
            Reveal::Arccos => Self::Arccos,
            Reveal::Linear => Self::Linear,
            Reveal::Square => Self::Square,
        }
    }
}

impl From<Order> for smalti::UnmaskingOrder {
    fn from(order: Order) -> Self {
        match order {
            Order::Confidence => Self::Confidence,
            Order::Halton => Self::Halton,
            Order::RolledHalton => Self::RolledHalton,
        }
    }
}

/// Reads `START..END`.
fn interval(text: &str) -> Result<[usize; 2], String> {
    let parsed = text
        .split_once("..")
        .and_then(|(start, end)| Some([start.trim().parse().ok()?, end.trim().parse().ok()?]));
    parsed.ok_or_else(|| "expected two positions, for example 0..128".into())
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  smalti inspect cat.tokens
  smalti inspect runs/emoji-tokenizer --json")]
pub(crate) struct InspectOptions {
    /// A token file, token cache, checkpoint, model folder or run folder
    pub(crate) path: PathBuf,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  smalti completions bash > ~/.local/share/bash-completion/completions/smalti")]
pub(crate) struct CompletionsOptions {
    /// Which shell
    pub(crate) shell: clap_complete::Shell,
}
