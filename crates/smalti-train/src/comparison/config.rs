//! What to compare, as a TOML file states it.
//!
//! `kind = "comparison"`, a table `base` with what all entries have in common (a tokenizer's run without
//! its quantizer) and a list `[[entry]]`. Entries override nothing but what a method may need
//! for itself; images, network and steps are the base's.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use smalti_models::autoencoder::AutoencoderConfig;
use smalti_models::perceptual::{ContrastiveConfig, PerceptualConfig};
use smalti_quantize::QuantizerConfig;

use crate::adversary::AdversarialConfig;
use crate::config::{DataConfig, RunConfig, TokenizerRun, TrainingConfig};
use crate::error::TrainError;
use crate::judges::JudgesConfig;
use crate::loss::ReconstructionLoss;
use crate::optimizer::OptimizerConfig;
use crate::representation::RepresentationConfig;
use crate::schedule::Schedule;
use crate::settings;

/// Says that a file is one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComparisonKind {
    /// Several tokenizers, trained alike.
    Comparison,
}

/// A comparison of tokenizers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComparisonConfig {
    /// Always `comparison`.
    pub kind: ComparisonKind,
    /// Images shown beside their reconstructions, spread over those that are measured on.
    #[serde(default = "five")]
    pub pictures: usize,
    /// Who judges reconstructions beside what is measured anyway. Without `perceptual`, the base's network does
    /// where there is one. Another judge measures again and trains nothing again.
    #[serde(default, skip_serializing_if = "JudgesConfig::is_empty")]
    pub evaluation: JudgesConfig,
    /// What is equal for all.
    pub base: BaseRun,
    /// What is compared.
    #[serde(rename = "entry")]
    pub entries: Vec<Entry>,
}

/// A tokenizer's run without a quantizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseRun {
    /// Determines every random number.
    #[serde(default)]
    pub seed: u64,
    /// The images.
    pub data: DataConfig,
    /// The autoencoder, its quantizer left out.
    pub model: toml::Table,
    /// How the loss `reconstruction` compares images.
    #[serde(default)]
    pub reconstruction: ReconstructionLoss,
    /// The network whose distance is the loss `perceptual`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perceptual: Option<PerceptualConfig>,
    /// The network whose features are told apart by the loss `contrastive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contrastive: Option<ContrastiveConfig>,
    /// The discriminator whose opinion is the loss `adversarial`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adversarial: Option<AdversarialConfig>,
    /// What prediction heads predict, for entries whose model has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub representation: Option<RepresentationConfig>,
    /// Weights of losses that all have.
    pub losses: BTreeMap<String, f64>,
    /// The optimiser.
    pub optimizer: OptimizerConfig,
    /// The learning rate over time.
    #[serde(default)]
    pub schedule: Schedule,
    /// How long and when to look.
    pub training: TrainingConfig,
}

/// One tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The method; entries of one name at several rates are one line of the plot.
    pub name: String,
    /// Bits per pixel at a fixed length of the codes. Checked against the quantizer.
    pub rate: f64,
    /// The quantizer.
    pub quantizer: QuantizerConfig,
    /// Weights of its own losses; one that the base has, too, goes before the base's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub losses: BTreeMap<String, f64>,
    /// Its learning rate, when another than the base's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Its learning rate over time, when another than the base's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// How it compares images, when otherwise than the base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconstruction: Option<ReconstructionLoss>,
}

fn five() -> usize {
    5
}

