//! Which generator, and its shape: what the description of a model says.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smalti_nn::Init;

use super::any::AnyGenerator;
use super::conditions::Wanted;
use super::diffusion::DiffusionConfig;
use super::far::FarConfig;
use super::gpt::GptConfig;
use super::layout::CodeLayout;
use super::masked::MaskedConfig;
use super::request::Capability;
use super::rq_transformer::{CodeEmbedding, RqTransformerConfig};
use super::writing::Writing;

/// A configuration that no model can be built from, with everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the generator cannot be built:{}", .0.iter().map(|p| format!("\n  {p}")).collect::<String>())]
pub struct InvalidGenerator(pub Vec<String>);

impl InvalidGenerator {
    /// All is well without problems.
    pub(super) fn unless_empty(problems: Vec<String>) -> Result<(), Self> {
        match problems.is_empty() {
            true => Ok(()),
            false => Err(Self(problems)),
        }
    }
}

/// Sizes that are 0, named as in files.
pub(super) fn empty_sizes<'a>(
    sizes: impl IntoIterator<Item = (&'a str, usize)>,
) -> impl Iterator<Item = String> {
    let empty = sizes.into_iter().filter(|(_, size)| *size == 0);
    empty.map(|(name, _)| format!("{name}: expected at least 1, got 0"))
}

/// Heads that do not divide the width.
pub(super) fn heads_problem(width: usize, heads: usize) -> Option<String> {
    (heads == 0 || !width.is_multiple_of(heads))
        .then(|| format!("heads: expected a divisor of embed_dim {width}, got {heads}"))
}

/// A generator's shape. In files `kind` says which; without it it is an RQ-Transformer.
#[derive(Clone, Debug, PartialEq)]
pub enum GeneratorConfig {
    /// `kind = "rq_transformer"`
    RqTransformer(RqTransformerConfig),
    /// `kind = "far"`
    Far(FarConfig),
    /// `kind = "gpt"`
    Gpt(GptConfig),
    /// `kind = "diffusion"`
    Diffusion(DiffusionConfig),
    /// `kind = "masked"`
    Masked(MaskedConfig),
}

