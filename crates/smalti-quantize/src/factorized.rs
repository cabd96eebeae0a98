//! Factorized quantization: one code in each of k codebooks at every position (Bai et al. 2024, arXiv
//! 2411.16681, section 3.2), whose branches are pressed to hold different things.
//!
//! The channels are k runs of `code_dim`, the branches. In every branch, with `x̂ = x/‖x‖` and
//! `ê_j = e_j/‖e_j‖`: `code = argmin_j ‖x̂ − ê_j‖²`, value `ê_code`, gradient straight through. Losses,
//! unweighted:
//!
//! * `commitment` = mean‖x̂ − sg(ê)‖² and `codebook` = mean‖sg(x̂) − ê‖², summed over the branches;
//! * with `entropies`, `sample_entropy` and `unused_entropy` of `softmax(−τ·‖x̂ − ê_j‖²)`, summed over
//!   the branches; see [`DistanceEntropies`];
//! * with two branches or more, `disentanglement` = the mean over positions and pairs of branches of
//!   `(q_a·q_b)²` (equation 7), of the values with their gradients: it moves the encoder, no code.
//!
//! The published weights are 0.25, 1, 0.03, 0.03 and 0.1.
//!
//! **The order of branches.** A branch has one place in everything: its channels of the latents and of
//! the decoder's input, its depth of the codes, its turn in a generator. That of the published models is
//! `vis, sem` for two codebooks and `vis, sem_mid, sem_high` for three. Their code for two is at odds
//! with itself: it *returns* the semantic branch first and lets the decoder see it last. A wrong order
//! decodes to garbage without an error.
//!
//! Shapes: latents `[batch, k · code_dim, height, width]`, codes `[batch, k, height, width]`. State: a
//! codebook for each branch, under `branches.parts`, scaled at every use and not when stored. One
//! codebook is a [`VectorQuantizer`] with [`Metric::Cosine`] and [`Rule::Gradient`], and so are k.
//!
//! Differences: there may be any number of branches, not two or three; for these the published mean
//! over pairs is as it was. Fresh codes are normal, the published ones uniform in a cube and then
//! scaled; dead codes are revived where `learning` says so.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use smalti_nn::{Init, Noise};

use crate::config::{AnyQuantizer, InvalidQuantizer, QuantizerConfig};
use crate::rows::{to_rows, unit_rows};
use crate::{
    CodeSpec, Codes, DistanceEntropies, Estimator, GroupedConfig, GroupedQuantizer, Learn,
    Learning, Metric, QuantizeError, Quantized, Quantizer, Rule, UpdateReport, VectorConfig,
    VectorQuantizer,
};

/// The shape of a factorized quantizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FactorizedConfig {
    /// Number of codes of each codebook.
    pub codebook_size: usize,
    /// Width of a code.
    pub code_dim: usize,
    /// Codebooks, and codes at a position.
    pub depth: usize,
    /// How the value's gradient gets past the choice of a code.
    #[serde(default)]
    pub estimator: Estimator,
    /// The entropies of the soft choice as two more losses, where they are wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropies: Option<DistanceEntropies>,
    /// Revival and start; the averages only watch which codes are dead.
    #[serde(default)]
    pub learning: Learning,
}

impl FactorizedConfig {
    /// Without the entropies.
    pub fn new(codebook_size: usize, code_dim: usize, depth: usize) -> Self {
        Self {
            codebook_size,
            code_dim,
            depth,
            estimator: Estimator::StraightThrough,
            entropies: None,
            learning: Learning::default(),
        }
    }

    /// Channels of the latents.
    pub fn channels(&self) -> usize {
        self.depth * self.code_dim
    }

    /// What quantizes a branch.
    fn branch(&self) -> VectorConfig {
        VectorConfig {
            metric: Metric::Cosine,
            rule: Rule::Gradient,
            estimator: self.estimator,
            entropies: self.entropies,
            learning: self.learning.clone(),
            ..VectorConfig::new(self.codebook_size, self.code_dim)
        }
    }

    /// Checks every number.
    ///
    /// # Errors
    /// Lists all problems.
    pub fn validate(&self) -> Result<(), InvalidQuantizer> {
        let branch = self.branch().validate();
        let mut problems = branch.err().map_or(Vec::new(), |invalid| invalid.0);
        if self.depth == 0 {
            problems.push("depth must be at least 1, got 0".into());
        }
        InvalidQuantizer::unless_empty(problems)
    }

    /// Builds the quantizer.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn build(&self, init: &mut Init) -> Result<FactorizedQuantizer, InvalidQuantizer> {
        self.validate()?;
        let branches = GroupedConfig {
            shared: false,
            ..GroupedConfig::new(self.depth, QuantizerConfig::Vector(self.branch()))
        };
        Ok(FactorizedQuantizer {
            branches: branches.build(init)?,
            config: self.clone(),
        })
    }
}

/// Several codebooks of unit vectors, side by side.
#[derive(Module, Debug)]
pub struct FactorizedQuantizer {
    branches: GroupedQuantizer,
    #[module(skip)]
    config: FactorizedConfig,
}

/// How alike two branches are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Correlation {
    /// The branches, the earlier one first.
    pub branches: [usize; 2],
    /// The mean over positions of the squared cosine: 1 when the branches say the same, `1/code_dim`
    /// for independent directions, 0 for orthogonal ones.
    pub mean_squared_cosine: f64,
}

