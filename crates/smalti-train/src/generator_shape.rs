//! The shape of a generator as a run's configuration states it: all but what follows from the tokenizer
//! and the classes.

mod fields;
mod whole_map;

use serde::{Deserialize, Serialize, Serializer};
use smalti_models::generators::far::config::PUBLISHED_DROPOUT;
use smalti_models::generators::far::{FarCondition, FarConfig, HeadConfig};
use smalti_models::generators::gpt::{GptCondition, GptConfig};
use smalti_models::generators::rq_transformer::RqTransformerConfig;
use smalti_models::generators::rq_transformer::config::{
    CodeInput, Condition, Sharing, StackConfig,
};
use smalti_models::generators::{CodeLayout, CodebookSize, GeneratorConfig, Writing};

pub use whole_map::{DiffusionShape, MaskedShape};

/// What a generator is conditioned on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConditionKind {
    /// Nothing.
    Unconditional,
    /// The class of the image.
    Class,
}

/// How codes become vectors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum EmbeddingKind {
    /// Through the tokenizer's frozen codebook.
    Tokenizer {
        /// Whether a depth sees the sum of the code vectors before it, rather than the last alone.
        #[serde(default = "yes")]
        cumulative: bool,
    },
    /// Through tables of the generator's own.
    Own {
        /// Whether all depths share one table.
        tables: Sharing,
    },
}

fn yes() -> bool {
    true
}

/// A generator's shape. In files `kind` says which; without it it is an RQ-Transformer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "fields::Fields")]
pub enum GeneratorShape {
    /// `kind = "rq_transformer"`: codes that refine one another.
    RqTransformer(RqTransformerShape),
    /// `kind = "far"`: codes beside one another, or a single one.
    Far(FarShape),
    /// `kind = "gpt"`: one sequence of codes.
    Gpt(GptShape),
    /// `kind = "diffusion"`: all codes at once, back along a chain that wears them away.
    Diffusion(DiffusionShape),
    /// `kind = "masked"`: all codes at once, the surest first.
    Masked(MaskedShape),
}

/// The shape of an RQ-Transformer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RqTransformerShape {
    /// Width of both transformers.
    pub embed_dim: usize,
    /// What images are conditioned on.
    pub condition: ConditionKind,
    /// How codes become vectors.
    pub embedding: EmbeddingKind,
    /// Whether one classifier serves all depths.
    pub classifier: Sharing,
    /// The transformer over positions.
    pub body: StackConfig,
    /// The transformer over depths.
    pub head: StackConfig,
    /// Probability of dropping an element of the body's input in training.
    pub embedding_dropout: f64,
}

/// The shape of a FAR or LlamaGen model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FarShape {
    /// Width of the transformers.
    pub embed_dim: usize,
    /// Blocks of the transformer over positions.
    pub layers: usize,
    /// Attention heads of every block.
    pub heads: usize,
    /// Width inside the blocks' perceptrons; absent: ⅔ of `4·embed_dim`, up to a multiple of 256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<usize>,
    /// What images are conditioned on.
    pub condition: ConditionKind,
    /// Probability that a class is hidden in training, which guidance needs; 0.1 where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition_dropout: Option<f64>,
    /// Probability of dropping an element of the input in training.
    pub token_dropout: f64,
    /// Probability of dropping an element of what attention or perceptron add, in training.
    pub residual_dropout: f64,
    /// From the vector of a position to its codes.
    pub head: HeadConfig,
}

/// The shape of a GPT. It has the places and the vocabulary that the codes and the condition need.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GptShape {
    /// Width of the transformer.
    pub embed_dim: usize,
    /// Blocks of the transformer.
    pub layers: usize,
    /// Attention heads of every block.
    pub heads: usize,
    /// What images are conditioned on.
    pub condition: ConditionKind,
    /// Probability that a code is shown as it is in training, rather than replaced by a random one.
    pub keep: f64,
    /// Probability of dropping an element of the input in training.
    pub embedding_dropout: f64,
    /// Probability of dropping an attention weight in training.
    pub attention_dropout: f64,
    /// Probability of dropping an element of what attention or perceptron add, in training.
    pub residual_dropout: f64,
}

