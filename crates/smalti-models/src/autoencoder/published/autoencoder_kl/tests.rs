//! Shapes of published autoencoders, and what configurations say of their latents.

use super::*;
use crate::autoencoder::ConvolutionalConfig;
use burn::module::Module;
use burn::tensor::Device;

/// The autoencoder of Stable Diffusion 1, but for its latents.
fn stable_diffusion(channels: usize) -> NetworkConfig {
    NetworkConfig::Convolutional(ConvolutionalConfig {
        resolution: 256,
        channels: 128,
        multipliers: vec![1, 2, 4, 4],
        blocks: 2,
        attention_resolutions: vec![],
        decoder_attention_resolutions: None,
        middle_attention: true,
        z_channels: channels,
        norm_groups: 32,
        dropout: 0.0,
        branches: None,
    })
}

fn model(network: NetworkConfig, projections: bool) -> Autoencoder {
    let config = AutoencoderConfig {
        projections,
        clamp: false,
        quantizer: QuantizerConfig::Gaussian(GaussianConfig::new(2, 1, network.z_channels())),
        network,
        representation: Vec::new(),
    };
    config.build(&mut Init::blank(&Device::flex())).unwrap()
}

#[test]
fn stable_diffusion_has_the_published_numbers_of_parameters() {
    let parameters = |channels, projections| {
        let model = model(stable_diffusion(channels), projections);
        model.num_params() - model.quantizer().num_params()
    };
    assert_eq!(parameters(4, true), 83_653_863);
    assert_eq!(parameters(16, false), 83_819_683);
}

/// A small network in every way unlike the usual one.
fn unusual() -> ConvolutionalConfig {
    ConvolutionalConfig {
        resolution: 256,
        channels: 4,
        multipliers: vec![1, 1, 2],
        blocks: 3,
        attention_resolutions: vec![64],
        decoder_attention_resolutions: Some(vec![]),
        middle_attention: false,
        z_channels: 3,
        norm_groups: 2,
        dropout: 0.0,
        branches: None,
    }
}

#[test]
fn the_shape_is_read_off_the_weights() {
    for projections in [true, false] {
        let network = NetworkConfig::Convolutional(unusual());
        let weights = Weights::of(&model(network, projections));
        let shape = Shape::of(&weights, 2).unwrap();
        assert_eq!(shape.network, unusual());
        assert_eq!((shape.projections, shape.channels), (projections, 3));
    }
}

#[test]
fn weights_without_a_shape_say_what_they_lack() {
    let weights = Weights::of(&model(NetworkConfig::Convolutional(unusual()), true));
    let without = |name: &str| {
        let mut weights = weights.clone();
        weights.0.remove(name).unwrap();
        Shape::of(&weights, 2).map(|_| ()).unwrap_err()
    };
    assert_eq!(
        without("encoder.conv_in.weight"),
        "it has no encoder.conv_in.weight"
    );
    assert!(without("quant_conv.weight").contains("only one of"));
    let message = Shape::of(&Weights::default(), 2).map(|_| ()).unwrap_err();
    assert!(message.contains("it has no"), "{message}");
}

fn config(fields: &str) -> Diffusers {
    let text = format!(r#"{{"_class_name": "AutoencoderKL", "latent_channels": 2 {fields}}}"#);
    serde_json::from_str(&text).unwrap()
}

#[test]
fn latents_are_moved_to_the_prior_as_diffusion_models_see_them() {
    let of = |fields| config(fields).normalization().unwrap();
    // (z − shift)·scale
    let plain = of(r#", "scaling_factor": 0.5, "shift_factor": 0.25"#);
    assert_eq!((plain.shift, plain.scale), (vec![0.25; 2], vec![0.5; 2]));
    // (z − mean)·scale/deviation
    let each = of(r#", "scaling_factor": 0.5, "latents_mean": [1, 2], "latents_std": [2, 4]"#);
    assert_eq!(
        (each.shift, each.scale),
        (vec![1.0, 2.0], vec![0.25, 0.125])
    );
    // Old configurations name no scale.
    let old = of("");
    assert_eq!((old.shift, old.scale), (vec![0.0; 2], vec![0.18215; 2]));
    assert!(
        config(r#", "latents_mean": [1, 2]"#)
            .normalization()
            .is_err()
    );
}

#[test]
fn families_have_a_number_for_each_channel() {
    for (family, channels) in [
        (Family::StableDiffusion, 4),
        (Family::StableDiffusionXl, 4),
        (Family::StableDiffusion3, 16),
        (Family::Flux, 16),
        (Family::Kl16, 16),
    ] {
        let normalization = family.normalization();
        assert_eq!(normalization.shift.len(), channels);
        assert_eq!(normalization.scale.len(), channels);
    }
}
