//! Image folders, tar shards, preprocessing and token files.
