//! A generator's shape as it stands in a file: which fields there are, and whose.

use serde::Deserialize;
use smalti_models::generators::diffusion::{PerceptronConfig, ProcessConfig};
use smalti_models::generators::far::HeadConfig;
use smalti_models::generators::far::config::PUBLISHED_DROPOUT;
use smalti_models::generators::masked::MaskedLesson;
use smalti_models::generators::masked::config::PUBLISHED_DROPOUT as MASKED_DROPOUT;
use smalti_models::generators::rq_transformer::config::{GeluKind, Sharing, StackConfig};

use super::{
    ConditionKind, DiffusionShape, EmbeddingKind, FarShape, GeneratorShape, GptShape, MaskedShape,
    RqTransformerShape,
};

/// The kinds, as files name them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// Also where nothing is said: there was no other once.
    #[default]
    RqTransformer,
    Far,
    Gpt,
    Diffusion,
    Masked,
}

/// What a file says, before it is known to be of one kind: every field of every kind once, rather than a
/// tagged enum, whose errors no longer know their line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fields {
    #[serde(default)]
    kind: Kind,
    embed_dim: usize,
    condition: ConditionKind,
    head: Option<HeadFields>,
    embedding: Option<EmbeddingKind>,
    classifier: Option<Sharing>,
    body: Option<StackConfig>,
    embedding_dropout: Option<f64>,
    layers: Option<usize>,
    heads: Option<usize>,
    hidden: Option<usize>,
    condition_dropout: Option<f64>,
    token_dropout: Option<f64>,
    residual_dropout: Option<f64>,
    keep: Option<f64>,
    attention_dropout: Option<f64>,
    perceptron: Option<PerceptronConfig>,
    process: Option<ProcessConfig>,
    dropout: Option<f64>,
    lesson: Option<MaskedLesson>,
}

/// The head of either kind that has one.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadFields {
    kind: Option<HeadKind>,
    layers: Option<usize>,
    heads: Option<usize>,
    attention_dropout: Option<f64>,
    residual_dropout: Option<f64>,
    gelu: Option<GeluKind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum HeadKind {
    Autoregressive,
    Linear,
    Mlp,
}

impl TryFrom<Fields> for GeneratorShape {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        match fields.kind {
            Kind::RqTransformer => fields.rq_transformer().map(Self::RqTransformer),
            Kind::Far => fields.far().map(Self::Far),
            Kind::Gpt => fields.gpt().map(Self::Gpt),
            Kind::Diffusion => fields.diffusion().map(Self::Diffusion),
            Kind::Masked => fields.masked().map(Self::Masked),
        }
    }
}

/// A field that this kind must have.
fn needed<T>(value: Option<T>, name: &str) -> Result<T, String> {
    value.ok_or_else(|| format!("missing field `{name}`"))
}