/// How alike the branches of quantized latents `[batch, branches · code_dim, height, width]` are, for
/// every pair.
///
/// # Panics
/// When the channels cannot be dealt out to as many branches.
pub fn correlations(quantized: Tensor<4>, branches: usize) -> Vec<Correlation> {
    let pairs = squared_cosines(&quantized.inner(), branches).into_iter();
    let measured = pairs.map(|(branches, mean)| Correlation {
        branches,
        mean_squared_cosine: f64::from(mean.into_scalar::<f32>()),
    });
    measured.collect()
}

/// Quantized latents with zeros in the channels of all branches but one.
///
/// # Errors
/// When there is no such branch.
///
/// # Panics
/// When the channels cannot be dealt out to as many branches.
pub fn only_branch(
    quantized: Tensor<4>,
    branches: usize,
    branch: usize,
) -> Result<Tensor<4>, QuantizeError> {
    if branch >= branches {
        return Err(QuantizeError::Depths {
            start: branch,
            end: branch + 1,
            depth: branches,
        });
    }
    let (width, [batch, ..]) = (width_of_branches(&quantized, branches), quantized.dims());
    let run = [0..batch, branch * width..(branch + 1) * width];
    let kept = quantized.clone().slice(run.clone());
    Ok(quantized.zeros_like().slice_assign(run, kept))
}

fn width_of_branches(quantized: &Tensor<4>, branches: usize) -> usize {
    let [_, channels, _, _] = quantized.dims();
    assert!(
        branches > 0 && channels.is_multiple_of(branches),
        "{channels} channels cannot be dealt out to {branches} branches"
    );
    channels / branches
}

/// The mean squared cosine of every pair of branches.
fn squared_cosines(quantized: &Tensor<4>, branches: usize) -> Vec<([usize; 2], Tensor<1>)> {
    let width = width_of_branches(quantized, branches);
    let branch = |index: usize| quantized.clone().narrow(1, index * width, width);
    let units: Vec<Tensor<2>> = (0..branches)
        .map(|index| unit_rows(to_rows(branch(index))))
        .collect();
    let pairs = (0..branches).flat_map(|a| (a + 1..branches).map(move |b| [a, b]));
    let mean = |[a, b]: [usize; 2]| {
        let cosines = (units[a].clone() * units[b].clone()).sum_dim(1);
        ([a, b], cosines.square().mean())
    };
    pairs.map(mean).collect()
}

impl FactorizedQuantizer {
    /// The configuration it was built from.
    pub fn config(&self) -> &FactorizedConfig {
        &self.config
    }

    /// The codes of a branch as they are used, scaled to length one: `[codebook_size, code_dim]`.
    ///
    /// # Panics
    /// When there is no such branch.
    pub fn table(&self, branch: usize) -> Tensor<2> {
        self.part(branch).table()
    }

    fn part(&self, branch: usize) -> &VectorQuantizer {
        match &self.branches.parts()[branch] {
            AnyQuantizer::Vector(part) => part,
            other => unreachable!("a branch has one codebook, not {other:?}"),
        }
    }

    /// The codes' value with zeros in the channels of all branches but one: what that branch holds
    /// by itself.
    ///
    /// # Errors
    /// As [`Quantizer::decode`], and when there is no such branch.
    pub fn decode_branch(&self, codes: &Codes, branch: usize) -> Result<Tensor<4>, QuantizeError> {
        only_branch(self.decode(codes)?, self.config.depth, branch)
    }

    /// How alike the branches of these codes are, for every pair.
    ///
    /// # Errors
    /// As [`Quantizer::decode`].
    pub fn correlations(&self, codes: &Codes) -> Result<Vec<Correlation>, QuantizeError> {
        Ok(correlations(self.decode(codes)?, self.config.depth))
    }

    /// Sums of losses instead of means, and that of the branches' pairs.
    fn finish(&self, mut quantized: Quantized) -> Quantized {
        let depth = self.config.depth;
        for (_, loss) in &mut quantized.losses {
            *loss = loss.clone().mul_scalar(depth as f64);
        }
        let pairs = squared_cosines(&quantized.quantized, depth);
        let (count, means) = (pairs.len(), pairs.into_iter().map(|(_, mean)| mean));
        if let Some(sum) = means.reduce(|a, b| a + b) {
            let mean = sum.div_scalar(count as f64);
            quantized.losses.push(("disentanglement", mean));
        }
        quantized
    }
}

impl Quantizer for FactorizedQuantizer {
    fn spec(&self) -> CodeSpec {
        self.branches.spec()
    }

    fn encode(&self, latents: Tensor<4>) -> Result<Codes, QuantizeError> {
        self.branches.encode(latents)
    }

    fn decode(&self, codes: &Codes) -> Result<Tensor<4>, QuantizeError> {
        self.branches.decode(codes)
    }

    fn quantize(&self, latents: Tensor<4>, noise: &mut Noise) -> Result<Quantized, QuantizeError> {
        Ok(self.finish(self.branches.quantize(latents, noise)?))
    }
}

impl Learn for FactorizedQuantizer {
    fn quantize_and_update(
        &mut self,
        latents: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<(Quantized, UpdateReport), QuantizeError> {
        let (quantized, report) = self.branches.quantize_and_update(latents, noise)?;
        Ok((self.finish(quantized), report))
    }
}

#[cfg(test)]
mod tests;
