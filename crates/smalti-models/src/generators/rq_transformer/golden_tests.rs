//! Agreement with the published implementation, on the reference tensors of `goldens/rqtransformer_*`.
//!
//! Tolerances are those of the references' notes: 2e-5 + 1e-4·|x| on activations, 1e-5 relative on
//! losses (f32 sums in another order); codes exactly, since the recorded margins exceed 8e-4.

use std::ops::ControlFlow;
use std::path::PathBuf;

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::SafeTensors;
use smalti_quantize::Codes;

use super::config::{CodeInput, Condition};
use super::*;
use crate::generators::conditions::Conditions;
use crate::generators::loss::CodeTargets;
use crate::generators::output::GeneratorInput;
use crate::generators::request::{GenerationRequest, Prefix};
use crate::generators::sampling::SamplingConfig;

struct Case {
    bytes: Vec<u8>,
    model: RqTransformer,
    device: Device,
}

impl Case {
    fn load(name: &str) -> Self {
        let folder =
            PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens")).join(name);
        let bytes = std::fs::read(folder.join("tensors.safetensors")).unwrap();
        let device = Device::flex();
        let config = published::read_config(&folder.join("config.yaml"));
        let config = config.unwrap().model;
        let codes = match config.embedding {
            CodeInput::Tokenizer { .. } => {
                let table = SafeTensors::deserialize(&bytes).unwrap();
                let table = floats::<2>(&table, "codebook", &device);
                // The last row is the tokenizer's padding.
                let rows = table.dims()[0] - 1;
                Some(CodeEmbedding::new(vec![table.narrow(0, 0, rows)]))
            }
            CodeInput::Own { .. } => None,
        };
        let weights = folder.join("model.pt");
        let model = published::load(&config, &weights, codes, &device).unwrap();
        Self {
            bytes,
            model,
            device,
        }
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    fn floats<const D: usize>(&self, name: &str) -> Tensor<D> {
        floats(&self.file(), name, &self.device)
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        let file = self.file();
        let data = file.tensor(name).unwrap().data();
        data.as_chunks::<8>()
            .0
            .iter()
            .map(|&b| i64::from_le_bytes(b) as u32)
            .collect()
    }

    /// Codes in the references' order `[batch, height, width, depth]`, brought into ours.
    fn codes(&self, name: &str) -> Vec<u32> {
        let codes = self.ids(name);
        let config = self.model.config();
        let (depth, positions) = (config.depth, config.positions());
        let mut ours = vec![0; codes.len()];
        for (i, &code) in codes.iter().enumerate() {
            let (sample, t, d) = (i / (positions * depth), i / depth % positions, i % depth);
            ours[(sample * depth + d) * positions + t] = code;
        }
        ours
    }

    fn batch(&self) -> usize {
        self.codes("codes").len() / (self.model.config().positions() * self.model.config().depth)
    }

    fn conditions(&self) -> Conditions {
        match self.model.config().condition {
            Condition::Unconditional {} => Conditions::Unconditional(self.batch()),
            Condition::Class { .. } => Conditions::Classes(self.ids("cond")),
            Condition::Text { length, .. } => Conditions::Texts(
                self.ids("cond")
                    .chunks(length)
                    .map(<[u32]>::to_vec)
                    .collect(),
            ),
        }
    }

    fn given(&self) -> Codes {
        let RqTransformerConfig {
            height,
            width,
            depth,
            ..
        } = *self.model.config();
        Codes::from_values(
            &self.codes("codes"),
            [self.batch(), depth, height, width],
            &self.device,
        )
    }

    fn request(&self) -> GenerationRequest {
        let sampling = SamplingConfig::greedy();
        GenerationRequest {
            sampling,
            ..GenerationRequest::new(self.conditions(), 0)
        }
    }
}

fn floats<const D: usize>(file: &SafeTensors, name: &str, device: &Device) -> Tensor<D> {
    let view = file.tensor(name).unwrap();
    let values: Vec<f32> = view
        .data()
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&b| f32::from_le_bytes(b))
        .collect();
    // A single number is stored with an empty shape.
    let shape = if view.shape().is_empty() {
        vec![1]
    } else {
        view.shape().to_vec()
    };
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn assert_close<const D: usize>(got: Tensor<D>, want: Tensor<D>, what: &str) {
    assert_eq!(got.dims(), want.dims(), "{what}");
    let excess = (got - want.clone()).abs() - want.abs().mul_scalar(1e-4);
    let excess = excess.max().into_scalar::<f32>();
    assert!(
        excess < 2e-5,
        "{what} is off by {excess} more than 1e-4 relative"
    );
}

fn assert_loss(got: Tensor<1>, want: Tensor<1>, what: &str) {
    let relative = ((got - want.clone()) / want)
        .abs()
        .max()
        .into_scalar::<f32>();
    assert!(relative < 1e-5, "{what} is off by {relative}");
}

fn check_forward(case: &Case) {
    let config = case.model.config().clone();
    let (batch, positions) = (case.batch(), config.positions());
    let codes = case.given();
    let by_position = case.model.by_position(&codes, &case.device);
    let (contexts, _) = case
        .model
        .contexts(by_position, case.conditions().ids(&case.device), None);
    assert_close(contexts, case.floats("body_ctx"), "contexts");

    let input = GeneratorInput {
        codes: codes.clone(),
        conditions: case.conditions(),
    };
    let output = case.model.forward(input, None);
    let shape = [batch, positions, config.depth, config.vocab_size()];
    assert_close(
        output.logits.clone(),
        case.floats::<5>("logits").reshape(shape),
        "logits",
    );
    if let Some(text) = &output.text {
        assert_close(
            text.logits.clone(),
            case.floats("cond_logits"),
            "text logits",
        );
    }
    let soft = CodeTargets::Soft(case.floats::<5>("soft_targets").reshape(shape));
    let soft = output.clone().losses(soft);
    assert_loss(soft.codes, case.floats("loss_soft"), "soft loss");
    let hard = output.losses(CodeTargets::Hard(codes));
    assert_loss(hard.codes, case.floats("loss_hard"), "hard loss");
    assert_loss(
        hard.per_depth,
        case.floats("per_depth_loss"),
        "losses per depth",
    );
    assert_eq!(hard.text.is_some(), case.file().tensor("loss_cond").is_ok());
    if let Some(text) = hard.text {
        assert_loss(text, case.floats("loss_cond"), "text loss");
    }
}

fn check_sampling(case: &Case) {
    let mut go_on = |_| ControlFlow::Continue(());
    let mut request = case.request();
    let greedy = case.model.generate(&request, &mut go_on).unwrap().values();
    assert_eq!(greedy, case.codes("sample_greedy"));
    let [row, column] = case.ids("start_loc")[..] else {
        panic!("a row and a column")
    };
    let (row, column) = (row as usize, column as usize);
    request.prefix = Some(Prefix {
        codes: case.given(),
        row,
        column,
    });
    let completed = case.model.generate(&request, &mut go_on).unwrap().values();
    assert_eq!(completed, case.codes("sample_partial"));
}

#[test]
fn class_conditional() {
    let case = Case::load("rqtransformer_class");
    check_forward(&case);
    check_sampling(&case);
}

#[test]
fn text_conditional() {
    let case = Case::load("rqtransformer_text");
    check_forward(&case);
    check_sampling(&case);
}

#[test]
fn unconditional_with_own_embeddings() {
    let case = Case::load("rqtransformer_uncond_tokemb");
    check_forward(&case);
    check_sampling(&case);
}

#[test]
fn parameters_of_another_model_are_refused() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens"));
    let codes = Some(CodeEmbedding::zeros(&[96], 32, &Device::flex()));
    let class = folder.join("rqtransformer_class");
    let yaml = std::fs::read_to_string(class.join("config.yaml")).unwrap();
    let config = published::PublishedConfig::parse(&yaml).unwrap().model;
    let mut model = config
        .build(codes, &mut smalti_nn::Init::new(&Device::flex(), 0))
        .unwrap();
    model.code_embedding = None;
    let text = folder.join("rqtransformer_text/model.pt");
    let weights = smalti_nn::state::Weights::read_pytorch(&text).unwrap();
    let message = weights.load_into(model).unwrap_err().to_string();
    for part in [
        "missing: head_transformer.blocks.1.ln1",
        "shape of pos_emb_cond",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn ids_keep_their_layout() {
    let case = Case::load("rqtransformer_class");
    let theirs = case.ids("codes");
    let codes = case.given().tensor();
    let at = |b: usize, d: usize, h: usize, w: usize| {
        codes
            .clone()
            .slice([b..b + 1, d..d + 1, h..h + 1, w..w + 1])
            .into_scalar::<i32>() as u32
    };
    for (b, d, h, w) in [(0, 0, 0, 0), (1, 3, 2, 5), (0, 2, 7, 1), (1, 1, 6, 6)] {
        assert_eq!(at(b, d, h, w), theirs[((b * 8 + h) * 8 + w) * 4 + d]);
    }
}
