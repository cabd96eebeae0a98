//! The start of a sequence: a class, a text, or nothing.
//!
//! A class is one row of a table whose last row stands for "no class"; a text goes through
//! `W₂·gelu(W₁·x)` (tanh form, no biases) row by row, and "no text" is a frozen sequence of features in
//! its place. In training either is hidden with some probability, so that guidance can compare the
//! two.
//!
//! Texts come without their padding. The published code pads on the left and masks the padding when
//! it samples: since the positions of a prefix do not enter attention, leaving padding out is the same,
//! with the *last* rows of "no text" for a text of fewer tokens.
//!
//! `uncond_embedding` is a buffer in the published files: it keeps its first values, and so here.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use smalti_nn::nearest::id_tensor;
use smalti_nn::{Embedding, Init, Linear, Noise};

use super::config::FarCondition;
use crate::generators::conditions::{Caption, Conditions};

/// Makes the first vectors of a sequence. Field names are those of published files.
#[derive(Module, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a model holds one, its weights weigh more"
)]
pub enum StartEmbedding {
    /// Of classes; without any, of nothing.
    Class(ClassEmbedding),
    /// Of texts.
    Caption(CaptionEmbedding),
}

/// A vector for each class, and one for none.
#[derive(Module, Debug)]
pub struct ClassEmbedding {
    /// `[classes + 1, width]`
    pub embedding_table: Embedding,
    classes: usize,
    dropout: f64,
}

/// From the features of a text's tokens to vectors.
#[derive(Module, Debug)]
pub struct CaptionEmbedding {
    /// The perceptron.
    pub cap_proj: CaptionProjection,
    /// The features of no text, `[tokens, feature_dim]`.
    pub uncond_embedding: Param<Tensor<2>>,
    dropout: f64,
}

/// Two linear maps without biases, GELU between them.
#[derive(Module, Debug)]
pub struct CaptionProjection {
    /// `[width, feature_dim]`
    pub fc1: Linear,
    /// `[width, width]`
    pub fc2: Linear,
}

impl StartEmbedding {
    /// For a condition, with weights of the given deviation.
    pub(super) fn new(
        condition: &FarCondition,
        width: usize,
        deviation: f32,
        init: &mut Init,
    ) -> Self {
        let table = |classes: usize, dropout, init: &mut Init| {
            Self::Class(ClassEmbedding {
                embedding_table: Embedding::normal(classes + 1, width, deviation, init),
                classes,
                dropout,
            })
        };
        match *condition {
            FarCondition::Unconditional {} => table(0, 0.0, init),
            FarCondition::Class { classes, dropout } => table(classes, dropout, init),
            FarCondition::Caption {
                tokens,
                feature_dim,
                dropout,
            } => {
                let cap_proj = CaptionProjection {
                    fc1: Linear::unbiased(feature_dim, width, deviation, init),
                    fc2: Linear::unbiased(width, width, deviation, init),
                };
                let shape = [tokens, feature_dim];
                let drawn = init.normal(shape, 1.0 / (feature_dim as f32).sqrt());
                let values = smalti_nn::state::host_values(drawn.val());
                Self::Caption(CaptionEmbedding {
                    cap_proj,
                    uncond_embedding: init.buffer(shape, values),
                    dropout,
                })
            }
        }
    }

    /// The start of every sample, `[batch, length, width]`; hidden now and then where there is noise.
    ///
    /// # Panics
    /// When conditions are of another kind, or captions of different lengths.
    pub fn forward(&self, conditions: &Conditions, noise: Option<&mut Noise>) -> Tensor<3> {
        match (self, conditions) {
            (Self::Class(start), Conditions::Classes(classes)) => start.forward(classes, noise),
            (Self::Class(start), Conditions::Unconditional(count)) => start.nothing(*count),
            (Self::Caption(start), Conditions::Captions(captions)) => {
                start.forward(captions, noise)
            }
            (_, got) => panic!("a start of another kind than {got:?}"),
        }
    }

    /// The start where every condition is hidden, `[batch, length, width]`.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn hidden(&self, conditions: &Conditions) -> Tensor<3> {
        match (self, conditions) {
            (Self::Class(start), conditions) => start.nothing(conditions.len()),
            (Self::Caption(start), Conditions::Captions(captions)) => start.nothing(captions),
            (_, got) => panic!("a start of another kind than {got:?}"),
        }
    }
}

/// Which samples lose their condition.
fn lost(count: usize, dropout: f64, noise: Option<&mut Noise>) -> Vec<bool> {
    match noise {
        Some(noise) if dropout > 0.0 => {
            let draws = noise.uniform_values(count);
            draws.iter().map(|&u| f64::from(u) < dropout).collect()
        }
        _ => vec![false; count],
    }
}

impl ClassEmbedding {
    fn forward(&self, classes: &[u32], noise: Option<&mut Noise>) -> Tensor<3> {
        let lost = lost(classes.len(), self.dropout, noise);
        let ids = classes.iter().zip(lost);
        let ids = ids.map(|(&class, lost)| if lost { self.classes as u32 } else { class });
        self.rows(&ids.collect::<Vec<_>>())
    }

    fn nothing(&self, count: usize) -> Tensor<3> {
        self.rows(&vec![self.classes as u32; count])
    }

    fn rows(&self, ids: &[u32]) -> Tensor<3> {
        let device = self.embedding_table.weight.val().device();
        let ids = id_tensor(ids, [ids.len(), 1], &device);
        self.embedding_table.forward(ids)
    }
}

