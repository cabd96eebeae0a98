//! Taming's second stage, a class-conditional GPT on the codes of a VQGAN, against the published code.
//!
//! Activations to 2e-5 + 1e-4 relative, the loss to 1e-5 relative, as the case says; codes exactly, since
//! the recorded margins exceed 1.9e-3.

use std::ops::ControlFlow;

use burn::tensor::{Device, Tensor};
use smalti_models::autoencoder::Autoencoder;
use smalti_models::autoencoder::published::taming;
use smalti_models::generators::gpt::{Gpt, GptConfig, published};
use smalti_models::generators::sampling::SamplingConfig;
use smalti_models::generators::{
    CodeTargets, CodebookSize, Conditions, GenerationRequest, GeneratorInput, Prefix,
};
use smalti_nn::Init;
use smalti_quantize::Codes;

use crate::support::{Golden, close, same_codes};

/// Codes of the first stage; the transformer tells a few more tokens apart.
const CODES: usize = 91;
const VOCABULARY: usize = 96;

struct Case {
    golden: Golden,
    config: GptConfig,
}

impl Case {
    fn open() -> Self {
        let golden = Golden::open("taming_mingpt");
        let config = published::read_config(&golden.folder.join("model.yaml")).unwrap();
        Self { golden, config }
    }

    /// The published model; with as many of its tokens taken for codes.
    fn model(&self, codes: usize) -> Gpt {
        let config = GptConfig {
            codebook_size: CodebookSize::Same(codes),
            ..self.config.clone()
        };
        published::load(
            &config,
            &self.golden.folder.join("last.ckpt"),
            &Device::flex(),
        )
        .unwrap()
    }

    /// The tokenizer that the file of the generator holds.
    fn first_stage(&self) -> Autoencoder {
        let config = taming::read_config(&self.golden.folder.join("model.yaml")).unwrap();
        let weights = self.golden.folder.join("last.ckpt");
        taming::load(&config, &weights, &mut Init::blank(&Device::flex())).unwrap()
    }

    /// Maps `[batch, positions]` of the case.
    fn codes(&self, name: &str) -> Codes {
        let (shape, ids) = self.golden.ids(name);
        Codes::from_values(&ids, [shape[0], 1, 8, 8], &Device::flex())
    }

    fn request(&self) -> GenerationRequest {
        let (_, classes) = self.golden.ids("cond");
        let mut request = GenerationRequest::new(Conditions::Classes(classes), 0);
        request.sampling = SamplingConfig::greedy();
        request
    }
}

fn generate(model: &Gpt, request: &GenerationRequest) -> Codes {
    let mut go_on = |_| ControlFlow::Continue(());
    model.generate(request, &mut go_on).unwrap()
}

#[test]
fn the_configuration_is_what_the_file_says() {
    let config = Case::open().config;
    assert_eq!((config.height, config.width, config.depth), (8, 8, 1));
    assert_eq!(config.codebook_size, CodebookSize::Same(CODES));
    assert_eq!((config.vocab_size, config.block_size), (VOCABULARY, 65));
}

#[test]
fn logits_and_loss_are_the_published_ones() {
    let case = Case::open();
    let codes = case.codes("codes");
    let conditions = case.request().conditions;
    let input = GeneratorInput {
        codes: codes.clone(),
        conditions,
    };
    let output = case.model(CODES).forward(input, None);
    close(
        output.logits.clone().squeeze_dim::<3>(2),
        case.golden.tensor("logits"),
        "logits",
    );
    let loss: f32 = output.losses(CodeTargets::Hard(codes)).codes.into_scalar();
    let want = case.golden.number("loss");
    assert!((loss / want - 1.0).abs() < 1e-5, "loss {loss} for {want}");
}

#[test]
fn greedy_samples_are_the_published_ones() {
    let case = Case::open();
    let model = case.model(VOCABULARY);
    let (_, margins) = case.golden.floats("sample_margin");
    let (_, want) = case.golden.ids("sample_greedy");
    let mut request = case.request();
    let got = generate(&model, &request).values();
    same_codes(&got, &want, &margins, 1e-4);
    request.prefix = Some(Prefix {
        codes: case.codes("codes"),
        row: 4,
        column: 0,
    });
    let (_, want) = case.golden.ids("sample_half");
    assert_eq!(generate(&model, &request).values(), want);
}

/// The published code draws what is no code as well: the case's own sample does.
#[test]
fn what_is_no_code_is_not_drawn() {
    let case = Case::open();
    let (_, published) = case.golden.ids("sample_greedy");
    let none = |id: &u32| *id as usize >= CODES;
    assert!(published.iter().any(none));
    let got = generate(&case.model(CODES), &case.request()).values();
    assert!(!got.iter().any(none));
    for (got, want) in got.chunks(64).zip(published.chunks(64)) {
        let same = want.iter().position(none).unwrap_or(64);
        assert_eq!(got[..same], want[..same]);
    }
}

#[test]
fn codes_come_from_images_and_become_images_through_the_first_stage() {
    let case = Case::open();
    let first_stage = case.first_stage();
    let codes = first_stage.encode(case.golden.tensor("x")).unwrap();
    let (_, margins) = case.golden.floats("codes_margin");
    same_codes(
        &codes.values(),
        &case.codes("codes").values(),
        &margins,
        1e-4,
    );
    let sample: Tensor<4, burn::tensor::Int> = case.codes("sample_greedy").tensor();
    let sample = Codes::new(sample.clamp_max(CODES as i64 - 1));
    let images = first_stage.decode(&sample).unwrap();
    close(images, case.golden.tensor("decode_sample"), "images");
}
