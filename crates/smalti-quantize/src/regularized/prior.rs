//! How often each code should be chosen, and the loss that asks for it.
//!
//! With the share `p_n` of positions that chose code n and the prior `q_n`, Σ q = 1 (Zhang et al., CVPR 2023, eq. 1,
//! where q is 1/N for all):
//!
//! `prior = KL(p ‖ q) = Σ_n p_n·ln(p_n/q_n + ε)`, `ε = 10⁻¹⁰`
//!
//! in nats: 0 where codes are chosen as the prior says, ln N where one of N equally likely ones is chosen alone. The
//! slope over the share of a code that is never chosen is ln ε, −23: the pull toward it is as strong as its soft share
//! is large.
//!
//! State: `target [N]`, the prior where it is not uniform; `running [N]`, the moving average of p where one is asked
//! for. No gradient reaches them, and both are saved: a model folder needs no file beside it.

use std::path::{Path, PathBuf};

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use smalti_nn::Init;
use smalti_nn::state::{host_values, replace};

use crate::config::InvalidQuantizer;
use crate::rows::{beside, straight_through};

/// ε, as in taming-transformers' divergence.
const EPSILON: f32 = 1e-10;

/// How often each code should be chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Prior {
    /// All equally often, as published.
    Uniform {},
    /// In these proportions.
    Given {
        /// One positive number for each code; their sum does not matter.
        weights: Vec<f64>,
    },
    /// In the proportions of a text file.
    File {
        /// One positive number for each code, with spaces, commas or line ends between them. It is read when a
        /// training begins or goes on; afterwards the model holds them.
        path: PathBuf,
    },
}

impl Default for Prior {
    fn default() -> Self {
        Self::Uniform {}
    }
}

impl Prior {
    /// What is wrong with it, as far as that can be told without a file.
    pub(crate) fn problems(&self, codebook_size: usize) -> Vec<String> {
        let problem = match self {
            Self::Uniform {} => None,
            Self::Given { weights } => wrong_weights(weights, codebook_size),
            Self::File { path } => path
                .as_os_str()
                .is_empty()
                .then(|| "path must be the path of a file".into()),
        };
        let problem = problem.map(|problem| format!("prior: {problem}"));
        problem.into_iter().collect()
    }

    /// The proportions, with the sum 1; none where all are equal.
    fn shares(&self, codebook_size: usize) -> Result<Option<Vec<f32>>, InvalidQuantizer> {
        let weights = match self {
            Self::Uniform {} => return Ok(None),
            Self::Given { weights } => weights.clone(),
            Self::File { path } => {
                let weights = read(path).and_then(|weights| {
                    let wrong = wrong_weights(&weights, codebook_size);
                    wrong.map_or(Ok(weights), Err)
                });
                let refused = |problem| {
                    InvalidQuantizer(vec![format!("prior: {}: {problem}", path.display())])
                };
                weights.map_err(refused)?
            }
        };
        let sum: f64 = weights.iter().sum();
        Ok(Some(weights.iter().map(|w| (w / sum) as f32).collect()))
    }
}

fn wrong_weights(weights: &[f64], codebook_size: usize) -> Option<String> {
    if weights.len() != codebook_size {
        return Some(format!(
            "expected a number for each of the {codebook_size} codes, got {}",
            weights.len()
        ));
    }
    let wrong = |w: &f64| !(w.is_finite() && *w > 0.0);
    let code = weights.iter().position(wrong)?;
    Some(format!(
        "the number of code {code} must be positive and finite, got {}; give codes that should hardly be chosen a small one",
        weights[code]
    ))
}

/// The numbers of a text file.
fn read(path: &Path) -> Result<Vec<f64>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let words = text.split(|c: char| c.is_whitespace() || c == ',');
    let words = words.filter(|word| !word.is_empty());
    let number = |word: &str| word.parse().map_err(|_| format!("{word:?} is no number"));
    words.map(number).collect()
}

/// A prior, and what was seen so far where that counts.
#[derive(Module, Debug)]
pub(crate) struct PriorState {
    target: Option<Param<Tensor<1>>>,
    running: Option<Param<Tensor<1>>>,
    #[module(skip)]
    decay: f64,
    #[module(skip)]
    codebook_size: usize,
}

impl PriorState {
    /// The average starts at the prior.
    pub(crate) fn new(
        prior: &Prior,
        codebook_size: usize,
        decay: Option<f64>,
        init: &Init,
    ) -> Result<Self, InvalidQuantizer> {
        let uniform = vec![1.0 / codebook_size as f32; codebook_size];
        let shares = match prior {
            Prior::Uniform {} => None,
            // The weights that will be loaded hold them; the file may be elsewhere by now.
            Prior::File { .. } if init.is_blank() => Some(uniform.clone()),
            other => other.shares(codebook_size)?,
        };
        let start = shares.clone().unwrap_or(uniform);
        Ok(Self {
            target: shares.map(|shares| init.buffer([codebook_size], shares)),
            running: decay.map(|_| init.buffer([codebook_size], start)),
            decay: decay.unwrap_or(0.0),
            codebook_size,
        })
    }

    /// The loss of the shares of this batch, `[codes]`. Where there is an average it is that of the moved average,
    /// with the gradient as if this batch were all of it: how strongly the loss pulls does not depend on the decay.
    pub(crate) fn loss(&self, shares: Tensor<1>) -> Tensor<1> {
        let shares = match self.moved(&shares) {
            Some(moved) => straight_through(shares, moved),
            None => shares,
        };
        let ratio = match &self.target {
            Some(target) => shares.clone() / beside(target.val(), &shares),
            None => shares.clone().mul_scalar(self.codebook_size as f64),
        };
        (shares * ratio.add_scalar(EPSILON).log()).sum()
    }

