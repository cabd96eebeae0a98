//! Image folders, tar shards, preprocessing and token files.
//!
//! Host memory only: 8-bit RGB images, f32 vectors, u32 codes. Nothing here knows a network.

mod atlas;
pub mod atomic;
pub mod bundled;
mod decode;
mod error;
mod floats;
mod image;
mod interpolate;
mod preprocess;
mod resample;
mod source;

pub use atlas::{Atlas, Tile};
pub use decode::{DecodeLimits, decode, dimensions};
pub use error::DataError;
pub use floats::{ByteRounding, append_planes, from_planes, to_planes};
pub use image::Image;
pub use interpolate::{Interpolation, interpolate};
pub use preprocess::{Preprocess, PreprocessPair, Step};
pub use resample::{Filter, resize, resize_grey};
pub use source::{Dataset, ImageSource, MemorySource, Sample};

#[cfg(test)]
mod golden;