impl Serialize for GeneratorShape {
    /// An RQ-Transformer is written without its kind, as it was before there was another.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        enum Named<'a> {
            Far(&'a FarShape),
            Gpt(&'a GptShape),
            Diffusion(&'a DiffusionShape),
            Masked(&'a MaskedShape),
        }
        match self {
            Self::RqTransformer(shape) => shape.serialize(serializer),
            Self::Far(shape) => Named::Far(shape).serialize(serializer),
            Self::Gpt(shape) => Named::Gpt(shape).serialize(serializer),
            Self::Diffusion(shape) => Named::Diffusion(shape).serialize(serializer),
            Self::Masked(shape) => Named::Masked(shape).serialize(serializer),
        }
    }
}

/// What a shape is completed with.
#[derive(Clone, Debug)]
pub struct Given {
    /// The maps of the tokenizer.
    pub layout: CodeLayout,
    /// Width of the tokenizer's code vectors.
    pub code_dim: usize,
    /// Number of classes of the images.
    pub classes: usize,
}

impl GeneratorShape {
    /// What images are conditioned on.
    pub fn condition(&self) -> ConditionKind {
        match self {
            Self::RqTransformer(shape) => shape.condition,
            Self::Far(shape) => shape.condition,
            Self::Gpt(shape) => shape.condition,
            Self::Diffusion(shape) => shape.condition,
            Self::Masked(shape) => shape.condition,
        }
    }

    /// Whether the generator sees codes through the tokenizer's tables.
    pub fn needs_tables(&self) -> bool {
        match self {
            Self::RqTransformer(shape) => {
                matches!(shape.embedding, EmbeddingKind::Tokenizer { .. })
            }
            Self::Far(_) | Self::Gpt(_) | Self::Diffusion(_) | Self::Masked(_) => false,
        }
    }

    /// How it writes; a masked generator's number of codes is not known here, and stands for any.
    pub fn writing(&self) -> Writing {
        match self {
            Self::RqTransformer(_) | Self::Far(_) | Self::Gpt(_) => Writing::Raster,
            Self::Diffusion(shape) => Writing::Denoised {
                steps: shape.process.steps,
            },
            Self::Masked(_) => Writing::Unmasked { codes: usize::MAX },
        }
    }

    /// Whether it can learn distributions over codes, not only codes.
    pub fn learns_soft_targets(&self) -> bool {
        self.writing() == Writing::Raster
    }

    /// Whether it learns images without their condition too, so that it can be guided.
    pub fn can_be_guided(&self) -> bool {
        let dropout = match self {
            Self::RqTransformer(_) | Self::Gpt(_) => return false,
            Self::Far(shape) => shape.condition_dropout,
            Self::Diffusion(shape) => shape.condition_dropout,
            Self::Masked(shape) => shape.condition_dropout,
        };
        self.condition() == ConditionKind::Class && dropout != Some(0.0)
    }

    /// The whole configuration.
    pub fn config(&self, given: &Given) -> GeneratorConfig {
        match self {
            Self::RqTransformer(shape) => GeneratorConfig::RqTransformer(shape.config(given)),
            Self::Far(shape) => GeneratorConfig::Far(shape.config(given)),
            Self::Gpt(shape) => GeneratorConfig::Gpt(shape.config(given)),
            Self::Diffusion(shape) => GeneratorConfig::Diffusion(shape.config(given)),
            Self::Masked(shape) => GeneratorConfig::Masked(shape.config(given)),
        }
    }
}

impl RqTransformerShape {
    fn config(&self, given: &Given) -> RqTransformerConfig {
        let shape = self.clone();
        RqTransformerConfig {
            height: given.layout.height,
            width: given.layout.width,
            depth: given.layout.depth(),
            codebook_size: CodebookSize::of(&given.layout.codebook_sizes),
            embed_dim: shape.embed_dim,
            embedding: match shape.embedding {
                EmbeddingKind::Tokenizer { cumulative } => CodeInput::Tokenizer {
                    code_dim: given.code_dim,
                    cumulative,
                },
                EmbeddingKind::Own { tables } => CodeInput::Own { tables },
            },
            classifier: shape.classifier,
            condition: match shape.condition {
                ConditionKind::Unconditional => Condition::Unconditional {},
                ConditionKind::Class => Condition::Class {
                    classes: given.classes,
                },
            },
            body: shape.body,
            head: shape.head,
            embedding_dropout: shape.embedding_dropout,
        }
    }
}

impl FarShape {
    fn config(&self, given: &Given) -> FarConfig {
        FarConfig {
            height: given.layout.height,
            width: given.layout.width,
            depth: given.layout.depth(),
            codebook_size: CodebookSize::of(&given.layout.codebook_sizes),
            embed_dim: self.embed_dim,
            layers: self.layers,
            heads: self.heads,
            hidden: self.hidden,
            head: self.head.clone(),
            condition: match self.condition {
                ConditionKind::Unconditional => FarCondition::Unconditional {},
                ConditionKind::Class => FarCondition::Class {
                    classes: given.classes,
                    dropout: self.condition_dropout.unwrap_or(PUBLISHED_DROPOUT),
                },
            },
            token_dropout: self.token_dropout,
            residual_dropout: self.residual_dropout,
        }
    }
}

impl GptShape {
    fn config(&self, given: &Given) -> GptConfig {
        let layout = &given.layout;
        let condition = match self.condition {
            ConditionKind::Unconditional => GptCondition::Unconditional { start_token: 0 },
            ConditionKind::Class => GptCondition::Class {
                classes: given.classes,
            },
        };
        GptConfig {
            height: layout.height,
            width: layout.width,
            depth: layout.depth(),
            codebook_size: CodebookSize::of(&layout.codebook_sizes),
            vocab_size: GptConfig::smallest_vocabulary(&layout.codebook_sizes, condition),
            block_size: layout.codes(),
            embed_dim: self.embed_dim,
            layers: self.layers,
            heads: self.heads,
            condition,
            keep: self.keep,
            embedding_dropout: self.embedding_dropout,
            attention_dropout: self.attention_dropout,
            residual_dropout: self.residual_dropout,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RQ: &str = "
        embed_dim = 32\ncondition = 'class'\nembedding = { kind = 'tokenizer' }
        body = { layers = 2, heads = 2 }\nhead = { layers = 1, heads = 2, residual_dropout = 0.0 }";
    const FAR: &str = "
        kind = 'far'\nembed_dim = 32\ncondition = 'class'\nlayers = 2\nheads = 2
        head = { kind = 'autoregressive', layers = 1 }";

    const GPT: &str = "
        kind = 'gpt'\nembed_dim = 32\ncondition = 'class'\nlayers = 2\nheads = 2";

    fn parse(text: &str) -> Result<GeneratorShape, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.to_string())
    }

    #[test]
    fn without_a_kind_it_is_an_rq_transformer_and_is_written_so() {
        let shape = parse(RQ).unwrap();
        assert_eq!(
            parse(&format!("kind = 'rq_transformer'{RQ}")),
            Ok(shape.clone())
        );
        let GeneratorShape::RqTransformer(rq) = &shape else {
            panic!("{shape:?}")
        };
        assert_eq!(rq.head.residual_dropout, 0.0);
        assert_eq!(rq.body, StackConfig::published(2, 2));
        assert!(shape.needs_tables() && !shape.can_be_guided());
        let written = toml::to_string(&shape).unwrap();
        assert!(!written.contains("rq_transformer"), "{written}");
        assert_eq!(parse(&written), Ok(shape));
    }

    #[test]
    fn far_has_the_published_dropouts_and_survives_being_written() {
        let shape = parse(FAR).unwrap();
        let given = Given {
            layout: CodeLayout {
                height: 4,
                width: 5,
                codebook_sizes: vec![16, 8],
            },
            code_dim: 3,
            classes: 7,
        };
        let GeneratorConfig::Far(config) = shape.config(&given) else {
            panic!("{shape:?}")
        };
        assert_eq!(config.condition, FarCondition::classes(7));
        assert_eq!(config.codebook_size, CodebookSize::PerDepth(vec![16, 8]));
        assert_eq!((config.height, config.width, config.depth), (4, 5, 2));
        assert_eq!((config.token_dropout, config.residual_dropout), (0.1, 0.1));
        assert!(shape.can_be_guided() && !shape.needs_tables());
        for more in [
            "",
            "\nhidden = 64\ncondition_dropout = 0.0\ntoken_dropout = 0.5",
        ] {
            let shape = parse(&format!("{FAR}{more}")).unwrap();
            assert_eq!(shape.can_be_guided(), more.is_empty());
            let written = toml::to_string(&shape).unwrap();
            assert_eq!(parse(&written), Ok(shape), "{written}");
        }
    }

    #[test]
    fn a_gpt_has_the_places_and_the_vocabulary_it_needs() {
        let shape = parse(GPT).unwrap();
        let given = |classes| Given {
            layout: CodeLayout {
                height: 4,
                width: 5,
                codebook_sizes: vec![16, 8],
            },
            code_dim: 3,
            classes,
        };
        let GeneratorConfig::Gpt(config) = shape.config(&given(7)) else {
            panic!("{shape:?}")
        };
        assert_eq!(config.validate(), Ok(()));
        assert_eq!((config.vocab_size, config.block_size), (16, 40));
        assert_eq!((config.keep, config.residual_dropout), (1.0, 0.0));
        let GeneratorConfig::Gpt(config) = shape.config(&given(30)) else {
            panic!("{shape:?}")
        };
        assert_eq!(config.vocab_size, 30);
        let corrupting = parse(&format!("{GPT}\nkeep = 0.9\nattention_dropout = 0.1")).unwrap();
        for shape in [shape, corrupting] {
            assert!(!shape.can_be_guided() && !shape.needs_tables());
            let written = toml::to_string(&shape).unwrap();
            assert_eq!(parse(&written), Ok(shape), "{written}");
        }
    }

    #[test]
    fn generators_of_whole_maps_have_published_settings_and_survive_being_written() {
        let given = Given {
            layout: CodeLayout {
                height: 4,
                width: 5,
                codebook_sizes: vec![16, 8],
            },
            code_dim: 3,
            classes: 7,
        };
        let rest = "embed_dim = 32\ncondition = 'class'\nlayers = 2\nheads = 2";
        let shape = parse(&format!("kind = 'diffusion'\n{rest}")).unwrap();
        assert_eq!(shape.writing(), Writing::Denoised { steps: 100 });
        let GeneratorConfig::Diffusion(config) = shape.config(&given) else {
            panic!("{shape:?}")
        };
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(config.condition.rows(), Some(8));
        let shape = parse(&format!("kind = 'masked'\n{rest}")).unwrap();
        let GeneratorConfig::Masked(config) = shape.config(&given) else {
            panic!("{shape:?}")
        };
        assert_eq!(config.validate(), Ok(()));
        assert_eq!((config.dropout, config.depth), (0.1, 2));
        for more in [
            "kind = 'diffusion'\nprocess = { steps = 20 }\nperceptron = { kind = 'convolution' }",
            "kind = 'masked'\nlesson = { counts = 'all', label_smoothing = 0.1 }\ndropout = 0.0",
            "kind = 'masked'\ncondition_dropout = 0.0",
        ] {
            let shape = parse(&format!("{more}\n{rest}")).unwrap();
            assert_eq!(shape.can_be_guided(), !more.contains("condition_dropout"));
            assert!(!shape.learns_soft_targets() && !shape.needs_tables());
            let written = toml::to_string(&shape).unwrap();
            assert_eq!(parse(&written), Ok(shape), "{written}");
        }
    }

    #[test]
    fn fields_of_the_other_kind_are_refused() {
        let whole = "embed_dim = 32\ncondition = 'class'\nlayers = 2\nheads = 2";
        let cases = [
            (
                format!("{RQ}\nlayers = 3"),
                "`layers` is no field of kind = \"rq_transformer\"",
            ),
            (
                format!("{FAR}\nclassifier = 'shared'"),
                "`classifier` is no field of kind = \"far\"",
            ),
            (format!("{FAR}\ndepth = 3"), "unknown field `depth`"),
            (
                FAR.replace("layers = 1 }", "layers = 1, heads = 2 }"),
                "`head.heads` is no field",
            ),
            (
                FAR.replace("'autoregressive'", "'linear'"),
                "`head.layers` is only of",
            ),
            (FAR.replace("heads = 2", ""), "missing field `heads`"),
            (
                FAR.replace("head = { kind = 'autoregressive', layers = 1 }", ""),
                "missing field `head.kind`",
            ),
            (
                format!("{FAR}\nkeep = 0.5"),
                "`keep` is no field of kind = \"far\"",
            ),
            (
                format!("{GPT}\nhead = {{ layers = 2 }}"),
                "`head` is no field of kind = \"gpt\"",
            ),
            (
                format!("{GPT}\nhidden = 2"),
                "`hidden` is no field of kind = \"gpt\"",
            ),
            (GPT.replace("layers = 2", ""), "missing field `layers`"),
            (
                RQ.replace("body = { layers = 2, heads = 2 }", ""),
                "missing field `body`",
            ),
            (
                format!(
                    "{}\ncondition_dropout = 0.1",
                    FAR.replace("'class'", "'unconditional'")
                ),
                "hides classes",
            ),
            (FAR.replace("'far'", "'fra'"), "unknown variant `fra`"),
            (
                FAR.replace("'far'", "'diffusion'"),
                "`head` is no field of kind = \"diffusion\"",
            ),
            (
                format!("kind = 'diffusion'\n{whole}\nlesson = {{}}"),
                "`lesson` is no field of kind = \"diffusion\"",
            ),
            (
                format!("kind = 'masked'\n{whole}\nprocess = {{}}"),
                "`process` is no field of kind = \"masked\"",
            ),
        ];
        for (text, part) in cases {
            let message = parse(&text).unwrap_err();
            assert!(message.contains(part), "{part} is not in {message}");
        }
    }
}