    /// The average after this batch.
    fn moved(&self, shares: &Tensor<1>) -> Option<Tensor<1>> {
        let running = beside(self.running.as_ref()?.val(), shares);
        let new = shares.clone().detach().mul_scalar(1.0 - self.decay);
        Some(running.mul_scalar(self.decay) + new)
    }

    /// Moves the average, where there is one.
    pub(crate) fn learn(&mut self, shares: &Tensor<1>) {
        let Some(moved) = self.moved(shares) else {
            return;
        };
        let data = TensorData::new(host_values(moved), [self.codebook_size]);
        self.running = self.running.take().map(|running| replace(running, data));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use smalti_nn::state::Weights;

    fn state(prior: &Prior, codes: usize, decay: Option<f64>) -> PriorState {
        let init = Init::new(&Device::flex().autodiff(), 1);
        PriorState::new(prior, codes, decay, &init).unwrap()
    }

    fn shares(values: &[f32]) -> Tensor<1> {
        let data = TensorData::new(values.to_vec(), [values.len()]);
        Tensor::from_data(data, &Device::flex().autodiff()).require_grad()
    }

    fn number(loss: Tensor<1>) -> f64 {
        f64::from(loss.into_scalar::<f32>())
    }

    /// ln 1024, ln 4 and 0.
    #[test]
    fn the_divergence_of_known_shares() {
        let uniform = state(&Prior::default(), 1024, None);
        let first = |count: usize| {
            let share = |code| {
                if code < count {
                    1.0 / count as f32
                } else {
                    0.0
                }
            };
            (0..1024).map(share).collect::<Vec<f32>>()
        };
        for (count, expected) in [(1, 6.931_472), (256, 1.386_294), (1024, 0.0)] {
            let found = number(uniform.loss(shares(&first(count))));
            assert!((found - expected).abs() < 2e-6, "{count}: {found}");
        }
    }

    /// dL/dp = ln(p/q + ε) + (p/q)/(p/q + ε).
    #[test]
    fn unused_codes_pull_by_the_logarithm_of_epsilon() {
        let prior = Prior::Given {
            weights: vec![2.0, 1.0, 1.0],
        };
        let given = shares(&[0.25, 0.75, 0.0]);
        let loss = state(&prior, 3, None).loss(given.clone());
        let expected = 0.25 * 0.5f64.ln() + 0.75 * 3f64.ln();
        assert!((number(loss.clone()) - expected).abs() < 1e-6);
        let slopes = host_values(given.grad(&loss.backward()).unwrap());
        let expected = [0.5f64.ln() + 1.0, 3f64.ln() + 1.0, -23.025_85];
        for (slope, expected) in slopes.iter().zip(expected) {
            assert!((f64::from(*slope) - expected).abs() < 1e-4, "{slopes:?}");
        }
    }

    #[test]
    fn an_average_remembers_and_pulls_as_strongly_as_none() {
        let mut state = state(&Prior::default(), 2, Some(0.75));
        let first = shares(&[1.0, 0.0]);
        // 0.75·½ + 0.25·1
        let divergence = |p: f64| p * (2.0 * p).ln() + (1.0 - p) * (2.0 * (1.0 - p)).ln();
        let loss = state.loss(first.clone());
        assert!((number(loss.clone()) - divergence(0.625)).abs() < 1e-6);
        let slopes = host_values(first.grad(&loss.backward()).unwrap());
        assert!(
            (slopes[0] - (1.25f32.ln() + 1.0)).abs() < 1e-6,
            "{slopes:?}"
        );
        assert_eq!(Weights::of(&state).0["running"].values, [0.5, 0.5]);
        state.learn(&first);
        assert_eq!(Weights::of(&state).0["running"].values, [0.625, 0.375]);
        let again = number(state.loss(first));
        assert!((again - divergence(0.718_75)).abs() < 1e-6, "{again}");
    }

    #[test]
    fn a_file_is_read_once_and_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shares.txt");
        let prior = Prior::File { path: path.clone() };
        let new = |init: &Init| PriorState::new(&prior, 3, None, init);
        let init = Init::new(&Device::flex(), 1);
        for (text, part) in [
            ("1, 2", "each of the 3 codes, got 2"),
            ("1\n2\nmany", "\"many\" is no number"),
            ("1 0 3", "code 1 must be positive"),
        ] {
            std::fs::write(&path, text).unwrap();
            let message = new(&init).unwrap_err().to_string();
            assert!(
                message.contains(part) && message.contains("shares.txt"),
                "{message}"
            );
        }
        std::fs::write(&path, "1, 2\n5\n").unwrap();
        let state = new(&init).unwrap();
        let weights = Weights::of(&state);
        assert_eq!(weights.0["target"].values, [0.125, 0.25, 0.625]);
        folder.close().unwrap();
        assert!(new(&init).is_err());
        let loaded = weights.load_into(new(&Init::blank(&Device::flex())).unwrap());
        let values = Weights::of(&loaded.unwrap()).0["target"].values.clone();
        assert_eq!(values, [0.125, 0.25, 0.625]);
    }

    #[test]
    fn nonsense_is_listed() {
        let given = |weights: &[f64]| Prior::Given {
            weights: weights.to_vec(),
        };
        assert!(given(&[1.0, f64::NAN]).problems(2)[0].contains("code 1"));
        assert!(given(&[1.0]).problems(2)[0].contains("got 1"));
        assert!(
            Prior::File {
                path: PathBuf::new()
            }
            .problems(2)[0]
                .contains("path")
        );
        assert!(given(&[1.0, 3.0]).problems(2).is_empty());
        assert!(Prior::default().problems(2).is_empty());
    }
}
