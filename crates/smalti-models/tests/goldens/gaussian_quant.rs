//! Gaussian Quant, convolutional and transformer, against tensors of the published code: moments,
//! codes, codewords, images, and the divergence of a first training step.
//!
//! Continuous values first (absolute 2e-5 + relative 1e-4: float32 summation order), then codes. The
//! reference scores codes in float32, where scores of several hundred are good to about 1e-3: codes
//! whose recorded margin is below that may differ.

use burn::tensor::{Device, Tensor};
use smalti_models::autoencoder::published::gaussian_quant::{load, read_config};
use smalti_models::autoencoder::{Autoencoder, AutoencoderConfig, NetworkConfig};
use smalti_nn::state::{Weights, host_values};
use smalti_nn::{Init, Noise};
use smalti_quantize::{Codes, Quantizer};

use crate::support::{Golden, close, same_codes};

const SCORE_NOISE: f32 = 1e-3;

/// A case in this project's layout.
struct Case {
    golden: Golden,
    model: Autoencoder,
    moments: Tensor<4>,
    codewords: Tensor<4>,
    codes: Codes,
    margins: Vec<f32>,
}

impl Case {
    fn open(name: &str) -> Self {
        let golden = Golden::open(name);
        let config = read_config(&golden.folder.join("config.yaml")).unwrap();
        let mut init = Init::blank(&Device::flex());
        let model = load(&config, &golden.folder.join("model.ckpt"), &mut init).unwrap();
        let (shape, ids) = golden.ids("indices");
        let margins: Tensor<3> = golden.tensor("margin");
        let margins = host_values(margins.swap_dims(1, 2));
        let device = Device::flex();
        // Maps have four axes in the files, sequences (of one group) three.
        let (moments, codewords, shape) = match shape[..] {
            [batch, depth, height, width] => (
                golden.tensor("moments"),
                golden.tensor("zhat"),
                [batch, depth, height, width],
            ),
            [batch, positions, 1] => {
                let side = positions.isqrt();
                (
                    golden.grid("moments"),
                    golden.grid("zhat"),
                    [batch, 1, side, side],
                )
            }
            _ => unreachable!("{shape:?}"),
        };
        let codes = Codes::from_values(&ids, shape, &device);
        Self {
            golden,
            model,
            moments,
            codewords,
            codes,
            margins,
        }
    }

    fn images(&self) -> Tensor<4> {
        self.golden.tensor("x")
    }
}

fn encodes_and_decodes_as_published(name: &str) {
    let case = Case::open(name);
    let (golden, model) = (&case.golden, &case.model);
    let moments = model.latents(case.images(), None);
    close(moments, case.moments.clone(), "moments");
    let codes = model.encode(case.images()).unwrap();
    assert_eq!(codes.dims(), case.codes.dims());
    same_codes(
        &codes.values(),
        &case.codes.values(),
        &case.margins,
        SCORE_NOISE,
    );
    let codewords = model.quantizer().decode(&case.codes).unwrap();
    close(codewords.clone(), case.codewords.clone(), "codewords");
    close(
        model.images(codewords, None),
        golden.tensor("recon"),
        "images before clamping",
    );
    close(
        model.decode(&case.codes).unwrap(),
        golden.tensor("engine_dequant"),
        "images of codes",
    );
}

fn trains_as_published(name: &str) {
    let mut case = Case::open(name);
    let images = case.images();
    let (result, report) = case
        .model
        .reconstruct_and_update(images, &mut Noise::from_seed(1))
        .unwrap();
    let (name, loss) = result.losses[0].clone();
    assert_eq!(name, "divergence");
    let divergence = report.divergence.expect("a Gaussian quantizer");
    for (got, name) in [
        (f64::from(host_values(loss)[0]), "train_kl_loss"),
        (divergence.mean_bits, "train_bits_mean"),
        (divergence.min_bits, "train_bits_min"),
        (divergence.max_bits, "train_bits_max"),
    ] {
        let expected = f64::from(case.golden.number(name));
        assert!(
            (got - expected).abs() <= 1e-5 * expected.abs(),
            "{name}: got {got}, expected {expected}"
        );
    }
}

#[test]
fn the_convolutional_model_encodes_and_decodes_as_published() {
    encodes_and_decodes_as_published("gq_unet");
}

#[test]
fn the_transformer_encodes_and_decodes_as_published() {
    encodes_and_decodes_as_published("gq_bsqvit");
}

#[test]
fn divergence_in_training_is_the_published_one() {
    trains_as_published("gq_unet");
    trains_as_published("gq_bsqvit");
}

#[test]
fn the_transformer_clamps_what_the_published_one_clamps() {
    let case = Case::open("gq_bsqvit");
    assert!(case.model.config().clamp);
    let beyond = |images: Tensor<4>| host_values(images).iter().any(|v| v.abs() > 1.0);
    let mut model = case.model.clone();
    assert!(beyond(model.images(case.codewords.clone(), None)));
    let mut noise = Noise::from_seed(1);
    let evaluated = model.reconstruct(case.images(), &mut noise).unwrap();
    let (trained, _) = model
        .reconstruct_and_update(case.images(), &mut noise)
        .unwrap();
    for images in [
        evaluated.images,
        trained.images,
        model.decode(&case.codes).unwrap(),
    ] {
        assert!(!beyond(images));
    }
    assert!(!Case::open("gq_unet").model.config().clamp);
}

