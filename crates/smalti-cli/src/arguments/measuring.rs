//! The command lines of `smalti evaluate` and `smalti distance`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  smalti evaluate --model runs/emoji-tokenizer photos
  smalti evaluate --model runs/emoji-tokenizer --resize 64 photos --json
  smalti evaluate --model runs/emoji-tokenizer --st-lpips alex_shift_tolerant.pth photos
  smalti evaluate --model runs/emoji-tokenizer --features vgg16.pth --network vgg16 photos")]
pub(crate) struct EvaluateOptions {
    /// A folder of images, or a tar archive of images; several are taken together
    #[arg(required = true, value_name = "IMAGES")]
    pub(crate) images: Vec<PathBuf>,

    /// Folder of the tokenizer, or of the run that trained it
    #[arg(long, short)]
    pub(crate) model: PathBuf,

    /// Resize the shorter side to so many pixels and cut out the middle square, first
    #[arg(long, value_name = "PIXELS")]
    pub(crate) resize: Option<usize>,

    #[command(flatten)]
    pub(crate) judges: JudgeOptions,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Refuse broken images, instead of naming and skipping them
    #[arg(long)]
    pub(crate) strict: bool,
}

/// Networks that judge reconstructions.
#[derive(Debug, Args)]
pub(crate) struct JudgeOptions {
    /// Take the LPIPS distance as well: torchvision's VGG-16, or AlexNet, in PyTorch's format or safetensors
    #[arg(long, value_name = "FILE", requires = "lpips_heads")]
    pub(crate) lpips_trunk: Option<PathBuf>,

    /// The heads of that LPIPS, version 0.1
    #[arg(long, value_name = "FILE", requires = "lpips_trunk")]
    pub(crate) lpips_heads: Option<PathBuf>,

    /// What the trunk is
    #[arg(long, value_enum, default_value_t = LpipsBackbone::Vgg16, requires = "lpips_trunk")]
    pub(crate) lpips_backbone: LpipsBackbone,

    /// Take the shift-tolerant LPIPS distance as well, with weights from the package stlpips-pytorch
    #[arg(long, value_name = "FILE", conflicts_with = "lpips_trunk")]
    pub(crate) st_lpips: Option<PathBuf>,

    /// Take the Fréchet distance of all reconstructions to all images as well, by the vectors of this network
    #[arg(long, value_name = "FILE", requires = "network")]
    pub(crate) features: Option<PathBuf>,

    /// What the file of --features is
    #[arg(long, value_enum, value_name = "KIND", requires = "features")]
    pub(crate) network: Option<NetworkKind>,

    /// Attention heads of CLIP or DINOv2, where they are not 64 wide
    #[arg(long, value_name = "HEADS", requires = "features")]
    pub(crate) heads: Option<usize>,
}

/// The published trunks of LPIPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LpipsBackbone {
    Vgg16,
    Alexnet,
}

/// Networks that make a vector of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkKind {
    /// torchvision's VGG-16: mean over positions of relu5_3, 512 numbers
    Vgg16,
    /// torchvision's VGG-19: mean of relu5_3, 512 numbers
    Vgg19,
    /// torchvision's AlexNet: mean of relu5, 256 numbers
    Alexnet,
    /// The trunk of a shift-tolerant LPIPS (stlpips-pytorch): mean of its last rectifier
    StLpips,
    /// CLIP's image tower in Hugging Face's names: class token of the last block
    Clip,
    /// DINOv2 in Hugging Face's names: class token
    Dino,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  smalti distance --features dinov2.safetensors --network dino photos generated
  smalti distance --features vgg16.pth --network vgg16 --resize 256 photos.tar generated --json

What is printed compares only with numbers by the same network, of as many images that were prepared
alike; it is no FID, which is by Inception-v3. With no more images than a vector has numbers the
Fréchet distance is too large, and a warning says so. The kernel distance does not grow with fewer images.")]
pub(crate) struct DistanceOptions {
    /// The images to be like: a folder or a tar archive
    #[arg(value_name = "REFERENCE")]
    pub(crate) reference: PathBuf,

    /// The images to be judged: a folder or a tar archive
    #[arg(value_name = "GENERATED")]
    pub(crate) generated: PathBuf,

    #[command(flatten)]
    pub(crate) features: FeatureOptions,

    /// Resize the shorter side of every image to so many pixels and cut out the middle square, first
    #[arg(long, value_name = "PIXELS")]
    pub(crate) resize: Option<usize>,

    /// Precision and recall: images near one are as near as its so-manieth neighbour
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) neighbours: u32,

    /// Determines which images the kernel distance of large sets is taken of
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Refuse broken images, instead of naming and skipping them
    #[arg(long)]
    pub(crate) strict: bool,
}

/// The network whose vectors are compared.
#[derive(Debug, Args)]
pub(crate) struct FeatureOptions {
    /// The network whose vectors stand for images, in PyTorch's format or safetensors
    #[arg(long = "features", value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// What that file is
    #[arg(long, value_enum, value_name = "KIND")]
    pub(crate) network: NetworkKind,

    /// Attention heads of CLIP or DINOv2, where they are not 64 wide
    #[arg(long, value_name = "HEADS")]
    pub(crate) heads: Option<usize>,
}
