//! What a step of stage 1 minimises, and the gradient of it.
//!
//! `L = Σ wᵢ·Lᵢ(x, x̂) + Σ wⱼ·Lⱼ(latents) + s·λ·w·G(x̂)`
//!
//! The first sum compares images (`reconstruction`, `perceptual`, `contrastive`), the second is the quantizer's and that
//! of prediction heads (`representation`), the last term the adversary's: `w` is `losses.adversarial`, `s` in [0, 1] how
//! far it has joined, and `λ` balances it by the norms of both gradients at the decoder's last layer. There
//! `reconstruction` and `perceptual` stand for the first sum: the contrastive loss is left out, so that λ keeps the
//! meaning it has without one.
//!
//! The graph is cut in front of that layer: the losses on images and the adversary's go backward to the
//! cut each by itself, and what they say together goes on through the rest of the network once
//! ([`Passage`]). The reference implementations go through the whole graph for each of the norms.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use smalti_models::autoencoder::{Autoencoder, LAST_LAYER, REPRESENTATION};
use smalti_models::perceptual::{Contrastive, Lpips};
use smalti_nn::Noise;
use smalti_quantize::{NamedLoss, QuantizeError, UpdateReport};

use crate::adversary::{self, Adversary};
use crate::config::TokenizerRun;
use crate::error::TrainError;
use crate::gradients::Gradients;
use crate::journal::Measures;
use crate::loss::{ReconstructionLoss, require_names, weigh, weight_of};
use crate::passage::{Passage, leaf};
use crate::representation::Representation;
use crate::trainer::read_losses;

/// The name of the loss that compares positions.
const CONTRASTIVE: &str = "contrastive";

/// The losses that compare images, and the weights of all.
#[derive(Debug)]
pub(super) struct Objective {
    pub(super) reconstruction: ReconstructionLoss,
    /// Frozen.
    pub(super) perceptual: Option<Lpips>,
    /// Frozen.
    pub(super) contrastive: Option<Contrastive>,
    /// What prediction heads are held against.
    pub(super) representation: Option<Representation>,
    pub(super) weights: BTreeMap<String, f64>,
}

/// A batch to learn from.
pub(super) struct Lesson<'a> {
    /// `[batch, 3, height, width]` in [−1, 1], on the autodiff device.
    pub(super) images: Tensor<4>,
    /// Which images of the data set they are.
    pub(super) indices: &'a [usize],
    pub(super) step: u64,
    /// Dropout, and what else the step draws.
    pub(super) noise: &'a mut Noise,
}

/// What a batch leaves.
pub(super) struct Learned {
    pub(super) gradients: Gradients,
    pub(super) measures: Measures,
    pub(super) report: UpdateReport,
    /// Untracked.
    pub(super) reconstructions: Tensor<4>,
}

impl Objective {
    /// The objective of a run over so many images, its networks read from their files.
    ///
    /// # Errors
    /// When a file cannot be read or does not fit.
    pub(super) fn load(
        config: &TokenizerRun,
        images: usize,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let perceptual = config.perceptual.as_ref();
        let contrastive = config.contrastive.as_ref();
        let (heads, inner) = (&config.model.representation, device.clone().inner());
        let targets = config.representation.as_ref();
        let representation = targets.map(|t| Representation::load(t, heads, images, &inner));
        Ok(Self {
            reconstruction: config.reconstruction,
            perceptual: perceptual.map(|p| p.load(device)).transpose()?,
            contrastive: contrastive.map(|c| c.load(device)).transpose()?,
            representation: representation.transpose()?,
            weights: config.losses.clone(),
        })
    }

    /// The losses that compare images and that an adversary is balanced against, unweighted.
    fn on_images(&self, images: Tensor<4>, reconstructions: Tensor<4>) -> Vec<NamedLoss> {
        let reconstruction = self
            .reconstruction
            .of(reconstructions.clone(), images.clone());
        let mut losses = vec![("reconstruction", reconstruction)];
        if let Some(perceptual) = &self.perceptual {
            let distances = perceptual.distances(reconstructions, images);
            losses.push(("perceptual", distances.mean()));
        }
        losses
    }

