//! Times one piece of work step by step: the other side of `benches/pytorch/run.py`.
//!
//! ```sh
//! cargo run --release -p smalti --example bench_step -- encode --config benches/pytorch/configs/rqvae_small.json \
//!     --weights /tmp/vae/weights.safetensors --rounds 5
//! ```
//!
//! Reads the same configurations, weights and inputs (`benches/pytorch/prepare.py` writes them) and
//! speaks the same protocol. Without `--rounds` it runs a step for each line `step` on standard input and
//! ends at `quit` or at the end of the input. A `ready` line of JSON tells that everything is loaded,
//! then every step is a line with its time in milliseconds, the high-water mark of the process's
//! memory in MiB (`null` where the system does not tell) and the numbers of the work. `--save` writes the
//! tensors of the last step; codes are written as floats.
//!
//! Differences to the PyTorch side: the gradients' norm of a stage-1 step is always computed, as in
//! training; `nearest` and `sample` come with everything that the library does for a caller (copies to
//! the host, checks for NaN). Draws are from this library's own streams, so `fixed_draws` must be false
//! for `sample` unless `top_k` is 1, where nothing is drawn.

mod generator;
mod gpt;
mod inputs;
mod nearest;
mod tokenizer;

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use serde_json::{Map, Value, json};
use smalti_nn::state::{Array, Weights};

use inputs::Inputs;

/// Times one piece of work.
#[derive(Parser)]
struct Arguments {
    work: Kind,
    /// Sizes, as `benches/pytorch/configs` has them.
    #[arg(long)]
    config: PathBuf,
    /// Parameters under their published names; not needed for `nearest`.
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Default: `inputs.safetensors` beside the weights.
    #[arg(long)]
    inputs: Option<PathBuf>,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Default: a step for each line on standard input.
    #[arg(long)]
    rounds: Option<usize>,
    /// Write the tensors of the last step here.
    #[arg(long)]
    save: Option<PathBuf>,
    /// Only write the tokenizer of `encode` to this folder, as the program reads it.
    #[arg(long)]
    export: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Kind {
    Stage1Step,
    Encode,
    Decode,
    Stage2Step,
    Sample,
    GptDecode,
    Nearest,
    NearestIndexed,
}

/// A piece of work with everything it needs in memory.
trait Work: Send {
    /// Does the work once.
    fn step(&mut self) -> anyhow::Result<Outcome>;
}

/// What a step tells.
#[derive(Default)]
struct Outcome {
    /// Numbers for the report; `checksum` is always among them.
    numbers: Vec<(&'static str, Value)>,
    /// What another implementation can be compared with.
    tensors: BTreeMap<String, Array>,
}

impl Outcome {
    /// One float tensor and its mean magnitude.
    fn floats(name: &str, array: Array) -> Self {
        let sum: f64 = array.values.iter().map(|x| f64::from(x.abs())).sum();
        let mean = sum / array.values.len() as f64;
        Self {
            numbers: vec![("checksum", json!(mean))],
            tensors: BTreeMap::from([(name.into(), array)]),
        }
    }

