//! LPIPS against the published package: distances, what each layer adds, and the gradient of the image.
//!
//! Tolerances are those of the case: 1e-4 relative for distances and layers, 1e-3 relative and 1e-6 absolute
//! for gradients (float32 sums of other orders, and rectifiers beside their corners).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use smalti_models::features::{Backbone, FeatureConfig, Trunk};
use smalti_models::perceptual::{Lpips, PerceptualConfig};
use smalti_nn::state::{Array, Weights, host_values};

use crate::support::Golden;

/// The case's recipe for weights of full width: a hash of seed, tensor and element, scaled.
fn recipe(tensor: u64, shape: &[usize], scale: f32) -> Array {
    let number = |element: u64| {
        let k = (tensor << 32) + element;
        let mut z = 6200u64.wrapping_add((k + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        ((z >> 40) as f32 / (1 << 23) as f32 - 1.0) * scale
    };
    Array {
        shape: shape.to_vec(),
        values: (0..shape.iter().product::<usize>() as u64)
            .map(number)
            .collect(),
    }
}

/// A trunk by the recipe, whose scales are √(2·3/fan_in) or 1/√… as the case lists them.
fn full_width(layers: &[(usize, [usize; 4], f32)], path: &Path) {
    let mut arrays = BTreeMap::new();
    for (i, (place, shape, scale)) in layers.iter().enumerate() {
        let bias = recipe(2 * i as u64 + 1, &shape[..1], 0.05);
        arrays.insert(
            format!("features.{place}.weight"),
            recipe(2 * i as u64, shape, *scale),
        );
        arrays.insert(format!("features.{place}.bias"), bias);
    }
    std::fs::write(path, Weights(arrays).to_safetensors(&BTreeMap::new())).unwrap();
}

const ALEXNET: [(usize, [usize; 4], f32); 5] = [
    (0, [64, 3, 11, 11], 0.128_564_86),
    (3, [192, 64, 5, 5], 0.061_237_242),
    (6, [384, 192, 3, 3], 0.058_925_565),
    (8, [256, 384, 3, 3], 0.041_666_668),
    (10, [256, 256, 3, 3], 0.051_031_04),
];

const VGG: [(usize, [usize; 4], f32); 13] = [
    (0, [64, 3, 3, 3], 0.471_404_52),
    (2, [64, 64, 3, 3], 0.102_062_08),
    (5, [128, 64, 3, 3], 0.102_062_08),
    (7, [128, 128, 3, 3], 0.072_168_78),
    (10, [256, 128, 3, 3], 0.072_168_78),
    (12, [256, 256, 3, 3], 0.051_031_04),
    (14, [256, 256, 3, 3], 0.051_031_04),
    (17, [512, 256, 3, 3], 0.051_031_04),
    (19, [512, 512, 3, 3], 0.036_084_39),
    (21, [512, 512, 3, 3], 0.036_084_39),
    (24, [512, 512, 3, 3], 0.036_084_39),
    (26, [512, 512, 3, 3], 0.036_084_39),
    (28, [512, 512, 3, 3], 0.036_084_39),
];

fn load(backbone: Backbone, trunk: PathBuf, heads: PathBuf, device: &Device) -> Lpips {
    let config = PerceptualConfig::Lpips {
        backbone,
        trunk,
        heads,
    };
    config.load(device).unwrap()
}

#[track_caller]
fn near(got: &[f32], want: &[f32], relative: f32, absolute: f32, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(
            (got - want).abs() <= absolute + relative * want.abs(),
            "{what}[{i}]: got {got}, expected {want}"
        );
    }
}

fn measures_as_published(lpips: &Lpips, golden: &Golden, name: &str) {
    for image in ["img0", "img1"] {
        let [a, b] = ["a", "b"].map(|side| golden.tensor::<4>(&format!("{image}.{side}")));
        let terms = lpips.terms(a.clone(), b.clone());
        let terms: Vec<f32> = terms.into_iter().flat_map(host_values).collect();
        let (_, layers) = golden.floats(&format!("{name}.{image}.layers"));
        near(&terms, &layers, 1e-4, 0.0, "layers");
        let whole = host_values(lpips.distances(a, b));
        let (_, want) = golden.floats(&format!("{name}.{image}.lpips"));
        near(&whole, &want, 1e-4, 0.0, "distance");
    }
}

fn teaches_as_published(lpips: &Lpips, golden: &Golden, name: &str) {
    let [a, b] = ["a", "b"].map(|side| golden.tensor::<4>(&format!("img0.{side}")).autodiff());
    let a = a.require_grad();
    let gradients = lpips.distances(a.clone(), b).sum().backward();
    let gradient = host_values(a.grad(&gradients).unwrap());
    let (_, want) = golden.floats(&format!("{name}.img0.grad_a"));
    near(&gradient, &want, 1e-3, 1e-6, "gradient");
}

#[test]
fn narrow_networks_are_read_by_their_files_widths() {
    let golden = Golden::open("metrics_lpips");
    for (backbone, name) in [(Backbone::Alexnet, "alex"), (Backbone::Vgg16, "vgg")] {
        let trunk = golden.folder.join(format!("{name}_narrow_torchvision.pth"));
        let heads = golden.folder.join(format!("lpips_lin_{name}_narrow.pt"));
        let lpips = load(backbone, trunk, heads, &Device::flex());
        measures_as_published(&lpips, &golden, &format!("{name}_narrow"));
    }
}

#[test]
fn networks_of_full_width_measure_and_teach() {
    let golden = Golden::open("metrics_lpips");
    let folder = tempfile::tempdir().unwrap();
    let device = Device::flex().autodiff();
    for (backbone, name, layers) in [
        (Backbone::Alexnet, "alex", &ALEXNET[..]),
        (Backbone::Vgg16, "vgg", &VGG[..]),
    ] {
        let trunk = folder.path().join(format!("{name}.safetensors"));
        full_width(layers, &trunk);
        let heads = golden.folder.join(format!("lpips_lin_{name}.pt"));
        let lpips = load(backbone, trunk.clone(), heads.clone(), &Device::flex());
        measures_as_published(&lpips, &golden, name);
        let lpips = load(backbone, trunk.clone(), heads, &device);
        teaches_as_published(&lpips, &golden, name);

        let taps = backbone.default_taps();
        let maps = Trunk::read(backbone, &taps, &trunk, &Device::flex()).unwrap();
        let image: Tensor<4> = golden.tensor("img0.a");
        let shift = Tensor::<1>::from_data([-0.030, -0.088, -0.188], &Device::flex());
        let scale = Tensor::<1>::from_data([0.458, 0.448, 0.450], &Device::flex());
        let [shift, scale] = [shift, scale].map(|t| t.reshape([1, 3, 1, 1]));
        let maps = maps.forward((image - shift) / scale);
        let means: Vec<f32> = maps
            .iter()
            .map(|m| m.clone().mean().into_scalar())
            .collect();
        let (_, want) = golden.floats(&format!("{name}.img0.feature_means"));
        near(&means, &want, 1e-4, 0.0, "means of the maps");
        let (_, last) = golden.floats(&format!("{name}.img0.last_feature"));
        near(&host_values(maps[4].clone()), &last, 1e-4, 2e-4, "last map");
    }
}

#[test]
fn files_of_another_network_are_refused() {
    let golden = Golden::open("metrics_lpips");
    let file = |name: &str| golden.folder.join(name);
    let config = PerceptualConfig::Lpips {
        backbone: Backbone::Vgg16,
        trunk: file("vgg_narrow_torchvision.pth"),
        heads: file("lpips_lin_alex_narrow.pt"),
    };
    let message = config.load(&Device::flex()).unwrap_err().to_string();
    assert!(
        message.contains("lpips_lin_alex_narrow.pt")
            && message.contains("lin0: expected the shape [1, 4, 1, 1]"),
        "{message}"
    );
    let config = PerceptualConfig::Lpips {
        backbone: Backbone::Alexnet,
        trunk: file("vgg_narrow_torchvision.pth"),
        heads: file("lpips_lin_alex_narrow.pt"),
    };
    let message = config.load(&Device::flex()).unwrap_err().to_string();
    assert!(
        message.contains("does not hold the trunk of AlexNet"),
        "{message}"
    );
}

#[test]
fn the_shift_tolerant_form_measures_and_teaches() {
    let golden = Golden::open("st_lpips");
    let device = Device::flex().autodiff();
    for name in ["alex", "vgg"] {
        let file = golden
            .folder
            .join(format!("{name}_shift_tolerant_narrow.pth"));
        let lpips = PerceptualConfig::StLpips { file }.load(&device).unwrap();
        for image in ["img0", "img1"] {
            let side = |side| golden.tensor::<4>(&format!("{image}.{side}")).autodiff();
            let (a, b) = (side("a").require_grad(), side("b"));
            let terms = lpips.terms(a.clone(), b.clone());
            let terms = host_values(Tensor::stack::<2>(terms, 1));
            let (_, layers) = golden.floats(&format!("{name}.{image}.layers"));
            near(&terms, &layers, 1e-4, 1e-8, "layers");
            let distances = lpips.distances(a.clone(), b);
            let (_, want) = golden.floats(&format!("{name}.{image}.distance"));
            near(
                &host_values(distances.clone()),
                &want,
                1e-4,
                0.0,
                "distances",
            );
            let gradients = distances.sum().backward();
            let gradient = host_values(a.grad(&gradients).unwrap());
            let (_, want) = golden.floats(&format!("{name}.{image}.grad_a"));
            near(&gradient, &want, 1e-3, 1e-6, "gradient");
        }
    }
}

#[test]
fn the_last_maps_of_the_shift_tolerant_form_are_vectors_of_images() {
    let golden = Golden::open("st_lpips");
    let device = Device::flex();
    for name in ["alex", "vgg"] {
        let file = golden
            .folder
            .join(format!("{name}_shift_tolerant_narrow.pth"));
        let trunk = Trunk::read_shift_tolerant(&[], &file, &device).unwrap();
        let network = FeatureConfig::StLpips { file }.load(&device).unwrap();
        assert_eq!(network.width(), *trunk.widths().last().unwrap());
        assert_eq!(network.smallest_side(), trunk.smallest_side());
        let images = golden.tensor::<4>("img0.a");
        let vectors = host_values(network.vectors(images.clone()));
        // LPIPS normalises in other words: (x - shift)/scale of images in [-1, 1].
        let shift = Tensor::<1>::from_data([-0.030, -0.088, -0.188], &device);
        let scale = Tensor::<1>::from_data([0.458, 0.448, 0.450], &device);
        let [shift, scale] = [shift, scale].map(|t| t.reshape([1, 3, 1, 1]));
        let map = trunk.forward((images - shift) / scale).pop().unwrap();
        let [_, _, height, width] = map.dims();
        let maps = host_values(map);
        let means: Vec<f32> = maps
            .chunks_exact(height * width)
            .map(|map| map.iter().sum::<f32>() / (height * width) as f32)
            .collect();
        near(&vectors, &means, 1e-4, 1e-5, name);
    }
}
