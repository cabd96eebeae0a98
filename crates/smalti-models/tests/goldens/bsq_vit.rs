//! The BSQ-ViT of its authors against tensors of their code: latents, bits, values, images.
//!
//! Continuous values first (absolute 2e-5 + relative 1e-4: float32 summation order), then codes, where
//! only positions whose recorded margin is below 1e-4 may differ.

use burn::tensor::{Device, Tensor};
use smalti_models::autoencoder::published::bsq_vit::{load, read_config};
use smalti_models::autoencoder::{Autoencoder, AutoencoderConfig};
use smalti_nn::Init;
use smalti_quantize::{BsqConfig, Codes, Quantizer, QuantizerConfig};

use crate::support::{Golden, close, same_codes};

fn model(golden: &Golden) -> Autoencoder {
    let config = read_config(&golden.folder.join("config.yaml")).unwrap();
    let mut init = Init::blank(&Device::flex());
    load(&config, &golden.folder.join("checkpoint.pt"), &mut init).unwrap()
}

#[test]
fn encodes_and_decodes_as_published() {
    let golden = Golden::open("bsqvit_official");
    let model = model(&golden);
    let images: Tensor<4> = golden.tensor("x");
    close(
        model.latents(images.clone(), None),
        golden.grid("h"),
        "latents",
    );
    let codes = model.encode(images).unwrap();
    assert_eq!(codes.dims(), [2, 1, 4, 4]);
    let expected = golden.ids("indices_exact").1;
    let margins = golden.floats("sign_margin").1;
    same_codes(&codes.values(), &expected, &margins, 1e-4);
    let expected = Codes::from_values(&expected, [2, 1, 4, 4], &Device::flex());
    let values = model.quantizer().decode(&expected).unwrap();
    close(values.clone(), golden.grid("quant"), "values");
    close(
        model.images(values, None),
        golden.tensor("decode"),
        "images before clamping",
    );
    close(
        model.decode(&expected).unwrap(),
        golden.tensor("recon_clamped"),
        "images",
    );
}

#[test]
fn groups_of_bits_are_codes_at_several_depths() {
    let golden = Golden::open("bsqvit_official");
    let quantizer = QuantizerConfig::Bsq(BsqConfig::new(9, 2));
    let mut init = Init::blank(&Device::flex());
    let model = model(&golden).with_quantizer(quantizer, &mut init).unwrap();
    let codes = model.encode(golden.tensor("x")).unwrap();
    let (_, groups) = golden.ids("group_indices");
    let groups = Codes::from_values(&groups, [2, 4, 4, 2], &Device::flex());
    let groups = Codes::new(groups.tensor().permute([0, 3, 1, 2]));
    assert_eq!(codes.values(), groups.values());
}

fn with_yaml(from: &str, to: &str) -> Result<AutoencoderConfig, String> {
    let text = std::fs::read_to_string(Golden::open("bsqvit_official").folder.join("config.yaml"));
    let text = text.unwrap();
    assert!(text.contains(from), "{from}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("changed.yaml");
    std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
    read_config(&path).map_err(|error| error.to_string())
}

#[test]
fn long_codes_are_cut_and_entropy_groups_follow_the_file() {
    let quantizer = |from: &str, to: &str| match with_yaml(from, to).unwrap().quantizer {
        QuantizerConfig::Bsq(quantizer) => quantizer,
        other => unreachable!("{other:?}"),
    };
    let long = quantizer("embed_dim: 18", "embed_dim: 36");
    assert_eq!((long.bits, long.depth, long.entropy_group), (18, 2, 1));
    let grouped = quantizer("    persample_entropy_compute: analytical\n", "");
    assert_eq!(
        (grouped.bits, grouped.depth, grouped.entropy_group),
        (18, 1, 9)
    );
}

#[test]
fn images_in_other_ranges_are_refused() {
    let zero_mean =
        |value: &str| with_yaml("model:", &format!("data:\n  zero_mean: {value}\nmodel:"));
    assert!(zero_mean("true").unwrap().clamp);
    assert!(
        zero_mean("false")
            .unwrap_err()
            .contains("clamp_range is [0.0, 1.0]")
    );
    let without = with_yaml("    clamp_range:\n    - -1\n    - 1\n", "").unwrap_err();
    assert!(without.contains("clamp_range is [0.0, 1.0]"), "{without}");
    for (from, to, part) in [
        ("VITBSQModel", "VITVQModel", "expected ….VITBSQModel"),
        ("post_q_l2_norm: true", "post_q_l2_norm: false", "differ"),
        ("layers: 2", "layers: 3", "different shapes"),
        ("drop_rate: 0.0", "mask_type: causal", "different shapes"),
    ] {
        let message = with_yaml(from, to).unwrap_err();
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}