impl Serialize for GeneratorConfig {
    /// An RQ-Transformer is written without its kind, as it was before there was another: the
    /// fingerprint of a model is taken over what is written here.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        enum Named<'a> {
            Far(&'a FarConfig),
            Gpt(&'a GptConfig),
            Diffusion(&'a DiffusionConfig),
            Masked(&'a MaskedConfig),
        }
        match self {
            Self::RqTransformer(config) => config.serialize(serializer),
            Self::Far(config) => Named::Far(config).serialize(serializer),
            Self::Gpt(config) => Named::Gpt(config).serialize(serializer),
            Self::Diffusion(config) => Named::Diffusion(config).serialize(serializer),
            Self::Masked(config) => Named::Masked(config).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for GeneratorConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = serde_json::Map::deserialize(deserializer)?;
        let kind = fields.remove("kind");
        let kind = kind.as_ref().map_or(Some("rq_transformer"), |k| k.as_str());
        let fields = serde_json::Value::Object(fields);
        match kind {
            Some("rq_transformer") => serde_json::from_value(fields).map(Self::RqTransformer),
            Some("far") => serde_json::from_value(fields).map(Self::Far),
            Some("gpt") => serde_json::from_value(fields).map(Self::Gpt),
            Some("diffusion") => serde_json::from_value(fields).map(Self::Diffusion),
            Some("masked") => serde_json::from_value(fields).map(Self::Masked),
            _ => {
                let kinds = "\"rq_transformer\", \"far\", \"gpt\", \"diffusion\" or \"masked\"";
                let problem = format!("kind: expected {kinds}");
                return Err(D::Error::custom(problem));
            }
        }
        .map_err(D::Error::custom)
    }
}

impl GeneratorConfig {
    /// The maps it writes.
    pub fn layout(&self) -> CodeLayout {
        self.capability().layout
    }

    /// The conditions that it needs.
    pub fn wanted(&self) -> Wanted {
        self.capability().conditions
    }

    /// Whether it was trained without its condition as well, so that it can be guided.
    pub fn can_be_guided(&self) -> bool {
        self.capability().guidance
    }

    /// How it writes, and so which sampling settings mean something to it.
    pub fn writing(&self) -> Writing {
        match self {
            Self::RqTransformer(_) | Self::Far(_) | Self::Gpt(_) => Writing::Raster,
            Self::Diffusion(config) => config.writing(),
            Self::Masked(config) => config.writing(),
        }
    }

    fn capability(&self) -> Capability {
        match self {
            Self::RqTransformer(config) => config.capability(),
            Self::Far(config) => config.capability(),
            Self::Gpt(config) => config.capability(),
            Self::Diffusion(config) => config.capability(),
            Self::Masked(config) => config.capability(),
        }
    }

    /// What people call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RqTransformer(_) => "RQ-Transformer",
            Self::Far(config) => config.name(),
            Self::Gpt(_) => "GPT",
            Self::Diffusion(_) => "discrete diffusion",
            Self::Masked(_) => "MaskGIT",
        }
    }

    /// How many parameters are trained.
    pub fn parameter_count(&self) -> usize {
        match self {
            Self::RqTransformer(config) => config.parameter_count(),
            Self::Far(config) => config.parameter_count(),
            Self::Gpt(config) => config.parameter_count(),
            Self::Diffusion(config) => config.parameter_count(),
            Self::Masked(config) => config.parameter_count(),
        }
    }

    /// The model with fresh weights. `codes` are the tokenizer's codebooks where an RQ-Transformer
    /// asks for them.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration, or does not fit the codebooks.
    pub fn build(
        &self,
        codes: Option<CodeEmbedding>,
        init: &mut Init,
    ) -> Result<AnyGenerator, InvalidGenerator> {
        match self {
            Self::RqTransformer(config) => {
                config.build(codes, init).map(AnyGenerator::RqTransformer)
            }
            Self::Far(config) => config.build(init).map(AnyGenerator::Far),
            Self::Gpt(config) => config.build(init).map(AnyGenerator::Gpt),
            Self::Diffusion(config) => config.build(init).map(AnyGenerator::Diffusion),
            Self::Masked(config) => config.build(init).map(AnyGenerator::Masked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::far::presets::Preset;
    use crate::generators::{gpt, rq_transformer};

    #[test]
    fn an_rq_transformer_is_written_as_before_there_was_another() {
        let config = rq_transformer::Preset::Small.config();
        let before = serde_json::to_string(&config).unwrap();
        let any = GeneratorConfig::RqTransformer(config);
        assert_eq!(serde_json::to_string(&any).unwrap(), before);
        assert_eq!(
            serde_json::from_str::<GeneratorConfig>(&before).unwrap(),
            any
        );
        let named = before.replacen('{', r#"{"kind":"rq_transformer","#, 1);
        assert_eq!(
            serde_json::from_str::<GeneratorConfig>(&named).unwrap(),
            any
        );
    }

    #[test]
    fn kinds_are_read_as_they_are_written_and_fields_are_checked() {
        let far = GeneratorConfig::Far(Preset::FarDualB.config());
        let text = serde_json::to_string(&far).unwrap();
        assert!(text.starts_with(r#"{"kind":"far","#), "{text}");
        assert_eq!(serde_json::from_str::<GeneratorConfig>(&text).unwrap(), far);
        let refused = |text: String| {
            let error = serde_json::from_str::<GeneratorConfig>(&text).unwrap_err();
            error.to_string()
        };
        assert!(
            refused(text.replace("far", "fra")).contains("expected \"rq_transformer\", \"far\"")
        );
        assert!(refused(text.replace("\"heads\"", "\"haeds\"")).contains("unknown field `haeds`"));
        assert!(far.can_be_guided() && far.layout().depth() == 2);
        let gpt = GeneratorConfig::Gpt(gpt::Preset::ImageNet.config());
        let text = serde_json::to_string(&gpt).unwrap();
        assert_eq!(serde_json::from_str::<GeneratorConfig>(&text).unwrap(), gpt);
        assert!(!gpt.can_be_guided() && gpt.wanted() == Wanted::Classes(1000));
    }
}
