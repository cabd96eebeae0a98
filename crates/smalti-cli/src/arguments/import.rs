//! What `smalti import` is asked.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use smalti::{PublishedGeneratorLayout, PublishedLayout};

/// Whose layout a published checkpoint has.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Layout {
    /// RQ-VAE: model.pt beside config.yaml
    RqVae,
    /// Gaussian Quant, of either network: a .ckpt file beside a yaml
    GaussianQuant,
    /// BSQ-ViT: a .pt file beside a yaml
    BsqVit,
    /// LlamaGen's tokenizers: one file
    Llamagen,
    /// FQGAN's tokenizers, of two or three branches: one file
    Fqgan,
    /// Taming's tokenizers, also inside a generator's file: a .ckpt file beside a yaml
    Taming,
    /// RQ-Transformer, a generator: model.pt beside config.yaml
    RqTransformer,
    /// LlamaGen's generators: one file
    LlamagenGpt,
    /// FAR, FQGAN's generators: one file
    Far,
    /// Taming's generators (Net2NetTransformer): a .ckpt file beside a yaml
    TamingGpt,
}

/// What a layout is one of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Tokenizer(PublishedLayout),
    Generator(PublishedGeneratorLayout),
}

impl Layout {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::RqVae => Kind::Tokenizer(PublishedLayout::RqVae),
            Self::GaussianQuant => Kind::Tokenizer(PublishedLayout::GaussianQuant),
            Self::BsqVit => Kind::Tokenizer(PublishedLayout::BsqVit),
            Self::Llamagen => Kind::Tokenizer(PublishedLayout::LlamaGen),
            Self::Fqgan => Kind::Tokenizer(PublishedLayout::Fqgan),
            Self::Taming => Kind::Tokenizer(PublishedLayout::Taming),
            Self::RqTransformer => Kind::Generator(PublishedGeneratorLayout::RqTransformer),
            Self::LlamagenGpt => Kind::Generator(PublishedGeneratorLayout::LlamaGen),
            Self::Far => Kind::Generator(PublishedGeneratorLayout::Far),
            Self::TamingGpt => Kind::Generator(PublishedGeneratorLayout::Taming),
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  smalti import --layout llamagen vq_ds16_c2i.pt -o models/llamagen-f16
  smalti import --layout rq-vae imagenet/model.pt -o models/rq-vae
  smalti import --layout gaussian-quant gq.ckpt --config sd3unet_gq.yaml -o models/gq

Generators come with the tokenizer whose codes they write, imported first:
  smalti import --layout llamagen-gpt c2i_L_384.pt --tokenizer models/llamagen-f16 --image-size 384 -o models/l
  smalti import --layout taming last.ckpt --config model.yaml -o models/vqgan
  smalti import --layout taming-gpt last.ckpt --config model.yaml --tokenizer models/vqgan -o models/taming
  smalti generate --model models/l --class 207 -o dogs.png

PyTorch files are parsed, never executed. What only training needs (discriminators, optimisers,
prediction heads) is left out.")]
pub(crate) struct ImportOptions {
    /// The published weights: a .pt, .pth, .ckpt or .safetensors file
    pub(crate) weights: PathBuf,

    /// Whose layout they have
    #[arg(long, value_enum)]
    pub(crate) layout: Layout,

    /// Folder for the model
    #[arg(long, short)]
    pub(crate) out: PathBuf,

    /// The published configuration [default: config.yaml beside the weights, where the layout has one]
    #[arg(long, value_name = "YAML")]
    pub(crate) config: Option<PathBuf>,

    /// Of a generator: the folder of the tokenizer whose codes it writes
    #[arg(long, value_name = "MODEL")]
    pub(crate) tokenizer: Option<PathBuf>,

    /// Of a generator without a configuration: side of its images [default: of the tokenizer's]
    #[arg(long, value_name = "PIXELS")]
    pub(crate) image_size: Option<usize>,

    /// Of a generator without a configuration: its attention heads [default: 64 elements each]
    #[arg(long)]
    pub(crate) heads: Option<usize>,

    /// The licence of the weights, to be written down [default: the authors', where it is known]
    #[arg(long)]
    pub(crate) license: Option<String>,
}
