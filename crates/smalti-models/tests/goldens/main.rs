//! Models against tensors of the published code that they come from.

mod autoencoder_kl;
mod bsq_vit;
mod fqgan;
mod gaussian_quant;
mod llamagen;
mod rq_vae;
mod support;
