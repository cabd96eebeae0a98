//! FQGAN's tokenizers against tensors of their code: latents, codes, values, images, every loss, and the
//! gradients of the loss of training without the perceptual and the adversarial one.
//!
//! Continuous values first (absolute 2e-5 + relative 1e-4: float32 summation order), then codes, where
//! only positions whose recorded margin is below 1e-4 may differ; losses within 1e-5.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};
use smalti_models::autoencoder::published::fqgan::{AttentionHeads, read};
use smalti_models::autoencoder::{
    Autoencoder, NetworkConfig, PUBLISHED_NEGATIVES, Reconstruction, info_nce,
};
use smalti_nn::state::{ParameterPath, host_values};
use smalti_nn::{Init, Noise};
use smalti_quantize::{Quantizer, correlations};

use crate::support::{Golden, close, same_codes};

struct Case {
    golden: Golden,
    branches: &'static [&'static str],
    heads: AttentionHeads,
}

fn dual() -> Case {
    Case {
        golden: Golden::open("fqgan_dual"),
        branches: &["vis", "sem"],
        heads: AttentionHeads {
            adapter: 4,
            prediction: 2,
        },
    }
}

fn triple() -> Case {
    Case {
        golden: Golden::open("fqgan_triple"),
        branches: &["vis", "sem_mid", "sem_high"],
        heads: AttentionHeads {
            adapter: 4,
            prediction: 4,
        },
    }
}

impl Case {
    fn model(&self, device: &Device) -> Autoencoder {
        let published = read(&self.golden.folder.join("model.pt"), self.heads).unwrap();
        published.into_model(&mut Init::blank(device)).unwrap()
    }

    fn names(&self, start: &str) -> Vec<String> {
        let names = self.branches.iter();
        names.map(|branch| format!("{start}_{branch}")).collect()
    }

    /// The recorded maps of all branches along the channels.
    fn maps(&self, start: &str) -> Tensor<4> {
        let maps = self.names(start);
        let maps = maps.iter().map(|name| self.golden.tensor(name));
        Tensor::cat(maps.collect(), 1)
    }

    fn sum(&self, start: &str) -> f32 {
        let names = self.names(start);
        names.iter().map(|name| self.golden.number(name)).sum()
    }

    /// Margins in the order of the codes' values.
    fn margins(&self) -> Vec<f32> {
        let each: Vec<_> = self
            .names("margin")
            .iter()
            .map(|name| self.golden.floats(name).1)
            .collect();
        let batch = self.golden.floats("x").0[0];
        let positions = each[0].len() / batch;
        (0..batch)
            .flat_map(|image| {
                let run = image * positions..(image + 1) * positions;
                each.iter()
                    .flat_map(move |margins| margins[run.clone()].to_vec())
            })
            .collect()
    }

    fn encodes_and_decodes_as_published(&self) {
        let model = self.model(&Device::flex());
        let images: Tensor<4> = self.golden.tensor("x");
        close(
            model.latents(images.clone(), None),
            self.maps("h"),
            "latents",
        );
        let codes = model.encode(images).unwrap();
        let names = self.names("codes");
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let expected = self.golden.branch_codes(&names);
        same_codes(&codes.values(), &expected.values(), &self.margins(), 1e-4);
        let values = model.quantizer().decode(&expected).unwrap();
        close(values.clone(), self.maps("quant"), "values");
        close(
            model.images(values.clone(), None),
            self.golden.tensor("recon"),
            "images",
        );
        let decoded = model.decode(&expected).unwrap();
        close(decoded, self.golden.tensor("decode_code"), "decoded");
        let alone = model.decode_branch(&expected, 0).unwrap();
        close(
            alone,
            self.golden.tensor("decode_vis_only"),
            "the first branch",
        );
        assert!(model.decode_branch(&expected, self.branches.len()).is_err());
        let maps = model.branch_maps(&values);
        for (map, name) in maps.into_iter().zip(self.names("quant")) {
            close(map, self.golden.tensor(&name), &name);
        }
        let pairs = correlations(values, self.branches.len());
        let mean = pairs
            .iter()
            .map(|pair| pair.mean_squared_cosine)
            .sum::<f64>();
        let mean = 0.1 * mean / pairs.len() as f64;
        assert!((mean as f32 - self.golden.number("disentangle_loss")).abs() < 1e-5);
    }

