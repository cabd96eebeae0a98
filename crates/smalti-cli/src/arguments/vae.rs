//! The command lines of `smalti divergence` and `smalti convert`.

use std::path::PathBuf;

use clap::Args;
use smalti::CodeGenerator;
use smalti::divergence::grouping::Grouping;
use smalti::divergence::prior::Normalize;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  smalti divergence --model runs/gaussian-photos photos
  smalti divergence --model runs/gaussian-photos photos -o out && xdg-open out/report.html

The folder gets report.html, divergence.json and the plots as SVG: how often the error of a channel
is σ or more, over the distance of log2 K from the channel's divergence R, beside the bounds of the
theory; and the same for the model's own groups and codes.")]
pub(crate) struct DivergenceOptions {
    /// A folder of images, or a tar archive of images; several are taken together
    #[arg(required = true, value_name = "IMAGES")]
    pub(crate) images: Vec<PathBuf>,

    /// A tokenizer with the quantizer gaussian or token_bridge, or a published VAE as `smalti convert`
    /// takes it
    #[arg(long, short)]
    pub(crate) model: PathBuf,

    /// Folder for report.html, divergence.json and the plots
    #[arg(long, short, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,

    /// log2 of the largest codebook in the experiments
    #[arg(long, value_name = "BITS", default_value_t = 18, value_parser = clap::value_parser!(u32).range(1..=22))]
    pub(crate) largest_bits: u32,

    #[command(flatten)]
    pub(crate) sample: SampleOptions,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which part of the images is measured, at which size.
#[derive(Debug, Args)]
pub(crate) struct SampleOptions {
    /// Resize the shorter side to so many pixels and cut out the middle square [default: the model's]
    #[arg(long, value_name = "PIXELS")]
    pub(crate) resize: Option<usize>,

    /// Measure no more than so many images, spread over all
    #[arg(long, value_name = "IMAGES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,

    /// Refuse broken images, instead of naming and skipping them
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  smalti convert runs/gaussian-photos -o tokenizer --group 8 --images photos
  smalti convert sd-vae -o tokenizer -k 65536 --group 1 --images photos

Codes come from a seed, so nothing is learned; what is chosen is which channels share a code, and
a shift and scale of each where the model's prior does not fit. Both follow the images, which
should be like those that the tokenizer is for. The folder is a tokenizer for encode, decode and
evaluate, with a report.html that tells whether its groups fit their codes.")]
pub(crate) struct ConvertOptions {
    /// A tokenizer with the quantizer gaussian or token_bridge (its folder, or that of its run), a
    /// diffusers AutoencoderKL (its folder), a VAE of latent diffusion (its file), or a Gaussian Quant
    /// model (its yaml, with the weights beside it)
    #[arg(value_name = "VAE")]
    pub(crate) vae: PathBuf,

    /// Folder for the tokenizer, report.html and conversion.json
    #[arg(long, short)]
    pub(crate) out: PathBuf,

    /// A folder of images, or a tar archive of images; may be given several times
    #[arg(long, required = true, value_name = "IMAGES")]
    pub(crate) images: Vec<PathBuf>,

    /// Number of codes, a power of two; one number, or one for each group
    #[arg(
        long,
        short = 'k',
        value_delimiter = ',',
        value_name = "K",
        default_value = "65536"
    )]
    pub(crate) codebook_size: Vec<usize>,

    /// Channels that share a code
    #[arg(long, short, value_name = "CHANNELS", default_value_t = 16)]
    pub(crate) group: usize,

    /// Which channels share a code: even (by divergence), strided, contiguous, or all channels in the
    /// order of the groups, for example 0,2,1,3
    #[arg(long, default_value = "even", value_parser = grouping)]
    pub(crate) grouping: Grouping,

    /// Shift and scale of the channels: measured, keep (the model's own), off, or auto: measured where
    /// the model's own fits badly
    #[arg(long, default_value = "auto", value_parser = normalize)]
    pub(crate) normalize: Normalize,

    /// How strongly codes far from the origin are preferred; 0 takes the nearest
    #[arg(long, default_value_t = 1.0)]
    pub(crate) beta: f64,

    /// How codes are made of the seed: sobol or iid
    #[arg(long, default_value = "sobol", value_parser = generator)]
    pub(crate) generator: CodeGenerator,

    /// What the codes are made from
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,

    /// Bits by which a group may exceed log2 K before it counts as not fitting
    #[arg(
        long,
        value_name = "BITS",
        default_value_t = 0.5,
        allow_negative_numbers = true
    )]
    pub(crate) tolerance: f64,

    #[command(flatten)]
    pub(crate) sample: SampleOptions,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn grouping(text: &str) -> Result<Grouping, String> {
    match text {
        "even" => Ok(Grouping::Even),
        "strided" => Ok(Grouping::Strided),
        "contiguous" => Ok(Grouping::Contiguous),
        _ => {
            let order: Result<_, _> = text.split(',').map(str::parse).collect();
            order.map(Grouping::Custom).map_err(|_| {
                format!("expected even, strided, contiguous or channels like 0,2,1,3, got {text:?}")
            })
        }
    }
}

fn normalize(text: &str) -> Result<Normalize, String> {
    match text {
        "auto" => Ok(Normalize::Auto),
        "measured" => Ok(Normalize::Measured),
        "keep" => Ok(Normalize::Keep),
        "off" => Ok(Normalize::Off),
        _ => Err(format!(
            "expected auto, measured, keep or off, got {text:?}"
        )),
    }
}

fn generator(text: &str) -> Result<CodeGenerator, String> {
    match text {
        "sobol" => Ok(CodeGenerator::Sobol),
        "iid" => Ok(CodeGenerator::Iid),
        _ => Err(format!("expected sobol or iid, got {text:?}")),
    }
}