impl ComparisonConfig {
    /// Reads a configuration file, after setting the given `key.path = value` pairs in it.
    ///
    /// # Errors
    /// When the file cannot be read, is malformed or invalid.
    pub fn read(path: &Path, settings: &[String]) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path).map_err(TrainError::io("read", path))?;
        Self::parse(&text, settings, path)
    }

    /// [`read`](Self::read) of a text; `path` names it in errors.
    ///
    /// # Errors
    /// When the text is malformed or invalid.
    pub fn parse(text: &str, settings: &[String], path: &Path) -> Result<Self, TrainError> {
        let config: Self = settings::parse(text, settings, path, |text| toml::from_str(text))?;
        config.validate()?;
        Ok(config)
    }

    /// The configuration as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self)
            .expect("a configuration is made of tables, numbers and strings")
    }

    /// Checks everything that can be checked without building a model.
    ///
    /// # Errors
    /// Lists all problems.
    pub fn validate(&self) -> Result<(), TrainError> {
        let mut problems = Vec::new();
        if self.entries.is_empty() {
            problems
                .push("entry: there is nothing to compare; write one [[entry]] for each".into());
        }
        if self.pictures == 0 {
            problems.push("pictures must be at least 1, got 0".into());
        }
        problems.extend(self.evaluation.problems());
        for (i, entry) in self.entries.iter().enumerate() {
            if entry.name.trim().is_empty() {
                problems.push(format!("entry {}: name is empty", i + 1));
            }
            if !(entry.rate > 0.0 && entry.rate.is_finite()) {
                problems.push(format!(
                    "{}: rate must be a positive number of bits per pixel",
                    entry.label()
                ));
            }
            let same = |other: &&Entry| other.name == entry.name && other.rate == entry.rate;
            if self.entries[..i].iter().any(|other| same(&other)) {
                problems.push(format!("{} stands there twice", entry.label()));
            }
        }
        let mut found = Problems::default();
        for entry in &self.entries {
            match self.run(entry) {
                Ok(run) => found.add(entry, run.problems()),
                Err(problem) => found.add(entry, vec![problem]),
            }
        }
        problems.extend(found.list(self.entries.len()));
        TrainError::unless_empty(problems)
    }

    /// Who judges all entries.
    pub(super) fn judges(&self) -> JudgesConfig {
        let own = self.base.perceptual.as_ref();
        JudgesConfig {
            perceptual: self.evaluation.perceptual.as_ref().or(own).cloned(),
            features: self.evaluation.features.clone(),
        }
    }

    /// The whole run of an entry.
    ///
    /// # Errors
    /// What is wrong with the base's model.
    pub(super) fn run(&self, entry: &Entry) -> Result<RunConfig, String> {
        let base = &self.base;
        let mut losses = base.losses.clone();
        losses.extend(entry.losses.clone());
        let mut optimizer = base.optimizer.clone();
        optimizer.learning_rate = entry.learning_rate.unwrap_or(optimizer.learning_rate);
        Ok(RunConfig::Tokenizer(Box::new(TokenizerRun {
            seed: base.seed,
            data: base.data.clone(),
            model: self.model(entry)?,
            reconstruction: entry.reconstruction.unwrap_or(base.reconstruction),
            perceptual: base.perceptual.clone(),
            contrastive: base.contrastive.clone(),
            adversarial: base.adversarial.clone(),
            representation: base.representation.clone(),
            losses,
            optimizer,
            schedule: entry.schedule.unwrap_or(base.schedule),
            training: base.training.clone(),
        })))
    }

    fn model(&self, entry: &Entry) -> Result<AutoencoderConfig, String> {
        let mut model = self.base.model.clone();
        let quantizer = toml::Value::try_from(&entry.quantizer)
            .expect("a configuration is made of tables, numbers and strings");
        if model.insert("quantizer".into(), quantizer).is_some() {
            return Err("model: the quantizer is what entries differ in; write it there".into());
        }
        model.try_into().map_err(|error: toml::de::Error| {
            format!("model: {}", error.to_string().trim_end().replace('\n', " "))
        })
    }
}

impl Entry {
    /// Name and rate, as messages and progress lines have them.
    pub fn label(&self) -> String {
        label(&self.name, self.rate)
    }
}

/// Name and rate, as messages and progress lines have them.
pub(super) fn label(name: &str, rate: f64) -> String {
    format!("{name} at {rate}")
}

/// Problems with the entries that have them: what all have is the base's.
#[derive(Default)]
pub(super) struct Problems(Vec<(String, Vec<String>)>);

impl Problems {
    pub(super) fn add(&mut self, entry: &Entry, problems: Vec<String>) {
        for problem in problems {
            match self.0.iter_mut().find(|(known, _)| *known == problem) {
                Some((_, entries)) => entries.push(entry.label()),
                None => self.0.push((problem, vec![entry.label()])),
            }
        }
    }