    /// Every loss against the recorded one; gives the sum of the training.
    fn losses(&self, model: &Autoencoder, seen: &Reconstruction, images: Tensor<4>) -> Tensor<1> {
        let loss = |name: &str| {
            let found = seen.losses.iter().find(|(known, _)| *known == name);
            found.unwrap_or_else(|| panic!("no {name}")).1.clone()
        };
        let equal = |got: &Tensor<1>, recorded: f32, what: &str| {
            let got = got.clone().into_scalar::<f32>();
            let tolerance = 1e-5 * recorded.abs().max(1.0);
            assert!(
                (got - recorded).abs() <= tolerance,
                "{what}: {got}, {recorded}"
            );
        };
        let codes = model.quantizer().spec().codebook_sizes[0] as f32;
        let most = 0.03 * self.branches.len() as f32 * codes.ln();
        let error = (seen.images.clone() - images).square().mean();
        equal(&error, self.golden.number("mse"), "reconstruction");
        let codebook = loss("codebook");
        equal(&codebook, self.sum("vq"), "codebook");
        let commitment = loss("commitment").mul_scalar(0.25);
        equal(&commitment, self.sum("commit"), "commitment");
        let entropies = (loss("sample_entropy") + loss("unused_entropy")).mul_scalar(0.03);
        equal(&entropies, self.sum("entropy") + most, "entropies");
        let disentanglement = loss("disentanglement").mul_scalar(0.1);
        let recorded = self.golden.number("disentangle_loss");
        equal(&disentanglement, recorded, "disentanglement");

        let mut total = error + codebook + commitment + entropies + disentanglement;
        let heads = &model.config().representation;
        assert_eq!(heads.len(), self.branches.len() - 1);
        for (head, prediction) in heads.iter().zip(&seen.predictions) {
            let branch = &head.branch;
            let recorded: Tensor<3> = self.golden.tensor(&format!("pred_feat_{branch}"));
            let class = recorded.narrow(1, 0, 1).squeeze_dim::<2>(1);
            close(prediction.clone().inner(), class, "prediction");
            let target = self.golden.tensor(&format!("target_feat_{branch}"));
            let loss = info_nce(prediction.clone(), target, Some(PUBLISHED_NEGATIVES));
            let recorded = self.golden.number(&format!("rep_loss_{branch}"));
            equal(&loss, recorded, branch);
            total = total + loss.mul_scalar(0.5);
        }
        let recorded = self.golden.number("loss_total_no_lpips_gan");
        equal(&total, recorded + most, "all");
        total
    }

    fn losses_and_gradients_are_the_published(&self, names: &[(&str, &str)]) {
        let device = Device::flex().autodiff();
        let model = self.model(&device);
        let images: Tensor<4> = Tensor::from_inner(self.golden.tensor("x"));
        let mut noise = Noise::from_seed(1);
        let seen = model.reconstruct(images.clone(), &mut noise).unwrap();
        let gradients = self.losses(&model, &seen, images).backward();
        for (published, name) in names {
            let recorded = self.golden.floats(&format!("grad.{published}")).1;
            let got = gradient_of(&model, &gradients, name);
            let largest = recorded.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            for (i, (g, e)) in got.iter().zip(&recorded).enumerate() {
                // Sums of many numbers that cancel: measured against the largest.
                let tolerance = 1e-4 * e.abs() + 2e-4 * largest;
                assert!((g - e).abs() <= tolerance, "{name}[{i}]: {g}, {e}");
            }
            assert_eq!(got.len(), recorded.len(), "{name}");
        }
    }
}

/// The gradient of the parameter that has this name.
fn gradient_of(model: &Autoencoder, gradients: &Gradients, name: &str) -> Vec<f32> {
    struct Finder<'a> {
        gradients: &'a Gradients,
        name: &'a str,
        path: ParameterPath,
        found: Option<Vec<f32>>,
    }
    impl ModuleVisitor for Finder<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.path.name() == self.name {
                self.found = param.grad(self.gradients).map(host_values);
            }
        }
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }
    }
    let mut finder = Finder {
        gradients,
        name,
        path: ParameterPath::default(),
        found: None,
    };
    model.visit(&mut finder);
    finder
        .found
        .unwrap_or_else(|| panic!("{name} has no gradient"))
}

