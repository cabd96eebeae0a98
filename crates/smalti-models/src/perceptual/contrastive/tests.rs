use super::*;
use crate::features::{Backbone, FeatureConfig};
use burn::tensor::Device;
use smalti_nn::state::host_values;

/// Row i are the products of y_i with every z_j.
const SIMILAR: [[[f32; 4]; 4]; 1] = [[
    [0.9, 0.1, 0.0, -0.2],
    [0.2, 0.8, 0.1, 0.0],
    [0.0, 0.1, 0.7, 0.3],
    [-0.1, 0.0, 0.2, 0.6],
]];

fn file() -> std::path::PathBuf {
    concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../goldens/taming_vqgan/last.ckpt"
    )
    .into()
}

/// On the narrow VGG-16 of a golden.
fn narrow() -> ContrastiveConfig {
    ContrastiveConfig::new(FeatureConfig::Vgg16 { file: file() })
}

fn images(seed: u64, side: usize, device: &Device) -> Tensor<4> {
    Noise::from_seed(seed)
        .standard_normal([2, 3, side, side], device)
        .tanh()
}

fn number(loss: Tensor<1>) -> f32 {
    loss.into_scalar()
}

/// Losses with the constant of the paper's equation, and pulls, worked out from it by hand.
#[test]
fn known_similarities_have_the_published_losses_and_pulls() {
    let device = Device::flex().autodiff();
    let uniform = [0.390_689, 0.559_437, 0.691_706, 0.691_706];
    let weighted = [0.214_304, 0.485_348, 0.979_028, 1.789_357];
    let pulls = [0.192_897, 0.384_517, 0.624_324, 0.832_932];
    for (weights, expected, pulls) in [
        ([0.25; 4], uniform, None),
        ([0.5, 0.3, 0.15, 0.05], weighted, Some(pulls)),
    ] {
        let similar = Tensor::<3>::from_data(SIMILAR, &device).require_grad();
        let logarithms = weights.map(|w: f64| (4.0 * w).ln() as f32);
        let losses = losses_of(similar.clone(), &logarithms, 0.5);
        let values = host_values(losses.clone().inner());
        for ((value, logarithm), expected) in values.iter().zip(logarithms).zip(expected) {
            assert!((value - logarithm - expected).abs() < 2e-6, "{values:?}");
        }
        let slopes = host_values(similar.grad(&losses.sum().backward()).unwrap());
        for (i, pull) in pulls.into_iter().flatten().enumerate() {
            // Over y_i·z_i, of which 1/τ is in the exponent.
            let found = -slopes[5 * i] * 0.5;
            assert!((found - pull).abs() < 2e-6, "{i}: {found}");
        }
    }
}

/// However small a weight, the value stays finite and the pull goes to one.
#[test]
fn nothing_drawn_pulls_with_all_its_strength() {
    let device = Device::flex().autodiff();
    let similar = Tensor::<3>::from_data(SIMILAR, &device).require_grad();
    let losses = losses_of(similar.clone(), &[-18.42; 4], 0.5);
    let values = host_values(losses.clone().inner());
    assert!(values.iter().all(|v| v.abs() < 4.0), "{values:?}");
    let slopes = host_values(similar.grad(&losses.sum().backward()).unwrap());
    assert!((-slopes[0] * 0.5 - 1.0).abs() < 1e-5);
}

/// Of maps without a rectifier, at whose corners differences say nothing.
#[test]
fn gradients_are_slopes() {
    let device = Device::flex().autodiff();
    let loss = narrow().load(&device).unwrap();
    let [y, z] = [1, 2].map(|seed| Noise::from_seed(seed).standard_normal([2, 5, 4, 4], &device));
    let z: Tensor<4> = z.require_grad();
    let weights = Noise::from_seed(3).uniform([2, 8, 8], &Device::flex());
    let grid = weights::Grid::new(weights);
    let value = |z: Tensor<4>| {
        let noise = &mut Noise::from_seed(4);
        loss.of_layer([y.clone(), z], Some(&grid), noise)
    };
    let slope = z.grad(&value(z.clone()).backward()).unwrap();
    let slope = Tensor::from_inner(slope);
    for seed in 5..8 {
        let along: Tensor<4> = Noise::from_seed(seed).standard_normal(z.dims(), &device);
        let at = |step: f64| f64::from(number(value(z.clone() + along.clone() * step)));
        let measured = (at(2e-3) - at(-2e-3)) / 4e-3;
        let found = f64::from(number((slope.clone() * along.clone()).sum()));
        let length = f64::from(number(slope.clone().square().sum().sqrt()));
        let gap = (found - measured).abs();
        assert!(gap < 0.01 * length, "{found} {measured} of {length}");
    }
}

#[test]
fn gradients_reach_the_reconstruction_only() {
    let device = Device::flex().autodiff();
    let loss = narrow().load(&device).unwrap();
    let [original, made] = [1, 2].map(|seed| images(seed, 32, &device).require_grad());
    let noise = &mut Noise::from_seed(4);
    let gradients = loss.loss(original.clone(), made.clone(), None, noise);
    let gradients = gradients.backward();
    assert!(original.grad(&gradients).is_none());
    let slopes = host_values(made.grad(&gradients).unwrap());
    assert!(slopes.iter().all(|s| s.is_finite()) && slopes.iter().any(|s| *s != 0.0));
}

