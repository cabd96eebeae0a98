//! RQ-VAE against tensors of the published code: encoder, codes, partial sums, losses, decoder.
//!
//! Continuous values first (absolute 2e-5 + relative 1e-4: float32 summation order), then codes, where
//! only positions whose recorded margin is below 1e-4 may differ (none is in these cases).

use std::path::PathBuf;

use burn::tensor::{Device, Shape, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};
use smalti_models::autoencoder::Autoencoder;
use smalti_models::autoencoder::published::rq_vae;
use smalti_nn::state::host_values;
use smalti_nn::{Init, Noise};
use smalti_quantize::{Codes, Quantizer};

struct Golden {
    folder: PathBuf,
    bytes: Vec<u8>,
}

impl Golden {
    fn open(case: &str) -> Self {
        let folder =
            PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens")).join(case);
        let bytes = std::fs::read(folder.join("tensors.safetensors")).unwrap();
        Self { folder, bytes }
    }

    fn floats(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).unwrap();
        assert_eq!(view.dtype(), Dtype::F32, "{name}");
        let values = view
            .data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect();
        (view.shape().to_vec(), values)
    }

    /// `(batch, h, w, depth)` ids as `[batch, depth, h, w]`.
    fn codes(&self, name: &str) -> Codes {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).unwrap();
        assert_eq!(view.dtype(), Dtype::I64, "{name}");
        let ids: Vec<i32> = view
            .data()
            .as_chunks::<8>()
            .0
            .iter()
            .map(|b| i64::from_le_bytes(*b) as i32)
            .collect();
        let tensor = Tensor::<4, burn::tensor::Int>::from_data(
            TensorData::new(ids, Shape::from(view.shape().to_vec())),
            &Device::flex(),
        );
        Codes::new(tensor.permute([0, 3, 1, 2]))
    }

    fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        let (shape, values) = self.floats(name);
        Tensor::from_data(TensorData::new(values, Shape::from(shape)), &Device::flex())
    }

    /// A channels-last tensor as `[batch, channels, height, width]`.
    fn map(&self, name: &str) -> Tensor<4> {
        self.tensor::<4>(name).permute([0, 3, 1, 2])
    }

    fn number(&self, name: &str) -> f32 {
        self.floats(name).1[0]
    }

    fn model(&self) -> (Autoencoder, rq_vae::PublishedRqVae) {
        let config = rq_vae::read_config(&self.folder.join("config.yaml")).unwrap();
        let mut init = Init::new(&Device::flex(), 0);
        let model = rq_vae::load(&config.model, &self.folder.join("model.pt"), &mut init).unwrap();
        (model, config)
    }
}

#[track_caller]
fn close<const D: usize>(got: Tensor<D>, expected: Tensor<D>, what: &str) {
    assert_eq!(got.dims(), expected.dims(), "{what}");
    for (i, (g, e)) in host_values(got)
        .iter()
        .zip(host_values(expected))
        .enumerate()
    {
        assert!(
            (g - e).abs() <= 2e-5 + 1e-4 * e.abs(),
            "{what}[{i}]: got {g}, expected {e}"
        );
    }
}

fn reconstructs_as_published(case: &str) {
    let golden = Golden::open(case);
    let (model, config) = golden.model();
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
    let (model, _) = golden.model();
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
    let mut init = Init::new(&Device::flex(), 0);
    let error = rq_vae::load(&config.model, &golden.folder.join("model.pt"), &mut init)
        .unwrap_err()
        .to_string();
    assert!(error.contains("shape of encoder.down.0.block.0.conv1.weight: expected [64, 32, 3, 3], got [32, 32, 3, 3]"), "{error}");
}
