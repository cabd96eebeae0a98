//! Agreement with the published implementations, on the reference tensors of `goldens/llamagen_gpt_*` and
//! `goldens/far_*`.
//!
//! Tolerances are those of the references' notes: 2e-5 + 1e-4·|x| on activations, 1e-5 relative on
//! losses (f32 sums in another order); codes exactly, since the recorded margins exceed 4e-3.

use std::ops::ControlFlow;
use std::path::PathBuf;

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::SafeTensors;
use smalti_quantize::Codes;

use super::published::{Untold, load};
use super::{Far, FarCondition, HeadConfig};
use crate::generators::conditions::{Caption, Conditions};
use crate::generators::loss::CodeTargets;
use crate::generators::output::GeneratorInput;
use crate::generators::request::GenerationRequest;
use crate::generators::sampling::{Guidance, SamplingConfig};

struct Case {
    bytes: Vec<u8>,
    model: Far,
    device: Device,
}

impl Case {
    fn load(name: &str, heads: usize) -> Self {
        let goldens = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens"));
        let folder = goldens.join(name);
        let bytes = std::fs::read(folder.join("tensors.safetensors")).unwrap();
        let device = Device::flex();
        let untold = Untold {
            height: 4,
            width: 4,
            heads: Some(heads),
        };
        let model = load(&folder.join("model.pt"), untold, &device).unwrap();
        Self {
            bytes,
            model,
            device,
        }
    }

    fn floats(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).unwrap();
        let chunks = view.data().as_chunks::<4>().0.iter();
        let values = chunks.map(|&b| f32::from_le_bytes(b)).collect();
        (view.shape().to_vec(), values)
    }

    fn number(&self, name: &str) -> f32 {
        self.floats(name).1[0]
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).unwrap();
        match view.dtype() {
            safetensors::Dtype::I32 => {
                let chunks = view.data().as_chunks::<4>().0.iter();
                chunks.map(|&b| i32::from_le_bytes(b) as u32).collect()
            }
            _ => {
                let chunks = view.data().as_chunks::<8>().0.iter();
                chunks.map(|&b| i64::from_le_bytes(b) as u32).collect()
            }
        }
    }

    /// The maps of each sub-token, `[batch, positions]` in the references, brought into ours.
    fn maps(&self, names: &[&str]) -> Vec<u32> {
        let maps: Vec<_> = names.iter().map(|name| self.ids(name)).collect();
        let samples = 0..maps[0].len() / 16;
        samples
            .flat_map(|sample| maps.iter().map(move |map| &map[sample * 16..][..16]))
            .flatten()
            .copied()
            .collect()
    }

    /// Conditions as the references' teacher forcing sees them: with the padding.
    fn shown(&self) -> Conditions {
        match self.model.config().condition {
            FarCondition::Caption { .. } => {
                let (shape, values) = self.floats("cond");
                let [_, tokens, width] = shape[..] else {
                    panic!("{shape:?}")
                };
                let rows = values.chunks(tokens * width);
                let caption = |values: &[f32]| Caption {
                    values: values.to_vec(),
                    width,
                };
                Conditions::Captions(rows.map(caption).collect())
            }
            _ => Conditions::Classes(self.ids("cond")),
        }
    }

    /// Conditions without the padding, as sampling sees them.
    fn asked(&self) -> Conditions {
        match self.shown() {
            Conditions::Captions(captions) => {
                let mask = self.ids("emb_mask");
                let cut = |(caption, mask): (Caption, &[u32])| {
                    let real = mask.iter().filter(|&&m| m == 1).count();
                    let padding = mask.len() - real;
                    assert!(mask[padding..].iter().all(|&m| m == 1), "padded left");
                    let values = caption.values[padding * caption.width..].to_vec();
                    Caption { values, ..caption }
                };
                let masks = mask.chunks(captions[0].tokens());
                Conditions::Captions(captions.into_iter().zip(masks).map(cut).collect())
            }
            other => other,
        }
    }

    fn codes(&self, names: &[&str]) -> Codes {
        let values = self.maps(names);
        let shape = [values.len() / 16 / names.len(), names.len(), 4, 4];
        Codes::from_values(&values, shape, &self.device)
    }

    fn sampled(&self, guidance: Option<Guidance>) -> Vec<u32> {
        let mut request = GenerationRequest::new(self.asked(), 0);
        request.sampling = SamplingConfig {
            guidance,
            ..SamplingConfig::greedy()
        };
        let mut go_on = |_| ControlFlow::Continue(());
        self.model.generate(&request, &mut go_on).unwrap().values()
    }

    /// Logits of every depth and losses, with teacher forcing.
    fn check_logits(&self, codes: &[&str], logits: &[[&str; 2]]) {
        let given = self.codes(codes);
        let input = GeneratorInput {
            codes: given.clone(),
            conditions: self.shown(),
        };
        let output = self.model.forward(input, None);
        let hidden = self.model.cls_embedding.hidden(&self.shown());
        let layout = self.model.config().layout();
        let ids = layout.by_position(&given, &self.device);
        let hidden = self.model.logits_behind(hidden, ids, None);
        for (depth, [shown_name, hidden_name]) in logits.iter().enumerate() {
            let at = |logits: &Tensor<4>| logits.clone().narrow(2, depth, 1).squeeze_dim::<3>(2);
            self.assert_close(at(&output.logits), shown_name);
            self.assert_close(at(&hidden), hidden_name);
        }
        let loss = output.losses(CodeTargets::Hard(given)).codes;
        let (loss, want) = (loss.into_scalar::<f32>(), self.number("loss"));
        assert!((loss / want - 1.0).abs() < 1e-5, "loss {loss} for {want}");
    }

    fn assert_close(&self, got: Tensor<3>, name: &str) {
        let (shape, values) = self.floats(name);
        let want = Tensor::<3>::from_data(TensorData::new(values, shape), &self.device);
        assert_eq!(got.dims(), want.dims(), "{name}");
        let excess = (got - want.clone()).abs() - want.abs().mul_scalar(1e-4);
        let excess = excess.max().into_scalar::<f32>();
        assert!(excess < 2e-5, "{name}: {excess} more than 1e-4 relative");
    }

    fn check_rotations(&self, start: usize) {
        let (_, want) = self.floats("freqs_cis");
        let rotations = self.model.rotations(start);
        assert_eq!(rotations.values().len(), want.len());
        let pairs = rotations.values().iter().zip(&want);
        assert!(pairs.clone().all(|(got, want)| (got - want).abs() < 2e-6));
    }
}

