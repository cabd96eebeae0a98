//! The entries of a comparison, checked against what they would build.
//!
//! Training takes long, so everything that can be known is known before: every model is built once, its
//! parameters are counted, its rate and the names of its losses are compared with what the entry says.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use smalti_models::autoencoder::Autoencoder;
use smalti_nn::{Init, Noise};
use smalti_quantize::Quantizer;

use super::config::{ComparisonConfig, Entry, Problems};
use crate::config::{RunConfig, TokenizerRun};
use crate::error::TrainError;
use crate::loss::name_problems;
use crate::report::slug;

/// How far a stated rate may be from the quantizer's: 64,000 codes go for 16 bits.
const RATE_TOLERANCE: f64 = 0.01;

/// An entry with all that follows from it.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// As the configuration has it.
    pub(super) entry: Entry,
    /// Its whole run.
    pub(super) config: RunConfig,
    /// Its folder, within the comparison's.
    pub(super) folder: String,
    /// Numbers that gradients train.
    pub(super) parameters: usize,
}

/// Builds and checks all entries.
///
/// # Errors
/// Lists every problem of every entry.
pub(super) fn all(
    config: &ComparisonConfig,
    device: &Device,
) -> Result<Vec<Candidate>, TrainError> {
    config.validate()?;
    let (mut candidates, mut found) = (Vec::new(), Problems::default());
    for entry in &config.entries {
        let run = config.run(entry).expect("validated above");
        match parameters(tokenizer(&run), entry.rate, device) {
            Ok(parameters) => candidates.push(Candidate {
                folder: folder(entry, &run),
                entry: entry.clone(),
                config: run,
                parameters,
            }),
            Err(problems) => found.add(entry, problems),
        }
    }
    TrainError::unless_empty(found.list(config.entries.len()))?;
    Ok(candidates)
}

impl Candidate {
    /// Its whole run.
    pub(super) fn run(&self) -> &TokenizerRun {
        tokenizer(&self.config)
    }
}

fn tokenizer(config: &RunConfig) -> &TokenizerRun {
    match config {
        RunConfig::Tokenizer(run) => run,
        RunConfig::Generator(_) => unreachable!("a comparison makes runs of tokenizers only"),
    }
}

/// Name, rate and a hash of everything that makes the result what it is.
fn folder(entry: &Entry, config: &RunConfig) -> String {
    let mut config = config.clone();
    if let RunConfig::Tokenizer(run) = &mut config {
        // Whether a broken file ends the run changes nothing in a run that it does not end.
        run.data.strict = false;
    }
    let hash = blake3::hash(config.to_toml().as_bytes()).to_hex();
    format!("{}-{}-{}", slug(&entry.name), entry.rate, &hash[..8])
}

/// Parameters of the model of a run, where it fits the entry.
fn parameters(run: &TokenizerRun, rate: f64, device: &Device) -> Result<usize, Vec<String>> {
    let device = device.clone().autodiff();
    let model = run
        .model
        .build(&mut Init::new(&device, run.seed))
        .map_err(|invalid| invalid.0)?;
    let factor = run.model.factor();
    let bits = model.quantizer().spec().bits_per_position();
    let actual = bits / (factor * factor) as f64;
    let mut problems = Vec::new();
    if (actual / rate - 1.0).abs() > RATE_TOLERANCE {
        problems.push(format!(
            "quantizer: its codes take {actual:.4} bits per pixel ({bits:.2} bits for {factor}x{factor} pixels), not the {rate} of its rate"
        ));
    }
    match losses(&model, &device) {
        Ok(names) => problems.extend(name_problems(&names, &run.losses)),
        Err(problem) => problems.push(format!("quantizer: {problem}")),
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut count = Trained(0);
    model.visit(&mut count);
    Ok(count.0)
}

/// The names of the losses that a model has in training, from one pass of noise through its quantizer.
fn losses(model: &Autoencoder, device: &Device) -> Result<Vec<&'static str>, String> {
    let quantizer = &model.config().quantizer;
    let shape = [
        1,
        quantizer.latent_channels(),
        2 * quantizer.fold(),
        2 * quantizer.fold(),
    ];
    let mut noise = Noise::from_seed(0);
    let latents = noise.standard_normal(shape, device);
    let quantized = model
        .quantizer()
        .quantize(latents, &mut noise)
        .map_err(|error| error.to_string())?;
    let own = quantized.losses.into_iter().map(|(name, _)| name);
    Ok(std::iter::once("reconstruction").chain(own).collect())
}

/// Counts numbers that gradients train.
struct Trained(usize);

impl ModuleVisitor for Trained {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        if value.is_require_grad() {
            self.0 += value.dims().iter().product::<usize>();
        }
    }
}
