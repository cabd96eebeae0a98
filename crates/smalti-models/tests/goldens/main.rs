//! Models against tensors of the published code that they come from.

mod adversarial;
mod autoencoder_kl;
mod bsq_vit;
mod fqgan;
mod gaussian_quant;
mod llamagen;
mod lpips;
mod r1;
mod rq_vae;
mod support;
mod taming;
mod taming_gpt;
mod vision_transformer;