    /// Refuses images that a network which judges them has no room for.
    ///
    /// # Errors
    /// Says how large they must be.
    pub(super) fn require_size(&self, width: usize, height: usize) -> Result<(), TrainError> {
        let perceptual = self
            .perceptual
            .as_ref()
            .map(|p| ("perceptual", p.smallest_side()));
        let representation = self.representation.as_ref();
        let representation = representation.map(|r| ("representation", r.smallest_side()));
        let small = |side: usize| width.min(height) < side;
        let problems = perceptual.into_iter().chain(representation);
        let problems = problems.filter(|(_, side)| small(*side));
        let problems = problems.map(|(name, side)| {
            format!("{name}: its network needs images of at least {side} pixels on a side, got {width}x{height}; change data.preprocess")
        });
        let contrastive = self.contrastive.as_ref().map(Contrastive::smallest_side);
        let contrastive = contrastive.filter(|side| small(*side)).map(|side| {
            format!("contrastive: its layers need images of at least {side} pixels on a side to have positions to tell apart, got {width}x{height}; leave the deepest out of contrastive.layers, or change data.preprocess")
        });
        TrainError::unless_empty(problems.chain(contrastive).collect())
    }

    /// Refuses weights that do not fit the losses.
    fn require_names(
        &self,
        losses: &[NamedLoss],
        adversary: Option<&Adversary>,
    ) -> Result<(), TrainError> {
        let mut produced: Vec<&str> = losses.iter().map(|(name, _)| *name).collect();
        produced.extend(self.contrastive.as_ref().map(|_| CONTRASTIVE));
        produced.extend(adversary.map(|_| adversary::LOSS));
        require_names(&produced, &self.weights)
    }

    /// Forward and backward of one batch, in which the codebook learns.
    ///
    /// # Errors
    /// When a loss is not finite or has no weight.
    pub(super) fn learn(
        &self,
        model: &mut Autoencoder,
        adversary: Option<&Adversary>,
        lesson: Lesson<'_>,
    ) -> Result<Learned, TrainError> {
        let Lesson {
            images,
            indices,
            step,
            noise,
        } = lesson;
        let (passage, report) =
            Passage::forward(model, &images, noise).map_err(|error| diverged(error, step))?;
        let mut inner = passage.losses().to_vec();
        if let Some(representation) = &self.representation {
            let guesses = model.predictions(&passage.quantized().quantized);
            let loss = representation.loss(guesses, &images.clone().inner(), indices);
            inner.push((REPRESENTATION, loss));
        }

        let cut = leaf(passage.hidden());
        let reconstructions = model.finish(cut.clone());
        let untracked = reconstructions.clone().inner();
        let mut losses = self.on_images(images.clone(), reconstructions);
        let own = weigh(&losses, &self.weights)?.expect("images are compared");
        losses.extend(inner.iter().cloned());
        self.require_names(&losses, adversary)?;
        let mut measures = read_losses(&losses, step)?;
        let mut sum = Side::of(model, &cut, &own);
        drop((own, losses));
        let hidden = cut.inner();
        if let Some(judge) = adversary {
            let (strength, hidden) = (judge.config().strength(step), hidden.clone());
            if strength > 0.0 {
                measures.extend(self.judged(model, (judge, strength), hidden, &mut sum, step)?);
            }
        }
        if let Some(contrastive) = &self.contrastive {
            let perturbation = passage.quantized().perturbation.clone();
            let loss = |made| contrastive.loss(images, made, perturbation, noise);
            measures.extend(self.told_apart(model, loss, hidden, &mut sum, step)?);
        }

        let mut gradients = passage.backward(model, sum.slope, weigh(&inner, &self.weights)?);
        gradients.add(sum.last_layer);
        Ok(Learned {
            gradients,
            measures,
            report,
            reconstructions: untracked,
        })
    }

    /// Adds the adversary's gradient to that of the losses on images, balanced against it.
    fn judged(
        &self,
        model: &Autoencoder,
        (judge, strength): (&Adversary, f64),
        hidden: Tensor<4>,
        sum: &mut Side,
        step: u64,
    ) -> Result<Measures, TrainError> {
        // A leaf of its own: a graph is used up by going backward through it.
        let cut = leaf(hidden);
        let opinion = judge.opinion(model.finish(cut.clone()));
        let mut measures = read_losses(&[(adversary::LOSS, opinion.clone())], step)?;
        let judged = Side::of(model, &cut, &opinion);
        let norms = [&*sum, &judged].map(|side| side.last_layer.norm_of(LAST_LAYER));
        let balance = judge.config().balance.factor(norms[0], norms[1]);
        let weight = strength * balance * weight_of(adversary::LOSS, &self.weights)?;
        sum.add(judged, weight);
        measures.push(("adversarial_weight".into(), weight));
        Ok(measures)
    }