#[test]
fn a_transformer_takes_other_sizes_and_says_which_it_cannot() {
    let case = Case::open("gq_bsqvit");
    let images = case.images().narrow(2, 0, 12);
    let codes = case.model.encode(images.clone()).unwrap();
    assert_eq!(codes.dims(), [2, 1, 3, 6]);
    assert_eq!(case.model.decode(&codes).unwrap().dims(), images.dims());
    let error = case.model.encode(images.narrow(2, 0, 10)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "images of 24x10 pixels have no whole number of code positions: both sides must be multiples of 4"
    );
}

#[test]
fn another_quantizer_may_stand_in_the_same_network() {
    let case = Case::open("gq_unet");
    let config = AutoencoderConfig {
        quantizer: serde_json::from_str(
            r#"{"kind": "gaussian", "codebook_size": 16, "code_dim": 8, "channels": 8}"#,
        )
        .unwrap(),
        ..case.model.config().clone()
    };
    let before = Weights::of(&case.model).0;
    let mut init = Init::blank(&Device::flex());
    let model = case.model.clone();
    let model = model
        .with_quantizer(config.quantizer.clone(), &mut init)
        .unwrap();
    assert_eq!(model.config(), &config);
    let codes = model.encode(case.images()).unwrap();
    assert_eq!(codes.dims(), [2, 1, 8, 8]);
    assert!(codes.values().iter().all(|&id| id < 16));
    for (name, array) in Weights::of(&model).0 {
        if !name.starts_with("quantizer.") {
            assert_eq!(array, before[&name], "{name}");
        }
    }
    let other = serde_json::from_str(
        r#"{"kind": "gaussian", "codebook_size": 16, "code_dim": 4, "channels": 4}"#,
    );
    let error = case.model.with_quantizer(other.unwrap(), &mut init);
    let message = error.unwrap_err().to_string();
    assert!(
        message.contains("z_channels (8) must be the 4 channels"),
        "{message}"
    );
}

fn with_yaml(from: &str, to: &str) -> Result<AutoencoderConfig, String> {
    let text = std::fs::read_to_string(Golden::open("gq_unet").folder.join("config.yaml")).unwrap();
    assert!(text.contains(from), "{from}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("changed.yaml");
    std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
    read_config(&path).map_err(|error| error.to_string())
}

#[test]
fn configurations_of_something_else_say_what_they_are() {
    for (from, to, part) in [
        ("double_z: true", "double_z: false", "gives no variances"),
        (
            "attn_type: vanilla",
            "attn_type: linear",
            "attn_type other than vanilla",
        ),
        (
            "pit.modules.unet.Encoder",
            "pit.modules.hdit.Encoder3",
            "pit.modules.hdit.Encoder3",
        ),
        (
            "GaussianQuantRegularizer",
            "LFQQuantizer",
            "the quantizer is pit.quantization.gaussian.LFQQuantizer",
        ),
        (
            "params: ${model.params.encoder_config.params}",
            "params: ${model.params.encoder.params}",
            "leads nowhere",
        ),
        (
            "backend: torch",
            "logvar_range: [-20, 20]",
            "logvar_range is [-20.0, 20.0]",
        ),
        (
            "decoder_config:",
            "clamp_range: [0, 1]\n    decoder_config:",
            "clamp_range is [0.0, 1.0]",
        ),
        ("z_channels: 8", "channels: 8", "missing field `z_channels`"),
    ] {
        let message = with_yaml(from, to).unwrap_err();
        assert!(
            message.contains(part) && message.contains("changed.yaml"),
            "{part:?} is not in: {message}"
        );
    }
}

#[test]
fn the_second_published_class_is_contiguous_and_shows_codewords() {
    use smalti_quantize::QuantizerConfig;
    use smalti_quantize::gaussian::{GaussianConfig, Layout, TrainingValue};
    let second = "GaussianQuantRegularizer2\n      params:\n        dim: 4\n        codebook_size: 4096\n        seed: 7\n        beta: 0.5";
    let first = "GaussianQuantRegularizer\n      params:\n        format: bchw\n        group: 4\n        n_samples: 4096";
    let config = with_yaml(first, second).unwrap();
    let QuantizerConfig::Gaussian(quantizer) = config.quantizer else {
        unreachable!("{config:?}");
    };
    assert_eq!(
        GaussianConfig {
            constraint: quantizer.constraint.clone(),
            layout: Layout::Contiguous,
            training: TrainingValue::Codeword,
            seed: 7,
            beta: 0.5,
            ..GaussianConfig::new(4096, 4, 8)
        },
        quantizer
    );
    assert!(matches!(config.network, NetworkConfig::Convolutional(_)));
}
