//! What a file or folder that smalti wrote is.

use std::path::Path;

use smalti_data::{TokenCache, TokenFile};
use smalti_models::generators::conditions::Wanted;
use smalti_train::error::TrainError;
use smalti_train::model_dir::{GENERATOR_FILE, TOKENIZER_FILE, WEIGHTS_FILE, short};
use smalti_train::{checkpoint, journal};

/// A heading and lines of name and value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// What it is.
    pub kind: String,
    /// Facts about it.
    pub facts: Vec<(String, String)>,
}

impl Description {
    fn new(kind: &str) -> Self {
        Self {
            kind: kind.into(),
            facts: Vec::new(),
        }
    }

    fn fact(mut self, name: &str, value: impl ToString) -> Self {
        self.facts.push((name.into(), value.to_string()));
        self
    }
}

/// Describes a token file, token cache, checkpoint, model folder or run folder.
///
/// # Errors
/// When the path is missing, damaged or nothing that smalti wrote.
pub fn inspect(path: &Path) -> Result<Description, TrainError> {
    if !path.exists() {
        return Err(TrainError::Layout {
            path: path.into(),
            problem: "there is no such file or folder".into(),
        });
    }
    if path.is_dir() {
        inspect_folder(path)
    } else {
        inspect_file(path)
    }
}

fn inspect_folder(path: &Path) -> Result<Description, TrainError> {
    if path.join(TOKENIZER_FILE).is_file() || path.join(GENERATOR_FILE).is_file() {
        return inspect_model(path);
    }
    if !path.join("config.toml").is_file() {
        let problem = format!(
            "neither a run (no config.toml) nor a model (no {TOKENIZER_FILE}, no {GENERATOR_FILE})"
        );
        return Err(TrainError::Layout {
            path: path.into(),
            problem,
        });
    }
    let config = smalti_train::RunConfig::read(&path.join("config.toml"), &[])?;
    let kind = match config {
        smalti_train::RunConfig::Tokenizer(_) => "run of a tokenizer",
        smalti_train::RunConfig::Generator(_) => "run of a generator",
    };
    let mut description = Description::new(kind).fact("steps", config.training().steps);
    if let Some((step, _)) = checkpoint::list(&path.join("checkpoints"))?.pop() {
        description = description.fact("newest checkpoint", format!("step {step}"));
    }
    description = description.fact(
        "finished",
        if path.join("model").is_dir() {
            "yes"
        } else {
            "no"
        },
    );
    if let Ok(entries) = journal::read(&path.join("metrics.jsonl"))
        && let Some(last) = entries.iter().rev().find(|entry| entry.phase == "eval")
    {
        for (name, value) in &last.values {
            description = description.fact(name, value);
        }
    }
    Ok(description)
}

/// Names of classes; published generators come without.
fn classes(model: &smalti_train::GeneratorModel) -> String {
    let names = &model.description.classes;
    match model.description.model.wanted() {
        Wanted::Classes(count) if names.is_empty() => format!("{count}, by number"),
        _ => names.join(", "),
    }
}

fn inspect_model(path: &Path) -> Result<Description, TrainError> {
    let device = burn::tensor::Device::flex();
    if path.join(GENERATOR_FILE).is_file() {
        let model = smalti_train::GeneratorModel::load(path, &device)?;
        let config = &model.description.model;
        let layout = config.layout();
        let mut description = Description::new(&format!("image generator ({})", config.name()))
            .fact("fingerprint", &model.fingerprint)
            .fact(
                "code map",
                format!(
                    "{}x{}, depth {}",
                    layout.height,
                    layout.width,
                    layout.depth()
                ),
            )
            .fact("parameters", config.parameter_count())
            .fact("classes", classes(&model));
        if config.can_be_guided() {
            let own = model.description.sampling.guidance;
            let own = own.map_or("possible".into(), |guidance| guidance.scale.to_string());
            description = description.fact("guidance", own);
        }
        return Ok(description
            .fact("tokenizer", short(&model.description.tokenizer))
            .fact("license", &model.description.license));
    }
    let tokenizer = crate::Tokenizer::load(path, &device)?;
    let (model, spec) = (tokenizer.model(), tokenizer.spec());
    Ok(Description::new("image tokenizer")
        .fact("fingerprint", &model.fingerprint)
        .fact(
            "pixels per code position",
            format!("{0}x{0}", tokenizer.factor()),
        )
        .fact("depth", spec.depth())
        .fact("codebook sizes", format!("{:?}", spec.codebook_sizes))
        .fact("code_dim", spec.code_dim)
        .fact("bits per position", spec.bits_per_position())
        .fact(
            "parameters",
            burn::module::Module::num_params(&model.network),
        )
        .fact(
            "training resolution",
            model.description.model.network.resolution(),
        )
        .fact("license", &model.description.license))
}

fn inspect_file(path: &Path) -> Result<Description, TrainError> {
    if let Ok(tokens) = TokenFile::read(path) {
        let mut description = Description::new("token file")
            .fact("tokenizer", &tokens.tokenizer)
            .fact(
                "codes [batch, depth, height, width]",
                format!("{:?}", tokens.shape),
            )
            .fact("codebook sizes", format!("{:?}", tokens.codebook_sizes));
        for image in &tokens.images {
            description = description.fact(
                "image",
                format!("{} ({}x{})", image.name, image.width, image.height),
            );
        }
        return Ok(description);
    }
    if let Ok(cache) = TokenCache::open(path) {
        let spec = cache.spec();
        let mut description = Description::new("token cache").fact("tokenizer", &spec.tokenizer);
        if !spec.views.is_one() {
            description = description.fact("views of each image", spec.views.count());
        }
        return Ok(description
            .fact(
                "codes [images, depth, height, width]",
                format!("{:?}", spec.shape),
            )
            .fact("codebook sizes", format!("{:?}", spec.codebook_sizes))
            .fact("classes", spec.classes.join(", "))
            .fact(
                "latents",
                spec.code_dim.map_or("not kept".into(), |width| {
                    format!("kept, {width} values per position")
                }),
            ));
    }
    if let Some((kind, step)) = checkpoint::describe(path)? {
        return Ok(Description::new("checkpoint")
            .fact("of a", kind)
            .fact("step", step));
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    if path.ends_with(WEIGHTS_FILE)
        && [TOKENIZER_FILE, GENERATOR_FILE]
            .iter()
            .any(|name| folder.join(name).is_file())
    {
        let problem = format!(
            "these are the weights of a model; inspect its folder {}",
            folder.display()
        );
        return Err(TrainError::Layout {
            path: path.into(),
            problem,
        });
    }
    // Say what is wrong with it as the kind that it most likely is.
    Err(TokenFile::read(path)
        .map(|_| ())
        .expect_err("it was not readable above")
        .into())
}
