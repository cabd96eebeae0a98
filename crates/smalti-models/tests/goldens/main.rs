//! Models against tensors of the published code that they come from.

mod autoencoder_kl;
mod bsq_vit;
mod gaussian_quant;
mod rq_vae;
mod support;