/// LlamaGen's interval counts from the second code on, and includes its end.
fn check_one_code(case: &Case) {
    case.check_logits(&["codes"], &[["logits_cond", "logits_uncond"]]);
    let scale = case.number("cfg_scale");
    let last = case.ids("cfg_interval")[0] as usize;
    let interval = Some([0, last + 2]);
    assert_eq!(case.sampled(None), case.maps(&["sample_nocfg"]));
    let guided = case.sampled(Some(Guidance::new(scale)));
    assert_eq!(guided, case.maps(&["sample_cfg"]));
    let partly = case.sampled(Some(Guidance { scale, interval }));
    assert_eq!(partly, case.maps(&["sample_cfg_interval"]));
}

#[test]
fn llamagen_for_classes() {
    let case = Case::load("llamagen_gpt_c2i", 2);
    case.check_rotations(1);
    check_one_code(&case);
}

#[test]
fn llamagen_for_texts() {
    let case = Case::load("llamagen_gpt_t2i", 2);
    case.check_rotations(120);
    check_one_code(&case);
}

#[test]
fn far_with_two_codes() {
    let case = Case::load("far_dual", 2);
    assert_eq!(
        case.model.config().head,
        HeadConfig::Autoregressive { layers: 2 }
    );
    case.check_rotations(1);
    let logits = [
        ["logits_1_cond", "logits_1_uncond"],
        ["logits_2_cond", "logits_2_uncond"],
    ];
    case.check_logits(&["codes_1", "codes_2"], &logits);
    let guided = case.sampled(Some(Guidance::new(case.number("cfg_scale"))));
    assert_eq!(guided, case.maps(&["sample_1", "sample_2"]));
}

#[test]
fn far_with_three_codes() {
    let case = Case::load("far_triple", 3);
    case.check_rotations(1);
    let logits = [
        ["logits_1_cond", "logits_1_uncond"],
        ["logits_2_cond", "logits_2_uncond"],
        ["logits_3_cond", "logits_3_uncond"],
    ];
    case.check_logits(&["codes_1", "codes_2", "codes_3"], &logits);
    let guided = case.sampled(Some(Guidance::new(case.number("cfg_scale"))));
    assert_eq!(guided, case.maps(&["sample_1", "sample_2", "sample_3"]));
}
