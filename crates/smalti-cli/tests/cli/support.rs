//! Calling the program, and models that were trained once for all tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// A tokenizer of 32-pixel emoji with a factor of 4: small enough to be trained in a second.
pub(crate) const TOKENIZER: &str = r#"
kind = "tokenizer"
seed = 1

[data]
source = { kind = "emoji" }
train = { kind = "first", count = 64 }
eval = { kind = "last", count = 8 }
preprocess = { train = [], eval = [] }

[model.network]
resolution = 32
channels = 8
multipliers = [1, 2, 2]
blocks = 1
middle_attention = false
z_channels = 8
norm_groups = 4

[model.quantizer]
kind = "residual"
codebook_size = 16
code_dim = 8
depth = 2

[losses]
reconstruction = 1.0
commitment = 0.25

[optimizer]
learning_rate = 2e-3
clip_norm = 1.0

[training]
steps = 40
batch_size = 8
evaluate_every = 1000
checkpoint_every = 7
log_every = 1
"#;

/// What makes a Gaussian VAE of it.
pub(crate) const GAUSSIAN: &str = r#"
[model.quantizer]
kind = "gaussian"
codebook_size = 16
code_dim = 4
channels = 8

[losses]
reconstruction = 1.0
divergence = 1e-4
"#;

/// The configuration of a Gaussian VAE.
pub(crate) fn gaussian() -> String {
    let (before, rest) = TOKENIZER.split_once("[model.quantizer]").unwrap();
    let (_, after) = rest.split_once("[optimizer]").unwrap();
    format!("{before}{GAUSSIAN}\n[optimizer]{after}")
}

/// A generator of its codes, with the classes of the emoji.
pub(crate) const GENERATOR: &str = r#"
kind = "generator"
seed = 1
tokenizer = "TOKENIZER"

[data]
source = { kind = "emoji" }
train = { kind = "first", count = 16 }
eval = { kind = "last", count = 8 }
preprocess = { train = [], eval = [] }

[model]
embed_dim = 16
condition = "class"
embedding = { kind = "tokenizer" }
body = { layers = 1, heads = 2 }
head = { layers = 1, heads = 2 }

[targets]
kind = "soft"
temperature = 0.5
stochastic = true

[optimizer]
learning_rate = 2e-3

[training]
steps = 4
batch_size = 8
evaluate_every = 1000
checkpoint_every = 1000
"#;

/// What one call of the program left.
pub(crate) struct Called {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Called {
    pub(crate) fn from(output: Output) -> Self {
        let stderr = String::from_utf8(output.stderr).expect("messages are UTF-8");
        // A panic is a programming error: no input may cause one.
        assert!(!stderr.contains("panicked"), "{stderr}");
        Self {
            code: output.status.code(),
            stdout: output.stdout,
            stderr,
        }
    }

    /// Stdout, which must be text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("data is UTF-8 here")
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    /// Everything that the user sees, with names of temporary places replaced.
    pub(crate) fn seen(&self, folder: &Path) -> String {
        let code = self.code.map_or("none".to_owned(), |code| code.to_string());
        let text = format!(
            "exit code {code}\n--- stdout\n{}--- stderr\n{}",
            self.text(),
            self.stderr
        );
        let text = text.replace(&folder.display().to_string(), "[HERE]");
        hide_fingerprints(&text.replace(&place().display().to_string(), "[MODELS]"))
    }
}

/// Replaces runs of 12 or 64 hexadecimal digits: short and whole fingerprints.
fn hide_fingerprints(text: &str) -> String {
    let mut result = String::new();
    let mut run = String::new();
    for letter in text.chars().chain(['\0']) {
        if letter.is_ascii_digit() || ('a'..='f').contains(&letter) {
            run.push(letter);
            continue;
        }
        result.push_str(if [12, 64].contains(&run.len()) {
            "[FINGERPRINT]"
        } else {
            &run
        });
        run.clear();
        result.push(letter);
    }
    result.pop();
    result
}

/// The program, to be called in `folder`.
pub(crate) fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smalti"));
    command.current_dir(folder).stdin(Stdio::null());
    command
}

/// Calls the program in `folder`.
pub(crate) fn smalti<I: AsRef<std::ffi::OsStr>>(
    folder: &Path,
    arguments: impl IntoIterator<Item = I>,
) -> Called {
    Called::from(
        program(folder)
            .args(arguments)
            .output()
            .expect("the program starts"),
    )
}

/// Calls the program with arguments in one string, `{tokenizer}`, `{other}`, `{generator}` and `{gaussian}` replaced by
/// the folders of the models.
pub(crate) fn call(folder: &Path, line: &str) -> Called {
    let models = models();
    let path = |path: &Path| path.display().to_string();
    smalti(
        folder,
        line.split(' ').map(|word| {
            word.replace("{tokenizer}", &path(&models.tokenizer))
                .replace("{other}", &path(&models.other))
                .replace("{generator}", &path(&models.generator))
                .replace("{gaussian}", &path(&models.gaussian))
        }),
    )
}

/// Runs of trained models.
pub(crate) struct Models {
    pub(crate) tokenizer: PathBuf,
    pub(crate) other: PathBuf,
    pub(crate) generator: PathBuf,
    pub(crate) gaussian: PathBuf,
}

fn place() -> &'static Path {
    Path::new(concat!(env!("CARGO_TARGET_TMPDIR"), "/smalti-cli-models"))
}

/// The models, trained when they are first asked for.
pub(crate) fn models() -> &'static Models {
    static MODELS: OnceLock<Models> = OnceLock::new();
    MODELS.get_or_init(|| {
        let place = place();
        if place.exists() {
            std::fs::remove_dir_all(place).unwrap();
        }
        std::fs::create_dir_all(place).unwrap();
        std::fs::write(place.join("tokenizer.toml"), TOKENIZER).unwrap();
        std::fs::write(
            place.join("generator.toml"),
            GENERATOR.replace("TOKENIZER", "tokenizer"),
        )
        .unwrap();
        smalti(
            place,
            ["train", "tokenizer.toml", "--out", "tokenizer", "-q"],
        )
        .succeeded();
        smalti(
            place,
            [
                "train",
                "tokenizer.toml",
                "--out",
                "other",
                "-q",
                "--set",
                "seed=2",
                "--set",
                "training.steps=2",
            ],
        )
        .succeeded();
        smalti(
            place,
            ["train", "generator.toml", "--out", "generator", "-q"],
        )
        .succeeded();
        std::fs::write(place.join("gaussian.toml"), gaussian()).unwrap();
        smalti(place, ["train", "gaussian.toml", "--out", "gaussian", "-q"]).succeeded();
        Models {
            gaussian: place.join("gaussian"),
            tokenizer: place.join("tokenizer"),
            other: place.join("other"),
            generator: place.join("generator"),
        }
    })
}

/// A fresh folder.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("there is room for a temporary folder")
}

/// Writes a picture of smooth colours.
pub(crate) fn picture(path: &Path, width: u32, height: u32) {
    let colour = |x: u32, y: u32| image::Rgb([(x * 7) as u8, (y * 5) as u8, ((x + y) * 3) as u8]);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).unwrap();
    }
    image::RgbImage::from_fn(width, height, colour)
        .save(path)
        .unwrap();
}

/// Width and height of a picture.
pub(crate) fn size(path: &Path) -> (u32, u32) {
    image::image_dimensions(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names below a folder, in order.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}
