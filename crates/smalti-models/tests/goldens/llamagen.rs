//! LlamaGen's tokenizer against tensors of its code: latents, codes, values, images.
//!
//! Continuous values first (absolute 2e-5 + relative 1e-4: float32 summation order), then codes, where
//! only positions whose recorded margin is below 1e-4 may differ. The quantizer's losses and gradients
//! are held against the same tensors where it is.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use smalti_models::autoencoder::Autoencoder;
use smalti_models::autoencoder::published::llamagen::{PublishedTokenizer, read};
use smalti_nn::Init;
use smalti_quantize::{Metric, Quantizer, QuantizerConfig};

use crate::support::{Golden, close, same_codes};

fn built(published: PublishedTokenizer) -> Autoencoder {
    let mut init = Init::blank(&Device::flex());
    published.into_model(&mut init).unwrap()
}

fn as_published(golden: &Golden, model: &Autoencoder) {
    let images: Tensor<4> = golden.tensor("x");
    let latents = model.latents(images.clone(), None);
    close(latents, golden.tensor("h"), "latents");
    let codes = model.encode(images).unwrap();
    let expected = golden.branch_codes(&["codes"]);
    let margins = golden.floats("margin").1;
    same_codes(&codes.values(), &expected.values(), &margins, 1e-4);
    let values = model.quantizer().decode(&expected).unwrap();
    close(values.clone(), golden.tensor("quant"), "values");
    close(model.images(values, None), golden.tensor("recon"), "images");
    let decoded = model.decode(&expected).unwrap();
    close(decoded.clone(), golden.tensor("decode_code"), "decoded");
    let alone = model.decode_branch(&expected, 0).unwrap();
    close(alone, decoded, "the only branch");
}

#[test]
fn scaled_codes_in_a_file_of_its_training() {
    let golden = Golden::open("llamagen_vq");
    let published = read(&golden.folder.join("model.pt")).unwrap();
    as_published(&golden, &built(published));
}

#[test]
fn plain_codes_in_half_precision() {
    let golden = Golden::open("llamagen_vq_nol2");
    let mut published = read(&golden.folder.join("model.pt")).unwrap();
    let QuantizerConfig::Vector(quantizer) = &mut published.config.quantizer else {
        unreachable!("LlamaGen has one codebook")
    };
    quantizer.metric = Metric::Euclidean;
    as_published(&golden, &built(published));
}

#[test]
fn other_files_are_refused_by_name() {
    let refused = |case: &str, file: &str| {
        let path = Golden::open(case).folder.join(file);
        read(&path).unwrap_err().to_string()
    };
    let fqgan = refused("fqgan_dual", "model.pt");
    assert!(fqgan.contains("a LlamaGen tokenizer") && fqgan.contains("quantizer.codebook.weight"));
    let rq_vae = refused("rqvae_stage1", "model.pt");
    assert!(rq_vae.contains("it has no"), "{rq_vae}");
    assert!(read(Path::new("/nowhere.pt")).is_err());
}
