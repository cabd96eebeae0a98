//! Quantizers: maps between latents and discrete codes.
