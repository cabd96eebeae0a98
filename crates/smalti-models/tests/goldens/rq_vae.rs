//! RQ-VAE against tensors of the published code: encoder, codes, partial sums, losses, decoder.
//!
//! Continuous values first (absolute 2e-5 + relative 1e-4: float32 summation order), then codes, where
//! only positions whose recorded margin is below 1e-4 may differ (none is in these cases).

use burn::tensor::{Device, Tensor};
use smalti_models::autoencoder::Autoencoder;
use smalti_models::autoencoder::published::rq_vae;
use smalti_nn::state::host_values;
use smalti_nn::{Init, Noise};
use smalti_quantize::Quantizer;

use crate::support::{Golden, close};

fn model(golden: &Golden) -> (Autoencoder, rq_vae::PublishedRqVae) {
    let config = rq_vae::read_config(&golden.folder.join("config.yaml")).unwrap();
    let mut init = Init::blank(&Device::flex());
    let model = rq_vae::load(&config.model, &golden.folder.join("model.pt"), &mut init).unwrap();
    (model, config)
}

fn reconstructs_as_published(case: &str) {
    let golden = Golden::open(case);
    let (model, config) = model(&golden);
    let images: Tensor<4> = golden.tensor("x");

    let latents = model.latents(images.clone(), None);
    close(latents.clone(), golden.map("z_e"), "latents");

    let codes = golden.codes("codes");
    assert_eq!(
        model.encode(images.clone()).unwrap().values(),
        codes.values()
    );

    let quantizer = model.quantizer().as_residual().unwrap();
    for (depth, sum) in quantizer
        .partial_sums(latents.clone())
        .unwrap()
        .into_iter()
        .enumerate()
    {
        close(
            sum,
            golden.map(&format!("partial_sum_d{depth}")),
            "partial sum",
        );
    }
    close(
        quantizer.decode(&codes).unwrap(),
        golden.map("embed_code"),
        "embedded codes",
    );
    close(
        model.decode(&codes).unwrap(),
        golden.tensor("decode_code"),
        "decoded codes",
    );
    let images_of = |depths| model.images(quantizer.decode_depths(&codes, depths).unwrap(), None);
    close(
        images_of(0..2),
        golden.tensor("partial_add1"),
        "first two depths",
    );
    close(
        images_of(1..2),
        golden.tensor("partial_select1"),
        "second depth alone",
    );

    let result = model
        .reconstruct(images.clone(), &mut Noise::from_seed(0))
        .unwrap();
    close(
        result.images.clone(),
        golden.tensor("recon"),
        "reconstruction",
    );
    let difference = result.images - images;
    let error = if config.absolute_error {
        difference.abs().mean()
    } else {
        difference.square().mean()
    };
    let (error, commitment) = (
        host_values(error)[0],
        host_values(result.losses[0].1.clone())[0],
    );
    assert_eq!(result.losses[0].0, "commitment");
    for (got, name) in [
        (error, "loss_recon"),
        (commitment, "loss_latent"),
        (
            error + config.commitment_weight as f32 * commitment,
            "loss_total",
        ),
    ] {
        let expected = golden.number(name);
        assert!(
            (got - expected).abs() <= 1e-5 * expected.abs(),
            "{name}: got {got}, expected {expected}"
        );
    }
}

#[test]
fn a_shared_codebook_reconstructs_as_published() {
    reconstructs_as_published("rqvae_stage1");
}

#[test]
fn separate_codebooks_on_folded_latents_reconstruct_as_published() {
    reconstructs_as_published("rqvae_stage1_nonshared");
}

#[test]
fn soft_codes_are_the_published_distributions() {
    let golden = Golden::open("rqvae_stage1");
    let (model, _) = model(&golden);
    let quantizer = model.quantizer().as_residual().unwrap();
    let latents = model.latents(golden.tensor("x"), None);
    let soft = quantizer.soft_codes(latents, 0.5, None).unwrap();
    assert_eq!(soft.codes.values(), golden.codes("soft_codes").values());
    // The case keeps the first two rows of the first image: (row, column, depth, code).
    let expected: Tensor<4> = golden.tensor("soft_probs");
    let [rows, columns, depth, size] = expected.dims();
    for (d, targets) in soft.targets.into_iter().enumerate().take(depth) {
        let got = targets.narrow(0, 0, rows * columns);
        let expected = expected
            .clone()
            .narrow(2, d, 1)
            .reshape([rows * columns, size]);
        close(got, expected, "soft targets");
    }
}

#[test]
fn weights_of_another_model_are_refused_with_their_names() {
    let golden = Golden::open("rqvae_stage1");
    let config = rq_vae::read_config(
        &Golden::open("rqvae_stage1_nonshared")
            .folder
            .join("config.yaml"),
    )
    .unwrap();
    let mut init = Init::blank(&Device::flex());
    let error = rq_vae::load(&config.model, &golden.folder.join("model.pt"), &mut init)
        .unwrap_err()
        .to_string();
    assert!(error.contains("shape of encoder.down.0.block.0.conv1.weight: expected [64, 32, 3, 3], got [32, 32, 3, 3]"), "{error}");
}
