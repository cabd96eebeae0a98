//! Image folders, tar shards, preprocessing and token files.
//!
//! Host memory only: 8-bit RGB images, f32 vectors, u32 codes. Nothing here knows a network.

mod atlas;
pub mod atomic;
pub mod bundled;
mod cifar;
mod config;
mod container;
mod decode;
mod error;
mod floats;
mod folder;
mod image;
mod interpolate;
mod loader;
mod order;
mod padding;
mod preprocess;
mod resample;
mod scan;
mod shard_archive;
mod shards;
mod source;
mod split;
mod token_cache;
mod token_error;
mod tokens;
mod views;

pub use atlas::{Atlas, Tile};
pub use atomic::AtomicFile;
pub use cifar::{Cifar, CifarPart};
pub use config::{DatasetConfig, OpenOptions};
pub use decode::{DecodeLimits, decode, dimensions};
pub use error::DataError;
pub use floats::{ByteRounding, append_planes, from_planes, to_planes};
pub use folder::Folder;
pub use image::Image;
pub use interpolate::{Interpolation, interpolate};
pub use loader::{Batch, BatchConfig, Batches, Visits, load_batch};
pub use order::{EpochOrder, chosen_view, sample_rng};
pub use padding::Padding;
pub use preprocess::{Preprocess, PreprocessPair, Step};
pub use resample::{Filter, resize, resize_grey};
pub use scan::{BrokenFile, Check, LoadReport, cache, scan};
pub use shards::Shards;
pub use source::{Dataset, ImageSource, MemorySource, Sample};
pub use split::Split;
pub use token_cache::{TokenCache, TokenCacheSpec, TokenCacheWriter};
pub use token_error::TokenFileError;
pub use tokens::{ImageRecord, TokenFile};
pub use views::Views;

#[cfg(test)]
mod golden;
