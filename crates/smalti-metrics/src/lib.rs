//! Image quality and codebook statistics.
