//! VQGANs of taming-transformers, read from their files, against tensors of their code: latents, codes, values, images.
//!
//! Continuous values first (absolute 2e-5 + relative 1e-4: float32 summation order), then codes, where
//! only positions whose recorded margin is below 1e-4 may differ. Draws, divergence and gradients of the Gumbel
//! quantizer are held against the same tensors where it is.

use burn::tensor::{Device, Tensor};
use smalti_models::autoencoder::Autoencoder;
use smalti_models::autoencoder::published::taming::{load, read_config};
use smalti_nn::Init;
use smalti_quantize::{Codes, Quantizer};

use crate::support::{Golden, close, same_codes};

fn published(golden: &Golden) -> Autoencoder {
    let config = read_config(&golden.folder.join("model.yaml")).unwrap();
    let weights = golden.folder.join("last.ckpt");
    load(&config, &weights, &mut Init::blank(&Device::flex())).unwrap()
}

/// Encodes the case's images; the recorded codes.
fn encoded(golden: &Golden, model: &Autoencoder, [codes, margin]: [&str; 2]) -> Codes {
    let images: Tensor<4> = golden.tensor("x");
    let latents = model.latents(images.clone(), None);
    close(latents, golden.tensor("h"), "latents");
    let expected = golden.branch_codes(&[codes]);
    let found = model.encode(images).unwrap();
    let margins = golden.floats(margin).1;
    same_codes(&found.values(), &expected.values(), &margins, 1e-4);
    expected
}

#[test]
fn a_vqgan_with_nearest_codes() {
    let golden = Golden::open("taming_vqgan");
    let model = published(&golden);
    let codes = encoded(&golden, &model, ["codes", "margin"]);
    let values = model.quantizer().decode(&codes).unwrap();
    close(values, golden.tensor("quant"), "values");
    let decoded = model.decode(&codes).unwrap();
    close(decoded, golden.tensor("decode_code"), "images");
}

#[test]
fn a_vqgan_with_codes_by_logits() {
    let golden = Golden::open("taming_gumbel");
    let model = published(&golden);
    let codes = encoded(&golden, &model, ["codes_argmax", "margin_argmax"]);
    let decoded = model.decode(&codes).unwrap();
    close(decoded, golden.tensor("decode_argmax"), "images");

    let drawn = golden.branch_codes(&["codes_sampled"]);
    let values = model.quantizer().decode(&drawn).unwrap();
    close(values, golden.tensor("zq_eval"), "drawn values");
    let decoded = model.decode(&drawn).unwrap();
    close(decoded, golden.tensor("recon_sampled"), "drawn images");
}

#[test]
fn weights_of_another_model_are_refused() {
    let [vqgan, gumbel] = ["taming_vqgan", "taming_gumbel"].map(Golden::open);
    let config = read_config(&gumbel.folder.join("model.yaml")).unwrap();
    let weights = vqgan.folder.join("last.ckpt");
    let error = load(&config, &weights, &mut Init::blank(&Device::flex())).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("do not fit the model") && message.contains("encoder.down.0.block.0"),
        "{message}"
    );
}
