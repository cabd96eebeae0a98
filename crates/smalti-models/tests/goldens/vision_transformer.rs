//! CLIP and DINOv2 against the library they are published with: class tokens of images of another size, maps of
//! patches after each block.
//!
//! 1e-4 absolute and relative, as the case says: values up to 13 after two blocks.

use burn::tensor::{Device, Tensor, TensorData};
use smalti_models::features::{FeatureConfig, VisionTransformer};
use smalti_nn::state::{Weights, host_values};

use crate::support::Golden;

#[track_caller]
fn near<const D: usize>(got: Tensor<D>, want: Tensor<D>, what: &str) {
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

/// The case's maps, `[2, width, rows, columns]`.
fn maps(golden: &Golden, name: &str) -> Tensor<4> {
    let file = golden.folder.join("maps.safetensors");
    let arrays = Weights::read_safetensors_where(&file, |array| array == name).unwrap();
    let array = &arrays.0[name];
    let shape: [usize; 4] = array.shape.clone().try_into().unwrap();
    Tensor::from_data(
        TensorData::new(array.values.clone(), shape),
        &Device::flex(),
    )
}

#[test]
fn maps_are_the_published_ones_after_every_block() {
    let golden = Golden::open("vision_transformers");
    let device = Device::flex();
    let (clip, dino) = (
        golden.folder.join("clip.safetensors"),
        golden.folder.join("dino.bin"),
    );
    let clip = VisionTransformer::read_clip(&clip, Some(4), &device).unwrap();
    let dino = VisionTransformer::read_dino(&dino, Some(3), &device).unwrap();
    for (network, name, input) in [
        (&clip, "clip", "clip.input"),
        (&dino, "dino70", "dino70.input"),
    ] {
        let found = network.maps(golden.tensor(input), &[0, 1]);
        for (i, found) in found.into_iter().enumerate() {
            let block = format!("{name}.block{}", i + 1);
            near(found, maps(&golden, &block), &block);
        }
    }
}

#[test]
fn slopes_reach_the_images_through_resizing_and_colours() {
    let golden = Golden::open("vision_transformers");
    let device = Device::flex().autodiff();
    let config = FeatureConfig::Clip {
        file: golden.folder.join("clip.safetensors"),
        heads: Some(4),
    };
    let network = config.load_maps(&["block2"], &device).unwrap();
    let images: Tensor<4> = Tensor::from_inner(golden.tensor("images")).require_grad();
    let [map] = network.forward(images.clone(), false).try_into().unwrap();
    let slope = images.grad(&map.square().sum().backward()).unwrap();
    let want = maps(&golden, "clip.block2.slope");
    let largest = want.clone().abs().max().into_scalar::<f32>();
    let gap = (slope - want).abs().max().into_scalar::<f32>();
    assert!(gap < 1e-4 * largest, "{gap} of {largest}");
}

#[test]
fn blocks_go_by_their_numbers() {
    let golden = Golden::open("vision_transformers");
    let config = FeatureConfig::Dino {
        file: golden.folder.join("dino.bin"),
        heads: Some(3),
    };
    let read = |taps: &[&str]| config.load_maps(taps, &Device::flex());
    assert_eq!(read(&[]).unwrap().taps(), ["block1", "block2"]);
    assert_eq!(read(&["block2"]).unwrap().taps(), ["block2"]);
    for wrong in ["block0", "block3", "relu1"] {
        let message = read(&[wrong]).unwrap_err().to_string();
        assert!(
            message.contains(wrong) && message.contains("block1 to block2"),
            "{message}"
        );
    }
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