    /// Adds the gradient of the loss that compares positions, which the adversary is not balanced against.
    fn told_apart(
        &self,
        model: &Autoencoder,
        loss: impl FnOnce(Tensor<4>) -> Tensor<1>,
        hidden: Tensor<4>,
        sum: &mut Side,
        step: u64,
    ) -> Result<Measures, TrainError> {
        let cut = leaf(hidden);
        let loss = loss(model.finish(cut.clone()));
        let measures = read_losses(&[(CONTRASTIVE, loss.clone())], step)?;
        let weight = weight_of(CONTRASTIVE, &self.weights)?;
        sum.add(Side::of(model, &cut, &loss), weight);
        Ok(measures)
    }
}

/// The gradients of a loss on images: of the last layer's parameters, and at its input.
struct Side {
    last_layer: Gradients,
    slope: Tensor<4>,
}

impl Side {
    fn of(model: &Autoencoder, cut: &Tensor<4>, loss: &Tensor<1>) -> Self {
        let graph = loss.clone().backward();
        Self {
            last_layer: Gradients::of(model, &graph),
            slope: cut.grad(&graph).expect("the cut is a leaf"),
        }
    }

    fn add(&mut self, other: Self, weight: f64) {
        self.slope = self.slope.clone() + other.slope.mul_scalar(weight);
        self.last_layer.add(other.last_layer.scaled(weight));
    }
}