impl Fields {
    /// The fields that not every kind has and that are given.
    fn given(&self) -> Vec<&'static str> {
        let head = self.head.clone().unwrap_or_default();
        let given = [
            ("head", self.head.is_some()),
            ("head.kind", head.kind.is_some()),
            ("head.layers", head.layers.is_some()),
            ("head.heads", head.heads.is_some()),
            ("head.attention_dropout", head.attention_dropout.is_some()),
            ("head.residual_dropout", head.residual_dropout.is_some()),
            ("head.gelu", head.gelu.is_some()),
            ("embedding", self.embedding.is_some()),
            ("classifier", self.classifier.is_some()),
            ("body", self.body.is_some()),
            ("embedding_dropout", self.embedding_dropout.is_some()),
            ("layers", self.layers.is_some()),
            ("heads", self.heads.is_some()),
            ("hidden", self.hidden.is_some()),
            ("condition_dropout", self.condition_dropout.is_some()),
            ("token_dropout", self.token_dropout.is_some()),
            ("residual_dropout", self.residual_dropout.is_some()),
            ("keep", self.keep.is_some()),
            ("attention_dropout", self.attention_dropout.is_some()),
            ("perceptron", self.perceptron.is_some()),
            ("process", self.process.is_some()),
            ("dropout", self.dropout.is_some()),
            ("lesson", self.lesson.is_some()),
        ];
        let given = given.into_iter().filter(|(_, given)| *given);
        given.map(|(name, _)| name).collect()
    }

    /// Refuses fields of other kinds than this one, which has `own`.
    fn only(&self, kind: &str, own: &[&str]) -> Result<(), String> {
        match self.given().into_iter().find(|name| !own.contains(name)) {
            Some(name) => Err(format!("`{name}` is no field of kind = \"{kind}\"")),
            None => Ok(()),
        }
    }

    /// Refuses to hide classes where there are none.
    fn hides_something(&self) -> Result<(), String> {
        match (self.condition, self.condition_dropout) {
            (ConditionKind::Unconditional, Some(_)) => {
                Err("`condition_dropout` hides classes, but condition = \"unconditional\"".into())
            }
            _ => Ok(()),
        }
    }

    fn rq_transformer(self) -> Result<RqTransformerShape, String> {
        let own = [
            "embedding",
            "classifier",
            "body",
            "embedding_dropout",
            "head",
            "head.layers",
            "head.heads",
            "head.attention_dropout",
            "head.residual_dropout",
            "head.gelu",
        ];
        self.only("rq_transformer", &own)?;
        let head = self.head.unwrap_or_default();
        let stack = StackConfig::published(
            needed(head.layers, "head.layers")?,
            needed(head.heads, "head.heads")?,
        );
        Ok(RqTransformerShape {
            embed_dim: self.embed_dim,
            condition: self.condition,
            embedding: needed(self.embedding, "embedding")?,
            classifier: self.classifier.unwrap_or_default(),
            body: needed(self.body, "body")?,
            head: StackConfig {
                attention_dropout: head.attention_dropout.unwrap_or(stack.attention_dropout),
                residual_dropout: head.residual_dropout.unwrap_or(stack.residual_dropout),
                gelu: head.gelu.unwrap_or(stack.gelu),
                ..stack
            },
            embedding_dropout: self.embedding_dropout.unwrap_or(0.0),
        })
    }

    fn far(self) -> Result<FarShape, String> {
        let own = [
            "layers",
            "heads",
            "hidden",
            "condition_dropout",
            "token_dropout",
            "residual_dropout",
            "head",
            "head.kind",
            "head.layers",
        ];
        self.only("far", &own)?;
        self.hides_something()?;
        let head = self.head.unwrap_or_default();
        let head = match (needed(head.kind, "head.kind")?, head.layers) {
            (HeadKind::Autoregressive, layers) => HeadConfig::Autoregressive {
                layers: needed(layers, "head.layers")?,
            },
            (HeadKind::Linear, None) => HeadConfig::Linear {},
            (HeadKind::Mlp, None) => HeadConfig::Mlp {},
            (HeadKind::Linear | HeadKind::Mlp, Some(_)) => {
                return Err("`head.layers` is only of head.kind = \"autoregressive\"".into());
            }
        };
        Ok(FarShape {
            embed_dim: self.embed_dim,
            layers: needed(self.layers, "layers")?,
            heads: needed(self.heads, "heads")?,
            hidden: self.hidden,
            condition: self.condition,
            condition_dropout: self.condition_dropout,
            token_dropout: self.token_dropout.unwrap_or(PUBLISHED_DROPOUT),
            residual_dropout: self.residual_dropout.unwrap_or(PUBLISHED_DROPOUT),
            head,
        })
    }

    fn gpt(self) -> Result<GptShape, String> {
        let own = [
            "layers",
            "heads",
            "embedding_dropout",
            "residual_dropout",
            "keep",
            "attention_dropout",
        ];
        self.only("gpt", &own)?;
        Ok(GptShape {
            embed_dim: self.embed_dim,
            layers: needed(self.layers, "layers")?,
            heads: needed(self.heads, "heads")?,
            condition: self.condition,
            keep: self.keep.unwrap_or(1.0),
            embedding_dropout: self.embedding_dropout.unwrap_or(0.0),
            attention_dropout: self.attention_dropout.unwrap_or(0.0),
            residual_dropout: self.residual_dropout.unwrap_or(0.0),
        })
    }

    fn diffusion(self) -> Result<DiffusionShape, String> {
        let own = [
            "layers",
            "heads",
            "condition_dropout",
            "perceptron",
            "process",
        ];
        self.only("diffusion", &own)?;
        self.hides_something()?;
        Ok(DiffusionShape {
            embed_dim: self.embed_dim,
            layers: needed(self.layers, "layers")?,
            heads: needed(self.heads, "heads")?,
            condition: self.condition,
            condition_dropout: self.condition_dropout,
            perceptron: self.perceptron.unwrap_or(PerceptronConfig::Linear {}),
            process: self.process.unwrap_or_default(),
        })
    }

    fn masked(self) -> Result<MaskedShape, String> {
        let own = ["layers", "heads", "condition_dropout", "dropout", "lesson"];
        self.only("masked", &own)?;
        self.hides_something()?;
        Ok(MaskedShape {
            embed_dim: self.embed_dim,
            layers: needed(self.layers, "layers")?,
            heads: needed(self.heads, "heads")?,
            condition: self.condition,
            condition_dropout: self.condition_dropout,
            dropout: self.dropout.unwrap_or(MASKED_DROPOUT),
            lesson: self.lesson.unwrap_or_default(),
        })
    }
}
