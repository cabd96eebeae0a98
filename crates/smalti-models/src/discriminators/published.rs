//! Published PatchGAN discriminators: inside a training's checkpoint, or in a file of their own.
//!
//! Trainings of taming-transformers and Gaussian Quant keep theirs beside the autoencoder
//! (`loss.discriminator.main.0.weight`), those of RQ-VAE and LlamaGen in a dictionary `discriminator`. Counters of
//! batches are left out, and activation norms are taken for started: both are integers in those files.

use std::path::Path;

use smalti_nn::Init;
use smalti_nn::state::{Array, WeightsError};

use super::{Discriminator, DiscriminatorConfig, InvalidDiscriminator};
use crate::weights_file::read_weights;

/// Why a published discriminator could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum DiscriminatorError {
    /// The configuration is invalid.
    #[error(transparent)]
    Invalid(#[from] InvalidDiscriminator),
    /// The weights could not be read, or do not fit.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// Reads the discriminator of `config` from `path`, strictly.
///
/// # Errors
/// When the configuration is invalid, or the file cannot be read or holds something else.
pub fn read(
    config: &DiscriminatorConfig,
    path: &Path,
    init: &mut Init,
) -> Result<Discriminator, DiscriminatorError> {
    let network = config.build(init)?;
    let wanted = |name: &str| own(name).is_some_and(|name| !is_integer(name));
    let weights = read_weights(path, &["discriminator", "state_dict"], wanted)?;
    let mut weights = weights.rename(|name| own(name).map(str::to_owned))?;
    let norms = weights
        .0
        .keys()
        .filter_map(|name| name.strip_suffix(".loc"));
    let marks: Vec<String> = norms.map(|norm| format!("{norm}.initialized")).collect();
    for mark in marks {
        let started = Array {
            shape: vec![1],
            values: vec![1.0],
        };
        weights.0.insert(mark, started);
    }
    Ok(weights.load_into(network)?)
}

/// The name inside the discriminator, if it is one of its names.
fn own(name: &str) -> Option<&str> {
    let start = name.find("main.")?;
    let prefix = &name[..start];
    let known = ["", "module.", "discriminator.", "loss.discriminator."];
    known.contains(&prefix).then(|| &name[start..])
}

/// Whether the array is an integer that says how much a layer has seen.
fn is_integer(name: &str) -> bool {
    name.ends_with(".num_batches_tracked") || name.ends_with(".initialized")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discriminators::{PatchConfig, PatchNorm};
    use burn::tensor::Device;
    use smalti_nn::state::Weights;

    fn config(norm: PatchNorm) -> DiscriminatorConfig {
        DiscriminatorConfig::Patch(PatchConfig {
            channels: 2,
            layers: 1,
            norm,
        })
    }

    #[test]
    fn activation_norms_of_files_are_started() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.safetensors");
        let config = config(PatchNorm::Actnorm);
        let fresh = config.build(&mut Init::new(&Device::flex(), 1)).unwrap();
        let weights = Weights::of(&fresh).rename(|name| Some(format!("loss.discriminator.{name}")));
        let bytes = weights.unwrap().to_safetensors(&Default::default());
        std::fs::write(&path, bytes).unwrap();
        let read = read(&config, &path, &mut Init::blank(&Device::flex())).unwrap();
        let mut expected = Weights::of(&fresh);
        let started = &mut expected.0.get_mut("main.3.initialized").unwrap().values;
        assert_eq!(std::mem::replace(started, vec![1.0]), [0.0]);
        assert_eq!(Weights::of(&read), expected);
    }

    #[test]
    fn a_file_of_another_shape_is_refused() {
        let golden = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../goldens/taming_vqgan/last.ckpt"
        );
        let config = config(PatchNorm::Batch);
        let error = read(
            &config,
            Path::new(golden),
            &mut Init::blank(&Device::flex()),
        )
        .unwrap_err();
        assert!(
            error.to_string().contains("shape of main.0.weight"),
            "{error}"
        );
    }
}