#[test]
fn two_branches_encode_and_decode_as_published() {
    dual().encodes_and_decodes_as_published();
}

#[test]
fn three_branches_encode_and_decode_as_published() {
    triple().encodes_and_decodes_as_published();
}

#[test]
fn losses_and_gradients_of_two_branches_are_the_published() {
    dual().losses_and_gradients_are_the_published(&[
        ("encoder.conv_in.weight", "encoder.conv_in.weight"),
        (
            "quant_conv_sem.weight",
            "encoder.branches.1.quant_conv.weight",
        ),
        (
            "quantize_vis.embedding.weight",
            "quantizer.branches.parts.0.codebook.weight",
        ),
        (
            "quantize_sem.embedding.weight",
            "quantizer.branches.parts.1.codebook.weight",
        ),
        ("decoder.conv_out.weight", "decoder.conv_out.weight"),
        (
            "encoder.visual_head.0.positional_embedding",
            "encoder.branches.0.adapter.positional_embedding",
        ),
        ("feat_pred_head.class_embedding", "heads.0.class_embedding"),
    ]);
}

#[test]
fn losses_and_gradients_of_three_branches_are_the_published() {
    triple().losses_and_gradients_are_the_published(&[
        ("encoder.conv_in.weight", "encoder.conv_in.weight"),
        (
            "quant_conv_sem_high.weight",
            "encoder.branches.2.quant_conv.weight",
        ),
        (
            "quantize_vis.embedding.weight",
            "quantizer.branches.parts.0.codebook.weight",
        ),
        (
            "quantize_sem_high.embedding.weight",
            "quantizer.branches.parts.2.codebook.weight",
        ),
        ("decoder.conv_out.weight", "decoder.conv_out.weight"),
        (
            "encoder.visual_head.0.positional_embedding",
            "encoder.branches.0.adapter.positional_embedding",
        ),
        (
            "high_sem_feat_pred.class_embedding",
            "heads.1.class_embedding",
        ),
    ]);
}

#[test]
fn heads_can_be_left_out_and_codes_stay() {
    let case = dual();
    let model = case.model(&Device::flex());
    let images: Tensor<4> = case.golden.tensor("x");
    let codes = model.encode(images.clone()).unwrap();
    let bare = model.clone().without_prediction_heads();
    assert_eq!(
        bare.encode(images.clone()).unwrap().values(),
        codes.values()
    );
    assert!(bare.num_params() < model.num_params());
    assert_eq!(
        bare.config()
            .build(&mut Init::blank(&Device::flex()))
            .unwrap()
            .num_params(),
        bare.num_params()
    );
    let mut noise = Noise::from_seed(1);
    let seen = bare.reconstruct(images, &mut noise).unwrap();
    assert!(seen.predictions.is_empty());
}

/// The published code refuses them: its table of positions fits one grid.
#[test]
fn images_of_other_sizes_have_codes_as_well() {
    let model = dual().model(&Device::flex());
    let images = Noise::from_seed(1).standard_normal([1, 3, 16, 40], &Device::flex());
    let codes = model.encode(images).unwrap();
    assert_eq!(codes.dims(), [1, 2, 2, 5]);
    assert_eq!(model.decode(&codes).unwrap().dims(), [1, 3, 16, 40]);
}

#[test]
fn the_resolution_is_that_of_the_table_of_positions() {
    let published = read(&dual().golden.folder.join("model.pt"), dual().heads).unwrap();
    let NetworkConfig::Convolutional(network) = published.config.network else {
        unreachable!("FQGAN is convolutional")
    };
    assert_eq!(
        (network.resolution, network.attention_resolutions),
        (32, vec![4])
    );
}

#[test]
fn other_files_are_refused_by_name() {
    let path = Golden::open("llamagen_vq").folder.join("model.pt");
    let message = read(&path, AttentionHeads::default())
        .unwrap_err()
        .to_string();
    assert!(message.contains("an FQGAN tokenizer") && message.contains("quantize_sem"));
}