/// Latents that are not finite have no codes: the network has diverged before a loss could.
fn diverged(error: QuantizeError, step: u64) -> TrainError {
    match error {
        QuantizeError::NonFinite => TrainError::NonFinite {
            term: "the encoder's output".into(),
            value: f32::NAN,
            step,
            kept: String::new(),
        },
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;
    use smalti_models::autoencoder::AutoencoderConfig;
    use smalti_models::discriminators::{DiscriminatorConfig, PatchConfig, PatchNorm};
    use smalti_models::perceptual::ContrastiveConfig;
    use smalti_nn::Init;
    use smalti_nn::state::host_values;

    use crate::adversary::{AdversarialConfig, Balance};
    use crate::optimizer::OptimizerConfig;

    const NETWORK: &str = "[network]\nresolution = 16\nchannels = 4\nmultipliers = [1, 2]\nblocks = 1\nz_channels = 4\nnorm_groups = 2\n[quantizer]\nkind = 'regularized'\ncodebook_size = 8\ncode_dim = 4\n";

    fn adversary(balance: Balance, init: &mut Init) -> Adversary {
        let config = AdversarialConfig {
            discriminator: DiscriminatorConfig::Patch(PatchConfig {
                channels: 4,
                layers: 1,
                norm: PatchNorm::Batch,
            }),
            loss: Default::default(),
            start_step: 0,
            warmup_steps: 0,
            ramp_steps: 0,
            balance,
            lecam: None,
            slope_penalty: None,
            optimizer: None,
        };
        let optimizer: OptimizerConfig = toml::from_str("learning_rate = 1e-3").unwrap();
        Adversary::new(&config, &optimizer, init).unwrap()
    }

    /// On two layers of the narrow VGG-16 of a golden.
    fn contrastive(device: &Device) -> Contrastive {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens");
        let text = format!(
            "network = {{ kind = 'vgg16', file = '{root}/taming_vqgan/last.ckpt' }}\n\
             layers = [{{ name = 'relu1_2', weight = 0.5 }}, {{ name = 'relu2_2', weight = 1.0 }}]"
        );
        let config: ContrastiveConfig = toml::from_str(&text).unwrap();
        config.load(device).unwrap()
    }

    /// What the adversary's gradient was multiplied by.
    fn weight_in(learned: &Learned) -> f64 {
        let mut measures = learned.measures.iter();
        let weight = measures.find(|(name, _)| name == "adversarial_weight");
        weight.expect("the adversary counted").1
    }

    /// The step's noise after each half has taken its own.
    fn noise() -> Noise {
        let mut noise = Noise::from_seed(1);
        let _ = [noise.fork(), noise.fork()];
        noise
    }

    fn setup(balance: Balance) -> (Autoencoder, Adversary, Objective, Tensor<4>) {
        let device = Device::flex().autodiff();
        let mut init = Init::new(&device, 5);
        let config: AutoencoderConfig = toml::from_str(NETWORK).unwrap();
        let model = config.build(&mut init).unwrap();
        let adversary = adversary(balance, &mut init);
        let weights = [
            ("reconstruction", 2.0),
            ("prior", 0.1),
            ("contrastive", 0.3),
            ("adversarial", 0.5),
        ];
        let objective = Objective {
            reconstruction: ReconstructionLoss::SquaredError,
            perceptual: None,
            contrastive: Some(contrastive(&device)),
            representation: None,
            weights: weights.map(|(n, w)| (n.to_owned(), w)).into(),
        };
        let values: Vec<f32> = (0..2 * 3 * 256).map(|i| (i as f32 * 0.37).sin()).collect();
        let images = Tensor::from_data(TensorData::new(values, [2, 3, 16, 16]), &device);
        (model, adversary, objective, images)
    }

    /// Learned with the cuts, and the gradient of the same sum in one graph.
    fn both(balance: Option<Balance>) -> (Learned, Gradients) {
        let (mut model, adversary, mut objective, images) = setup(balance.unwrap_or_default());
        let adversary = balance.map(|_| adversary);
        if adversary.is_none() {
            objective.weights.remove(adversary::LOSS);
        }
        let lesson = Lesson {
            images: images.clone(),
            indices: &[0, 1],
            step: 0,
            noise: &mut Noise::from_seed(1),
        };
        let learned = objective
            .learn(&mut model, adversary.as_ref(), lesson)
            .unwrap();
        let (latents, mut noise) = (model.latents(images.clone(), None), noise());
        let (quantized, _) = model.quantize_and_update(latents, &mut noise).unwrap();
        let made = model.finish(model.hidden(quantized.quantized, None));
        let mut losses = objective.on_images(images.clone(), made.clone());
        let contrastive = objective.contrastive.as_ref().unwrap();
        let told = contrastive.loss(images, made.clone(), quantized.perturbation, &mut noise);
        losses.push((CONTRASTIVE, told));
        losses.extend(quantized.losses);
        let mut total = weigh(&losses, &objective.weights).unwrap().unwrap();
        if let Some(adversary) = adversary {
            let weight = weight_in(&learned);
            total = total + adversary.opinion(made).mul_scalar(weight);
        }
        let whole = Gradients::of(&model, &total.backward());
        (learned, whole)
    }

    #[test]
    fn the_cut_graph_has_the_gradient_of_the_whole() {
        for balance in [None, Some(Balance::Fixed {}), Some(Balance::default())] {
            let (mut learned, mut whole) = both(balance);
            let names = whole.names();
            assert_eq!(learned.gradients.names(), names);
            for name in names {
                let (a, b) = (
                    host_values(learned.gradients.remove(&name).unwrap()),
                    host_values(whole.remove(&name).unwrap()),
                );
                // Keys have no use for a bias: its gradient is rounding.
                let scale = b.iter().fold(1e-3f32, |most, v| most.max(v.abs()));
                for (a, b) in a.iter().zip(&b) {
                    assert!((a - b).abs() < 1e-4 * scale, "{name}: {a} {b}");
                }
            }
        }
    }

    #[test]
    fn the_balance_makes_both_gradients_equally_long_at_the_last_layer() {
        let (model, adversary, objective, images) = setup(Balance::default());
        let norm = |loss: Tensor<1>| Gradients::of(&model, &loss.backward()).norm_of(LAST_LAYER);
        let reconstructions = || {
            let pass = model.reconstruct(images.clone(), &mut noise());
            pass.unwrap().images
        };
        let losses = objective.on_images(images.clone(), reconstructions());
        let own = norm(weigh(&losses, &objective.weights).unwrap().unwrap());
        let judged = norm(adversary.opinion(reconstructions()));
        let (learned, _) = both(Some(Balance::default()));
        let weight = weight_in(&learned);
        let expected = 0.5 * own / (judged + 1e-4);
        assert!(
            (weight / expected - 1.0).abs() < 1e-4,
            "{weight} {expected}"
        );
    }
}
