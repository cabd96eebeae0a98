//! Images to discrete tokens and tokens to images.