    /// One line each; `entries` is how many entries there are.
    pub(super) fn list(self, entries: usize) -> Vec<String> {
        let line = |(problem, having): (String, Vec<String>)| {
            let of_base = !["model.quantizer", "quantizer"]
                .iter()
                .any(|own| problem.starts_with(own));
            match having.len() == entries && of_base {
                true => format!("base.{problem}"),
                false => format!("{}: {problem}", having.join(", ")),
            }
        };
        self.0.into_iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
kind = "comparison"

[base]
seed = 3
losses = { reconstruction = 1.0 }
optimizer = { learning_rate = 1e-3 }
training = { steps = 10, batch_size = 2, evaluate_every = 5, checkpoint_every = 5 }

[base.data]
source = { kind = "emoji" }
train = { kind = "first", count = 8 }
eval = { kind = "last", count = 4 }
preprocess = { train = [], eval = [] }

[base.model.network]
resolution = 32
channels = 8
multipliers = [1, 2, 2]
blocks = 1
z_channels = 8
norm_groups = 4

[[entry]]
name = "RQ"
rate = 0.5
quantizer = { kind = "residual", codebook_size = 16, code_dim = 8, depth = 2 }
losses = { commitment = 0.25 }

[[entry]]
name = "VQ"
rate = 0.25
quantizer = { kind = "vector", codebook_size = 16, code_dim = 8 }
losses = { commitment = 0.25, reconstruction = 2.0 }
learning_rate = 5e-4
reconstruction = "absolute_error"
"#;

    fn parse(text: &str) -> Result<ComparisonConfig, String> {
        ComparisonConfig::parse(text, &[], Path::new("compare.toml")).map_err(|e| e.to_string())
    }

    /// The message about a text in which something was replaced.
    fn refused(from: &str, to: &str) -> String {
        assert!(TEXT.contains(from), "{from}");
        parse(&TEXT.replace(from, to)).unwrap_err()
    }

    #[test]
    fn entries_override_the_base_and_nothing_else() {
        let config = parse(TEXT).unwrap();
        let run = |i: usize| match config.run(&config.entries[i]).unwrap() {
            RunConfig::Tokenizer(run) => *run,
            RunConfig::Generator(_) => unreachable!(),
        };
        let (first, second) = (run(0), run(1));
        assert_eq!(first.losses["reconstruction"], 1.0);
        assert_eq!(second.losses["reconstruction"], 2.0);
        assert_eq!(first.optimizer.learning_rate, 1e-3);
        assert_eq!(second.optimizer.learning_rate, 5e-4);
        assert_eq!(second.reconstruction, ReconstructionLoss::AbsoluteError);
        assert_eq!(first.model.network, second.model.network);
        assert_eq!(second.model.quantizer, config.entries[1].quantizer);
        assert_eq!((first.seed, second.seed), (3, 3));
        assert_eq!(first.training, second.training);
    }

    #[test]
    fn a_configuration_survives_being_written_and_read() {
        let config = parse(TEXT).unwrap();
        assert_eq!(parse(&config.to_toml()).unwrap(), config);
        let settings = ["base.training.steps=7".to_owned()];
        let set = ComparisonConfig::parse(TEXT, &settings, Path::new("x")).unwrap();
        assert_eq!(set.base.training.steps, 7);
    }

    #[test]
    fn judges_are_the_comparisons_or_the_bases_and_no_part_of_a_run() {
        let judged = |text: &str| parse(&TEXT.replace("[base]", text)).unwrap();
        let network = |file: &str| format!("{{ kind = \"st_lpips\", file = \"{file}\" }}");
        let own = judged(&format!("[base]\nperceptual = {}", network("own")));
        let evaluation = format!("[evaluation]\nperceptual = {}\n[base]", network("other"));
        let other = judged(&evaluation);
        let file = |config: &ComparisonConfig| match config.judges().perceptual {
            Some(PerceptualConfig::StLpips { file }) => file,
            other => panic!("{other:?}"),
        };
        assert_eq!(file(&own), Path::new("own"));
        assert_eq!(file(&other), Path::new("other"));
        let plain = parse(TEXT).unwrap();
        assert!(plain.judges().is_empty());
        assert_eq!(other.run(&other.entries[0]), plain.run(&plain.entries[0]));
        assert_eq!(parse(&other.to_toml()).unwrap(), other);
        let message = refused("[base]", &evaluation.replace("other", ""));
        assert!(message.contains("evaluation: "), "{message}");
    }

    #[test]
    fn problems_of_the_base_are_said_once() {
        let message = refused("steps = 10", "steps = 0");
        assert_eq!(message.matches("steps").count(), 1, "{message}");
        assert!(message.contains("base.training: steps"), "{message}");
        let message = refused("blocks = 1", "blokcs = 1");
        assert_eq!(message.matches("blokcs").count(), 1, "{message}");
        assert!(message.contains("base.model: "), "{message}");
    }

    #[test]
    fn problems_of_an_entry_name_it() {
        let message = refused("learning_rate = 5e-4", "learning_rate = -1.0");
        assert!(message.contains("VQ at 0.25: optimizer"), "{message}");
        let message = refused(
            "codebook_size = 16, code_dim = 8 }",
            "codebook_size = 0, code_dim = 8 }",
        );
        assert!(message.contains("VQ at 0.25: model.quantizer"), "{message}");
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let twice = refused("name = \"VQ\"\nrate = 0.25", "name = \"RQ\"\nrate = 0.5");
        assert!(twice.contains("RQ at 0.5 stands there twice"), "{twice}");
        assert!(refused("rate = 0.25", "rate = 0.0").contains("VQ at 0: rate must be"));
        assert!(refused("name = \"VQ\"", "name = \" \"").contains("entry 2: name is empty"));
        assert!(
            refused(
                "kind = \"comparison\"",
                "kind = \"comparison\"\npictures = 0"
            )
            .contains("pictures")
        );
        assert!(refused("kind = \"comparison\"", "kind = \"tokenizer\"").contains("comparison"));
        assert!(refused("learning_rate = 5e-4", "steps = 5").contains("unknown field `steps`"));
        let own = refused(
            "[base.model.network]",
            "[base.model.quantizer]\nkind = \"vector\"\n[base.model.network]",
        );
        assert!(own.contains("what entries differ in"), "{own}");
        let bare = &TEXT[..TEXT.find("[[entry]]").unwrap()];
        assert!(parse(bare).unwrap_err().contains("entry"));
        assert!(
            parse(&bare.replacen("\n[base]", "entry = []\n[base]", 1))
                .unwrap_err()
                .contains("nothing to compare")
        );
    }
}