impl CaptionEmbedding {
    fn forward(&self, captions: &[Caption], noise: Option<&mut Noise>) -> Tensor<3> {
        let (device, [tokens, width]) = (self.device(), self.shape(captions));
        let shape = [captions.len(), tokens, width];
        let values: Vec<f32> = captions.iter().flat_map(|c| c.values.clone()).collect();
        let features = Tensor::<3>::from_data(TensorData::new(values, shape), &device);
        let lost = lost(captions.len(), self.dropout, noise);
        if !lost.contains(&true) {
            return self.cap_proj.forward(features);
        }
        let kept: Vec<f32> = lost
            .iter()
            .map(|&lost| f32::from(u8::from(!lost)))
            .collect();
        let kept = TensorData::new(kept, [captions.len(), 1, 1]);
        let kept = Tensor::<3>::from_data(kept, &device);
        let hidden = self.rows(tokens) * (kept.ones_like() - kept.clone());
        self.cap_proj.forward(features * kept + hidden)
    }

    fn nothing(&self, captions: &[Caption]) -> Tensor<3> {
        let [tokens, _] = self.shape(captions);
        let start = self.cap_proj.forward(self.rows(tokens));
        start.repeat_dim(0, captions.len())
    }

    /// The last so many rows of no text, `[1, tokens, feature_dim]`.
    fn rows(&self, tokens: usize) -> Tensor<3> {
        let all = self.uncond_embedding.val();
        let [most, _] = all.dims();
        all.narrow(0, most - tokens, tokens).unsqueeze::<3>()
    }

    /// Tokens and width of every caption.
    fn shape(&self, captions: &[Caption]) -> [usize; 2] {
        let shape = |caption: &Caption| [caption.tokens(), caption.width];
        let first = captions.first().map_or([0, 0], shape);
        assert!(
            captions.iter().all(|caption| shape(caption) == first),
            "the captions of a batch must have the same number of tokens"
        );
        first
    }

    fn device(&self) -> Device {
        self.cap_proj.fc1.weight.val().device()
    }
}

impl CaptionProjection {
    fn forward(&self, features: Tensor<3>) -> Tensor<3> {
        self.fc2.forward(gelu_tanh(self.fc1.forward(features)))
    }
}

/// `x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))/2`, the approximation in Hendrycks, Gimpel 2016, section 2.
fn gelu_tanh(x: Tensor<3>) -> Tensor<3> {
    let root = (2.0 / std::f64::consts::PI).sqrt();
    let cubic = x.clone().powi_scalar(3).mul_scalar(0.044_715);
    let inner = (x.clone() + cubic).mul_scalar(root);
    x.mul_scalar(0.5) * inner.tanh().add_scalar(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caption(tokens: usize, seed: u64) -> Caption {
        Caption {
            values: Noise::from_seed(seed).normal_values(3 * tokens),
            width: 3,
        }
    }

    fn start(condition: FarCondition) -> StartEmbedding {
        StartEmbedding::new(&condition, 4, 0.5, &mut Init::new(&Device::flex(), 1))
    }

    #[test]
    fn conditions_are_hidden_as_often_as_asked() {
        let start = start(FarCondition::Class {
            classes: 2,
            dropout: 0.25,
        });
        let classes = Conditions::Classes(vec![1; 4000]);
        let shown = start.forward(&classes, Some(&mut Noise::from_seed(2)));
        let hidden = start.hidden(&classes);
        let same = (shown - hidden).abs().sum_dim(2).equal_elem(0.0).int();
        let share = same.sum().into_scalar::<i32>() as f64 / 4000.0;
        assert!((share - 0.25).abs() < 0.03, "{share}");
        let all = start.forward(&classes, None);
        assert!(all.all_close(start.forward(&classes, None), None, None));
    }

    #[test]
    fn a_hidden_text_is_the_end_of_no_text() {
        let start = start(FarCondition::Caption {
            tokens: 5,
            feature_dim: 3,
            dropout: 0.5,
        });
        let captions = Conditions::Captions((0..40).map(|i| caption(2, i)).collect());
        let shown = start.forward(&captions, None);
        let hidden = start.hidden(&captions);
        assert_eq!(shown.dims(), [40, 2, 4]);
        let noisy = start.forward(&captions, Some(&mut Noise::from_seed(3)));
        let distance = |a: &Tensor<3>, b: &Tensor<3>, i| {
            let difference = a.clone().narrow(0, i, 1) - b.clone().narrow(0, i, 1);
            difference.abs().max().into_scalar::<f32>()
        };
        let from = |other: &Tensor<3>| {
            let rows = 0..40;
            rows.filter(|&i| distance(&noisy, other, i) < 1e-6).count()
        };
        let (kept, lost) = (from(&shown), from(&hidden));
        assert!(kept + lost == 40 && kept > 8 && lost > 8, "{kept} {lost}");
        let StartEmbedding::Caption(embedding) = &start else {
            panic!("a caption's start")
        };
        let longer = embedding.nothing(&[caption(4, 1)]).narrow(1, 2, 2);
        assert!(longer.all_close(hidden.narrow(0, 0, 1), None, Some(1e-6)));
    }

    #[test]
    fn gradients_of_the_tanh_form_are_slopes() {
        let device = Device::flex().autodiff();
        let x = Tensor::<3>::from_data([[[-2.0, -0.5, 0.0, 0.7, 3.0]]], &device).require_grad();
        let gradient = x.grad(&gelu_tanh(x.clone()).sum().backward()).unwrap();
        let at = |step: f64| gelu_tanh(x.clone().inner().add_scalar(step));
        let slope = (at(1e-2) - at(-1e-2)).div_scalar(2e-2);
        assert!(gradient.all_close(slope, None, Some(1e-3)));
    }
}