/// CLIP's and DINOv2's blocks are compared like the layers of a trunk, whatever the size of the images.
#[test]
fn transformers_judge_as_well() {
    let device = Device::flex().autodiff();
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../goldens/vision_transformers"
    );
    for text in [
        format!("network = {{ kind = 'clip', file = '{folder}/clip.safetensors', heads = 4 }}"),
        format!(
            "layers = [{{ name = 'block2', weight = 0.5 }}]\n\
             network = {{ kind = 'dino', file = '{folder}/dino.bin', heads = 3 }}"
        ),
    ] {
        let config: ContrastiveConfig = toml::from_str(&text).unwrap();
        let loss = config.load(&device).unwrap();
        assert_eq!(loss.smallest_side(), 1);
        let [original, made] = [1, 2].map(|seed| images(seed, 24, &device).require_grad());
        let weights: Tensor<3> = Noise::from_seed(3).uniform([2, 6, 6], &Device::flex());
        let of = |made: Tensor<4>| {
            let noise = &mut Noise::from_seed(4);
            loss.loss(original.clone(), made, Some(weights.clone()), noise)
        };
        let apart = of(made.clone());
        assert!(
            number(of(original.clone())) < number(apart.clone()),
            "{text}"
        );
        let gradients = apart.backward();
        assert!(original.grad(&gradients).is_none());
        let slopes = host_values(made.grad(&gradients).unwrap());
        assert!(slopes.iter().all(|s| s.is_finite()) && slopes.iter().any(|s| *s != 0.0));
    }
}

/// Without weights, with equal ones and with none above zero it is the plain loss; other weights change it.
#[test]
fn equal_weights_are_the_plain_loss() {
    let device = Device::flex();
    let (original, made) = (images(1, 32, &device), images(2, 32, &device));
    let of = |config: &ContrastiveConfig, weights: Option<Tensor<3>>| {
        let loss = config.load(&device).unwrap();
        let noise = &mut Noise::from_seed(4);
        number(loss.loss(original.clone(), made.clone(), weights, noise))
    };
    let plain = of(&narrow(), None);
    let ones = Tensor::<3>::ones([2, 8, 8], &device);
    let drawn: Tensor<3> = Noise::from_seed(3).uniform([2, 8, 8], &device);
    assert!((of(&narrow(), Some(ones.clone())) - plain).abs() < 1e-5);
    assert!((of(&narrow(), Some(ones * 0.0)) - plain).abs() < 1e-5);
    assert!((of(&narrow(), Some(drawn.clone())) - plain).abs() > 1e-3);
    let equal = ContrastiveConfig {
        weighting: Weighting::Equal,
        ..narrow()
    };
    assert_eq!(of(&equal, Some(drawn.clone())), plain);
    let deepest = ContrastiveConfig {
        weight_layers: WeightLayers::Deepest,
        ..narrow()
    };
    let [all, deepest] = [narrow(), deepest].map(|config| of(&config, Some(drawn.clone())));
    assert!((all - deepest).abs() > 1e-4 && (deepest - plain).abs() > 1e-4);
}

/// An image is most like itself.
#[test]
fn a_perfect_reconstruction_has_the_smallest_loss() {
    let device = Device::flex();
    let loss = narrow().load(&device).unwrap();
    let original = images(1, 32, &device);
    let of =
        |made: Tensor<4>| number(loss.loss(original.clone(), made, None, &mut Noise::from_seed(4)));
    let other = of(images(2, 32, &device));
    assert!(
        of(original.clone()) < of(original.clone() * 0.8 + 0.1) && of(original.clone()) < other
    );
}

#[test]
fn the_published_network_and_layers_can_be_chosen() {
    let device = Device::flex();
    let layer = |name: &str, weight| LayerWeight {
        name: name.into(),
        weight,
    };
    let config = ContrastiveConfig {
        layers: vec![layer("relu2_2", 3.0), layer("relu1_2", 1.0)],
        positions: 16,
        ..narrow()
    };
    let loss = config.load(&device).unwrap();
    assert_eq!(
        (loss.smallest_side(), loss.layers.clone()),
        (4, vec![1.0, 3.0])
    );
    let found = loss.loss(
        images(1, 8, &device),
        images(2, 8, &device),
        None,
        &mut Noise::from_seed(1),
    );
    assert!(number(found) > 0.0);
    assert_eq!(narrow().load(&device).unwrap().smallest_side(), 32);
    let unknown = ContrastiveConfig {
        layers: vec![layer("relu9", 1.0)],
        ..narrow()
    };
    let message = unknown.load(&device).unwrap_err().to_string();
    assert!(message.contains("VGG-16 has no layer relu9"), "{message}");
    assert_eq!(Backbone::Vgg19.default_taps()[4], "relu5_3");
}

#[test]
#[should_panic(expected = "at least 32x32 pixels, got 16x16")]
fn layers_of_one_position_are_refused() {
    let device = Device::flex();
    let loss = narrow().load(&device).unwrap();
    let image = images(1, 16, &device);
    loss.loss(image.clone(), image, None, &mut Noise::from_seed(1));
}
