//! CLIP and DINOv2 against the library they are published with: class tokens of images of another size.
//!
//! 1e-4 absolute and relative, as the case says: values up to 13 after two blocks.

use burn::tensor::{Device, Tensor};
use smalti_models::features::{FeatureConfig, VisionTransformer};
use smalti_nn::state::host_values;

use crate::support::Golden;

#[track_caller]
fn near(got: Tensor<2>, want: Tensor<2>, what: &str) {
    assert_eq!(got.dims(), want.dims(), "{what}");
    for (i, (got, want)) in host_values(got).iter().zip(host_values(want)).enumerate() {
        let error = (got - want).abs();
        assert!(
            error <= 1e-4 + 1e-4 * want.abs(),
            "{what}[{i}]: got {got}, expected {want}"
        );
    }
}

#[test]
fn clip_looks_at_images_as_published() {
    let golden = Golden::open("vision_transformers");
    let file = golden.folder.join("clip.safetensors");
    let heads = Some(4);
    let network = VisionTransformer::read_clip(&file, heads, &Device::flex()).unwrap();
    let want = || golden.tensor("clip.cls");
    near(
        network.class_vectors(golden.tensor("clip.input")),
        want(),
        "of its input",
    );
    let config = FeatureConfig::Clip { file, heads };
    let network = config.load(&Device::flex()).unwrap();
    assert_eq!(network.width(), 32);
    near(
        network.vectors(golden.tensor("images")),
        want(),
        "of images",
    );
}

#[test]
fn dino_looks_at_images_as_published() {
    let golden = Golden::open("vision_transformers");
    let file = golden.folder.join("dino.bin");
    let heads = Some(3);
    let network = VisionTransformer::read_dino(&file, heads, &Device::flex()).unwrap();
    assert_eq!((network.side(), network.width()), (70, 24));
    let own = network.class_vectors(golden.tensor("dino70.input"));
    near(own, golden.tensor("dino70.cls"), "at its own size");
    let network = FeatureConfig::Dino { file, heads }
        .load(&Device::flex())
        .unwrap();
    let images = golden.tensor("images");
    near(
        network.vectors(images),
        golden.tensor("dino.cls"),
        "with positions interpolated",
    );
}

#[test]
fn what_is_missing_is_told() {
    let golden = Golden::open("vision_transformers");
    let (clip, dino) = ("clip.safetensors", "dino.bin");
    let device = Device::flex();
    let message = |result: Result<VisionTransformer, _>| match result {
        Err(error) => format!("{error}"),
        Ok(_) => String::new(),
    };
    let wrong = message(VisionTransformer::read_dino(
        &golden.folder.join(clip),
        None,
        &device,
    ));
    assert!(
        wrong.contains("clip.safetensors does not hold DINOv2"),
        "{wrong}"
    );
    let narrow = message(VisionTransformer::read_dino(
        &golden.folder.join(dino),
        None,
        &device,
    ));
    assert!(narrow.contains("`heads` must be given"), "{narrow}");
    let uneven = message(VisionTransformer::read_dino(
        &golden.folder.join(dino),
        Some(5),
        &device,
    ));
    assert!(
        uneven.contains("5 heads do not divide its width 24"),
        "{uneven}"
    );
}
