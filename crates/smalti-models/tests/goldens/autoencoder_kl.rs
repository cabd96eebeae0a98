//! The Gaussian autoencoders of latent diffusion against tensors of diffusers and of the original code.
//!
//! Absolute 2e-5 + relative 1e-4: float32 summation order.

use burn::tensor::{Device, Tensor};
use smalti_models::autoencoder::Autoencoder;
use smalti_models::autoencoder::published::autoencoder_kl::{AutoencoderKl, read};
use smalti_nn::Init;
use smalti_nn::state::Weights;
use smalti_quantize::posterior::GaussianPosterior;
use smalti_quantize::{Quantizer, QuantizerConfig};

use crate::support::{Golden, close};

const CASE: &str = "vae_diffusers";

fn model(published: AutoencoderKl) -> Autoencoder {
    let quantizer = QuantizerConfig::Gaussian(published.quantizer(256, 2));
    let mut init = Init::blank(&Device::flex());
    published.into_model(quantizer, &mut init).unwrap()
}

fn folder() -> AutoencoderKl {
    read(&Golden::open(CASE).folder).unwrap()
}

fn single_file() -> AutoencoderKl {
    read(&Golden::open(CASE).folder.join("ldm_f16.ckpt")).unwrap()
}

#[test]
fn a_diffusers_folder_gives_the_published_moments_and_images() {
    let golden = Golden::open(CASE);
    let model = model(folder());
    let moments = model.latents(golden.tensor("x"), None);
    close(moments.clone(), golden.tensor("moments"), "moments");
    let posterior = GaussianPosterior::from_moments(moments, 4).unwrap();
    close(posterior.mean(), golden.tensor("mean"), "means");
    close(
        posterior.log_variance(),
        golden.tensor("logvar"),
        "logarithms of variances",
    );
    close(posterior.deviation(), golden.tensor("std"), "deviations");
    let kl: Tensor<2> = posterior.kl_nats().reshape([2, -1]).sum_dim(1);
    close(kl.reshape([2]), golden.tensor::<1>("kl"), "divergence");
    for (latents, images) in [("mean", "decode_mean"), ("sample", "decode_sample")] {
        let decoded = model.images(golden.tensor(latents), None);
        close(decoded, golden.tensor(images), images);
    }
}

#[test]
fn a_single_file_gives_the_same_model() {
    let golden = Golden::open(CASE);
    let (one, other) = (model(folder()), model(single_file()));
    assert_eq!(Weights::of(&one), Weights::of(&other));
    let moments = other.latents(golden.tensor("x"), None);
    close(moments, golden.tensor("ldm_moments"), "moments");
    let decoded = other.images(golden.tensor("mean"), None);
    close(decoded, golden.tensor("ldm_decode_mean"), "images");
    let file = single_file();
    assert_eq!((file.channels, file.projections), (4, true));
    assert!(file.normalization.is_none());
}

#[test]
fn the_folder_knows_what_diffusion_models_see() {
    let golden = Golden::open(CASE);
    let normalization = folder().normalization.unwrap();
    assert_eq!(normalization.shift, [0.0; 4]);
    assert_eq!(normalization.scale, [0.18215; 4]);
    let scaled = golden.tensor::<4>("sample") * f64::from(normalization.scale[0]);
    close(scaled, golden.tensor("scaled_latent"), "scaled latents");
}

#[test]
fn codes_of_normalised_latents_decode_to_images() {
    let golden = Golden::open(CASE);
    let model = model(folder());
    let codes = model.encode(golden.tensor("x")).unwrap();
    assert_eq!(codes.dims(), [2, 2, 16, 16]);
    // Codewords are made for the prior, and come back in the autoencoder's own units: with more bits
    // than the divergence they lie within the posterior's deviation.
    let latents = model.quantizer().decode(&codes).unwrap();
    let error = (latents.clone() - golden.tensor("mean")) / golden.tensor::<4>("std");
    let error = error.square().mean().sqrt().into_scalar::<f32>();
    assert!(error < 1.0, "{error}");
    let images = model.decode(&codes).unwrap();
    close(images, model.images(latents, None), "images of codes");
}

#[test]
fn a_pipeline_folder_holds_the_autoencoder_in_vae() {
    let golden = Golden::open(CASE);
    let pipeline = tempfile::tempdir().unwrap();
    let inner = pipeline.path().join("vae");
    std::fs::create_dir(&inner).unwrap();
    for name in ["config.json", "diffusion_pytorch_model.safetensors"] {
        std::fs::copy(golden.folder.join(name), inner.join(name)).unwrap();
    }
    let found = read(pipeline.path()).unwrap();
    assert_eq!(Weights::of(&model(found)), Weights::of(&model(folder())));
}

#[test]
fn folders_and_files_of_something_else_are_explained() {
    let golden = Golden::open(CASE);
    let folder = tempfile::tempdir().unwrap();
    let problem = || read(folder.path()).unwrap_err().to_string();
    assert!(problem().contains("config.json"), "{}", problem());
    let config = std::fs::read_to_string(golden.folder.join("config.json")).unwrap();
    let write = |from: &str, to: &str| {
        assert!(config.contains(from), "{from}");
        std::fs::write(
            folder.path().join("config.json"),
            config.replacen(from, to, 1),
        )
        .unwrap();
    };
    write("", "");
    assert!(problem().contains("diffusion_pytorch_model.safetensors"));
    let weights = "diffusion_pytorch_model.safetensors";
    std::fs::copy(golden.folder.join(weights), folder.path().join(weights)).unwrap();
    assert!(read(folder.path()).is_ok());
    for (from, to, part) in [
        (
            "AutoencoderKL",
            "AutoencoderKLWan",
            "expected \"AutoencoderKL\"",
        ),
        ("silu", "relu", "act_fn is \"relu\""),
        (
            "\"latent_channels\": 4",
            "\"latent_channels\": 16",
            "the weights have 4",
        ),
        (
            "\"shift_factor\": null",
            "\"latents_mean\": [0, 0]",
            "must both have 4 numbers",
        ),
    ] {
        write(from, to);
        assert!(
            problem().contains(part),
            "{part:?} is not in: {}",
            problem()
        );
    }
    let rq_vae = Golden::open("rqvae_stage1").folder.join("model.pt");
    let message = read(&rq_vae).unwrap_err().to_string();
    assert!(
        message.contains("model.pt") && message.contains("means and variances"),
        "{message}"
    );
}