    /// Codes and Σ (i mod 997 + 1)·code_i over them.
    fn codes(codes: &[u32], shape: &[usize]) -> Self {
        let weighted = codes
            .iter()
            .zip(0u64..)
            .map(|(&code, i)| (i % 997 + 1) * u64::from(code));
        let checksum: u64 = weighted.sum();
        let values = codes.iter().map(|&code| code as f32).collect();
        let array = Array {
            shape: shape.to_vec(),
            values,
        };
        Self {
            numbers: vec![("checksum", json!(checksum))],
            tensors: BTreeMap::from([("codes".into(), array)]),
        }
    }
}

fn main() -> anyhow::Result<()> {
    let baseline = peak_mb();
    let arguments = Arguments::parse();
    rayon::ThreadPoolBuilder::new()
        .num_threads(arguments.threads)
        .build_global()?;
    if let Some(folder) = &arguments.export {
        let weights = arguments
            .weights
            .as_deref()
            .context("--export needs --weights")?;
        return tokenizer::export(&read_config(&arguments.config)?, weights, folder);
    }
    let mut work = load(&arguments)?;
    let name = arguments
        .work
        .to_possible_value()
        .expect("no work is hidden")
        .get_name()
        .to_owned();
    say(json!({
        "event": "ready", "name": name, "smalti": env!("CARGO_PKG_VERSION"), "threads": rayon::current_num_threads(),
        "baseline_mb": baseline, "loaded_mb": peak_mb(),
    }))?;
    let mut last = Outcome::default();
    for round in 0.. {
        if !wanted(arguments.rounds, round)? {
            break;
        }
        let start = Instant::now();
        // On a thread of the pool, as training runs.
        last = rayon::scope(|_| work.step())?;
        let ms = start.elapsed().as_secs_f64() * 1e3;
        let mut line =
            json!({"event": "step", "name": name, "round": round, "ms": ms, "peak_mb": peak_mb()});
        let numbers: Map<String, Value> = last
            .numbers
            .drain(..)
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        line.as_object_mut()
            .expect("written as one")
            .extend(numbers);
        say(line)?;
    }
    if let Some(path) = &arguments.save {
        let bytes = Weights(last.tensors).to_safetensors(&BTreeMap::new());
        std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn load(arguments: &Arguments) -> anyhow::Result<Box<dyn Work>> {
    let inputs = match (&arguments.inputs, &arguments.weights) {
        (Some(path), _) => path.clone(),
        (None, Some(weights)) => weights.with_file_name("inputs.safetensors"),
        (None, None) => bail!("--inputs is needed where there are no weights"),
    };
    let inputs = Inputs::read(&inputs)?;
    let config = &arguments.config;
    let weights = || {
        arguments
            .weights
            .as_deref()
            .context("--weights is needed for this work")
    };
    Ok(match arguments.work {
        Kind::Stage1Step => Box::new(tokenizer::Stage1Step::new(
            read_config(config)?,
            weights()?,
            &inputs,
        )?),
        Kind::Encode => Box::new(tokenizer::Encode::new(
            read_config(config)?,
            weights()?,
            &inputs,
        )?),
        Kind::Decode => Box::new(tokenizer::Decode::new(
            read_config(config)?,
            weights()?,
            &inputs,
        )?),
        Kind::Stage2Step => Box::new(generator::Stage2Step::new(
            read_config(config)?,
            weights()?,
            &inputs,
        )?),
        Kind::Sample => Box::new(generator::Sample::new(
            read_config(config)?,
            weights()?,
            &inputs,
        )?),
        Kind::GptDecode => Box::new(gpt::GptDecode::new(
            read_config(config)?,
            weights()?,
            &inputs,
        )?),
        Kind::Nearest => Box::new(nearest::Nearest::new(read_config(config)?, &inputs)?),
        Kind::NearestIndexed => {
            Box::new(nearest::NearestIndexed::new(read_config(config)?, &inputs)?)
        }
    })
}

fn read_config<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is not the configuration of this work", path.display()))
}

/// Whether another step is to be run.
fn wanted(rounds: Option<usize>, round: usize) -> anyhow::Result<bool> {
    if let Some(rounds) = rounds {
        return Ok(round < rounds);
    }
    let mut line = String::new();
    if std::io::stdin().lock().read_line(&mut line)? == 0 {
        return Ok(false);
    }
    match line.trim() {
        "step" => Ok(true),
        "quit" => Ok(false),
        other => bail!("expected `step` or `quit`, got {other:?}"),
    }
}

fn say(line: Value) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// The high-water mark of the resident set in MiB, where the system keeps one in a file.
fn peak_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some((kib / 102.4).round() / 10.0)
}
